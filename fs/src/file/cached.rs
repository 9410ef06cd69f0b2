//! Files whose data is cached, and the rules between their cache and direct I/O.

use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, PoisonError};

use nvio_iomap::{CachedFile, Mapper, PageCache, WeakCachedFile};

use crate::error::Error;
use crate::file::open_inode::{CachedData, Change, OpenInode};
use crate::file::writable::WritableFilesystem;
use crate::file::writable_file::WritableFile;
use crate::format::inode::Inode;
use crate::number::as_u64;

/// The cached data of an open inode, while it has a handle.
struct Cached<M: Mapper>(WeakCachedFile<M>);

impl<M: Mapper> fmt::Debug for Cached<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cached(..)")
    }
}

impl<M> CachedData for Cached<M>
where
    M: Mapper<OpenFile = OpenInode> + Send + 'static,
{
    fn write_back(&self, range: Range<u64>, nowait: bool) -> Result<bool, Error> {
        self.0.upgrade().map_or(Ok(true), |file| file.write_back(range, nowait))
    }

    fn invalidate(&self, range: Range<u64>) -> bool {
        self.0.upgrade().is_none_or(|file| file.invalidate(range))
    }

    fn size(&self) -> u64 {
        self.0.upgrade().map_or(0, |file| file.size())
    }

    fn is_open(&self) -> bool {
        !self.0.is_gone()
    }

    fn write_at(&self, pos: u64, data: &[u8]) -> Result<(), Error> {
        let Some(mut file) = self.0.upgrade() else { return Ok(()) };
        let mut done = 0;
        while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
            let at = pos.saturating_add(as_u64(done));
            done = done.saturating_add(file.write_at(at, rest)?);
        }
        file.write_back(pos..pos.saturating_add(as_u64(data.len())), false).map(drop)
    }

    fn truncate(&self, size: u64, change: Change<'_>) -> Result<(), Error> {
        match self.0.upgrade() {
            Some(mut file) => file.truncate(size, change),
            None => change(),
        }
    }

    fn zero_tail(&self, pos: u64) -> Result<(), Error> {
        self.0.upgrade().map_or(Ok(()), |mut file| file.zero_tail(pos))
    }

    fn raise_size(&self, size: u64) {
        if let Some(file) = self.0.upgrade() {
            file.raise_size(size);
        }
    }

    fn grow(&self, size: u64, change: Change<'_>) -> Result<(), Error> {
        match self.0.upgrade() {
            Some(mut file) => file.grow(size, change),
            None => change(),
        }
    }

    fn punch_hole(&self, range: Range<u64>, change: Change<'_>) -> Result<(), Error> {
        match self.0.upgrade() {
            Some(mut file) => file.punch_hole(range, change),
            None => change(),
        }
    }

    fn move_blocks(&self, from: u64, size: u64, change: Change<'_>) -> Result<(), Error> {
        match self.0.upgrade() {
            Some(mut file) => file.move_blocks(from, size, change),
            None => change(),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Returns another handle of cached data.
fn handle<M: Mapper + 'static>(data: &dyn CachedData) -> Option<CachedFile<M>> {
    data.as_any().downcast_ref::<Cached<M>>()?.0.upgrade()
}

/// Returns a handle of the cached data of `file`, which is opened in `cache` if it is not yet.
pub(crate) fn open<M>(file: M, cache: &PageCache) -> Result<CachedFile<M>, Error>
where
    M: Mapper<OpenFile = OpenInode> + Send + 'static,
{
    let shared = file.open_file().clone();
    let open = shared.state();
    let found = open.cached_data();
    if let Some(found) = found.and_then(|data| handle(&*data)) {
        return match found.is_in(cache) {
            true => Ok(found),
            false => Err(Error::OtherCache { inode: open.number() }),
        };
    }
    let new = CachedFile::new(cache, file);
    let mut cached = open.cached.lock().unwrap_or_else(PoisonError::into_inner);
    // Another thread may have opened it meanwhile. A handle that is dropped may write data back, so
    // none is dropped under the lock.
    if let Some(first) = cached.as_deref().and_then(handle) {
        drop(cached);
        return Ok(first);
    }
    *cached = Some(Arc::new(Cached(new.downgrade())));
    open.set_cached(true);
    Ok(new)
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
    ///
    /// let other = PageCache::new(ImageQueue::new(vec![0; 1 << 20], 32)?, 1 << 20);
    /// assert!(writable.cached_file(&inode, &other).is_err(), "another device");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`writable_file`](Self::writable_file); [`Error::OtherDevice`] if the cache is on another
    /// device; [`Error::OtherCache`] if the file is open in another cache.
    pub fn cached_file(
        &self,
        inode: &Inode,
        cache: &PageCache,
    ) -> Result<CachedFile<WritableFile>, Error> {
        let file = self.writable_file(inode)?;
        file.check_device(cache.device_size())?;
        open(file, cache)
    }
}
