//! The state of an open file that its handles and its requests in flight share.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nvio_iomap::{FileRef, OpenFile, Report, WeakFileRef};

use crate::error::Error;
use crate::number::InodeNumber;

/// The state that all handles and requests of an open file share; see [`OpenFile`]. It exists once
/// for each open inode.
#[derive(Debug)]
pub struct OpenInode {
    all: Arc<OpenInodes>,
    number: InodeNumber,
    plain: Plain,
    /// As `plain`, except while the file has cached data. Direct reads look at these.
    page_end: AtomicU64,
    is_plain: AtomicBool,
    is_cached: AtomicBool,
    /// The file's cached data, while it may have some.
    pub(crate) cached: Mutex<Option<Arc<dyn CachedData>>>,
}

/// The cached data of a file.
pub(crate) trait CachedData: fmt::Debug + Send + Sync {
    /// Writes dirty data of a range to the device. Returns false if it would have to wait, with
    /// `nowait`.
    fn write_back(&self, range: Range<u64>, nowait: bool) -> Result<bool, Error>;

    /// Writes back and drops cached data of a range. Returns false if some of it stays.
    fn invalidate(&self, range: Range<u64>) -> bool;

    /// Returns true if the file has a handle.
    fn is_open(&self) -> bool;

    fn as_any(&self) -> &dyn Any;
}

/// The answers of an inode without cached data to [`Mapper::is_plain`](nvio_iomap::Mapper::is_plain)
/// and [`Mapper::page_end`](nvio_iomap::Mapper::page_end).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plain {
    pub(crate) is_plain: bool,
    pub(crate) page_end: u64,
}

impl OpenInode {
    /// Returns the inode number.
    ///
    /// See the [example](crate::File#examples).
    pub fn number(&self) -> InodeNumber {
        self.number
    }

    #[inline]
    pub(crate) fn page_end(&self) -> u64 {
        self.page_end.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.is_plain.load(Ordering::Relaxed)
    }

    /// Returns the cached data, if the file has any.
    pub(crate) fn cached_data(&self) -> Option<Arc<dyn CachedData>> {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.as_ref().is_some_and(|file| !file.is_open()) {
            *cached = None;
            self.set_cached(false);
        }
        cached.clone()
    }

    /// Sends direct reads by the path that asks for cached data, or no longer.
    pub(crate) fn set_cached(&self, is_cached: bool) {
        let Plain { is_plain, page_end } = self.plain;
        self.page_end.store(if is_cached { 0 } else { page_end }, Ordering::Release);
        self.is_plain.store(is_plain && !is_cached, Ordering::Release);
        self.is_cached.store(is_cached, Ordering::Release);
    }
}

impl OpenFile for OpenInode {
    type Error = Error;

    fn write_back(&self, pos: u64, length: u64, nowait: bool) -> Result<(), Error> {
        let Some(file) = self.cached_data() else { return Ok(()) };
        match file.write_back(pos..pos.saturating_add(length), nowait)? {
            true => Ok(()),
            false => Err(Error::WouldBlock { inode: self.number, pos }),
        }
    }

    fn invalidate(&self, pos: u64, length: u64) -> bool {
        self.cached_data().is_none_or(|file| file.invalidate(pos..pos.saturating_add(length)))
    }

    #[inline]
    fn is_cached(&self) -> bool {
        self.is_cached.load(Ordering::Relaxed)
    }

    fn report(&self, report: &Report<'_, Error>) {
        let Report { pos, bytes, write, error } = *report;
        let what = if write { "write" } else { "read" };
        if error.is_refusal() {
            log::debug!("inode {}: {what} of {bytes} bytes at {pos}: {error}", self.number);
            return;
        }
        log::warn!("inode {}: {what} of {bytes} bytes at {pos}: {error}", self.number);
        self.all.io_errors.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for OpenInode {
    fn drop(&mut self) {
        self.all.remove(self.number);
    }
}

/// The open inodes of a filesystem, by number. The references are weak.
#[derive(Debug, Default)]
pub(crate) struct OpenInodes {
    inodes: Mutex<HashMap<InodeNumber, WeakFileRef<OpenInode>>>,
    /// Number of failed reads and writes.
    io_errors: AtomicU64,
}

impl OpenInodes {
    /// Returns the shared state of inode `number`, and creates it if the inode is not open.
    pub(crate) fn open(self: &Arc<Self>, number: InodeNumber, plain: Plain) -> FileRef<OpenInode> {
        let mut open = self.lock();
        let known = open.get(&number).and_then(WeakFileRef::upgrade);
        let new = || OpenInode {
            all: Arc::clone(self),
            number,
            plain,
            page_end: AtomicU64::new(plain.page_end),
            is_plain: AtomicBool::new(plain.is_plain),
            is_cached: AtomicBool::new(false),
            cached: Mutex::default(),
        };
        // The state is created only if there is none, so none is dropped while the lock is held.
        let shared = known.unwrap_or_else(|| FileRef::new(new()));
        open.insert(number, shared.downgrade());
        shared
    }

    /// Returns true if inode `number` is open.
    pub(crate) fn is_open(&self, number: InodeNumber) -> bool {
        self.lock().get(&number).is_some_and(|inode| !inode.is_gone())
    }

    /// Returns the number of failed reads and writes.
    pub(crate) fn io_errors(&self) -> u64 {
        self.io_errors.load(Ordering::Relaxed)
    }

    /// Removes a dropped inode, unless it was opened again.
    fn remove(&self, number: InodeNumber) {
        let mut open = self.lock();
        if open.get(&number).is_some_and(WeakFileRef::is_gone) {
            open.remove(&number);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<InodeNumber, WeakFileRef<OpenInode>>> {
        self.inodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Image;

    #[test]
    fn handles_of_an_inode_share_it() {
        let mut image = Image::new();
        image.inode(12, |_| ());
        image.inode(13, |_| ());
        let fs = image.open();
        let [a, b] = [12, 13].map(|number| fs.inode(number).unwrap());
        let first = fs.file(&a).unwrap();
        let second = fs.file(&a).unwrap();
        let other = fs.file(&b).unwrap();
        let address = |file: &crate::file::File| std::ptr::from_ref(file.open_inode());
        assert_eq!(address(&first), address(&second));
        assert_ne!(address(&first), address(&other));
        assert_eq!(fs.open_inodes().lock().len(), 2);
        drop((first, other));
        assert_eq!(address(&second), address(&fs.file(&a).unwrap()));
        drop(second);
        assert!(fs.open_inodes().lock().is_empty());
    }
}
