//! The devices and files of a run.

use std::ffi::OsString;
use std::ops::Range;

use nvio::driver::{Controller, Namespace, WritableNamespace};
use nvio::{Device, DeviceName, Found, Volume, WritableVolume};
use nvio_uring::place::Place;

use crate::args::VolumeArgs;
use crate::error::Error;
use crate::name::{escaped, rooted};
use crate::open;
use crate::perf::environment::DeviceFacts;
use crate::perf::settings::{Settings, Way};

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
    /// Bytes of the device or file. The requests of a run go to [`range_of`](Self::range_of).
    pub range: Range<u64>,
    /// The open device or file.
    pub source: Source,
}

/// The devices or files of one way.
pub struct Lane {
    /// The way.
    pub way: Way,
    /// Devices or files, in the order of the command line.
    pub rows: Vec<Row>,
}

impl Row {
    /// Returns the bytes that the requests of a run go to: whole units, as many for each thread.
    ///
    /// # Errors
    /// If they are less than one request of each thread.
    pub fn range_of(&self, settings: &Settings) -> Result<Range<u64>, Error> {
        let Range { start, end } = self.range;
        let length = (end - start).min(settings.size.unwrap_or(u64::MAX));
        let parts = if settings.has_parts() { settings.threads as u64 } else { 1 };
        let unit = settings.unit().max(1);
        let part = length / parts / unit * unit;
        if part < settings.bytes_max() as u64 {
            let needed = settings.bytes_max() as u64 * parts;
            return Err(Error::PerfTooSmall { name: self.name.clone(), bytes: length, needed });
        }
        Ok(start..start + part * parts)
    }
}

/// An open device or file.
pub enum Source {
    /// A device or a file of the kernel.
    Kernel(Place),
    /// A namespace.
    Raw {
        /// The device.
        owner: Owner,
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

/// The owner of an open controller.
pub enum Owner {
    /// A device.
    Device(Box<Device>),
    /// The filesystem on it.
    Volume(Volume),
}

impl Owner {
    /// Returns the controller, if there is one.
    pub fn controller(&self) -> Option<&Controller> {
        match self {
            Self::Device(device) => Some(device.controller()),
            Self::Volume(volume) => volume.device().map(Device::controller),
        }
    }
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

/// The open devices of some runs.
pub struct Opened {
    /// The ways of the runs, each once.
    pub lanes: Vec<Lane>,
    /// Descriptions of the devices.
    pub facts: Vec<DeviceFacts>,
}

impl Opened {
    /// Adds a row that is no file: runs without files have one way.
    fn only(&mut self, row: Row) {
        if let Some(lane) = self.lanes.first_mut() {
            lane.rows.push(row);
        }
    }
}

/// The requirements of some runs on a device.
struct Need<'n> {
    runs: &'n [Settings],
    /// Most requests of a queue in flight.
    depth: u16,
    /// Sleep until an interrupt.
    interrupt: bool,
    /// A run writes.
    writes: bool,
    /// A run uses the page cache.
    is_cached: bool,
}

/// Opens devices and files for `runs`, each device once. A lane has a row for each device without
/// files, and for each file of each device.
///
/// # Errors
/// If one of them cannot be opened, may not be written to, or is too small for a run.
pub fn open(names: &Names<'_>, runs: &[Settings]) -> Result<Opened, Error> {
    let mut opened = Opened { lanes: Vec::new(), facts: Vec::new() };
    for run in runs {
        if opened.lanes.iter().all(|lane| lane.way != run.way) {
            opened.lanes.push(Lane { way: run.way, rows: Vec::new() });
        }
    }
    let need = Need::of(runs);
    let devices = std::iter::once(&names.volume.controller.device).chain(names.more);
    for (index, name) in devices.enumerate() {
        let mut args = names.volume.clone();
        args.controller.device = name.clone();
        match names.paths {
            [] if names.kernel => kernel(name, index, &need, &mut opened)?,
            [] => raw(&args, index, names.force, &need, &mut opened)?,
            paths => files(&args, index, paths, &need, &mut opened)?,
        }
    }
    for run in runs {
        let lanes = opened.lanes.iter().filter(|lane| lane.way == run.way);
        lanes.flat_map(|lane| &lane.rows).try_for_each(|row| row.range_of(run).map(drop))?;
    }
    Ok(opened)
}

impl<'n> Need<'n> {
    fn of(runs: &'n [Settings]) -> Self {
        Self {
            runs,
            depth: runs.iter().map(|run| run.depth).max().unwrap_or(1),
            interrupt: runs.iter().any(|run| run.interrupt),
            writes: runs.iter().any(Settings::writes),
            is_cached: runs.iter().any(|run| run.way.is_cached()),
        }
    }

    /// Returns the size of the DMA arena for the largest run on `rows` files, which run one by one.
    fn arena_bytes(&self, rows: usize) -> usize {
        let queues = |run: &Settings| {
            let bytes = run.bytes_max().next_multiple_of(4096) + LIST_BYTES;
            // A request that is bounced has a second buffer.
            let requests = 2 * usize::from(run.depth) * bytes;
            run.threads * rows * (requests + QUEUE_BYTES)
        };
        let queues = self.runs.iter().map(queues).max().unwrap_or(0);
        let cache = if self.is_cached { CACHE_BYTES } else { 0 };
        (queues + BASE_BYTES + 2 * cache).next_multiple_of(2 << 20)
    }
}

/// Opens a device or a file of the kernel.
fn kernel(
    name: &DeviceName,
    index: usize,
    need: &Need<'_>,
    opened: &mut Opened,
) -> Result<(), Error> {
    let failed = |text: String| Error::Perf { name: name.to_string(), text };
    let DeviceName::Image(path) = name else {
        return Err(failed("not a device or a file of the kernel".to_owned()));
    };
    // The kernel would let anything be overwritten: its files are enough to compare with.
    if need.writes && !path.is_file() {
        return Err(failed("with --kernel only files are written to".to_owned()));
    }
    let place = Place::open(path, need.writes).map_err(|error| failed(error.0))?;
    let bytes = place.bytes();
    let interface = Some(place.interface());
    let name = name.to_string();
    let facts = DeviceFacts { name: name.clone(), bytes, interface, ..DeviceFacts::default() };
    opened.facts.push(facts);
    let source = Source::Kernel(place);
    let row = Row { name, device: index, path: None, file: 0, range: 0..bytes, source };
    opened.only(row);
    Ok(())
}

/// Opens a device without a filesystem.
fn raw(
    args: &VolumeArgs,
    index: usize,
    force: bool,
    need: &Need<'_>,
    opened: &mut Opened,
) -> Result<(), Error> {
    let options = open::perf_options(args, need.arena_bytes(1), need.depth, need.interrupt);
    let (location, name) = (open::location(args), &args.controller.device);
    let device = match need.writes {
        true => options.open_writable_device(name.clone())?,
        false => options.open_device(name.clone())?,
    };
    let namespace = device.namespace(args.controller.namespace)?;
    let range = device.byte_range(&location)?;
    if need.writes && !force {
        check_contents(&device, args)?;
    }
    let writable = match need.writes {
        true => Some(device.controller().writable()?.writable_namespace(namespace.id())?),
        false => None,
    };
    opened.facts.push(DeviceFacts::of(name, &device, &namespace));
    let source = Source::Raw { owner: Owner::Device(Box::new(device)), namespace, writable };
    let row = Row { name: name.to_string(), device: index, path: None, file: 0, range, source };
    opened.only(row);
    Ok(())
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

/// Opens files of a device.
fn files(
    args: &VolumeArgs,
    index: usize,
    paths: &[OsString],
    need: &Need<'_>,
    opened: &mut Opened,
) -> Result<(), Error> {
    let arena = need.arena_bytes(paths.len());
    let mut options = open::perf_options(args, arena, need.depth, need.interrupt);
    let location = open::location(args);
    let writable = match need.writes || need.is_cached {
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
    let range = device.byte_range(&location)?;
    opened.facts.push(DeviceFacts::of(name, device, &namespace));
    let filesystem = Filesystem { name: name.to_string(), volume, writable, namespace, range };
    for path in paths {
        filesystem.add(path, index, need, opened)?;
    }
    Ok(())
}

/// An open filesystem with files to measure.
struct Filesystem {
    /// Name of the device.
    name: String,
    volume: Volume,
    writable: Option<WritableVolume>,
    namespace: Namespace,
    /// Bytes of the filesystem on the namespace.
    range: Range<u64>,
}

impl Filesystem {
    /// Opens a file for each way.
    fn add(
        &self,
        path: &OsString,
        index: usize,
        need: &Need<'_>,
        opened: &mut Opened,
    ) -> Result<(), Error> {
        let path = rooted(path);
        let inode = self.volume.metadata(&path)?;
        if inode.is_dir() {
            return Err(Error::directory(&path));
        }
        let shown = escaped(&path);
        for lane in &mut opened.lanes {
            let row = match lane.way {
                Way::Raw => Row {
                    name: self.name.clone(),
                    device: index,
                    path: None,
                    file: 0,
                    range: self.as_large_as(inode.size()),
                    source: self.raw(),
                },
                way => Row {
                    name: format!("{}:{shown}", self.name),
                    device: index,
                    path: Some(shown.clone()),
                    file: inode.number().get(),
                    range: 0..inode.size(),
                    source: self.file(way, &path, need),
                },
            };
            if let (true, Source::Writable { volume, path, .. }) = (need.writes, &row.source) {
                let mut file = volume.open_writable(path)?;
                for run in need.runs {
                    let Range { start, end } = row.range_of(run)?;
                    file.check_range(start, end - start).map_err(Error::path(path))?;
                }
            }
            lane.rows.push(row);
        }
        Ok(())
    }

    /// Returns bytes of the device, as many as a file has.
    fn as_large_as(&self, bytes: u64) -> Range<u64> {
        let Range { start, end } = self.range;
        start..start.saturating_add(bytes).min(end)
    }

    fn raw(&self) -> Source {
        let (owner, namespace) = (Owner::Volume(self.volume.clone()), self.namespace.clone());
        Source::Raw { owner, namespace, writable: None }
    }

    fn file(&self, way: Way, path: &[u8], need: &Need<'_>) -> Source {
        let (path, offset) = (path.to_vec(), self.range.start);
        match &self.writable {
            Some(volume) if need.writes || way.is_cached() => {
                let (volume, block_shift) = (volume.clone(), self.namespace.block_shift());
                Source::Writable { volume, path, offset, block_shift }
            }
            _ => Source::File { volume: self.volume.clone(), path, offset },
        }
    }
}
