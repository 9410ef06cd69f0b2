//! A filesystem whose files may be overwritten.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use nvio_ext4::WritableFilesystem;
use nvio_iomap::{DiskQueue, PageCache, WritableDisk};

use crate::error::Error;
use crate::location::Location;
use crate::options::OpenOptions;
use crate::pool::Pool;
use crate::queue::{Queue, WritableQueue};
use crate::shared::Shared;
use crate::volume::Volume;
use crate::writable_file::WritableFile;

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

pub(crate) struct Inner {
    // Fields drop in order: queues before the volume, which owns the controller.
    pub(crate) filesystem: WritableFilesystem,
    pub(crate) writers: Pool<nvio_ext4::FileQueue<WritableDisk>>,
    /// Created for the first file that is read or written through it.
    cache: Mutex<Option<PageCache>>,
    cache_bytes: usize,
    disk: WritableDisk,
    volume: Volume,
}

impl Inner {
    pub(crate) fn queue(&self) -> Result<nvio_ext4::FileQueue<WritableDisk>, Error> {
        let volume = self.volume.shared();
        let device = volume.device().ok_or(Error::NoController)?;
        let queue = DiskQueue::new(device.controller(), &self.disk, volume.depth())?;
        Ok(nvio_ext4::FileQueue::new(queue))
    }

    /// Returns the cache of all files.
    pub(crate) fn cache(&self) -> Result<PageCache, Error> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cache) = &*cache {
            return Ok(cache.clone());
        }
        let volume = self.volume.shared();
        let device = volume.device().ok_or(Error::NoController)?;
        let queue = DiskQueue::new(device.controller(), &self.disk, volume.depth())?;
        Ok(cache.insert(PageCache::new(queue, self.cache_bytes)).clone())
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
        cache_bytes: usize,
    ) -> Result<Self, Error> {
        let refused = |error| Error::NotWritable { device: location.device.to_string(), error };
        let filesystem = volume.filesystem().writable().map_err(refused)?;
        let (writers, cache) = (Pool::new(), Mutex::default());
        let inner = Inner { filesystem, writers, cache, cache_bytes, disk, volume };
        Ok(Self { inner: Arc::new(inner) })
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
        Ok(WritableFile::new(file, Arc::clone(&self.inner)))
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
