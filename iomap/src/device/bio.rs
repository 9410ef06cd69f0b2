//! Block I/O: one contiguous range of a device, one buffer, and the queue that takes it.

use nvio_driver::DmaBuf;
use nvio_driver::spec::Status;

use crate::error::Error;

/// Bytes of a page, the unit of the shortest way.
pub const PAGE: u32 = 4096;

/// A transfer of `buf.len()` bytes at byte `addr` of a device; both are multiples of its block.
#[derive(Debug)]
pub struct Bio<C> {
    /// First byte on the device.
    pub addr: u64,
    /// The data. Owned by the queue until it is done.
    pub buf: DmaBuf,
    /// Comes back with it.
    pub tag: C,
    /// Of a write: durable when it is done (Force Unit Access).
    pub fua: bool,
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
    /// What was read came without all of its protection information.
    #[error("protection information is missing")]
    Unprotected,
}

// It goes through the path of those that do not fail: in a register.
const _: () = assert!(size_of::<Result<(), BioError>>() <= 8);

/// A bio that was not taken.
#[derive(Debug)]
pub struct Refused<C> {
    /// [`Error::Busy`] when the queue is full; everything else is final.
    pub error: Error,
    /// The bio, as it was.
    pub bio: Bio<C>,
}

/// Takes what is done. A trait and no closure, so that the method can be inlined for certain.
pub trait Settle<C> {
    /// A bio or a flush is done.
    fn settle(&mut self, done: BioDone<C>);
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

    /// Takes a read. The device may learn of it only at the next [`ring`](Self::ring).
    ///
    /// # Errors
    /// [`Refused`] gives it back.
    fn read(&mut self, bio: Bio<C>) -> Result<(), Refused<C>>;

    /// Whether [`read_page`](Self::read_page) may serve.
    fn has_pages(&self) -> bool {
        false
    }

    /// Takes a read of [`PAGE`] bytes at byte `addr` into a buffer that begins on a page: the
    /// shortest way.
    ///
    /// # Errors
    /// Gives buffer and tag back, and [`read`](Self::read) tells why, or does it.
    #[inline]
    fn read_page(&mut self, addr: u64, buf: DmaBuf, tag: C) -> Result<(), (DmaBuf, C)> {
        let _ = addr;
        Err((buf, tag))
    }

    /// Takes a flush of the device's volatile cache.
    ///
    /// # Errors
    /// Gives the tag back, with the reason.
    fn flush(&mut self, tag: C) -> Result<(), (Error, C)>;

    /// Shows the device what was taken.
    fn ring(&mut self);

    /// Hands at most `limit` of what is done to `settle`, and tells how many. Does not wait.
    fn poll(&mut self, limit: usize, settle: &mut impl Settle<C>) -> usize;

    /// Rings, waits until something is done, hands all that is to `done`, and tells how many; 0
    /// when nothing is in flight.
    ///
    /// # Errors
    /// When the device fails or is too slow. Then buffers in flight do not come back.
    fn wait(&mut self, done: impl FnMut(BioDone<C>)) -> Result<usize, Error>;

    /// DMA memory of so many bytes, to bounce through, beginning on a page.
    ///
    /// # Errors
    /// When there is none.
    fn alloc(&mut self, bytes: usize) -> Result<DmaBuf, Error>;
}

/// A queue to a device that may be written to.
pub trait WriteQueue<C>: Queue<C> {
    /// Takes a write.
    ///
    /// # Errors
    /// [`Refused`] gives it back.
    fn write(&mut self, bio: Bio<C>) -> Result<(), Refused<C>>;
}

/// Which way data goes: known when compiling, so that what reads cannot write.
pub(crate) trait Direction<C, Q> {
    const WRITE: bool;
    fn submit(queue: &mut Q, bio: Bio<C>) -> Result<(), Refused<C>>;
}

/// From the device.
pub(crate) enum Reads {}

impl<C, Q: Queue<C>> Direction<C, Q> for Reads {
    const WRITE: bool = false;
    #[inline]
    fn submit(queue: &mut Q, bio: Bio<C>) -> Result<(), Refused<C>> {
        queue.read(bio)
    }
}

/// To the device.
pub(crate) enum Writes {}

impl<C, Q: WriteQueue<C>> Direction<C, Q> for Writes {
    const WRITE: bool = true;
    #[inline]
    fn submit(queue: &mut Q, bio: Bio<C>) -> Result<(), Refused<C>> {
        queue.write(bio)
    }
}
