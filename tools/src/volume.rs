//! A filesystem on a device: partition, metadata and data.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

use nvio_ext4::{FileQueue, Filesystem, Inode, Inspection, Options, QueueSource};
use nvio_iomap::{Disk, DiskQueue, DiskReader, WritableDisk};

use crate::cli::{ControllerArgs, VolumeArgs};
use crate::device::Device;
use crate::error::Error;
use crate::partition;

/// Commands of metadata that can be in flight.
const METADATA_DEPTH: u16 = 32;
/// Commands of data that can be in flight.
const DATA_DEPTH: u16 = 128;

/// An open filesystem and a queue to read its files with.
pub struct Volume {
    /// The filesystem.
    pub filesystem: Filesystem,
    disk: Disk,
    // Dropped last: the queues above belong to them.
    device: Device,
    _journal: Option<Device>,
}

/// The device of an external journal.
struct Journal {
    source: QueueSource,
    /// Its controller, if that is not the filesystem's.
    device: Option<Device>,
}

impl Journal {
    /// Opens what a command line names; `device` is the filesystem's.
    fn open(args: &VolumeArgs, device: &Device) -> Result<Option<Self>, Error> {
        let Some(name) = &args.journal else { return Ok(None) };
        let own = match *name == args.controller.device {
            true => None,
            false => {
                let controller = ControllerArgs { device: name.clone(), ..args.controller.clone() };
                Some(Device::open(&controller)?)
            }
        };
        let device = own.as_ref().unwrap_or(device);
        let disk = Disk::whole(&device.namespace(args.journal_namespace)?);
        let disk = match args.journal_partition {
            None => disk,
            Some(number) => {
                let (offset, length) = partition_range(device, &disk, number)?;
                disk.slice(offset, length)?
            }
        };
        let reader = DiskReader::new(&device.controller, &disk, METADATA_DEPTH)?;
        Ok(Some(Self { source: QueueSource::new(reader), device: own }))
    }
}

impl Volume {
    /// Opens what a command line names.
    ///
    /// # Errors
    /// If device, namespace, partition or filesystem cannot be opened.
    pub fn open(args: &VolumeArgs) -> Result<Self, Error> {
        let device = Device::open(&args.controller)?;
        let journal = Journal::open(args, &device)?;
        let name = args.controller.device.to_string();
        let (whole, disk) = disks(&device, args.controller.namespace, args.partition)?;
        let how = (args.partition, args.memory.options());
        Self::of(device, &name, disk, &whole, how, journal)
    }

    /// Opens the filesystem that is all of a namespace of `device`.
    ///
    /// # Errors
    /// If there is none.
    pub fn on(device: Device, name: &str) -> Result<Self, Error> {
        let whole = Disk::whole(&device.namespace(None)?);
        Self::of(device, name, whole.clone(), &whole, (None, Options::default()), None)
    }

    /// Opens what a command line names, in order to write to files. The disk is the one that they
    /// are written to.
    ///
    /// # Errors
    /// If device, namespace, partition or filesystem cannot be opened for that.
    pub fn open_writable(args: &VolumeArgs) -> Result<(Self, WritableDisk), Error> {
        let device = Device::open_writable(&args.controller)?;
        let journal = Journal::open(args, &device)?;
        let whole = WritableDisk::whole(&device.writable_namespace(args.controller.namespace)?);
        let disk = match args.partition {
            None => whole.clone(),
            Some(number) => {
                let (offset, length) = partition_range(&device, &whole, number)?;
                whole.slice(offset, length)?
            }
        };
        let name = args.controller.device.to_string();
        let reading = Disk::clone(&disk);
        let how = (args.partition, args.memory.options());
        let volume = Self::of(device, &name, reading, &whole, how, journal)?;
        Ok((volume, disk))
    }

    fn of(
        device: Device,
        name: &str,
        disk: Disk,
        whole: &Disk,
        (partition, options): (Option<u32>, Options),
        journal: Option<Journal>,
    ) -> Result<Self, Error> {
        let source = QueueSource::new(DiskReader::new(&device.controller, &disk, METADATA_DEPTH)?);
        let (opened, journal) = match journal {
            None => (Filesystem::open_with(source, options), None),
            Some(Journal { source: journal, device }) => {
                (Filesystem::open_with_journal(source, journal, options), device)
            }
        };
        let filesystem =
            opened.map_err(|source| not_opened(&device, name, whole, partition, source))?;
        Ok(Self { filesystem, disk, device, _journal: journal })
    }

    /// A queue for the data of files.
    ///
    /// # Errors
    /// If the controller has no more queues.
    pub fn queue(&self) -> Result<FileQueue, Error> {
        let queue = DiskQueue::new(&self.device.controller, &self.disk, DATA_DEPTH)?;
        Ok(FileQueue::new(queue))
    }

    /// A queue for overwriting files on `disk`, the one that was opened with this.
    ///
    /// # Errors
    /// If the controller has no more queues.
    pub fn writable_queue(&self, disk: &WritableDisk) -> Result<FileQueue<WritableDisk>, Error> {
        let queue = DiskQueue::new(&self.device.controller, disk, DATA_DEPTH)?;
        Ok(FileQueue::new(queue))
    }

    /// What `path` is, through symbolic links.
    ///
    /// # Errors
    /// If it is not there, or damaged.
    pub fn lookup(&self, path: &[u8]) -> Result<Inode, Error> {
        self.filesystem.lookup(path).map_err(Error::path(path))
    }

    /// What `path` is, which may be a symbolic link.
    ///
    /// # Errors
    /// If it is not there, or damaged.
    pub fn lookup_no_follow(&self, path: &[u8]) -> Result<Inode, Error> {
        self.filesystem.lookup_no_follow(path).map_err(Error::path(path))
    }

    /// The target of a symbolic link; `None` for what is none.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn target(&self, path: &[u8], inode: &Inode) -> Result<Option<Vec<u8>>, Error> {
        if !inode.is_symlink() {
            return Ok(None);
        }
        self.filesystem.read_link(inode).map(Some).map_err(Error::path(path))
    }
}

/// What the filesystem or the journal on a disk says of itself. The device is to be kept for as
/// long.
///
/// # Errors
/// If device, namespace or partition cannot be opened, or there is none on it.
pub fn inspect(args: &VolumeArgs) -> Result<(Inspection, Device), Error> {
    let device = Device::open(&args.controller)?;
    let (whole, disk) = disks(&device, args.controller.namespace, args.partition)?;
    let source = QueueSource::new(DiskReader::new(&device.controller, &disk, METADATA_DEPTH)?);
    let name = args.controller.device.to_string();
    let inspection = Inspection::open(source)
        .map_err(|source| not_opened(&device, &name, &whole, args.partition, source))?;
    Ok((inspection, device))
}

/// A namespace, and what of it the filesystem is on.
fn disks(
    device: &Device,
    namespace: Option<u32>,
    partition: Option<u32>,
) -> Result<(Disk, Disk), Error> {
    let whole = Disk::whole(&device.namespace(namespace)?);
    let disk = match partition {
        None => whole.clone(),
        Some(number) => {
            let (offset, length) = partition_range(device, &whole, number)?;
            whole.slice(offset, length)?
        }
    };
    Ok((whole, disk))
}

/// Why there is no filesystem, with a hint if it is in a partition.
fn not_opened(
    device: &Device,
    name: &str,
    whole: &Disk,
    partition: Option<u32>,
    source: nvio_ext4::Error,
) -> Error {
    let hint = match source {
        nvio_ext4::Error::NotExt4 { .. }
            if partition.is_none() && is_partitioned(device, whole) =>
        {
            " has a partition table (choose one of it with --partition N)"
        }
        _ => "",
    };
    Error::Filesystem { device: name.to_owned(), hint, source }
}

/// First byte and bytes of a partition.
fn partition_range(device: &Device, whole: &Disk, number: u32) -> Result<(u64, u64), Error> {
    let mut reader = table_reader(device, whole)?;
    let block_size = whole.namespace().block_size();
    let range = partition::find(&mut reader, number, block_size, whole.size())?;
    Ok((range.offset, range.length))
}

fn is_partitioned(device: &Device, whole: &Disk) -> bool {
    table_reader(device, whole).is_ok_and(|mut reader| {
        partition::is_partitioned(&mut reader, whole.namespace().block_size(), whole.size())
    })
}

fn table_reader(device: &Device, disk: &Disk) -> Result<BufReader<DiskStream>, Error> {
    let reader = DiskReader::new(&device.controller, disk, METADATA_DEPTH)?;
    Ok(BufReader::new(DiskStream { reader, at: 0 }))
}

/// A disk as a stream, for the decoders of partition tables.
struct DiskStream {
    reader: DiskReader,
    at: u64,
}

impl Read for DiskStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.reader.disk().size().saturating_sub(self.at);
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        if count == 0 {
            return Ok(0);
        }
        self.reader.read_at(self.at, &mut buf[..count]).map_err(io::Error::other)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for DiskStream {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.reader.disk().size().checked_add_signed(by),
        };
        self.at = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
