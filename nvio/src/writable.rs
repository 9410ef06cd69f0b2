//! A filesystem whose files may be overwritten.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex};

use nvio_iomap::WritableDisk;

use crate::cached_queue::CachedQueue;
use crate::error::Error;
use crate::location::Location;
use crate::options::OpenOptions;
use crate::pool::Pool;
use crate::queue::{Queue, WritableQueue};
use crate::shared::Shared;
use crate::volume::Volume;
use crate::writable_file::WritableFile;
use crate::writable_shared::WritableShared;

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
    inner: Arc<WritableShared>,
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
        let inner = WritableShared { filesystem, writers, cache, cache_bytes, disk, volume };
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

    /// Creates a queue for at most `in_flight_max` buffered requests at a time.
    ///
    /// See the [example](CachedQueue#examples).
    pub fn cached_queue(&self, in_flight_max: usize) -> CachedQueue {
        CachedQueue::new(in_flight_max, Arc::clone(&self.inner))
    }

    fn volume_inner(&self) -> &Arc<Shared> {
        self.inner.volume.shared()
    }
}
