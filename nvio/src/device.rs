//! An open controller, and its emulator if the device is an image.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use nvio_driver::pci::Sysfs;
use nvio_driver::{Address, Controller, Namespace, Options, WritableNamespace};
use nvio_emulator::{Backing, Emulator, NamespaceConfig};
use nvio_ext4::{QueueDevice, QueueSource};
use nvio_iomap::{Disk, DiskReader, DiskWriter, WritableDisk};

use crate::error::{Error, Found};
use crate::image;
use crate::in_use;
use crate::location::{self, DeviceName, Location};
use crate::partition;
use crate::range;
use crate::recognise;
use crate::shutdown::{Shutdown, Ticket};

/// Commands that a queue for metadata or partition tables has in flight.
const METADATA_DEPTH: u16 = 32;

/// An open NVMe controller. For an image this is the embedded controller
/// ([`nvio_emulator`](crate::emulator)), which runs on threads of this process.
///
/// [`OpenOptions::open_device`](crate::OpenOptions::open_device) opens one without looking for a
/// filesystem.
///
/// # Examples
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// # let image = sample.path();
/// let device = nvio::OpenOptions::new().open_device(&image)?;
/// assert_eq!(device.controller().identify().model(), "nvio embedded controller");
///
/// // The only namespace, or the one that is named.
/// let namespace = device.namespace(None)?;
/// assert_eq!(namespace.bytes(), 8 << 20);
/// assert_eq!(device.check_active(1)?, 1);
/// assert!(device.check_active(2).is_err());
///
/// // The bytes that a location selects, and their contents.
/// let location = nvio::Location::new(image.as_path()).offset(1 << 20);
/// assert_eq!(device.byte_range(&location)?, 1 << 20..8 << 20);
/// let contents = device.contents(&nvio::Location::new(image.as_path()))?;
/// assert!(contents.format.is_some_and(|format| format.is_ext()));
/// assert!(contents.partitions.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Device {
    // Fields drop in order: the controller is shut down before its emulator ends.
    controller: Controller,
    emulator: Option<Emulator>,
    ticket: Option<Ticket>,
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Some(ticket) = &mut self.ticket {
            ticket.closing();
        }
    }
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
        shutdown: Option<&Shutdown>,
    ) -> Result<Self, Error> {
        let mut ticket = shutdown.map(Shutdown::opening).transpose()?;
        let (controller, emulator) = match name {
            DeviceName::Address(address) => (open(address, options)?, None),
            DeviceName::Image(image) => {
                let (controller, emulator) = emulate(image, image_block_bytes, options)?;
                (controller, Some(emulator))
            }
        };
        if let Some(ticket) = &mut ticket {
            ticket.opened(&controller);
        }
        Ok(Self { controller, emulator, ticket })
    }

    /// Returns the controller.
    ///
    /// See the [example](Self#examples).
    pub fn controller(&self) -> &Controller {
        &self.controller
    }

    /// Opens a namespace: the one with identifier `nsid`, or without one the only namespace, or
    /// namespace 1 if there are several.
    ///
    /// See the [example](Self#examples).
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
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`namespace`](Self::namespace).
    pub fn check_active(&self, nsid: u32) -> Result<u32, Error> {
        among(self.controller.namespace_ids()?, nsid)
    }

    /// Returns the bytes of the namespace that `location` selects: all of them, a partition, or a
    /// range. The device of `location` is ignored.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`namespace`](Self::namespace); [`Error::Partition`] if there is no such partition;
    /// [`Error::Offset`] and [`Error::Misaligned`] for a range.
    pub fn byte_range(&self, location: &Location) -> Result<Range<u64>, Error> {
        let whole = Disk::whole(&self.namespace(location.namespace)?);
        Ok(match self.part_of(&whole, location)? {
            None => 0..whole.size(),
            Some((offset, length)) => offset..offset.saturating_add(length),
        })
    }

    /// Recognises the contents of the bytes that `location` selects: another format, a filesystem
    /// or, on a whole namespace, a partition table. The device of `location` is ignored.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`byte_range`](Self::byte_range). Bytes that cannot be read are not recognised.
    pub fn contents(&self, location: &Location) -> Result<Found, Error> {
        let (whole, part) = self.disks(location)?;
        let source = self.source(&part)?;
        let format = recognise::at(&source, 0, part.size());
        let partitions = match location.range {
            location::Range::Whole if location.skip == 0 => {
                partition::list(&source, whole.namespace().block_size()).ok()
            }
            _ => None,
        };
        Ok(Found { format, partition: None, partitions })
    }

    /// Returns the namespace at `location`, and the part of it that `location` selects.
    pub(crate) fn disks(&self, location: &Location) -> Result<(Disk, Disk), Error> {
        let whole = Disk::whole(&self.namespace(location.namespace)?);
        let part = match self.part_of(&whole, location)? {
            None => whole.clone(),
            Some((offset, length)) => whole.slice(offset, length)?,
        };
        Ok((whole, part))
    }

    /// Returns the part of a namespace that `location` selects, for writing.
    pub(crate) fn writable_disk(&self, location: &Location) -> Result<WritableDisk, Error> {
        let whole = WritableDisk::whole(&self.writable_namespace(location.namespace)?);
        match self.part_of(&whole, location)? {
            None => Ok(whole),
            Some((offset, length)) => Ok(whole.slice(offset, length)?),
        }
    }

    /// Returns first byte and length of the range of `location`, or `None` for the whole namespace.
    fn part_of(&self, whole: &Disk, location: &Location) -> Result<Option<(u64, u64)>, Error> {
        let block_bytes = whole.namespace().block_size();
        let range = range::byte_range(location, block_bytes, || self.source(whole))?;
        match range {
            Some((offset, _)) if !offset.is_multiple_of(block_bytes.into()) => {
                Err(Error::Misaligned { offset, block_bytes })
            }
            range => Ok(range),
        }
    }

    /// Creates a device for metadata that is changed, with separate queues.
    pub(crate) fn block_device(&self, location: &Location) -> Result<QueueDevice, Error> {
        let (_, part) = self.disks(location)?;
        let reader = DiskReader::new(&self.controller, &part, METADATA_DEPTH)?;
        let disk = self.writable_disk(location)?;
        let writer = DiskWriter::new(&self.controller, &disk, METADATA_DEPTH)?;
        Ok(QueueDevice::new(reader, writer))
    }

    /// Creates a source of metadata, with a separate queue.
    pub(crate) fn source(&self, disk: &Disk) -> Result<QueueSource, Error> {
        Ok(QueueSource::new(DiskReader::new(&self.controller, disk, METADATA_DEPTH)?))
    }
}

fn among(active: Vec<u32>, nsid: u32) -> Result<u32, Error> {
    match &active[..] {
        [] => Err(Error::NoNamespaces),
        _ if active.contains(&nsid) => Ok(nsid),
        _ => Err(Error::NoSuchNamespace { nsid, active }),
    }
}

/// Opens an image on the embedded controller.
fn emulate(
    image: &Path,
    block_bytes: u32,
    options: Options,
) -> Result<(Controller, Emulator), Error> {
    image::check(image)?;
    if options.writable {
        // The emulator then keeps the kernel from mounting a block device.
        let failed = |error| Error::Image { action: "open", path: image.to_owned(), error };
        if let Some(user) = in_use::user(image).map_err(failed)? {
            return Err(Error::ImageInUse { path: image.to_owned(), user });
        }
    }
    let backing = Backing::image(image, !options.writable);
    let namespace = NamespaceConfig::new(backing).block_size(block_bytes);
    let started = Emulator::builder().namespace(namespace).connect();
    let (emulator, connection) =
        started.map_err(|error| Error::Emulate { image: image.to_owned(), error })?;
    // A thread that waits for a block reads it itself, instead of waking another.
    let helper = emulator.helper();
    Ok((Controller::open_local(connection, move || helper.run(), options)?, emulator))
}

fn open(address: &Address, options: Options) -> Result<Controller, Error> {
    if let Address::Pci(pci) = address {
        // The errors of sysfs name the reason; a failed open of a VFIO file does not.
        Sysfs::new().nvme_device(*pci)?;
    }
    Controller::open_with(address, options)
        .map_err(|error| Error::Open { device: address.to_string(), error })
}
