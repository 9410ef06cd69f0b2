//! An open controller, and the emulator behind it if the device is an image.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use nvio_driver::pci::Sysfs;
use nvio_driver::{Address, Controller, Namespace, Options, WritableNamespace};
use nvio_emulator::{Backing, Emulator, NamespaceConfig};
use nvio_ext4::QueueSource;
use nvio_iomap::{Disk, DiskReader, WritableDisk};

use crate::error::Error;
use crate::image;
use crate::location::{DeviceName, Location, Range};
use crate::partition;

/// Commands that a queue for metadata or partition tables has in flight.
const METADATA_DEPTH: u16 = 32;

/// An open NVMe controller. For an image this is the embedded controller
/// ([`nvio_emulator`](crate::emulator)), which runs on threads of this process.
///
/// [`OpenOptions::open_device`](crate::OpenOptions::open_device) opens one without looking for a
/// filesystem.
pub struct Device {
    // Fields drop in order: the controller is shut down before its emulator ends.
    controller: Controller,
    emulator: Option<Emulator>,
    /// Keeps the kernel from mounting a block device that is written to as an image.
    _exclusive: Option<File>,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("emulator", &self.emulator).finish_non_exhaustive()
    }
}

impl Device {
    pub(crate) fn open(
        name: &DeviceName,
        image_block_bytes: u32,
        options: Options,
    ) -> Result<Self, Error> {
        match name {
            DeviceName::Address(address) => {
                let controller = open(address, options)?;
                Ok(Self { controller, emulator: None, _exclusive: None })
            }
            DeviceName::Image(image) => Self::emulate(image, image_block_bytes, options),
        }
    }

    fn emulate(image: &Path, block_bytes: u32, options: Options) -> Result<Self, Error> {
        image::check(image)?;
        let exclusive = if options.writable { image::claim(image)? } else { None };
        let backing = Backing::image(image, !options.writable);
        let namespace = NamespaceConfig::new(backing).block_size(block_bytes);
        let emulator = Emulator::builder().namespace(namespace).start();
        let emulator =
            emulator.map_err(|error| Error::Emulate { image: image.to_owned(), error })?;
        let address = Address::VfioUser(emulator.socket().to_owned());
        let controller = Controller::open_with(&address, options)?;
        Ok(Self { controller, emulator: Some(emulator), _exclusive: exclusive })
    }

    /// The controller.
    pub fn controller(&self) -> &Controller {
        &self.controller
    }

    /// Opens a namespace: the one with identifier `nsid`, or without one the only namespace, or
    /// namespace 1 if there are several.
    ///
    /// # Errors
    /// [`Error::NoNamespaces`], [`Error::NoSuchNamespace`], or a failure of the controller.
    pub fn namespace(&self, nsid: Option<u32>) -> Result<Namespace, Error> {
        Ok(self.controller.namespace(self.select(nsid)?)?)
    }

    fn writable_namespace(&self, nsid: Option<u32>) -> Result<WritableNamespace, Error> {
        Ok(self.controller.writable()?.writable_namespace(self.select(nsid)?)?)
    }

    fn select(&self, wanted: Option<u32>) -> Result<u32, Error> {
        let active = self.controller.namespace_ids()?;
        let nsid = match (wanted, &active[..]) {
            (Some(nsid), _) => nsid,
            (None, [only]) => *only,
            (None, _) => 1,
        };
        among(active, nsid)
    }

    /// Checks that `nsid` is the identifier of an active namespace, and returns it.
    ///
    /// # Errors
    /// As [`namespace`](Self::namespace).
    pub fn check_active(&self, nsid: u32) -> Result<u32, Error> {
        among(self.controller.namespace_ids()?, nsid)
    }

    /// The namespace at `location`, and the part of it that `location` selects.
    pub(crate) fn disks(&self, location: &Location) -> Result<(Disk, Disk), Error> {
        let whole = Disk::whole(&self.namespace(location.namespace)?);
        let part = match self.byte_range(&whole, location.range)? {
            None => whole.clone(),
            Some((offset, length)) => whole.slice(offset, length)?,
        };
        Ok((whole, part))
    }

    pub(crate) fn writable_disks(
        &self,
        location: &Location,
    ) -> Result<(Disk, WritableDisk), Error> {
        let whole = WritableDisk::whole(&self.writable_namespace(location.namespace)?);
        let part = match self.byte_range(&whole, location.range)? {
            None => whole.clone(),
            Some((offset, length)) => whole.slice(offset, length)?,
        };
        Ok((Disk::clone(&whole), part))
    }

    /// First byte and length of a range, or `None` for the whole namespace.
    fn byte_range(&self, whole: &Disk, range: Range) -> Result<Option<(u64, u64)>, Error> {
        match range {
            Range::Whole => Ok(None),
            Range::Bytes { offset, length } => Ok(Some((offset, length))),
            Range::Partition(number) => {
                let mut reader = self.table_reader(whole)?;
                let block_size = whole.namespace().block_size();
                let found = partition::find(&mut reader, number, block_size, whole.size())?;
                Ok(Some((found.offset, found.length)))
            }
        }
    }

    /// A source of metadata with a queue of its own.
    pub(crate) fn source(&self, disk: &Disk) -> Result<QueueSource, Error> {
        Ok(QueueSource::new(DiskReader::new(&self.controller, disk, METADATA_DEPTH)?))
    }

    /// The error of a filesystem that could not be opened.
    pub(crate) fn no_filesystem(
        &self,
        location: &Location,
        whole: &Disk,
        error: nvio_ext4::Error,
    ) -> Error {
        let partitioned = matches!(error, nvio_ext4::Error::NotExt4 { .. })
            && location.range == Range::Whole
            && self.is_partitioned(whole);
        Error::Filesystem { device: location.device.to_string(), partitioned, error }
    }

    /// Returns true if the device seems to have a partition table. For hints: errors count as no.
    fn is_partitioned(&self, whole: &Disk) -> bool {
        self.table_reader(whole).is_ok_and(|mut reader| {
            partition::is_partitioned(&mut reader, whole.namespace().block_size(), whole.size())
        })
    }

    fn table_reader(&self, disk: &Disk) -> Result<BufReader<DiskStream>, Error> {
        let reader = DiskReader::new(&self.controller, disk, METADATA_DEPTH)?;
        Ok(BufReader::new(DiskStream { reader, at: 0 }))
    }
}

fn among(active: Vec<u32>, nsid: u32) -> Result<u32, Error> {
    match &active[..] {
        [] => Err(Error::NoNamespaces),
        _ if active.contains(&nsid) => Ok(nsid),
        _ => Err(Error::NoSuchNamespace { nsid, active }),
    }
}

fn open(address: &Address, options: Options) -> Result<Controller, Error> {
    if let Address::Pci(pci) = address {
        // Its errors say more than a VFIO file that could not be opened.
        Sysfs::new().nvme_device(*pci)?;
    }
    Controller::open_with(address, options)
        .map_err(|error| Error::Open { device: address.to_string(), error })
}

/// A disk as a stream, for the decoders of partition tables.
struct DiskStream {
    reader: DiskReader,
    /// Position in bytes.
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
