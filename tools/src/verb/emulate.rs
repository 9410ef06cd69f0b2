//! `nvio emulate`: serves an NVMe controller in software to other processes.

pub mod args;
mod fault;

use std::collections::HashMap;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use nvio_driver::spec::protection::ProtectionType;
use nvio_emulator::{Backing, Config, Emulator, Faults, NamespaceConfig, Service};
use signal_hook::consts::SIGUSR1;

use self::args::{EmulateArgs, Source};

use crate::args::Format;
use crate::error::Error;
use crate::interrupt;
use crate::name;
use crate::output::Output;
use crate::record::Record;

/// Serve images as an NVMe controller over vfio-user.
///
/// Each image is a namespace. The controller serves until SIGINT, SIGTERM or SIGHUP, one client at a time:
/// nvio itself as vfio-user:SOCKET, SPDK, or a virtual machine. A line on standard output announces
/// that clients can connect.
///
/// SIZE is a whole number of bytes, or one with K, M, G, T (powers of 1024), kB, MB, GB or TB
/// (powers of 1000). TIME is a number with ns, us, ms, s, m or h.
#[derive(Debug, Args)]
pub struct Emulate {
    // Before the other options, which have headings.
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    pub args: EmulateArgs,
}

impl Emulate {
    /// Serves images until SIGINT, SIGTERM or SIGHUP. Then it disconnects the client, flushes the images and
    /// removes the socket. SIGUSR1 simulates a power cut. The exit code is
    /// 128 and the number of the signal.
    ///
    /// # Errors
    /// If an image cannot be opened, the socket cannot be created, or options contradict each other.
    pub fn run(&self) -> Result<ExitCode, Error> {
        // Installed before the socket exists: a signal would leave it behind.
        let mut signals = interrupt::catch(&[SIGUSR1]).map_err(Error::Signals)?;
        let (emulator, namespaces) = start(&self.args)?;
        match say(&self.args, namespaces, emulator.socket(), self.format) {
            // The reader of the line is gone; clients may connect all the same.
            Err(error) if error.is_closed_pipe() => {}
            said => said?,
        }
        let mut seed = self.args.seed;
        let mut code = ExitCode::SUCCESS;
        for signal in signals.forever() {
            if signal != SIGUSR1 {
                log::info!("ending: signal {signal}");
                code = interrupt::exit_code(signal);
                break;
            }
            log::info!("power cut, seed {seed}");
            emulator.power_cut(seed);
            seed = seed.wrapping_add(1);
        }
        log::info!("{:?}", emulator.fault_counts());
        drop(emulator);
        Ok(code)
    }
}

/// Checks that each list of values has one value for all images, or one for each.
fn check_lists(args: &EmulateArgs) -> Result<(), Error> {
    let of = &args.namespaces;
    let images = args.images.len();
    for (option, values) in [
        ("--lba-size", of.lba_size.len()),
        ("--noiob", of.noiob.len()),
        ("--metadata", of.metadata.len()),
        ("--protection", of.protection.len()),
        ("--guard", of.guard.len()),
        ("--nsid", of.nsid.len()),
    ] {
        let good = values == images || values == 1 && option != "--nsid" || values == 0;
        if !good {
            return Err(Error::ValuesForImages { option, values, images });
        }
    }
    Ok(())
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

/// Starts the controller. The records describe its namespaces.
fn start(args: &EmulateArgs) -> Result<(Emulator, Vec<Record>), Error> {
    check_lists(args)?;
    let of = &args.namespaces;
    let mut config = config(args);
    let mut namespaces = Vec::new();
    let mut image_of = HashMap::new();
    for (index, source) in args.images.iter().enumerate() {
        let nsid = u32::try_from(index + 1).unwrap_or(u32::MAX);
        let nsid = of.nsid.get(index).copied().unwrap_or(nsid);
        let lba_size = pick(&of.lba_size, index);
        let backing = match source {
            Source::Image(path) => {
                nvio::check_image(path)?;
                image_of.insert(nsid, path);
                Backing::image(path, !args.writable)
            }
            Source::Memory(bytes) => Backing::memory(*bytes),
            Source::Null(bytes) => Backing::null(*bytes),
        };
        let mut namespace = NamespaceConfig::new(backing)
            .nsid(nsid)
            .block_size(lba_size)
            .noiob(pick(&of.noiob, index))
            .metadata(pick(&of.metadata, index), of.extended)
            .information(pick(&of.guard, index));
        if let Some(kind) = ProtectionType::new(pick(&of.protection, index)) {
            namespace = namespace.protection(kind, of.protection_first);
        }
        config = config.namespace(namespace);
        let mut record = Record::default();
        record.json("nsid", nsid);
        record.json("image", display(source));
        record.json("lba_size", lba_size);
        namespaces.push(record);
    }
    match config.socket(&args.socket).start() {
        Ok(emulator) => Ok((emulator, namespaces)),
        Err(error @ nvio_emulator::Error::TooSmall { nsid, .. }) => {
            Err(match image_of.get(&nsid) {
                Some(image) => Error::serve(image, error),
                None => Error::Emulate(error),
            })
        }
        Err(error) => Err(Error::Emulate(error)),
    }
}

/// Returns the settings of the controller, without its namespaces.
fn config(args: &EmulateArgs) -> Config {
    let of = &args.controller;
    let mut config = Config::new()
        .mdts(Some(of.mdts).filter(|&power| power != 0))
        .max_queues(of.queues)
        .max_queue_entries(of.queue_entries)
        .page_sizes(of.min_page_size, of.max_page_size)
        .doorbell_stride(of.doorbell_stride)
        .shadow_doorbells(of.shadow_doorbells)
        .sgl(of.sgl)
        .atomic_writes(of.atomic, of.atomic_power_fail)
        .format_nvm(of.format_nvm)
        .intx(of.intx)
        .service(service(args))
        .faults(faults(args));
    config = match of.cmb {
        Some(bytes) if of.legacy_cmb => config.legacy_controller_memory(bytes),
        Some(bytes) => config.controller_memory(bytes),
        None => config,
    };
    if let Some(bytes) = of.unallocated {
        config = config.namespace_management(bytes);
    }
    if let Some(bytes) = of.write_cache {
        config = config.write_cache(bytes);
    }
    if let Some((vendor, device)) = of.pci_id {
        config = config.pci_id(vendor, device);
    }
    config = of.quirks.iter().fold(config, |config, quirk| config.quirk(*quirk));
    if let Some(serial) = &of.serial {
        config = config.serial(serial);
    }
    if let Some(model) = &of.model {
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

fn say(
    args: &EmulateArgs,
    namespaces: Vec<Record>,
    socket: &Path,
    format: Format,
) -> Result<(), Error> {
    // Absolute, because a client may run in another directory.
    let socket = std::path::absolute(socket).unwrap_or_else(|_| socket.to_owned());
    let device = format!("vfio-user:{}", name::escaped(socket.as_os_str().as_encoded_bytes()));
    let count = namespaces.len();
    let mut out = Output::new();
    if format.json {
        let mut served = Record::default();
        served.json("device", device);
        served.json("writable", args.writable);
        served.json("namespaces", namespaces);
        out.json_line(&served)?;
    } else {
        let namespaces = if count == 1 { "namespace" } else { "namespaces" };
        let how = if args.writable { "writable" } else { "read-only" };
        out.line(&format!("serving {count} {namespaces}, {how}, on {device}"))?;
    }
    out.flush()
}
