//! `nvio emulate`: serves an NVMe controller in software to other processes.

pub mod args;
mod fault;

use std::path::Path;

use nvio_driver::spec::protection::ProtectionType;
use nvio_emulator::{Backing, Config, Emulator, Faults, NamespaceConfig, Service};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use self::args::{EmulateArgs, FeatureArgs, Source};

use crate::args::Format;
use crate::error::Error;
use crate::name;
use crate::output::Output;

/// The JSON line that announces the controller.
#[derive(Serialize)]
struct Served {
    /// The DEVICE argument for clients.
    device: String,
    writable: bool,
    namespaces: Vec<Namespace>,
}

/// A namespace of the controller.
#[derive(Serialize)]
struct Namespace {
    nsid: u32,
    image: String,
    lba_size: u32,
    #[serde(skip)]
    noiob: u16,
    #[serde(skip)]
    metadata: u16,
    #[serde(skip)]
    protection: Option<ProtectionType>,
}

/// Serves images until SIGINT or SIGTERM. Then it disconnects the client, flushes the images and
/// removes the socket. SIGUSR1 simulates a power cut.
///
/// # Errors
/// If an image cannot be opened, the socket cannot be created, or options contradict each other.
pub fn run(args: &EmulateArgs, format: Format) -> Result<(), Error> {
    // Installed before the socket exists: a signal would leave it behind.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1]).map_err(Error::Signals)?;
    let namespaces = namespaces(args)?;
    let emulator = start(args, &namespaces)?;
    match say(args, namespaces, emulator.socket(), format) {
        // The reader of the line is gone; clients may connect all the same.
        Err(error) if error.is_closed_pipe() => {}
        said => said?,
    }
    let mut seed = args.seed;
    for signal in signals.forever() {
        if signal != SIGUSR1 {
            log::info!("ending: signal {signal}");
            break;
        }
        log::info!("power cut, seed {seed}");
        emulator.power_cut(seed);
        seed = seed.wrapping_add(1);
    }
    log::info!("{:?}", emulator.fault_counts());
    drop(emulator);
    Ok(())
}

/// Returns the namespaces of the command line. Each list has one value for all images, or one for
/// each.
fn namespaces(args: &EmulateArgs) -> Result<Vec<Namespace>, Error> {
    let of = &args.namespaces;
    let images = args.images.len();
    for (option, values) in [
        ("--lba-size", of.lba_size.len()),
        ("--noiob", of.noiob.len()),
        ("--metadata", of.metadata.len()),
        ("--protection", of.protection.len()),
        ("--nsid", of.nsid.len()),
    ] {
        let good = values == images || values == 1 && option != "--nsid" || values == 0;
        if !good {
            return Err(Error::ValuesForImages { option, values, images });
        }
    }
    let mut nsids = 1..;
    let numbered = args.images.iter().enumerate().map(|(index, source)| Namespace {
        nsid: of.nsid.get(index).copied().or_else(|| nsids.next()).unwrap_or(u32::MAX),
        image: display(source),
        lba_size: pick(&of.lba_size, index),
        noiob: pick(&of.noiob, index),
        metadata: pick(&of.metadata, index),
        protection: ProtectionType::new(pick(&of.protection, index)),
    });
    Ok(numbered.collect())
}

/// Returns the value of a list for the image at `index`.
fn pick<T: Copy + Default>(values: &[T], index: usize) -> T {
    values.get(index).or(values.first()).copied().unwrap_or_default()
}

fn display(source: &Source) -> String {
    match source {
        Source::Image(path) => name::escaped(path.as_os_str().as_encoded_bytes()),
        Source::Memory(bytes) => format!("memory:{bytes}"),
        Source::Null(bytes) => format!("null:{bytes}"),
    }
}

fn start(args: &EmulateArgs, namespaces: &[Namespace]) -> Result<Emulator, Error> {
    let mut config = config(args);
    for (source, namespace) in args.images.iter().zip(namespaces) {
        let backing = match source {
            Source::Image(path) => {
                nvio::check_image(path)?;
                Backing::image(path, !args.writable)
            }
            Source::Memory(bytes) => Backing::memory(*bytes),
            Source::Null(bytes) => Backing::null(*bytes),
        };
        let of = &args.namespaces;
        let mut configured = NamespaceConfig::new(backing)
            .nsid(namespace.nsid)
            .block_size(namespace.lba_size)
            .noiob(namespace.noiob)
            .metadata(namespace.metadata, of.extended);
        if let Some(kind) = namespace.protection {
            configured = configured.protection(kind, of.protection_first);
        }
        config = config.namespace(configured);
    }
    let started = Emulator::builder().config(config).socket(&args.socket).start();
    started.map_err(|source| match source {
        nvio_emulator::Error::TooSmall { nsid, .. } => match image_of(args, namespaces, nsid) {
            Some(image) => Error::serve(image, source),
            None => Error::Emulate(source),
        },
        _ => Error::Emulate(source),
    })
}

/// Returns the settings of the controller, without its namespaces.
fn config(args: &EmulateArgs) -> Config {
    let FeatureArgs {
        mdts,
        queues,
        queue_entries,
        min_page_size,
        max_page_size,
        doorbell_stride,
        shadow_doorbells,
        sgl,
        cmb,
        legacy_cmb,
        write_cache,
        atomic,
        atomic_power_fail,
        format_nvm,
        unallocated,
        intx,
        serial,
        model,
    } = &args.controller;
    let mut config = Config::new()
        .mdts(Some(*mdts).filter(|&power| power != 0))
        .max_queues(*queues)
        .max_queue_entries(*queue_entries)
        .page_sizes(*min_page_size, *max_page_size)
        .doorbell_stride(*doorbell_stride)
        .shadow_doorbells(*shadow_doorbells)
        .sgl(*sgl)
        .atomic_writes(*atomic, *atomic_power_fail)
        .format_nvm(*format_nvm)
        .intx(*intx)
        .service(service(args))
        .faults(faults(args));
    config = match cmb {
        Some(bytes) if *legacy_cmb => config.legacy_controller_memory(*bytes),
        Some(bytes) => config.controller_memory(*bytes),
        None => config,
    };
    if let Some(bytes) = unallocated {
        config = config.namespace_management(*bytes);
    }
    if let Some(bytes) = write_cache {
        config = config.write_cache(*bytes);
    }
    if let Some(serial) = serial {
        config = config.serial(serial);
    }
    if let Some(model) = model {
        config = config.model(model);
    }
    config
}

fn service(args: &EmulateArgs) -> Service {
    let speed = args.speed;
    let mut service = Service::new().latency(speed.latency).jitter(speed.jitter, args.seed);
    if let Some(commands) = speed.iops {
        service = service.iops(commands);
    }
    if let Some(bytes) = speed.bandwidth {
        service = service.bandwidth(bytes);
    }
    service
}

fn faults(args: &EmulateArgs) -> Faults {
    let of = &args.faults;
    let faults = of.fault.iter().cloned().fold(Faults::new(), Faults::rule);
    match fault::rates(&of.fault_rate, of.late_up_to, of.stuck_up_to) {
        Some(rates) => faults.seeded(args.seed, rates),
        None => faults,
    }
}

/// Returns the image of a namespace, unless it is memory or null.
fn image_of<'a>(args: &'a EmulateArgs, namespaces: &[Namespace], nsid: u32) -> Option<&'a Path> {
    let index = namespaces.iter().position(|namespace| namespace.nsid == nsid)?;
    match args.images.get(index)? {
        Source::Image(path) => Some(path),
        _ => None,
    }
}

fn say(
    args: &EmulateArgs,
    namespaces: Vec<Namespace>,
    socket: &Path,
    format: Format,
) -> Result<(), Error> {
    // Absolute, because a client may run in another directory.
    let socket = std::path::absolute(socket).unwrap_or_else(|_| socket.to_owned());
    let device = format!("vfio-user:{}", name::escaped(socket.as_os_str().as_encoded_bytes()));
    let served = Served { device, writable: args.writable, namespaces };
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
