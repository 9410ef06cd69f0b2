//! Metadata from an NVMe namespace or partition.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use nvio_iomap::DiskReader;

use crate::blocks::source::{BlockSource, ReadRange, SourceError};

/// A source of metadata with a queue pair of its own. Concurrent readers are serialised by a mutex;
/// reads of file data use other queue pairs and do not wait.
pub struct QueueSource {
    queue: Mutex<DiskReader>,
    size: u64,
    block_size: u32,
}

impl fmt::Debug for QueueSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, block_size, .. } = self;
        f.debug_struct("QueueSource")
            .field("size", size)
            .field("block_size", block_size)
            .finish_non_exhaustive()
    }
}

impl QueueSource {
    /// Creates a source from a reader of the disk or partition that holds the filesystem.
    pub fn new(queue: DiskReader) -> Self {
        let disk = queue.disk();
        let (size, block_size) = (disk.size(), disk.namespace().block_size());
        Self { size, block_size, queue: Mutex::new(queue) }
    }
}

impl BlockSource for QueueSource {
    fn size(&self) -> u64 {
        self.size
    }

    fn block_size(&self) -> u32 {
        self.block_size
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(queue.read_at(offset, buf)?)
    }

    /// Keeps the queue full until all ranges are read.
    fn read_many(&self, ranges: &mut [ReadRange<'_>]) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let (wanted, mut results): (Vec<_>, Vec<_>) = ranges
            .iter_mut()
            .map(|ReadRange { offset, buf, result }| ((*offset, &mut **buf), result))
            .unzip();
        queue.read_many(wanted, |index, result| {
            if let Some(place) = results.get_mut(index) {
                **place = result.map_err(SourceError::from);
            }
        });
    }
}
