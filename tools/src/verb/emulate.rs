//! `nvio emulate`: an NVMe controller in software, for other processes.

use std::path::Path;

use nvio_emulator::{Backing, Emulator, NamespaceConfig};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cli::{EmulateArgs, Format};
use crate::device::check_image;
use crate::error::Error;
use crate::name;
use crate::output::Output;

/// What is served, for machines.
#[derive(Serialize)]
struct Served {
    /// As clients name it.
    device: String,
    writable: bool,
    namespaces: Vec<Namespace>,
}

#[derive(Serialize)]
struct Namespace {
    nsid: usize,
    image: String,
    lba_size: u32,
}

/// Serves images until SIGINT or SIGTERM; then the client is disconnected, images are flushed and
/// the socket is removed.
///
/// # Errors
/// If an image cannot be opened, or the socket not be had.
pub fn run(args: &EmulateArgs, format: Format) -> Result<(), Error> {
    // Before there is a socket that a signal would leave behind.
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(Error::Signals)?;
    let emulator = start(args)?;
    match say(args, emulator.socket(), format) {
        // Nobody reads that line; clients may come all the same.
        Err(error) if error.is_closed_pipe() => {}
        said => said?,
    }
    if let Some(signal) = signals.forever().next() {
        log::info!("ending: signal {signal}");
    }
    drop(emulator);
    Ok(())
}

fn start(args: &EmulateArgs) -> Result<Emulator, Error> {
    let mut builder = Emulator::builder()
        .socket(&args.socket)
        .mdts(Some(args.mdts).filter(|&power| power != 0))
        .max_queues(args.queues)
        .max_queue_entries(args.queue_entries);
    if let Some(serial) = &args.serial {
        builder = builder.serial(serial);
    }
    if let Some(model) = &args.model {
        builder = builder.model(model);
    }
    for image in &args.images {
        check_image(image)?;
        let backing = Backing::image(image, !args.writable);
        builder = builder.namespace(NamespaceConfig::new(backing).block_size(args.lba_size));
    }
    builder.start().map_err(|source| match source {
        nvio_emulator::Error::TooSmall { nsid, .. } => match image_of(args, nsid) {
            Some(image) => Error::serve(image, source),
            None => Error::Emulate(source),
        },
        _ => Error::Emulate(source),
    })
}

/// Namespaces are numbered in the order of the images, from 1.
fn image_of(args: &EmulateArgs, nsid: u32) -> Option<&Path> {
    let index = usize::try_from(nsid).ok()?.checked_sub(1)?;
    args.images.get(index).map(AsRef::as_ref)
}

fn say(args: &EmulateArgs, socket: &Path, format: Format) -> Result<(), Error> {
    // A client may be started in another directory.
    let socket = std::path::absolute(socket).unwrap_or_else(|_| socket.to_owned());
    let device = format!("vfio-user:{}", name::escaped(socket.as_os_str().as_encoded_bytes()));
    let namespaces = args.images.iter().zip(1..).map(|(image, nsid)| Namespace {
        nsid,
        image: name::escaped(image.as_os_str().as_encoded_bytes()),
        lba_size: args.lba_size,
    });
    let served = Served { device, writable: args.writable, namespaces: namespaces.collect() };
    let mut out = Output::new();
    if format.json {
        out.json_line(&served)?;
    } else {
        let count = served.namespaces.len();
        let namespaces = if count == 1 { "namespace" } else { "namespaces" };
        let how = if served.writable { "writable" } else { "read-only" };
        out.line(&format!("serving {count} {namespaces}, {how}, on {}", served.device))?;
    }
    out.flush()
}
