//! Handles of cached files.

use std::sync::Arc;

use super::file::FileCache;
use super::pool::PageCache;
use super::state::WriteErrors;
use crate::contract::mapper::{ErrorOf, Mapper};
use crate::error::Error;
use crate::memory::borrowed::Source;

/// A file that is read and written through a [`PageCache`].
pub struct CachedFile<M> {
    cache: Arc<FileCache<M>>,
    /// Number of the file's write errors that this handle has reported.
    reported: u64,
}

impl<M: Mapper> CachedFile<M> {
    /// Opens a file that no other handle caches.
    pub fn new(cache: &PageCache, file: M) -> Self {
        Self { cache: Arc::new(FileCache::new(&cache.0, file)), reported: 0 }
    }

    /// Returns the size of the file in bytes, with the data that is only in the cache.
    pub fn size(&self) -> u64 {
        self.cache.state.size()
    }

    /// Reads bytes from `pos` on, and returns their number: fewer only at the end of the file, or
    /// before a byte that cannot be read.
    ///
    /// # Errors
    /// The error of the filesystem or of the device, if no byte was read.
    pub fn read_at(&self, pos: u64, out: &mut [u8]) -> Result<usize, ErrorOf<M>> {
        self.cache.read_at(pos, out)
    }

    /// Writes all of `source` from `pos` on, and returns the number of bytes.
    ///
    /// # Errors
    /// The error of the filesystem or of the device, if no byte was written.
    pub fn write_at(&self, pos: u64, mut source: impl Source) -> Result<usize, ErrorOf<M>> {
        self.cache.write_at(pos, &mut source, false)
    }

    /// Writes dirty data to the device, and makes it durable.
    ///
    /// # Errors
    /// The error of this or an earlier write, once for each handle.
    pub fn sync_data(&mut self) -> Result<(), ErrorOf<M>> {
        let written = self.cache.write_back(0..u64::MAX);
        self.cache.wait_for_writes();
        let WriteErrors { count, last } = self.cache.state.errors();
        if count > std::mem::replace(&mut self.reported, count)
            && let Some((pos, length, error)) = last
        {
            return Err(Error::Bio { what: "write", pos, length, error }.into());
        }
        written?;
        Ok(self.cache.pool.flush()?)
    }
}

impl<M> Clone for CachedFile<M> {
    fn clone(&self) -> Self {
        Self { cache: Arc::clone(&self.cache), reported: self.cache.state.errors().count }
    }
}
