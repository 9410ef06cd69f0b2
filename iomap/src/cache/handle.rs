//! Handles of cached files.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::AcqRel};
use std::sync::{Arc, Weak};

use super::file::FileCache;
use super::folio::Folio;
use super::pool::PageCache;
use super::read_ahead::ReadAhead;
use super::wait::block_on;
use super::write::InodeLock;
use crate::contract::io_args::{IoArgs, IoFlags};
use crate::contract::mapper::{ErrorOf, Mapper};
use crate::error::Error;
use crate::memory::borrowed::Source;

/// Flags of a buffered write.
pub(super) const BUFFERED: IoFlags =
    IoFlags::WRITETHROUGH.union(IoFlags::DSYNC).union(IoFlags::NOFAULT);

/// A file that is read and written through a [`PageCache`].
///
/// Clones share the cached data, and each of them reports an error of a write once. The last handle
/// writes dirty data back when it is dropped, and logs errors; [`sync_data`](Self::sync_data) returns
/// them.
///
/// # Examples
/// ```
/// # use nvio_iomap::{Error, FileRef, Mapper, Mapping, Op, OpenFile};
/// # struct NoState;
/// # impl OpenFile for NoState {
/// #     type Error = Error;
/// # }
/// # struct OneExtent(FileRef<NoState>);
/// # impl Mapper for OneExtent {
/// #     type OpenFile = NoState;
/// #     fn open_file(&self) -> &FileRef<NoState> {
/// #         &self.0
/// #     }
/// #     fn size(&self) -> u64 {
/// #         1 << 20
/// #     }
/// #     fn block_size(&self) -> u32 {
/// #         4096
/// #     }
/// #     fn begin(&mut self, _pos: u64, _length: u64, _op: Op) -> Result<Mapping, Error> {
/// #         Ok(Mapping::mapped(0, 1 << 20, 0))
/// #     }
/// # }
/// use nvio_iomap::{CachedFile, ImageQueue, IoArgs, IoFlags, PageCache};
///
/// // A cache of 256 KiB for the files of a device.
/// let cache = PageCache::new(ImageQueue::new(vec![0; 1 << 20], 32)?, 256 << 10);
/// assert_eq!(cache.device_size(), 1 << 20);
/// let mut file = CachedFile::new(&cache, OneExtent(FileRef::new(NoState)));
/// assert!(file.is_in(&cache) && file.size() == 1 << 20);
///
/// // Copies into the cache, and writes later.
/// file.write_at(5000, &b"hello"[..])?;
/// assert_eq!(cache.usage().1, 4096, "a dirty block");
/// file.sync_data()?;
/// assert_eq!(cache.usage().1, 0);
///
/// // Copies into the cache, and writes at once; durable when the call returns.
/// let durably = IoFlags::WRITETHROUGH | IoFlags::DSYNC;
/// file.write_from(IoArgs::at(5005).flags(durably), &b", world"[..])?;
/// let mut text = [0; 12];
/// assert_eq!(file.clone().read_at(5000, &mut text)?, 12);
/// assert_eq!(&text, b"hello, world");
///
/// file.zero_range(5000..5005)?;
/// file.truncate(9000, || Ok(()))?;
/// assert_eq!(file.size(), 9000);
/// assert!(file.write_back(0..8192, false)?);
/// // Changes of the filesystem under the cached data. This one has nothing to do.
/// file.zero_tail(2 << 20)?;
/// file.raise_size(1 << 20);
/// file.grow(2 << 20, || Ok(()))?;
/// file.punch_hole(4096..8192, || Ok(()))?;
/// file.move_blocks(8192, 1 << 20, || Ok(()))?;
/// file.sync_all()?;
/// cache.sync()?;
/// assert!(file.invalidate(0..u64::MAX), "nothing is cached now");
/// file.mappings_changed();
/// let weak = file.downgrade();
/// assert!(weak.upgrade().is_some());
/// drop(file);
/// assert!(weak.is_gone() && weak.upgrade().is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct CachedFile<M: Mapper> {
    pub(super) cache: Arc<FileCache<M>>,
    /// Number of the file's write errors that this handle has reported.
    pub(super) reported: Arc<AtomicU64>,
    ahead: ReadAhead,
    /// Folios that were used last, so that they need not be looked up.
    recent: Recent,
}

impl<M: Mapper> CachedFile<M> {
    /// Opens a file that no other handle caches. Clones share the data.
    ///
    /// See the [example](Self#examples).
    pub fn new(cache: &PageCache, file: M) -> Self
    where
        M: Send + 'static,
    {
        let file = Arc::new(FileCache::new(&cache.0, file));
        let weak = Arc::downgrade(&file);
        cache.0.add_file(weak);
        Self::of(file)
    }

    /// Returns the data that all handles share.
    #[cfg(test)]
    pub(super) fn cache_for_tests(&self) -> &FileCache<M> {
        &self.cache
    }

    fn of(cache: Arc<FileCache<M>>) -> Self {
        cache.handles.fetch_add(1, AcqRel);
        let reported = Arc::new(AtomicU64::new(cache.state.errors().count));
        let ahead = ReadAhead::new(cache.pool.accounts.limit());
        Self { cache, reported, ahead, recent: Recent::default() }
    }

    /// Returns a reference that does not keep the file open.
    ///
    /// See the [example](Self#examples).
    pub fn downgrade(&self) -> WeakCachedFile<M> {
        WeakCachedFile(Arc::downgrade(&self.cache))
    }

    /// Returns true if the data is in `cache`.
    ///
    /// See the [example](Self#examples).
    pub fn is_in(&self, cache: &PageCache) -> bool {
        Arc::ptr_eq(&self.cache.pool, &cache.0)
    }

    /// Returns the size of the file in bytes, with the data that is only in the cache.
    ///
    /// See the [example](Self#examples).
    pub fn size(&self) -> u64 {
        self.cache.state.size()
    }

    /// Reads bytes from `pos` on, and returns their number: fewer only at the end of the file, or
    /// before a byte that cannot be read. A sequential reader's next bytes are read ahead.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// The error of the filesystem or of the device, if no byte was read.
    #[inline]
    pub fn read_at(&mut self, pos: u64, out: &mut [u8]) -> Result<usize, ErrorOf<M>> {
        if let Some(range) = self.note(pos, out.len()) {
            block_on(self.cache.read_ahead(range));
        }
        let recent = self.recent.at(pos);
        if let Some(folio) = recent
            && self.cache.read_again(folio, pos, out)
        {
            return Ok(out.len());
        }
        block_on(self.cache.read_at(pos, out, recent))
    }

    /// Notes a read of `length` bytes. Returns a range to read ahead.
    #[inline]
    pub(super) fn note(&mut self, pos: u64, length: usize) -> Option<Range<u64>> {
        self.ahead.note(pos, length as u64)
    }

    /// Reads as [`read_at`](Self::read_at) does if one folio has all of the bytes. Returns false if
    /// not.
    pub(super) fn read_at_once(&mut self, pos: u64, out: &mut [u8]) -> bool {
        let folio = self.cache.folio_at(pos, self.recent.at(pos));
        folio.is_some_and(|folio| self.cache.read_again(folio, pos, out))
    }

    /// Writes all of `source` to the cache from `pos` on, and returns the number of bytes. The
    /// device has them after [`sync_data`](Self::sync_data).
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`write_from`](Self::write_from).
    pub fn write_at(&mut self, pos: u64, source: impl Source) -> Result<usize, ErrorOf<M>> {
        self.write_from(IoArgs::at(pos), source)
    }

    /// Writes all of `source` to the cache from `io.pos` on, and returns the number of bytes: fewer
    /// before an error.
    ///
    /// With [`IoFlags::WRITETHROUGH`], the blocks of the write, and no others, are on their way to the
    /// device when the call returns. With [`IoFlags::DSYNC`], they are durable.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// The error of the filesystem, or of the device, if no byte was written; with
    /// [`IoFlags::DSYNC`], any error of the device. [`Error::Flags`] for flags other than these and
    /// [`IoFlags::NOFAULT`].
    pub fn write_from(&mut self, io: IoArgs, mut source: impl Source) -> Result<usize, ErrorOf<M>> {
        let refused = io.flags.difference(BUFFERED);
        if !refused.is_empty() {
            return Err(Error::Flags(refused).into());
        }
        let recent = self.recent.at(io.pos);
        if io.flags.is_empty()
            && let Some(folio) = self.cache.folio_at(io.pos, recent)
            && let written @ 1.. = self.cache.write_again(folio, io.pos, &mut source)
        {
            return Ok(written);
        }
        let _inode = self.cache.inode.lock();
        block_on(self.cache.write_at(io.pos, &mut source, io.flags, InodeLock::Caller, recent))
    }

    /// Zeroes the bytes of `range` that are inside the file.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    pub fn zero_range(&mut self, range: Range<u64>) -> Result<(), ErrorOf<M>> {
        let _inode = self.cache.inode.lock();
        block_on(self.cache.zero_range(range))
    }

    /// Sets the size of the file in the cache, and then calls `change`, in which the filesystem sets it
    /// and frees blocks. Bytes past a smaller size are dropped, and the rest of its last block is
    /// zeroed; nothing is in flight past it when `change` is called. Nobody else writes to the cached file
    /// or changes its size meanwhile.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at), and the size is the old one then. The error of `change`: the
    /// cached file has the new size then, and what was past it is gone.
    pub fn truncate(
        &mut self,
        size: u64,
        change: impl FnOnce() -> Result<(), ErrorOf<M>>,
    ) -> Result<(), ErrorOf<M>> {
        let _inode = self.cache.inode.lock();
        let _resizing = self.cache.state.resizing();
        block_on(self.cache.truncate(size))?;
        change()
    }

    /// Zeroes what is after the end of the file in its last block, up to `pos`, and makes that durable: the
    /// filesystem is about to extend the file past `pos` by a direct write.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    pub fn zero_tail(&mut self, pos: u64) -> Result<(), ErrorOf<M>> {
        let _inode = self.cache.inode.lock();
        block_on(self.cache.zero_tail(pos, InodeLock::Caller))
    }

    /// Notes that a direct write has extended the file to `size`.
    ///
    /// See the [example](Self#examples).
    pub fn raise_size(&self, size: u64) {
        self.cache.state.raise_size(size);
    }

    /// Calls `change`, in which the filesystem increases the size of the file to `size`, unless the cached
    /// file is longer. Nobody else writes to the cached file meanwhile. What was after the end in its
    /// last block is zeroed before.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at), and the error of `change`: the size is the old one then.
    pub fn grow(
        &mut self,
        size: u64,
        change: impl FnOnce() -> Result<(), ErrorOf<M>>,
    ) -> Result<(), ErrorOf<M>> {
        let _inode = self.cache.inode.lock();
        let _resizing = self.cache.state.resizing();
        block_on(self.cache.zero_tail(size, InodeLock::Caller))?;
        change()?;
        self.cache.state.raise_size(size);
        Ok(())
    }

    /// Zeroes the bytes of `range`, and then calls `change`, in which the filesystem frees the blocks that
    /// are inside of it as a whole, or replaces them. Nobody else writes to the cached file meanwhile,
    /// and nothing of these blocks is in flight when `change` is called, nor cached afterwards.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at). The error of `change`: dirty data of the blocks is gone then.
    pub fn punch_hole(
        &mut self,
        range: Range<u64>,
        change: impl FnOnce() -> Result<(), ErrorOf<M>>,
    ) -> Result<(), ErrorOf<M>> {
        let _inode = self.cache.inode.lock();
        let _resizing = self.cache.state.resizing();
        block_on(self.cache.punch_hole(range, change))
    }

    /// Writes dirty data from byte `from` on to the device, drops the cached data there, and calls
    /// `change`, in which the filesystem moves blocks and sets the size to `size`. Nobody else
    /// writes to the cached file meanwhile.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`write_back`](Self::write_back), and the error of `change`.
    pub fn move_blocks(
        &mut self,
        from: u64,
        size: u64,
        change: impl FnOnce() -> Result<(), ErrorOf<M>>,
    ) -> Result<(), ErrorOf<M>> {
        let _inode = self.cache.inode.lock();
        let _resizing = self.cache.state.resizing();
        block_on(self.cache.move_blocks(from, size, change))
    }

    /// Drops the cached data of `range`, after dirty data was written to the device. Returns false
    /// if some of it stays.
    ///
    /// See the [example](Self#examples).
    pub fn invalidate(&self, range: Range<u64>) -> bool {
        block_on(self.cache.invalidate(range))
    }

    /// Writes dirty data of `range` to the device. With `nowait`, returns false instead of waiting.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// The error of the filesystem or of the device.
    pub fn write_back(&self, range: Range<u64>, nowait: bool) -> Result<bool, ErrorOf<M>> {
        match nowait {
            true => Ok(self.cache.is_clean(&range)),
            false => block_on(self.cache.clean_range(range)).map(|()| true),
        }
    }

    /// Marks the file's mappings as out of date: the filesystem is about to move or free blocks.
    ///
    /// See the [example](Self#examples).
    pub fn mappings_changed(&self) {
        self.cache.state.mappings_changed();
    }

    /// Writes dirty data to the device, and makes it durable.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// The error of this or an earlier write, once for each handle.
    pub fn sync_data(&mut self) -> Result<(), ErrorOf<M>> {
        block_on(self.cache.sync(&self.reported, true))
    }

    /// Writes dirty data to the device, and makes it durable together with all changes that the
    /// filesystem made of the file, also of its times.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`sync_data`](Self::sync_data).
    pub fn sync_all(&mut self) -> Result<(), ErrorOf<M>> {
        block_on(self.cache.sync(&self.reported, false))
    }
}

impl<M: Mapper> Clone for CachedFile<M> {
    fn clone(&self) -> Self {
        Self::of(Arc::clone(&self.cache))
    }
}

impl<M: Mapper> Drop for CachedFile<M> {
    fn drop(&mut self) {
        // Before the last reference to the data is gone, so that a file that is opened meanwhile finds
        // it.
        if self.cache.handles.fetch_sub(1, AcqRel) == 1 {
            if let Err(error) = block_on(self.cache.clean_range(0..u64::MAX)) {
                log::error!("a file was closed with data that could not be written: {error}");
            }
            self.cache.leave();
        }
    }
}

/// The folio of each 2 MiB of the file that was used last, for sixteen such ranges.
#[derive(Default)]
struct Recent([Option<Arc<Folio>>; 16]);

impl Recent {
    /// Returns the place for the folio at `pos`. It may have another.
    #[inline(always)]
    fn at(&mut self, pos: u64) -> &mut Option<Arc<Folio>> {
        &mut self.0[(pos >> 21) as usize % 16]
    }
}

/// A reference that finds a [`CachedFile`] while it has handles.
///
/// See the [example](CachedFile#examples).
pub struct WeakCachedFile<M: Mapper>(Weak<FileCache<M>>);

impl<M: Mapper> WeakCachedFile<M> {
    /// Returns another handle of the file, if it has one.
    ///
    /// See the [example](CachedFile#examples).
    pub fn upgrade(&self) -> Option<CachedFile<M>> {
        self.0.upgrade().map(CachedFile::of)
    }

    /// Returns true if the file has no handle.
    ///
    /// See the [example](CachedFile#examples).
    pub fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }
}
