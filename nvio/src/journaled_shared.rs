//! The state that a journaled volume and its files share.

use std::sync::{Mutex, MutexGuard, PoisonError};

use nvio_ext4::{JournaledFilesystem, OpenInode};
use nvio_iomap::{DiskQueue, PageCache, Tag, WritableDisk};

use crate::device::Device;
use crate::error::Error;
use crate::pool::Pool;
use crate::pooled::Pooled;

pub(crate) struct JournaledShared {
    // Fields drop in order: queues and the filesystem before the device.
    pub(crate) queues: Pool<Pooled<DiskQueue<Tag<OpenInode>, WritableDisk>>>,
    /// Created for the first file that is read or written through it.
    pub(crate) cache: Mutex<Option<PageCache>>,
    /// Largest number of bytes of the cache.
    pub(crate) cache_bytes: usize,
    pub(crate) depth: u16,
    /// Held from the look at the end of a file to the write there.
    pub(crate) appends: Mutex<()>,
    pub(crate) filesystem: JournaledFilesystem,
    pub(crate) disk: WritableDisk,
    pub(crate) device: Device,
}

impl JournaledShared {
    /// Calls `f` with a queue of the pool, and the memory that it has.
    pub(crate) fn with_queue<R>(
        &self,
        f: impl FnOnce(&mut Pooled<DiskQueue<Tag<OpenInode>, WritableDisk>>) -> R,
    ) -> Result<R, Error> {
        let create = || Ok(Pooled::new(nvio_ext4::FileQueue::new(self.disk_queue()?)));
        self.queues.with(create, f)
    }

    /// Keeps other open files from appending.
    pub(crate) fn appending(&self) -> MutexGuard<'_, ()> {
        self.appends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn disk_queue<C>(&self) -> Result<DiskQueue<C, WritableDisk>, Error> {
        Ok(DiskQueue::new(self.device.controller(), &self.disk, self.depth)?)
    }

    /// Returns the cache of all files.
    pub(crate) fn cache(&self) -> Result<PageCache, Error> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cache) = &*cache {
            return Ok(cache.clone());
        }
        Ok(cache.insert(PageCache::new(self.disk_queue()?, self.cache_bytes)).clone())
    }

    /// Writes the dirty data of all files to the device, and makes it durable.
    pub(crate) fn sync_cache(&self) -> Result<(), Error> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner).clone();
        cache.map_or(Ok(()), |cache| Ok(cache.sync()?))
    }
}
