//! Block I/O: one contiguous range of a device, one buffer, and the queue that takes it.

use std::fmt;
use std::os::fd::BorrowedFd;

use nvio_driver::spec::Status;
use nvio_driver::{DmaBuf, Handler, Rejected};

use crate::error::Error;

/// Bytes of a page, the unit of the shortest way.
pub const PAGE: u32 = 4096;

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

/// Why a bio failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BioError {
    /// The controller's verdict.
    #[error("{0}")]
    Status(Status),
    /// What was read does not fit its guard. The log has the LBA.
    #[error("guard {found:#06x} in the metadata, {expected:#06x} of the data")]
    Guard {
        /// CRC of the data.
        expected: u16,
        /// What the protection information has.
        found: u16,
    },
    /// What was read belongs elsewhere. The log has the LBA.
    #[error("reference tag {found:#010x}, which is that of another block")]
    ReferenceTag {
        /// What the protection information has.
        found: u32,
    },
    /// The operating system failed an access to an image; 0 where there is no error number.
    #[error("access to the image: {}", std::io::Error::from_raw_os_error(*.errno))]
    System {
        /// The operating system's error number (errno).
        errno: i32,
    },
    /// What was read came without all of its protection information.
    #[error("protection information is missing")]
    Unprotected,
}

// It goes through the path of those that do not fail: in a register.
const _: () = assert!(size_of::<Result<(), BioError>>() <= 8);

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

    /// Takes a read of [`PAGE`] bytes at byte `addr` into a buffer that begins on a page: the
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

/// The direction of a request, known when compiling.
pub(crate) trait Direction {
    const WRITE: bool;
}

pub(crate) enum Reads {}

impl Direction for Reads {
    const WRITE: bool = false;
}

pub(crate) enum Writes {}

impl Direction for Writes {
    const WRITE: bool = true;
}
