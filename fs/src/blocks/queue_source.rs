//! Metadata from an NVMe namespace or partition.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use nvio_iomap::DiskReader;

use crate::blocks::source::{BlockSource, ReadRange, SourceError};

/// A source of metadata with a queue pair of its own. Concurrent readers are serialised by a mutex;
/// reads of file data use other queue pairs and do not wait.
///
/// # Examples
/// ```
/// # use nvio_emulator::{Backing, NamespaceConfig};
/// # use nvio_testkit::controller::Served;
/// # let sample = nvio_testkit::image::Sample::new();
/// # let served = Served::new(NamespaceConfig::new(Backing::image(sample.path(), true)));
/// # let controller = &served.controller;
/// use nvio_ext4::{FileQueue, Filesystem, QueueSource};
/// use nvio_iomap::{Disk, DiskQueue, DiskReader};
///
/// // `controller` is an open NVMe controller. Metadata and file data have queue pairs of their own.
/// let disk = Disk::whole(&controller.namespace(1)?);
/// let fs = Filesystem::open(QueueSource::new(DiskReader::new(controller, &disk, 32)?))?;
/// let mut queue = FileQueue::new(DiskQueue::new(controller, &disk, 128)?);
/// let mut file = fs.file(&fs.lookup("/hello.txt")?)?;
/// let mut text = [0; 12];
/// file.read_at(&mut queue, 0, &mut text)?;
/// assert_eq!(&text, b"Hello, world");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
    ///
    /// See the [example](Self#examples).
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
