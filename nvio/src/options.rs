//! Options for opening devices and filesystems.

use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nvio_driver::{Address, Wait};
use nvio_ext4::{BlockSource, Inspection, Recovery};

use crate::device::Device;
use crate::error::Error;
use crate::image::ImagePart;
use crate::location::{DeviceName, Location};
use crate::storage::Storage;
use crate::volume::Volume;
use crate::writable::WritableVolume;

/// Commands that a queue for data has in flight by default.
const DATA_DEPTH: u16 = 128;

/// Time that waiting calls poll a controller in software before they sleep.
const SPIN: Duration = Duration::from_micros(50);

/// Options for opening a [`Volume`], a [`WritableVolume`] or a [`Device`].
///
/// ```
/// use nvio::OpenOptions;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let image = dir.path().join("disk.img");
/// # std::fs::create_dir(dir.path().join("folder"))?;
/// # std::fs::write(dir.path().join("folder/hello.txt"), "Hello")?;
/// # let made = std::process::Command::new("/sbin/mke2fs")
/// #     .args(["-q", "-t", "ext4", "-d"]).args([&dir.path().join("folder"), &image]).arg("8M")
/// #     .status()?;
/// # assert!(made.success());
/// # let image = image.as_path();
/// // 4 MiB of metadata in memory, DMA memory of 8 MiB.
/// let volume = OpenOptions::new().cache_bytes(4 << 20).arena_bytes(8 << 20).open(image)?;
/// assert_eq!(volume.read("/hello.txt")?, b"Hello");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct OpenOptions {
    emulate: bool,
    image_block_bytes: u32,
    queue_depth: u16,
    journal: Option<Location>,
    wait: Option<Wait>,
    controller: nvio_driver::Options,
    filesystem: nvio_ext4::Options,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl OpenOptions {
    /// The default options: those of [`nvio_driver::Options`](crate::driver::Options) and
    /// [`nvio_ext4::Options`](crate::ext4::Options), queues of 128 commands, images with blocks of
    /// 512 bytes, no external journal.
    pub fn new() -> Self {
        Self {
            emulate: false,
            image_block_bytes: 512,
            queue_depth: DATA_DEPTH,
            journal: None,
            wait: None,
            controller: nvio_driver::Options::default(),
            filesystem: nvio_ext4::Options::default(),
        }
    }

    /// Sets the location of the journal of a filesystem whose journal is on another device. It is
    /// needed if that journal needs recovery.
    #[must_use]
    pub fn journal(mut self, journal: impl Into<Location>) -> Self {
        self.journal = Some(journal.into());
        self
    }

    /// Sets how many bytes of metadata are kept in memory. 16 MiB by default.
    #[must_use]
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.filesystem.cache_bytes = bytes;
        self
    }

    /// Sets how many bytes of metadata are read ahead at a time, at most a quarter of the cache.
    /// 4 MiB by default; 0 reads each block when it is needed.
    #[must_use]
    pub fn read_ahead_bytes(mut self, bytes: usize) -> Self {
        self.filesystem.read_ahead = bytes;
        self
    }

    /// Sets whether a journal that needs recovery is replayed in memory, the default, or the
    /// filesystem is refused.
    #[must_use]
    pub fn recovery(mut self, recovery: Recovery) -> Self {
        self.filesystem.recovery = recovery;
        self
    }

    /// Sets the size of the DMA arena in bytes, 64 MiB by default. It is locked in memory, which
    /// RLIMIT_MEMLOCK bounds for a PCI device: 8 MiB on most systems. A queue and its bounce
    /// memory take about 2 MiB.
    #[must_use]
    pub fn arena_bytes(mut self, bytes: usize) -> Self {
        self.controller.arena_bytes = bytes;
        self
    }

    /// Sets how many commands a queue has in flight at most, 128 by default.
    #[must_use]
    pub fn queue_depth(mut self, commands: u16) -> Self {
        self.queue_depth = commands;
        self
    }

    /// Sets how waiting calls wait: by polling, or asleep until an interrupt. By default they poll a
    /// PCI device. A vfio-user server and the embedded controller need the processor themselves, so
    /// that waiting calls poll them for 50 microseconds and then sleep.
    #[must_use]
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = Some(wait);
        self
    }

    /// Sets the logical block of an image in bytes, 512 by default or 4096: the unit of its
    /// partition table, and the block of the embedded controller.
    #[must_use]
    pub fn image_block_bytes(mut self, bytes: u32) -> Self {
        self.image_block_bytes = bytes;
        self
    }

    /// Sets all options of the driver. [`writable`](nvio_driver::Options::writable) is ignored: use
    /// [`open_writable`](Self::open_writable).
    #[must_use]
    pub fn controller_options(mut self, options: nvio_driver::Options) -> Self {
        self.wait = Some(options.wait);
        self.controller = options;
        self
    }

    /// Sets whether an image is served by the embedded NVMe controller, on threads of this process,
    /// as if it were a device. By default an image that is opened for reading is read with system
    /// calls; an image that is opened for writing always has the controller.
    #[must_use]
    pub fn emulate(mut self, emulate: bool) -> Self {
        self.emulate = emulate;
        self
    }

    /// Opens the filesystem at `location` for reading.
    ///
    /// # Errors
    /// [`Error::Open`] and others if the device cannot be opened, [`Error::Partition`],
    /// [`Error::Filesystem`] if there is no filesystem that can be read.
    pub fn open(&self, location: impl Into<Location>) -> Result<Volume, Error> {
        let location = location.into();
        let storage = self.storage(&location)?;
        let journal = self.open_journal(&location, storage.device())?;
        Volume::new(storage, &location, self, journal)
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
        Volume::new(storage, &location, self, journal)
    }

    /// Opens the filesystem at `location` so that its files can be overwritten.
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
        let volume = Volume::new(storage, &location, self, journal)?;
        WritableVolume::new(volume, disk, &location)
    }

    /// Opens the controller of a device for reading, without looking for a filesystem. That of an
    /// image is the embedded controller.
    ///
    /// # Errors
    /// [`Error::Open`] and others if the device cannot be opened.
    pub fn open_device(&self, location: impl Into<Location>) -> Result<Device, Error> {
        self.device(&location.into(), false)
    }

    /// Reads the superblock of the filesystem or the external journal at `location`, also if it
    /// cannot be opened because it needs recovery, is in use, or has unknown features.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn inspect(&self, location: impl Into<Location>) -> Result<Inspected, Error> {
        let location = location.into();
        let storage = self.storage(&location)?;
        let inspection = Inspection::open(storage.source()?)
            .map_err(|error| storage.no_filesystem(&location, error))?;
        Ok(Inspected { inspection, _storage: storage })
    }

    fn storage(&self, location: &Location) -> Result<Storage, Error> {
        match &location.device {
            DeviceName::Image(path) if !self.emulate => {
                Storage::of_image(ImagePart::open(path)?, location, self.image_block_bytes)
            }
            _ => Storage::of_device(self.device(location, false)?, location),
        }
    }

    fn device(&self, location: &Location, writable: bool) -> Result<Device, Error> {
        let default = match &location.device {
            DeviceName::Address(Address::Pci(_)) => Wait::Poll,
            _ => Wait::Interrupt { spin: SPIN },
        };
        let wait = self.wait.unwrap_or(default);
        let options = nvio_driver::Options { writable, wait, ..self.controller.clone() };
        Device::open(&location.device, self.image_block_bytes, options)
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

    pub(crate) fn filesystem_options(&self) -> nvio_ext4::Options {
        self.filesystem
    }

    pub(crate) fn depth(&self) -> u16 {
        self.queue_depth
    }
}

/// The journal of a filesystem, on another disk.
pub(crate) struct Journal {
    pub(crate) source: Box<dyn BlockSource>,
    /// The device of the journal, if it is not that of the filesystem.
    pub(crate) storage: Option<Storage>,
}

/// The superblocks of a filesystem; see [`OpenOptions::inspect`]. Its methods are those of
/// [`nvio_ext4::Inspection`].
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
