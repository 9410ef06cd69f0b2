//! One type for the queues of devices and of images.

use std::fmt;
use std::os::fd::BorrowedFd;

use nvio_iomap::{Bio, BioDone, DiskQueue, DmaBuf, Error, Handler, ImageQueue, Queue, Rejected};

use crate::image::ImagePart;

/// The queue under a [`Queue`](crate::Queue): that of a controller, or that of an image.
///
/// # Examples
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// # let image = sample.path();
/// let volume = nvio::OpenOptions::new().emulate(true).open(&image)?;
/// let queue = volume.queue()?;
/// let pair = queue.device().as_disk().map(|queue| queue.pair());
/// assert!(pair.is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[allow(clippy::large_enum_variant, reason = "a box would cost a load in each call")]
pub enum VolumeQueue<C> {
    /// A queue pair of a controller.
    Disk(DiskQueue<C>),
    /// System calls on an image, or copies from memory.
    Image(ImageQueue<ImagePart, C>),
}

impl<C> fmt::Debug for VolumeQueue<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disk(_) => "Disk(..)",
            Self::Image(_) => "Image(..)",
        })
    }
}

impl<C> VolumeQueue<C> {
    /// Returns the queue pair, if the volume is on a controller.
    ///
    /// See the [example](Self#examples).
    pub fn as_disk(&self) -> Option<&DiskQueue<C>> {
        match self {
            Self::Disk(queue) => Some(queue),
            Self::Image(_) => None,
        }
    }
}

/// Calls a method of the queue inside.
macro_rules! forward {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        match $self {
            VolumeQueue::Disk(queue) => Queue::<C>::$method(queue, $($argument),*),
            VolumeQueue::Image(queue) => Queue::<C>::$method(queue, $($argument),*),
        }
    };
}

impl<C> Queue<C> for VolumeQueue<C> {
    #[inline]
    fn block_shift(&self) -> u32 {
        forward!(self.block_shift())
    }

    #[inline]
    fn size(&self) -> u64 {
        forward!(self.size())
    }

    fn capacity(&self) -> usize {
        forward!(self.capacity())
    }

    #[inline]
    fn max_transfer(&self) -> usize {
        forward!(self.max_transfer())
    }

    #[inline]
    fn max_transfer_at(&self, addr: u64) -> usize {
        forward!(self.max_transfer_at(addr))
    }

    #[inline]
    fn fits(&self, addr: u64, bytes: u64) -> bool {
        forward!(self.fits(addr, bytes))
    }

    fn has_volatile_cache(&self) -> bool {
        forward!(self.has_volatile_cache())
    }

    fn max_atomic_at(&self, addr: u64) -> usize {
        forward!(self.max_atomic_at(addr))
    }

    #[inline]
    fn has_integrity(&self) -> bool {
        forward!(self.has_integrity())
    }

    fn must_bounce(&self) -> bool {
        forward!(self.must_bounce())
    }

    #[inline]
    fn submit(&mut self, bio: Bio<C>) -> Result<(), Rejected<Error, Bio<C>>> {
        forward!(self.submit(bio))
    }

    fn has_pages(&self) -> bool {
        forward!(self.has_pages())
    }

    #[inline(always)]
    fn read_page(&mut self, addr: u64, buf: DmaBuf, tag: C) -> Result<(), (DmaBuf, C)> {
        forward!(self.read_page(addr, buf, tag))
    }

    fn flush(&mut self, tag: C) -> Result<(), Rejected<Error, C>> {
        forward!(self.flush(tag))
    }

    #[inline]
    fn ring(&mut self) {
        forward!(self.ring());
    }

    #[inline]
    fn poll(&mut self, limit: usize, handler: &mut impl Handler<BioDone<C>>) -> usize {
        forward!(self.poll(limit, handler))
    }

    fn wait(&mut self, done: impl FnMut(BioDone<C>)) -> Result<usize, Error> {
        forward!(self.wait(done))
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        forward!(self.event_fd())
    }

    fn prepare_to_sleep(&mut self) -> bool {
        forward!(self.prepare_to_sleep())
    }

    fn alloc(&mut self, bytes: usize) -> Result<DmaBuf, Error> {
        forward!(self.alloc(bytes))
    }
}
