//! Opening devices and filesystems.

use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nvio_driver::{Address, Wait};
use nvio_ext4::Inspection;

use crate::device::Device;
use crate::error::{Error, Found};
use crate::image::ImagePart;
use crate::location::{DeviceName, Location, Range};
use crate::options::OpenOptions;
use crate::partition::{self, PartitionTable};
use crate::recognise;
use crate::shared::{Journal, Shared};
use crate::storage::Storage;
use crate::volume::Volume;
use crate::writable::WritableVolume;

/// Time that waiting calls poll a controller in software before they sleep.
const SPIN: Duration = Duration::from_micros(50);

impl OpenOptions {
    /// Opens the filesystem at `location` for reading.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Open`] and others if the device cannot be opened, [`Error::Partition`],
    /// [`Error::Filesystem`] if there is no filesystem that can be read.
    pub fn open(&self, location: impl Into<Location>) -> Result<Volume, Error> {
        let location = location.into();
        let storage = self.storage(&location)?;
        let journal = self.open_journal(&location, storage.device())?;
        Ok(Volume::new(Shared::open(storage, &location, self, journal)?))
    }

    /// Opens the filesystem in `bytes`, an image in memory.
    ///
    /// ```
    /// let error = nvio::OpenOptions::new().open_bytes(vec![0; 4096]).unwrap_err();
    /// assert!(error.to_string().contains("not an ext4 filesystem"));
    /// ```
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_bytes(&self, bytes: impl Into<Arc<[u8]>>) -> Result<Volume, Error> {
        let location = Location::new(Path::new("(bytes)"));
        let image = ImagePart::from_bytes(bytes.into());
        let storage = Storage::of_image(image, &location, self.image_block_bytes)?;
        let journal = self.open_journal(&location, None)?;
        Ok(Volume::new(Shared::open(storage, &location, self, journal)?))
    }

    /// Opens the filesystem at `location` so that its files can be overwritten.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`Error::NotWritable`], which says why. A block device that the
    /// kernel has mounted is refused.
    pub fn open_writable(&self, location: impl Into<Location>) -> Result<WritableVolume, Error> {
        let location = location.into();
        let device = self.device(&location, true)?;
        let journal = self.open_journal(&location, Some(&device))?;
        let disk = device.writable_disk(&location)?;
        let storage = Storage::of_device(device, &location)?;
        let volume = Volume::new(Shared::open(storage, &location, self, journal)?);
        WritableVolume::new(volume, disk, &location, self.page_cache())
    }

    /// Opens the controller of a device for reading, without looking for a filesystem. That of an
    /// image is the embedded controller.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Open`] and others if the device cannot be opened.
    pub fn open_device(&self, location: impl Into<Location>) -> Result<Device, Error> {
        self.device(&location.into(), false)
    }

    /// Opens the controller of a device so that [`Device::controller`] can be made
    /// [`writable`](crate::driver::Controller::writable), which gives access to all stored data.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`open_device`](Self::open_device), and [`Error::ImageInUse`].
    pub fn open_writable_device(&self, location: impl Into<Location>) -> Result<Device, Error> {
        self.device(&location.into(), true)
    }

    /// Reads the superblock of the filesystem or the external journal at `location`, also if it
    /// cannot be opened because it needs recovery, is in use, or has unknown features.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn inspect(&self, location: impl Into<Location>) -> Result<Inspected, Error> {
        let location = location.into();
        let storage = self.storage(&location)?;
        let inspection = Inspection::open_with(storage.source()?, self.filesystem)
            .map_err(|error| storage.no_filesystem(&location, error))?;
        Ok(Inspected { inspection, _storage: storage })
    }

    /// Reads the partition table of a device, and recognises the contents of the partitions. The
    /// partition or range of `location` is ignored.
    ///
    /// See the [example](PartitionTable#examples).
    ///
    /// # Errors
    /// [`Error::Open`] and others if the device cannot be opened, [`Error::Partition`] if the table is
    /// damaged, [`Error::Unpartitioned`] if there is none.
    pub fn partitions(&self, location: impl Into<Location>) -> Result<PartitionTable, Error> {
        let location = location.into();
        let whole = Location { range: Range::Whole, skip: 0, ..location };
        let storage = self.storage(&whole)?;
        storage.partitions().map_err(|error| match error {
            Error::Partition(error @ partition::Error::NoTable { .. }) => {
                let format = storage.format();
                Error::Unpartitioned { device: whole.device.to_string(), format, error }
            }
            error => error,
        })
    }

    fn storage(&self, location: &Location) -> Result<Storage, Error> {
        match &location.device {
            DeviceName::Image(path) if !self.emulate || self.is_between_blocks(location) => {
                Storage::of_image(ImagePart::open(path)?, location, self.image_block_bytes)
            }
            _ => match self.device(location, false) {
                Ok(device) => Storage::of_device(device, location),
                Err(error) => Err(small_file(error)),
            },
        }
    }

    /// Returns true if the filesystem begins inside of a block, which no command can read alone.
    fn is_between_blocks(&self, location: &Location) -> bool {
        !location.skip.is_multiple_of(self.image_block_bytes.into())
    }

    pub(crate) fn device(&self, location: &Location, writable: bool) -> Result<Device, Error> {
        let default = match &location.device {
            DeviceName::Address(Address::Pci(_)) => Wait::Poll,
            _ => Wait::Interrupt { spin: SPIN },
        };
        let wait = self.wait.unwrap_or(default);
        let options = nvio_driver::Options { writable, wait, ..self.controller.clone() };
        let shutdown = self.shutdown.as_ref();
        Device::open(&location.device, self.image_block_bytes, options, shutdown)
    }

    /// Opens the external journal. Its device is opened only if it is not that of the filesystem.
    fn open_journal(
        &self,
        location: &Location,
        device: Option<&Device>,
    ) -> Result<Option<Journal>, Error> {
        let Some(journal) = &self.journal else { return Ok(None) };
        if let Some(device) = device
            && journal.device == location.device
        {
            let (_, disk) = device.disks(journal)?;
            return Ok(Some(Journal { source: Box::new(device.source(&disk)?), storage: None }));
        }
        let storage = self.storage(journal)?;
        Ok(Some(Journal { source: storage.source()?, storage: Some(storage) }))
    }
}

/// Replaces the error of a file that is smaller than a block, if it is a file of another format.
fn small_file(error: Error) -> Error {
    let Error::Emulate { image, error: nvio_emulator::Error::TooSmall { .. } } = &error else {
        return error;
    };
    let format = ImagePart::open(image).ok().and_then(|file| recognise::at(&file, 0, file.bytes()));
    match format {
        None => error,
        Some(_) => {
            let found = Box::new(Found { format, ..Found::default() });
            Error::NotExt4 { device: image.display().to_string(), found }
        }
    }
}

/// The superblocks of a filesystem; see [`OpenOptions::inspect`]. Its methods are those of
/// [`nvio_ext4::Inspection`].
///
/// See the [example](OpenOptions#examples).
pub struct Inspected {
    // Dropped before the device that it reads from.
    inspection: Inspection,
    _storage: Storage,
}

impl fmt::Debug for Inspected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspected").finish_non_exhaustive()
    }
}

impl Deref for Inspected {
    type Target = Inspection;

    fn deref(&self) -> &Inspection {
        &self.inspection
    }
}
