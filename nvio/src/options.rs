//! Options for opening devices and filesystems.

use nvio_driver::Wait;
use nvio_ext4::Recovery;

use crate::location::Location;

/// Commands that a queue for data has in flight by default.
const DATA_DEPTH: u16 = 128;

/// Options for opening a [`Volume`](crate::Volume), a [`WritableVolume`](crate::WritableVolume) or
/// a [`Device`](crate::Device).
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
    pub(crate) emulate: bool,
    pub(crate) image_block_bytes: u32,
    pub(crate) queue_depth: u16,
    pub(crate) journal: Option<Location>,
    pub(crate) wait: Option<Wait>,
    pub(crate) controller: nvio_driver::Options,
    pub(crate) filesystem: nvio_ext4::Options,
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
}
