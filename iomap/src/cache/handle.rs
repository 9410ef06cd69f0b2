//! Handles of cached files.

use std::ops::Range;
use std::sync::Arc;

use super::file::FileCache;
use super::pool::PageCache;
use super::read_ahead::ReadAhead;
use super::write::WriteMode;
use crate::contract::mapper::{ErrorOf, Mapper};
use crate::memory::borrowed::Source;

/// A file that is read and written through a [`PageCache`].
pub struct CachedFile<M> {
    cache: Arc<FileCache<M>>,
    /// Number of the file's write errors that this handle has reported.
    reported: u64,
    ahead: ReadAhead,
}

impl<M: Mapper> CachedFile<M> {
    /// Opens a file that no other handle caches. Clones share the data.
    pub fn new(cache: &PageCache, file: M) -> Self {
        let cache = Arc::new(FileCache::new(&cache.0, file));
        Self { cache, reported: 0, ahead: ReadAhead::default() }
    }

    /// Returns the size of the file in bytes, with the data that is only in the cache.
    pub fn size(&self) -> u64 {
        self.cache.state.size()
    }

    /// Reads bytes from `pos` on, and returns their number: fewer only at the end of the file, or
    /// before a byte that cannot be read. A sequential reader's next bytes are read ahead.
    ///
    /// # Errors
    /// The error of the filesystem or of the device, if no byte was read.
    pub fn read_at(&mut self, pos: u64, out: &mut [u8]) -> Result<usize, ErrorOf<M>> {
        if let Some(range) = self.ahead.note(pos, out.len() as u64) {
            self.cache.read_ahead(range);
        }
        self.cache.read_at(pos, out)
    }

    /// Writes all of `source` to the cache from `pos` on, and returns the number of bytes. The
    /// device has them after [`sync_data`](Self::sync_data).
    ///
    /// # Errors
    /// The error of the filesystem or of the device, if no byte was written.
    pub fn write_at(&mut self, pos: u64, mut source: impl Source) -> Result<usize, ErrorOf<M>> {
        self.cache.write_at(pos, &mut source, WriteMode::default())
    }

    /// Writes as [`write_at`](Self::write_at) does, and begins to write the blocks to the device
    /// before it returns; with `durable`, waits until they are durable.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at), and the error of the device with `durable`.
    pub fn write_through_at(
        &mut self,
        pos: u64,
        mut source: impl Source,
        durable: bool,
    ) -> Result<usize, ErrorOf<M>> {
        let mode = WriteMode { through: true, durable, nofault: false };
        self.cache.write_at(pos, &mut source, mode)
    }

    /// Zeroes the bytes of `range` that are inside the file.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    pub fn zero_range(&mut self, range: Range<u64>) -> Result<(), ErrorOf<M>> {
        self.cache.zero_range(range)
    }

    /// Drops the cached data of `range`, after dirty data was written to the device. Returns false
    /// if some of it stays.
    pub fn invalidate(&self, range: Range<u64>) -> bool {
        self.cache.invalidate(range)
    }

    /// Writes dirty data of `range` to the device. With `nowait`, returns false instead of waiting.
    ///
    /// # Errors
    /// The error of the filesystem or of the device.
    pub fn write_back(&self, range: Range<u64>, nowait: bool) -> Result<bool, ErrorOf<M>> {
        self.cache.clean_range(range, nowait)
    }

    /// Marks the file's mappings as out of date: the filesystem is about to move or free blocks.
    pub fn mappings_changed(&self) {
        self.cache.state.mappings_changed();
    }

    /// Writes dirty data to the device, and makes it durable.
    ///
    /// # Errors
    /// The error of this or an earlier write, once for each handle.
    pub fn sync_data(&mut self) -> Result<(), ErrorOf<M>> {
        let written = self.cache.write_back(0..u64::MAX, false);
        let written = written.and(self.cache.wait_for_writes());
        let errors = self.cache.state.errors();
        let reported = std::mem::replace(&mut self.reported, errors.count);
        if let Some(error) = errors.error().filter(|_| errors.count > reported) {
            return Err(error.into());
        }
        written?;
        Ok(self.cache.pool.flush()?)
    }
}

impl<M> Clone for CachedFile<M> {
    fn clone(&self) -> Self {
        let reported = self.cache.state.errors().count;
        Self { cache: Arc::clone(&self.cache), reported, ahead: ReadAhead::default() }
    }
}
