//! Queues for callers that poll, and queues of futures.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use nvio_ext4::OpenInode;
use nvio_iomap::{AsyncFileQueue, DiskQueue, FileQueue, Tag, WritableDisk};

use crate::shared::Shared;
use crate::volume_queue::VolumeQueue;

/// A queue for the requests of one thread, on any files of a [`Volume`](crate::Volume).
///
/// Requests are submitted without waiting, shown to the device by one [`ring`](FileQueue::ring) for
/// a batch, and handed to the caller by [`poll`](FileQueue::poll) or [`wait`](FileQueue::wait),
/// which it inherits from [`nvio_iomap::FileQueue`].
///
/// # Examples
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// # let image = sample.path();
/// let volume = nvio::Volume::open(&image)?;
/// let mut file = volume.open_file("/table.db")?;
/// let mut queue = volume.queue()?;
/// for page in 0..16 {
///     let buf = queue.alloc(4096)?;
///     queue.submit_read(&mut file, page * 4096, buf, page)?;
/// }
/// queue.ring();
/// let mut done = 0;
/// while done < 16 {
///     done += queue.wait(|page| assert_eq!(page.result.unwrap(), 4096))?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Queue<Q = VolumeQueue<Tag<OpenInode>>> {
    // Dropped before the device that it belongs to.
    queue: FileQueue<Q, OpenInode>,
    volume: Arc<Shared>,
}

/// A [`Queue`] for reading and overwriting files of a [`WritableVolume`](crate::WritableVolume).
pub type WritableQueue = Queue<DiskQueue<Tag<OpenInode>, WritableDisk>>;

impl<Q: nvio_iomap::Queue<Tag<OpenInode>>> Queue<Q> {
    pub(crate) fn new(queue: FileQueue<Q, OpenInode>, volume: Arc<Shared>) -> Self {
        Self { queue, volume }
    }

    /// Converts the queue to one whose requests are futures.
    ///
    /// See the [example](AsyncQueue#examples).
    pub fn into_async(self) -> AsyncQueue<Q> {
        AsyncQueue { queue: AsyncFileQueue::new(self.queue), volume: self.volume }
    }
}

impl<Q> fmt::Debug for Queue<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("volume", &self.volume).finish_non_exhaustive()
    }
}

impl<Q> Deref for Queue<Q> {
    type Target = FileQueue<Q, OpenInode>;

    #[inline]
    fn deref(&self) -> &Self::Target {
        &self.queue
    }
}

impl<Q> DerefMut for Queue<Q> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.queue
    }
}

/// A queue whose requests are futures, for any executor that runs on one thread. Cheap to clone.
///
/// Its methods are those of [`nvio_iomap::AsyncFileQueue`]; files are read through
/// [`AsyncFile`](crate::AsyncFile).
///
/// # Examples
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// # let image = sample.path();
/// use nvio::iomap::IoArgs;
///
/// let volume = nvio::Volume::open(&image)?;
/// // As volume.async_queue() does.
/// let queue = volume.queue()?.into_async();
/// let file = volume.open_file("/hello.txt")?.into_async();
/// let (memory, bytes) = queue.block_on(file.read(&queue, IoArgs::at(0), vec![0; 100]))?;
/// assert_eq!(&memory.into_bytes().unwrap()[..bytes], b"Hello, world");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct AsyncQueue<Q: nvio_iomap::Queue<Tag<OpenInode>> = VolumeQueue<Tag<OpenInode>>> {
    queue: AsyncFileQueue<Q, OpenInode>,
    volume: Arc<Shared>,
}

impl<Q: nvio_iomap::Queue<Tag<OpenInode>>> Clone for AsyncQueue<Q> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), volume: Arc::clone(&self.volume) }
    }
}

impl<Q: nvio_iomap::Queue<Tag<OpenInode>>> fmt::Debug for AsyncQueue<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncQueue").field("volume", &self.volume).finish_non_exhaustive()
    }
}

impl<Q: nvio_iomap::Queue<Tag<OpenInode>>> Deref for AsyncQueue<Q> {
    type Target = AsyncFileQueue<Q, OpenInode>;

    fn deref(&self) -> &Self::Target {
        &self.queue
    }
}
