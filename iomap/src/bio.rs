//! Block I/O: one contiguous range of a device, one buffer, and the queue that takes it.

use nvio_driver::DmaBuf;

use crate::Error;

/// A read of `buf.len()` bytes at byte `addr` of a device; both are multiples of its block.
#[derive(Debug)]
pub struct Bio {
    /// First byte on the device.
    pub addr: u64,
    /// Where the data goes. Owned by the queue until it is done.
    pub buf: DmaBuf,
}

/// A bio that is done.
#[derive(Debug)]
pub struct BioDone {
    /// First byte on the device.
    pub addr: u64,
    /// The buffer; its contents are defined only on success.
    pub buf: DmaBuf,
    /// What became of it.
    pub result: Result<(), Error>,
}

/// A bio that was not taken.
#[derive(Debug)]
pub struct Refused {
    /// [`Error::Busy`] when the queue is full; everything else is final.
    pub error: Error,
    /// The bio, as it was.
    pub bio: Bio,
}

/// A queue to one device, for one thread. Its methods are on the I/O path.
pub trait Queue {
    /// The device's logical block, as a power of two.
    fn block_shift(&self) -> u32;

    /// Size of the device in bytes.
    fn size(&self) -> u64;

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

    /// Takes a bio. The device may learn of it only at the next [`ring`](Self::ring).
    ///
    /// # Errors
    /// [`Refused`] gives it back.
    fn submit(&mut self, bio: Bio) -> Result<(), Refused>;

    /// Shows the device what was taken.
    fn ring(&mut self);

    /// Rings, waits until something is done, hands all that is to `done`, and tells how many; 0
    /// when nothing is in flight.
    ///
    /// # Errors
    /// When the device fails or is too slow. Then buffers in flight do not come back.
    fn wait(&mut self, done: impl FnMut(BioDone)) -> Result<usize, Error>;

    /// A buffer for bouncing, of `bytes`, at most [`crate::bounce::PIECE`].
    ///
    /// # Errors
    /// When there is no memory.
    fn take_bounce(&mut self, bytes: usize) -> Result<DmaBuf, Error>;

    /// Gives back what [`take_bounce`](Self::take_bounce) gave.
    fn put_bounce(&mut self, buf: DmaBuf);
}
