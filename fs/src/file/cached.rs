//! Files whose data is cached, and the rules between their cache and direct I/O.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use nvio_iomap::{CachedFile, PageCache, WeakCachedFile};

use crate::error::Error;
use crate::file::open_inode::OpenInode;
use crate::file::writable::WritableFilesystem;
use crate::file::writable_file::WritableFile;
use crate::format::inode::Inode;

/// The cached data of an open inode, while it has a handle.
#[derive(Default)]
pub(crate) struct Cached(Mutex<Option<WeakCachedFile<WritableFile>>>);

impl fmt::Debug for Cached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cached(..)")
    }
}

impl OpenInode {
    /// Returns a handle of the cached data, if another exists.
    pub(crate) fn cached_file(&self) -> Option<CachedFile<WritableFile>> {
        let mut cached = self.cached.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = cached.as_ref()?.upgrade();
        if found.is_none() {
            *cached = None;
            self.set_cached(false);
        }
        found
    }
}

impl WritableFilesystem {
    /// Opens the regular file `inode` for buffered I/O in `cache`, whose queue is on the
    /// filesystem's device. Handles of one file share its cached data, and direct I/O on the file
    /// respects it: a read writes back the dirty data of its range first, and a write drops the
    /// cached data of its range.
    ///
    /// A write must be inside of the file, in written blocks. The last handle writes dirty data back
    /// when it is dropped.
    ///
    /// # Examples
    /// ```
    /// # let sample = nvio_testkit::image::Sample::new();
    /// # let image = sample.path();
    /// use std::fs::File;
    ///
    /// use nvio_iomap::{ImageQueue, PageCache};
    ///
    /// let device = File::options().read(true).write(true).open(&image)?;
    /// let cache = PageCache::new(ImageQueue::new(device.try_clone()?, 32)?, 1 << 20);
    /// let fs = nvio_ext4::Filesystem::open(device)?;
    /// let inode = fs.lookup("/table.db")?;
    /// let writable = fs.writable()?;
    /// let mut table = writable.cached_file(&inode, &cache)?;
    /// table.write_at(5000, &b"nvio"[..])?;
    /// table.sync_data()?;
    /// let mut text = [0; 6];
    /// assert_eq!(writable.cached_file(&inode, &cache)?.read_at(4999, &mut text)?, 6);
    /// assert_eq!(&text, b"\x07nvio\x07");
    /// assert!(table.write_at(99_999, &b"no"[..]).is_err(), "past the end");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`writable_file`](Self::writable_file); [`Error::OtherCache`] if the file is open in
    /// another cache.
    pub fn cached_file(
        &self,
        inode: &Inode,
        cache: &PageCache,
    ) -> Result<CachedFile<WritableFile>, Error> {
        let file = self.writable_file(inode)?;
        let shared = file.inode_shared().clone();
        let open = shared.state();
        // Before the lock: a handle that is dropped may write data back.
        let found = open.cached_file();
        if let Some(found) = found {
            return match found.is_in(cache) {
                true => Ok(found),
                false => Err(Error::OtherCache { inode: inode.number() }),
            };
        }
        let new = CachedFile::new(cache, file);
        let mut cached = open.cached.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(first) = cached.as_ref().and_then(WeakCachedFile::upgrade) {
            drop(cached);
            return Ok(first);
        }
        *cached = Some(new.downgrade());
        open.set_cached(true);
        Ok(new)
    }
}
