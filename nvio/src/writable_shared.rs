//! The state that a writable volume and its files share.

use std::sync::{Mutex, PoisonError};

use nvio_ext4::WritableFilesystem;
use nvio_iomap::{DiskQueue, PageCache, WritableDisk};

use crate::error::Error;
use crate::pool::Pool;
use crate::volume::Volume;

pub(crate) struct WritableShared {
    // Fields drop in order: queues before the volume, which owns the controller.
    pub(crate) filesystem: WritableFilesystem,
    pub(crate) writers: Pool<nvio_ext4::FileQueue<WritableDisk>>,
    /// Created for the first file that is read or written through it.
    pub(crate) cache: Mutex<Option<PageCache>>,
    /// Largest number of bytes of the cache.
    pub(crate) cache_bytes: usize,
    pub(crate) disk: WritableDisk,
    pub(crate) volume: Volume,
}

impl WritableShared {
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
