//! Block I/O: one contiguous range of a device, one buffer, and the queue that takes it.

use std::fmt;
use std::os::fd::BorrowedFd;

use nvio_driver::{DmaBuf, Handler, Rejected};

use crate::error::{BioError, Error};

/// The direction of a [`Bio`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BioOp {
    /// From the device into the buffer.
    Read,
    /// From the buffer to the device.
    Write,
}

/// A transfer of `buf.len()` bytes at byte `addr` of a device; both are multiples of its block.
pub struct Bio<C> {
    /// The direction.
    pub op: BioOp,
    /// First byte on the device.
    pub addr: u64,
    /// The data. Owned by the queue until it is done.
    pub buf: DmaBuf,
    /// Comes back with it.
    pub tag: C,
    /// Of a write: durable when it is done (Force Unit Access).
    pub fua: bool,
}

impl<C> Bio<C> {
    /// A read of all of `buf`.
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

/// A bio or a flush that is done.
#[derive(Debug)]
pub struct BioDone<C> {
    /// What was given with it.
    pub tag: C,
    /// The buffer; its contents are defined only on success. Empty for a flush, and where the
    /// memory had to be given up.
    pub buf: DmaBuf,
    /// What became of it.
    pub result: Result<(), BioError>,
}

/// A queue to one device, for one thread. Its methods are on the I/O path. `C` comes back with what
/// is done.
pub trait Queue<C> {
    /// The device's logical block, as a power of two.
    fn block_shift(&self) -> u32;

    /// Size of the device in bytes.
    fn size(&self) -> u64;

    /// Bios that can be in flight at once.
    fn capacity(&self) -> usize;

    /// Most bytes of one bio, a multiple of the block.
    fn max_transfer(&self) -> usize;

    /// Most bytes that a bio at byte `addr` should have, a multiple of the block and at most
    /// [`max_transfer`](Self::max_transfer): less where the device has a boundary that a command
    /// had better not cross.
    #[inline]
    fn max_transfer_at(&self, addr: u64) -> usize {
        let _ = addr;
        self.max_transfer()
    }

    /// Whether a bio of `bytes` at byte `addr` is no more than
    /// [`max_transfer_at`](Self::max_transfer_at) there.
    #[inline]
    fn fits(&self, addr: u64, bytes: u64) -> bool {
        bytes <= self.max_transfer_at(addr) as u64
    }

    /// Whether what is written may be lost with the power until it was flushed.
    fn has_volatile_cache(&self) -> bool {
        true
    }

    /// Most bytes that a bio at byte `addr` may write so that it is written all or not at all, also
    /// when the power fails; 0 for none.
    fn max_atomic_at(&self, addr: u64) -> usize {
        let _ = addr;
        0
    }

    /// Whether data is protected by checksums that are made here: then the memory of a write must
    /// not change while it is in flight, and the simple path does not serve.
    #[inline]
    fn has_integrity(&self) -> bool {
        false
    }

    /// Whether the device cannot take data from, or put it into, a caller's DMA buffer as it is.
    fn must_bounce(&self) -> bool {
        false
    }

    /// Accepts a bio. The device may start it as late as the next [`ring`](Self::ring).
    ///
    /// # Errors
    /// Returns the bio: with [`Error::Busy`] if [`capacity`](Self::capacity) bios are in flight; with
    /// [`Error::ReadOnly`] if the bio is a write and the queue is no [`WriteQueue`].
    fn submit(&mut self, bio: Bio<C>) -> Result<(), Rejected<Error, Bio<C>>>;

    /// Whether [`read_page`](Self::read_page) may serve.
    fn has_pages(&self) -> bool {
        false
    }

    /// Takes a read of [`PAGE`](crate::PAGE) bytes at byte `addr` into a buffer that begins on a page: the
    /// shortest way.
    ///
    /// # Errors
    /// Returns buffer and tag. [`submit`](Self::submit) then reports the reason, or accepts the read.
    #[inline]
    fn read_page(&mut self, addr: u64, buf: DmaBuf, tag: C) -> Result<(), (DmaBuf, C)> {
        let _ = addr;
        Err((buf, tag))
    }

    /// Takes a flush of the device's volatile cache.
    ///
    /// # Errors
    /// Gives the tag back, with the reason.
    fn flush(&mut self, tag: C) -> Result<(), Rejected<Error, C>>;

    /// Shows the device what was taken.
    fn ring(&mut self);

    /// Hands at most `limit` of what is done to `handler`, and tells how many. Does not wait.
    fn poll(&mut self, limit: usize, handler: &mut impl Handler<BioDone<C>>) -> usize;

    /// Rings, waits until something is done, hands all that is to `done`, and tells how many; 0
    /// when nothing is in flight.
    ///
    /// # Errors
    /// When the device fails or is too slow. Then buffers in flight do not come back.
    fn wait(&mut self, done: impl FnMut(BioDone<C>)) -> Result<usize, Error>;

    /// The eventfd that becomes readable with a completion, if the queue has one. Call
    /// [`prepare_to_sleep`](Self::prepare_to_sleep) before each wait for it, and do not read it.
    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Rings, and returns true if the caller may sleep until [`event_fd`](Self::event_fd) is
    /// readable: the next completion makes it so. Returns false if there is something to poll now,
    /// or no eventfd.
    fn prepare_to_sleep(&mut self) -> bool {
        false
    }

    /// DMA memory of so many bytes, to bounce through, beginning on a page.
    ///
    /// # Errors
    /// When there is none.
    fn alloc(&mut self, bytes: usize) -> Result<DmaBuf, Error>;
}

/// A [`Queue`] that accepts writes.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is for reading only",
    label = "a write needs a queue that accepts writes",
    note = "open the controller with `Options {{ writable: true, .. }}` and make the `DiskQueue` of a `WritableDisk`; an image must be a `std::fs::File` or a `Vec<u8>`"
)]
pub trait WriteQueue<C>: Queue<C> {}
