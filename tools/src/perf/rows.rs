//! The devices and files of a run.

use std::ffi::OsString;
use std::ops::Range;

use nvio::driver::{Namespace, WritableNamespace};
use nvio::{Device, DeviceName, Found, Volume, WritableVolume};
use nvio_uring::place::Place;

use crate::args::VolumeArgs;
use crate::error::Error;
use crate::name::{escaped, rooted};
use crate::open;
use crate::perf::environment::DeviceFacts;
use crate::perf::settings::Settings;

/// Memory of a queue besides its requests: rings, and metadata in flight.
const QUEUE_BYTES: usize = 4 << 20;
/// Memory of a request besides its data: the list of its pages.
const LIST_BYTES: usize = 16 << 10;
/// Memory of a device besides its queues.
const BASE_BYTES: usize = 8 << 20;
/// Memory of the page cache.
const CACHE_BYTES: usize = 64 << 20;

/// A device or file.
pub struct Row {
    /// Name of the device, and of the file on it.
    pub name: String,
    /// Index of the device.
    pub device: usize,
    /// The file, if it is not the whole device.
    pub path: Option<String>,
    /// Number by which patterns tell files apart.
    pub file: u32,
    /// Bytes that requests go to.
    pub range: Range<u64>,
    /// The open device or file.
    pub source: Source,
}

/// An open device or file.
pub enum Source {
    /// A device or a file of the kernel.
    Kernel(Place),
    /// A namespace.
    Raw {
        /// The device.
        device: Box<Device>,
        /// The namespace, up to the end of the partition.
        namespace: Namespace,
        /// The namespace, if it may be written to.
        writable: Option<WritableNamespace>,
    },
    /// A file.
    File {
        /// The filesystem.
        volume: Volume,
        /// Path in the filesystem.
        path: Vec<u8>,
        /// First byte of the filesystem on the namespace.
        offset: u64,
    },
    /// A file that may be overwritten.
    Writable {
        /// The filesystem.
        volume: WritableVolume,
        /// Path in the filesystem.
        path: Vec<u8>,
        /// First byte of the filesystem on the namespace.
        offset: u64,
        /// Logical block of the namespace, as a power of two.
        block_shift: u32,
    },
}

/// The names of devices and files.
pub struct Names<'n> {
    /// The first device, with its options, which all devices have.
    pub volume: &'n VolumeArgs,
    /// Other devices.
    pub more: &'n [DeviceName],
    /// Files on each device. None for the whole device.
    pub paths: &'n [OsString],
    /// Overwrite a device that has contents.
    pub force: bool,
    /// The devices are those of the kernel, or its files.
    pub kernel: bool,
}

/// Opens devices and files: a row for each device without files, and for each file of each device.
///
/// # Errors
/// If one of them cannot be opened, or may not be written to.
pub fn open(names: &Names<'_>, settings: &Settings) -> Result<(Vec<Row>, Vec<DeviceFacts>), Error> {
    let (mut rows, mut facts) = (Vec::new(), Vec::new());
    for (index, name) in
        std::iter::once(&names.volume.controller.device).chain(names.more).enumerate()
    {
        let mut args = names.volume.clone();
        args.controller.device = name.clone();
        match names.paths {
            [] if names.kernel => rows.push(kernel(name, index, settings, &mut facts)?),
            [] => rows.push(raw(&args, index, names.force, settings, &mut facts)?),
            paths => files(&args, index, paths, settings, &mut rows, &mut facts)?,
        }
    }
    Ok((rows, facts))
}

/// Opens a device or a file of the kernel.
fn kernel(
    name: &DeviceName,
    index: usize,
    settings: &Settings,
    facts: &mut Vec<DeviceFacts>,
) -> Result<Row, Error> {
    let failed = |text: String| Error::Perf { name: name.to_string(), text };
    let DeviceName::Image(path) = name else {
        return Err(failed("not a device or a file of the kernel".to_owned()));
    };
    // The kernel would let anything be overwritten: its files are enough to compare with.
    if settings.writes() && !path.is_file() {
        return Err(failed("with --kernel only files are written to".to_owned()));
    }
    let place = Place::open(path, settings.writes()).map_err(|error| failed(error.0))?;
    let bytes = place.bytes();
    let interface = Some(place.interface());
    facts.push(DeviceFacts { name: name.to_string(), bytes, interface, ..DeviceFacts::default() });
    let range = limited(0..bytes, settings, name)?;
    let source = Source::Kernel(place);
    Ok(Row { name: name.to_string(), device: index, path: None, file: 0, range, source })
}

/// Returns the size of the DMA arena for `queues` queues.
fn arena_bytes(settings: &Settings, queues: usize) -> usize {
    let bytes = settings.bytes_max().next_multiple_of(4096) + LIST_BYTES;
    // A request that is bounced has a second buffer.
    let requests = 2 * usize::from(settings.depth) * bytes;
    let cache = if settings.way.is_cached() { CACHE_BYTES } else { 0 };
    (queues * (requests + QUEUE_BYTES) + BASE_BYTES + 2 * cache).next_multiple_of(2 << 20)
}

fn raw(
    args: &VolumeArgs,
    index: usize,
    force: bool,
    settings: &Settings,
    facts: &mut Vec<DeviceFacts>,
) -> Result<Row, Error> {
    let arena = arena_bytes(settings, settings.threads);
    let options = open::perf_options(args, arena, settings.depth, settings.interrupt);
    let (location, name) = (open::location(args), &args.controller.device);
    let device = match settings.writes() {
        true => options.open_writable_device(name.clone())?,
        false => options.open_device(name.clone())?,
    };
    let namespace = device.namespace(args.controller.namespace)?;
    let range = device.byte_range(&location)?;
    if settings.writes() && !force {
        check_contents(&device, args)?;
    }
    let writable = match settings.writes() {
        true => Some(device.controller().writable()?.writable_namespace(namespace.id())?),
        false => None,
    };
    facts.push(DeviceFacts::of(name, &device, &namespace));
    let source = Source::Raw { device: Box::new(device), namespace, writable };
    let range = limited(range, settings, name)?;
    Ok(Row { name: name.to_string(), device: index, path: None, file: 0, range, source })
}

/// Refuses to write to a device with contents.
fn check_contents(device: &Device, args: &VolumeArgs) -> Result<(), Error> {
    let Found { format, partitions, .. } = device.contents(&open::location(args))?;
    let contents = match (partitions, format) {
        (Some(table), _) => format!("a disk with partitions ({})", table.scheme),
        (None, Some(format)) => format.object.to_owned(),
        (None, None) => return Ok(()),
    };
    Err(Error::HasContents { device: args.controller.device.to_string(), contents })
}

fn files(
    args: &VolumeArgs,
    index: usize,
    paths: &[OsString],
    settings: &Settings,
    rows: &mut Vec<Row>,
    facts: &mut Vec<DeviceFacts>,
) -> Result<(), Error> {
    let arena = arena_bytes(settings, settings.threads * paths.len());
    let mut options = open::perf_options(args, arena, settings.depth, settings.interrupt);
    let location = open::location(args);
    let is_writable = settings.writes() || settings.way.is_cached();
    let writable = match is_writable {
        true => {
            options = options.page_cache_bytes(CACHE_BYTES);
            Some(options.open_writable(location.clone())?)
        }
        false => None,
    };
    let volume: Volume = match &writable {
        Some(writable) => Volume::clone(writable),
        None => options.open(location.clone())?,
    };
    let name = &args.controller.device;
    let Some(device) = volume.device() else { return Err(nvio::Error::NoController.into()) };
    let namespace = device.namespace(args.controller.namespace)?;
    let offset = device.byte_range(&location)?.start;
    facts.push(DeviceFacts::of(name, device, &namespace));
    for path in paths {
        let path = rooted(path);
        let inode = volume.metadata(&path)?;
        if inode.is_dir() {
            return Err(Error::directory(&path));
        }
        let shown = escaped(&path);
        let range = limited(0..inode.size(), settings, &shown)?;
        let file = inode.number().get();
        let source = match &writable {
            None => Source::File { volume: volume.clone(), path, offset },
            Some(writable) => {
                let volume = writable.clone();
                if settings.writes() {
                    let mut file = volume.open_writable(&path)?;
                    let checked = file.check_range(range.start, range.end - range.start);
                    checked.map_err(Error::path(&path))?;
                }
                Source::Writable { volume, path, offset, block_shift: namespace.block_shift() }
            }
        };
        let name = format!("{name}:{shown}");
        rows.push(Row { name, device: index, path: Some(shown), file, range, source });
    }
    Ok(())
}

/// Returns the part of a device or file that requests go to: whole units, as many for each thread.
fn limited(
    range: Range<u64>,
    settings: &Settings,
    name: &impl ToString,
) -> Result<Range<u64>, Error> {
    let length = (range.end - range.start).min(settings.size.unwrap_or(u64::MAX));
    let parts = if settings.has_parts() { settings.threads as u64 } else { 1 };
    let unit = settings.unit().max(1);
    let part = length / parts / unit * unit;
    if part < settings.bytes_max() as u64 {
        let needed = settings.bytes_max() as u64 * parts;
        return Err(Error::PerfTooSmall { name: name.to_string(), bytes: length, needed });
    }
    Ok(range.start..range.start + part * parts)
}
