//! The state that a volume, its files and its queues share.

use std::fmt;

use nvio_ext4::{BlockSource, Filesystem, OpenInode};
use nvio_iomap::Tag;

use crate::device::Device;
use crate::error::Error;
use crate::location::Location;
use crate::options::OpenOptions;
use crate::pool::Pool;
use crate::pooled::Pooled;
use crate::storage::Storage;
use crate::volume_queue::VolumeQueue;

/// The queue of files that the blocking calls of a volume use.
pub(crate) type ReadQueue = nvio_iomap::FileQueue<VolumeQueue<Tag<OpenInode>>, OpenInode>;

/// The state that a volume shares with its files and queues.
pub(crate) struct Shared {
    // Fields drop in order: queues before the controller that they belong to.
    filesystem: Filesystem,
    readers: Pool<Pooled<VolumeQueue<Tag<OpenInode>>>>,
    depth: u16,
    storage: Storage,
    _journal: Option<Storage>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.filesystem.fmt(f)
    }
}

impl Shared {
    /// Opens the filesystem on `storage`, which is at `location`.
    pub(crate) fn open(
        storage: Storage,
        location: &Location,
        options: &OpenOptions,
        journal: Option<Journal>,
    ) -> Result<Self, Error> {
        let source = storage.source()?;
        let how = options.filesystem;
        let (opened, journal) = match journal {
            None => (Filesystem::open_with(source, how), None),
            Some(Journal { source: journal, storage }) => {
                (Filesystem::open_with_journal(source, journal, how), storage)
            }
        };
        let filesystem = opened.map_err(|error| storage.no_filesystem(location, error))?;
        let (readers, depth) = (Pool::new(), options.queue_depth);
        Ok(Self { filesystem, readers, depth, storage, _journal: journal })
    }

    pub(crate) fn filesystem(&self) -> &Filesystem {
        &self.filesystem
    }

    pub(crate) fn queue(&self) -> Result<ReadQueue, Error> {
        Ok(ReadQueue::new(self.storage.queue(self.depth)?))
    }

    /// Calls `f` with a queue of the pool.
    pub(crate) fn with_reader<R>(&self, f: impl FnOnce(&mut ReadQueue) -> R) -> Result<R, Error> {
        self.with_pooled(|pooled| f(&mut pooled.queue))
    }

    /// Calls `f` with a queue of the pool, and the memory that it has.
    pub(crate) fn with_pooled<R>(
        &self,
        f: impl FnOnce(&mut Pooled<VolumeQueue<Tag<OpenInode>>>) -> R,
    ) -> Result<R, Error> {
        self.readers.with(|| Ok(Pooled::new(self.queue()?)), f)
    }

    pub(crate) fn device(&self) -> Option<&Device> {
        self.storage.device()
    }

    pub(crate) fn depth(&self) -> u16 {
        self.depth
    }
}

/// The journal of a filesystem, on another disk.
pub(crate) struct Journal {
    pub(crate) source: Box<dyn BlockSource>,
    /// The device of the journal, if it is not that of the filesystem.
    pub(crate) storage: Option<Storage>,
}
