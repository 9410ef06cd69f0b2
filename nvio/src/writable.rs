//! A filesystem whose files may be overwritten.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use nvio_ext4::WritableFilesystem;
use nvio_iomap::{Cursor, DiskQueue, IoArgs, IoFlags, WritableDisk};

use crate::error::Error;
use crate::location::Location;
use crate::options::OpenOptions;
use crate::pool::Pool;
use crate::queue::{Queue, WritableQueue};
use crate::shared::Shared;
use crate::volume::Volume;

/// A [`Volume`] whose files may be overwritten. Cheap to clone; threads share it.
///
/// Bytes that a file has are replaced, and nothing else: files do not grow, no block is allocated,
/// and no metadata changes, also not the time of modification. No other program may have the
/// filesystem mounted.
///
/// # Examples
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// # let image = sample.path();
/// let volume = nvio::WritableVolume::open(&image)?;
/// let mut file = volume.open_writable("/hello.txt")?;
/// file.write_at(7, b"there")?;
/// file.write_durably_at(0, b"J")?;
/// let mut text = [0; 12];
/// assert_eq!(file.read_at(0, &mut text)?, 12);
/// assert_eq!(&text, b"Jello, there");
/// assert!(file.write_at(12, b"!").is_err(), "the file does not grow");
///
/// // For a thread that polls.
/// let mut queue = volume.writable_queue()?;
/// let mut page = queue.alloc(4096)?;
/// page.fill(8);
/// let mut table = volume.open_writable("/table.db")?;
/// table.submit_write(&mut queue, 4096, page, 0)?;
/// queue.wait(|done| assert_eq!(done.result.unwrap(), 4096))?;
/// assert_eq!(volume.read("/table.db")?[4095..4097], [7, 8]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct WritableVolume {
    inner: Arc<Inner>,
}

struct Inner {
    // Fields drop in order: queues before the volume, which owns the controller.
    filesystem: WritableFilesystem,
    writers: Pool<nvio_ext4::FileQueue<WritableDisk>>,
    disk: WritableDisk,
    volume: Volume,
}

impl Inner {
    fn queue(&self) -> Result<nvio_ext4::FileQueue<WritableDisk>, Error> {
        let volume = self.volume.shared();
        let device = volume.device().ok_or(Error::NoController)?;
        let queue = DiskQueue::new(device.controller(), &self.disk, volume.depth())?;
        Ok(nvio_ext4::FileQueue::new(queue))
    }
}

impl fmt::Debug for WritableVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let filesystem = &self.inner.filesystem;
        f.debug_struct("WritableVolume").field("filesystem", filesystem).finish_non_exhaustive()
    }
}

impl Deref for WritableVolume {
    type Target = Volume;

    fn deref(&self) -> &Volume {
        &self.inner.volume
    }
}

impl WritableVolume {
    /// Opens the filesystem at `location` with the default [`OpenOptions`] so that its files can
    /// be overwritten.
    ///
    /// # Errors
    /// As [`OpenOptions::open_writable`].
    pub fn open(location: impl Into<Location>) -> Result<Self, Error> {
        OpenOptions::new().open_writable(location)
    }

    pub(crate) fn new(
        volume: Volume,
        disk: WritableDisk,
        location: &Location,
    ) -> Result<Self, Error> {
        let refused = |error| Error::NotWritable { device: location.device.to_string(), error };
        let filesystem = volume.filesystem().writable().map_err(refused)?;
        Ok(Self { inner: Arc::new(Inner { filesystem, writers: Pool::new(), disk, volume }) })
    }

    /// Opens the regular file at `path` for reading and overwriting.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Path`] if there is no such file, it is damaged, or it may not be written to: an
    /// immutable file, for instance.
    pub fn open_writable(&self, path: impl AsRef<[u8]>) -> Result<WritableFile, Error> {
        let path = path.as_ref();
        let inode = self.metadata(path)?;
        let file = self.inner.filesystem.writable_file(&inode).map_err(Error::path(path))?;
        Ok(WritableFile { file, volume: Arc::clone(&self.inner) })
    }

    /// Creates a queue for reading and overwriting, for a thread that polls.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// If the controller has no more queues, or the arena no room.
    pub fn writable_queue(&self) -> Result<WritableQueue, Error> {
        Ok(Queue::new(self.inner.queue()?, Arc::clone(self.volume_inner())))
    }

    fn volume_inner(&self) -> &Arc<Shared> {
        self.inner.volume.shared()
    }
}

/// An open file that may be overwritten; see [`WritableVolume`].
///
/// The methods of [`nvio_ext4::WritableFile`] that take a [`WritableQueue`] are available, too.
pub struct WritableFile {
    // Dropped before the device that it is on.
    file: nvio_ext4::WritableFile,
    volume: Arc<Inner>,
}

impl fmt::Debug for WritableFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.fmt(f)
    }
}

impl Deref for WritableFile {
    type Target = nvio_ext4::WritableFile;

    fn deref(&self) -> &Self::Target {
        &self.file
    }
}

impl DerefMut for WritableFile {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.file
    }
}

impl WritableFile {
    /// Reads at byte `pos` into `out`, waits, and returns the number of bytes: less than
    /// `out.len()` only at the end of the file.
    ///
    /// See the [example](WritableVolume#examples).
    ///
    /// # Errors
    /// As [`File::read_at`](crate::File::read_at).
    pub fn read_at(&mut self, pos: u64, out: &mut [u8]) -> Result<usize, Error> {
        let Self { file, volume } = self;
        Ok(volume.writers.with(|| volume.queue(), |queue| file.read_at(queue, pos, out))??)
    }

    /// Overwrites the bytes from `pos` on with `data`, and waits until the device has them: in its
    /// volatile cache, if it has one. Neither position nor length need be aligned.
    ///
    /// See the [example](WritableVolume#examples).
    ///
    /// # Errors
    /// [`Error::File`]: a range that is not inside of the file, has a hole, or was never written is
    /// refused as a whole. After a failure of the device, it is not known which of the bytes
    /// were written.
    pub fn write_at(&mut self, pos: u64, data: &[u8]) -> Result<(), Error> {
        self.write(IoArgs::at(pos), data)
    }

    /// Overwrites as [`write_at`](Self::write_at) does, and waits until the data is durable.
    ///
    /// See the [example](WritableVolume#examples).
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    pub fn write_durably_at(&mut self, pos: u64, data: &[u8]) -> Result<(), Error> {
        self.write(IoArgs::at(pos).flags(IoFlags::DSYNC), data)
    }

    fn write(&mut self, io: IoArgs, data: &[u8]) -> Result<(), Error> {
        let Self { file, volume } = self;
        let write = |queue: &mut _| file.write_from(queue, io, &mut Cursor::new(data));
        volume.writers.with(|| volume.queue(), write)??;
        Ok(())
    }
}
