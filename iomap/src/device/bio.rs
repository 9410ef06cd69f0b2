//! Block I/O: the bio, which is one range of a device with one buffer, and the queue for bios.

use std::fmt;
use std::os::fd::BorrowedFd;

use nvio_driver::{DmaBuf, FrozenBuf, Handler, Rejected};

use crate::error::{BioError, Error};

/// The direction of a [`Bio`].
///
/// See the [example](Queue#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BioOp {
    /// From the device into the buffer.
    Read,
    /// From the buffer to the device.
    Write,
}

/// A transfer of `buf.len()` bytes at byte `addr` of a device; both are multiples of its block.
///
/// See the [example](Queue#examples).
pub struct Bio<C> {
    /// The direction.
    pub op: BioOp,
    /// First byte on the device.
    pub addr: u64,
    /// The data. The queue owns it until completion.
    pub buf: DmaBuf,
    /// State that the completion returns.
    pub tag: C,
    /// True if a write must be durable at completion (Force Unit Access).
    pub fua: bool,
}

impl<C> Bio<C> {
    /// Creates a read of all of `buf`.
    ///
    /// See the [example](Queue#examples).
    #[inline(always)]
    pub fn read(addr: u64, buf: DmaBuf, tag: C) -> Self {
        Self { op: BioOp::Read, addr, buf, tag, fua: false }
    }
}

impl<C> fmt::Debug for Bio<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { op, addr, buf, fua, .. } = self;
        let mut debug = f.debug_struct("Bio");
        debug.field("op", op).field("addr", addr).field("bytes", &buf.len()).field("fua", fua);
        debug.finish_non_exhaustive()
    }
}

/// The completion of a bio or a flush.
///
/// See the [example](Queue#examples).
#[derive(Debug)]
pub struct BioDone<C> {
    /// State of the bio or flush.
    pub tag: C,
    /// The buffer. Its contents are defined only on success. Empty for a flush, and if the memory
    /// did not come back.
    pub buf: DmaBuf,
    /// The result.
    pub result: Result<(), BioError>,
}

/// A queue to one device, for one thread. Its methods are on the I/O path. Completions return `C`.
///
/// # Examples
/// ```
/// use nvio_iomap::{Bio, BioDone, BioOp, ImageQueue, Queue};
///
/// let mut queue: ImageQueue<Vec<u8>, &str> = ImageQueue::new(vec![7; 1 << 20], 4)?;
/// assert_eq!((queue.size(), queue.block_shift(), queue.capacity()), (1 << 20, 9, 4));
/// assert_eq!((queue.max_transfer(), queue.max_transfer_at(0)), (1 << 20, 1 << 20));
/// assert!(queue.fits(0, 1 << 20));
/// assert_eq!(queue.max_atomic_at(0), 0);
/// assert!(!queue.has_integrity() && !queue.must_bounce() && !queue.has_pages());
///
/// // A read of a page in the fewest instructions, if the queue has that, or as any bio.
/// let buf = queue.alloc(4096)?;
/// let uncleared = queue.alloc_uncleared(4096)?;
/// if let Err((buf, tag)) = queue.read_page(8192, buf, "page") {
///     let bio = Bio::read(8192, buf, tag);
///     assert_eq!((bio.op, bio.addr), (BioOp::Read, 8192));
///     queue.submit(bio).map_err(|rejected| rejected.error)?;
/// }
/// if queue.has_volatile_cache() {
///     queue.flush("flush").map_err(|rejected| rejected.error)?;
/// }
/// queue.ring();
/// let mut tags = Vec::new();
/// let mut handler = |done: BioDone<&'static str>| {
///     assert!(done.result.is_ok() && done.buf.iter().all(|&byte| byte == 7));
///     tags.push(done.tag);
/// };
/// queue.poll(usize::MAX, &mut handler);
/// assert_eq!(tags.first(), Some(&"page"));
///
/// // Nothing is in flight. A queue with an eventfd can sleep until there is a completion.
/// assert_eq!(queue.wait(|_| ())?, 0);
/// assert!(queue.event_fd().is_none() && !queue.prepare_to_sleep());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Queue<C> {
    /// Returns the device's logical block, as a power of two.
    ///
    /// See the [example](Self#examples).
    fn block_shift(&self) -> u32;

    /// Returns the size of the device in bytes.
    ///
    /// See the [example](Self#examples).
    fn size(&self) -> u64;

    /// Returns the maximum number of bios in flight.
    ///
    /// See the [example](Self#examples).
    fn capacity(&self) -> usize;

    /// Returns the maximum number of bytes of one bio, a multiple of the block.
    ///
    /// See the [example](Self#examples).
    fn max_transfer(&self) -> usize;

    /// Returns the maximum number of bytes of a bio at byte `addr`, a multiple of the block and at
    /// most [`max_transfer`](Self::max_transfer): less before a boundary that commands should not
    /// cross.
    ///
    /// See the [example](Self#examples).
    #[inline]
    fn max_transfer_at(&self, addr: u64) -> usize {
        let _ = addr;
        self.max_transfer()
    }

    /// Returns true if a bio of `bytes` at byte `addr` has at most
    /// [`max_transfer_at`](Self::max_transfer_at) bytes.
    ///
    /// See the [example](Self#examples).
    #[inline]
    fn fits(&self, addr: u64, bytes: u64) -> bool {
        bytes <= self.max_transfer_at(addr) as u64
    }

    /// Returns true if a power failure may lose writes that were not flushed.
    ///
    /// See the [example](Self#examples).
    fn has_volatile_cache(&self) -> bool {
        true
    }

    /// Returns the maximum number of bytes of a bio at byte `addr` that are written all or not at
    /// all, also if the power fails; 0 for none.
    ///
    /// See the [example](Self#examples).
    fn max_atomic_at(&self, addr: u64) -> usize {
        let _ = addr;
        0
    }

    /// Returns true if the queue adds checksums to data. The memory of a write must not change
    /// while it is in flight then, and the simple path is off.
    ///
    /// See the [example](Self#examples).
    #[inline]
    fn has_integrity(&self) -> bool {
        false
    }

    /// Returns true if the device cannot access a caller's DMA buffer, so that all data is bounced.
    ///
    /// See the [example](Self#examples).
    fn must_bounce(&self) -> bool {
        false
    }

    /// Accepts a bio. The device may start it as late as the next [`ring`](Self::ring).
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// Returns the bio: with [`Error::Busy`] if [`capacity`](Self::capacity) bios are in flight;
    /// with [`Error::ReadOnly`] if the bio is a write and the queue is no [`WriteQueue`].
    fn submit(&mut self, bio: Bio<C>) -> Result<(), Rejected<Error, Bio<C>>>;

    /// Returns true if [`read_page`](Self::read_page) may accept reads.
    ///
    /// See the [example](Self#examples).
    fn has_pages(&self) -> bool {
        false
    }

    /// Accepts a read of [`PAGE`](crate::PAGE) bytes at byte `addr` into a buffer that begins on a
    /// page, in the fewest instructions.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// Returns buffer and tag, always if the buffer is not such a page. [`submit`](Self::submit)
    /// then reports the reason, or accepts the read.
    #[inline]
    fn read_page(&mut self, addr: u64, buf: DmaBuf, tag: C) -> Result<(), (DmaBuf, C)> {
        let _ = addr;
        Err((buf, tag))
    }

    /// Accepts a flush of the device's volatile cache.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// Returns the tag, with the reason.
    fn flush(&mut self, tag: C) -> Result<(), Rejected<Error, C>>;

    /// Shows the device the bios that were accepted.
    ///
    /// See the [example](Self#examples).
    fn ring(&mut self);

    /// Passes at most `limit` completions to `handler`, and returns their number. Does not wait.
    ///
    /// See the [example](Self#examples).
    fn poll(&mut self, limit: usize, handler: &mut impl Handler<BioDone<C>>) -> usize;

    /// Rings, waits for a completion, passes all there are to `done`, and returns their number: 0
    /// if nothing is in flight.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// If the device fails or is too slow. Buffers in flight do not come back then.
    fn wait(&mut self, done: impl FnMut(BioDone<C>)) -> Result<usize, Error>;

    /// Returns the eventfd that becomes readable with a completion, if the queue has one. Call
    /// [`prepare_to_sleep`](Self::prepare_to_sleep) before each wait for it, and do not read it.
    ///
    /// See the [example](Self#examples).
    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Rings, and returns true if the caller may sleep until [`event_fd`](Self::event_fd) is
    /// readable: the next completion makes it so. Returns false if there is something to poll now,
    /// or no eventfd.
    ///
    /// See the [example](Self#examples).
    fn prepare_to_sleep(&mut self) -> bool {
        false
    }

    /// Allocates DMA memory of `bytes` to bounce through. It begins on a page.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// If no memory is left.
    fn alloc(&mut self, bytes: usize) -> Result<DmaBuf, Error>;

    /// Allocates DMA memory as [`alloc`](Self::alloc) does, whose contents may be those of earlier memory.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc).
    fn alloc_uncleared(&mut self, bytes: usize) -> Result<DmaBuf, Error> {
        self.alloc(bytes)
    }
}

/// A [`Queue`] that accepts writes.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is for reading only",
    label = "a write needs a queue that accepts writes",
    note = "open the controller with `Options {{ writable: true, .. }}` and make the `DiskQueue` of a `WritableDisk`; an image must be a `std::fs::File` or a `Vec<u8>`"
)]
pub trait WriteQueue<C>: Queue<C> {
    /// Accepts a write of memory that the host may read meanwhile, to byte `addr`: all of `parts`, in
    /// order, of which each but the last ends at the end of a page. With `fua` it is
    /// durable at completion. The memory can be thawed after the completion, whose buffer is another.
    ///
    /// The default copies the memory: a queue overrides it if the device can read it in place.
    ///
    /// # Examples
    /// ```
    /// use nvio_iomap::{BioDone, ImageQueue, Queue, WriteQueue};
    ///
    /// let mut queue: ImageQueue<Vec<u8>, &str> = ImageQueue::new(vec![0; 1 << 20], 4)?;
    /// let mut buf = queue.alloc(4096)?;
    /// buf.fill(7);
    /// let frozen = buf.freeze();
    /// let parts = std::slice::from_ref(&frozen);
    /// queue.write_frozen(8192, parts, false, "page").map_err(|rejected| rejected.error)?;
    /// queue.wait(|done| assert!(done.result.is_ok()))?;
    /// assert_eq!(queue.image()[8191..8193], [0, 7]);
    /// assert!(frozen.thaw().is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Returns the tag: with the errors of [`submit`](Queue::submit), or if there is no memory for a
    /// copy.
    fn write_frozen(
        &mut self,
        addr: u64,
        parts: &[FrozenBuf],
        fua: bool,
        tag: C,
    ) -> Result<(), Rejected<Error, C>> {
        write_copied(self, addr, parts, fua, tag)
    }
}

/// Submits a write of a copy of the memory.
pub(super) fn write_copied<C, Q: WriteQueue<C> + ?Sized>(
    queue: &mut Q,
    addr: u64,
    parts: &[FrozenBuf],
    fua: bool,
    tag: C,
) -> Result<(), Rejected<Error, C>> {
    let mut buf = match queue.alloc(parts.iter().map(|part| part.len()).sum()) {
        Ok(buf) => buf,
        Err(error) => return Err(Rejected { error, payload: tag }),
    };
    let mut rest = &mut buf[..];
    for part in parts {
        let (here, after) = rest.split_at_mut(part.len());
        here.copy_from_slice(part);
        rest = after;
    }
    let submitted = queue.submit(Bio { op: BioOp::Write, addr, buf, tag, fua });
    submitted.map_err(|Rejected { error, payload }| Rejected { error, payload: payload.tag })
}
