//! Options for opening devices and filesystems.

use std::time::Duration;

use nvio_driver::{Quirk, Wait};
use nvio_ext4::Recovery;

use crate::location::Location;
use crate::shutdown::Shutdown;

/// Commands that a queue for data has in flight by default.
const DATA_DEPTH: u16 = 128;
/// Repetitions of a command after errors by default. Linux has the same number.
const RETRIES: u8 = 5;

/// Options for opening a [`Volume`](crate::Volume), a [`WritableVolume`](crate::WritableVolume) or
/// a [`Device`](crate::Device).
///
/// # Examples
/// ```
/// # let sample = nvio_testkit::image::Sample::with(&["-b", "4096"]);
/// # let image = sample.path();
/// use std::time::Duration;
///
/// use nvio::OpenOptions;
/// use nvio::driver::{Options, Quirk, Wait};
/// use nvio::ext4::Recovery;
///
/// // 4 MiB of metadata in memory, read in pieces of 1 MiB.
/// let options = OpenOptions::new().cache_bytes(4 << 20).read_ahead_bytes(1 << 20);
/// let volume = options.open(&image)?;
/// assert_eq!(volume.read("/hello.txt")?, b"Hello, world");
///
/// // The image as a device: on the embedded controller, with blocks of 4 KiB, DMA memory of 8 MiB,
/// // queues of 32 commands, bounds of time, a workaround, and waiting calls that poll.
/// let options = options
///     .emulate(true)
///     .image_block_bytes(4096)
///     .controller_options(Options::default())
///     .arena_bytes(8 << 20)
///     .queue_depth(32)
///     .timeout(Duration::from_secs(90))
///     .admin_timeout(Duration::from_secs(20))
///     .quirk(Quirk::SlowReady)
///     .retries(2)
///     .wait(Wait::Poll);
/// let device = options.open_device(&image)?;
/// assert_eq!(device.namespace(None)?.block_size(), 4096);
/// drop(device);
///
/// // For overwriting, with 2 MiB of cached file data.
/// let volume = options.clone().page_cache_bytes(2 << 20).open_writable(&image)?;
/// volume.open_writable("/hello.txt")?.write_at(0, b"J")?;
/// drop(volume);
/// // For changes of all kinds, without times of access.
/// options.clone().access_times(false).open_journaled(&image)?.close()?;
/// let device = options.open_writable_device(&image)?;
/// assert!(device.controller().writable().is_ok());
/// drop(device);
///
/// // The superblock of a filesystem that may not be usable.
/// let inspected = options.inspect(&image)?;
/// assert_eq!(inspected.superblock().blocks_count, 2048);
///
/// // For rescuing data: a copy of the superblock, without the journal, whoever uses it.
/// let options = OpenOptions::new()
///     .superblock(8193)
///     .superblock_block_bytes(1024)
///     .recovery(Recovery::Skip)
///     .ignore_mmp(true);
/// assert!(options.open(&image).is_err(), "an image of 8 MiB in blocks of 4 KiB has one group");
///
/// // A filesystem with its journal on another device, refused if that needs recovery.
/// let options = OpenOptions::new().journal("0000:02:00.0").recovery(Recovery::Refuse);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct OpenOptions {
    pub(crate) emulate: bool,
    pub(crate) image_block_bytes: u32,
    pub(crate) queue_depth: u16,
    page_cache_bytes: Option<usize>,
    pub(crate) journal: Option<Location>,
    pub(crate) wait: Option<Wait>,
    pub(crate) shutdown: Option<Shutdown>,
    pub(crate) controller: nvio_driver::Options,
    pub(crate) filesystem: nvio_ext4::Options,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl OpenOptions {
    /// Returns the default options: those of [`nvio_driver::Options`](crate::driver::Options) and
    /// [`nvio_ext4::Options`](crate::ext4::Options), but 5 repetitions of a command after errors;
    /// queues of 128 commands, images with blocks of 512 bytes, no external journal.
    ///
    /// See the [example](Self#examples).
    pub fn new() -> Self {
        Self {
            emulate: false,
            image_block_bytes: 512,
            queue_depth: DATA_DEPTH,
            page_cache_bytes: None,
            journal: None,
            wait: None,
            shutdown: None,
            controller: nvio_driver::Options {
                retries: RETRIES,
                ..nvio_driver::Options::default()
            },
            filesystem: nvio_ext4::Options::default(),
        }
    }

    /// Sets the location of the journal of a filesystem whose journal is on another device. It is
    /// needed if that journal needs recovery.
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub fn journal(mut self, journal: impl Into<Location>) -> Self {
        self.journal = Some(journal.into());
        self
    }

    /// Sets how many bytes of metadata are kept in memory. 16 MiB by default.
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.filesystem.cache_bytes = bytes;
        self
    }

    /// Sets how many bytes of metadata are read ahead at a time, at most a quarter of the cache.
    /// 4 MiB by default; 0 reads each block when it is needed.
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub fn read_ahead_bytes(mut self, bytes: usize) -> Self {
        self.filesystem.read_ahead = bytes;
        self
    }

    /// Sets whether a journal that needs recovery is replayed in memory, the default, or skipped, or
    /// the filesystem is refused.
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub fn recovery(mut self, recovery: Recovery) -> Self {
        self.filesystem.recovery = recovery;
        self
    }

    /// Sets the number of the block with the copy of the superblock to use, like `e2fsck -b`, for a
    /// filesystem whose primary superblock is damaged. It cannot be written to then.
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub fn superblock(mut self, block: u64) -> Self {
        self.filesystem.superblock = Some(block);
        self
    }

    /// Sets the size in bytes of the blocks that [`superblock`](Self::superblock) counts. By default
    /// all sizes are tried.
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub fn superblock_block_bytes(mut self, bytes: u32) -> Self {
        self.filesystem.block_size = Some(bytes);
        self
    }

    /// Sets whether a filesystem is read even if multi-mount protection says that another host uses
    /// it. It cannot be written to then.
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub fn ignore_mmp(mut self, ignore: bool) -> Self {
        self.filesystem.ignore_mmp = ignore;
        self
    }

    /// Sets whether reads of a [`JournaledVolume`](crate::JournaledVolume) record times of access as a
    /// mount with `relatime` does: they do by default.
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub fn access_times(mut self, record: bool) -> Self {
        self.filesystem.access_times = record;
        self
    }

    /// Sets the size of the DMA arena in bytes, 64 MiB by default. It is locked in memory, which
    /// RLIMIT_MEMLOCK bounds for a PCI device: 8 MiB on most systems. A queue and its bounce
    /// memory take about 2 MiB.
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub fn arena_bytes(mut self, bytes: usize) -> Self {
        self.controller.arena_bytes = bytes;
        self
    }

    /// Sets the largest number of bytes of file data in memory for buffered I/O, half of the DMA
    /// arena by default. The memory is part of the arena.
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub fn page_cache_bytes(mut self, bytes: usize) -> Self {
        self.page_cache_bytes = Some(bytes);
        self
    }

    pub(crate) fn page_cache(&self) -> usize {
        self.page_cache_bytes.unwrap_or(self.controller.arena_bytes / 2)
    }

    /// Sets how many commands a queue has in flight at most, 128 by default.
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub fn queue_depth(mut self, commands: u16) -> Self {
        self.queue_depth = commands;
        self
    }

    /// Sets the longest time of an I/O command, for each attempt: 60 s by default, because network
    /// volumes may stall for longer than 30 s. A command that takes longer is aborted, if necessary
    /// by a reset of the controller.
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub fn timeout(mut self, time: Duration) -> Self {
        self.controller.io_timeout = time;
        self
    }

    /// Sets the longest time of an admin command, 10 s by default.
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub fn admin_timeout(mut self, time: Duration) -> Self {
        self.controller.admin_timeout = time;
        self
    }

    /// Adds a workaround for the controller, besides those that are known of its PCI ID.
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub fn quirk(mut self, quirk: Quirk) -> Self {
        self.controller.quirks = self.controller.quirks.with(quirk);
        self
    }

    /// Sets how many times a read or a write is repeated after an error that may pass: 5 by
    /// default. See [`nvio_driver::Options::retries`](crate::driver::Options::retries).
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub fn retries(mut self, times: u8) -> Self {
        self.controller.retries = times;
        self
    }

    /// Sets how waiting calls wait: by polling, or asleep until an interrupt. By default they poll
    /// a PCI device. A vfio-user server and the embedded controller need the processor themselves,
    /// so that waiting calls poll them for 50 microseconds and then sleep.
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = Some(wait);
        self
    }

    /// Lets `shutdown` shut the devices down that are opened with these options.
    ///
    /// See the [example](Shutdown#examples).
    #[must_use]
    pub fn shutdown(mut self, shutdown: &Shutdown) -> Self {
        self.shutdown = Some(shutdown.clone());
        self
    }

    /// Sets the logical block of an image in bytes, 512 by default or 4096: the unit of its
    /// partition table, and the block of the embedded controller.
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub fn image_block_bytes(mut self, bytes: u32) -> Self {
        self.image_block_bytes = bytes;
        self
    }

    /// Sets all options of the driver. [`writable`](nvio_driver::Options::writable) is ignored: use
    /// [`open_writable`](Self::open_writable).
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub fn controller_options(mut self, options: nvio_driver::Options) -> Self {
        self.wait = Some(options.wait);
        self.controller = options;
        self
    }

    /// Sets whether an image is served by the embedded NVMe controller, on threads of this process,
    /// as if it were a device. By default an image that is opened for reading is read with system
    /// calls; an image that is opened for writing always has the controller.
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub fn emulate(mut self, emulate: bool) -> Self {
        self.emulate = emulate;
        self
    }
}
