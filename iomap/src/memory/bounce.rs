//! Private DMA memory that data is copied through.

use nvio_driver::DmaBuf;

use crate::device::bio::Queue;
use crate::error::Error;

/// Most bytes that are bounced at a time.
pub const BOUNCE_BYTES_MAX: usize = 1 << 20;

/// The smallest buffer, as a power of two: a page.
const FIRST: u32 = 12;
/// Sizes of buffers: powers of two from a page to twice a piece, for what goes with the data.
const CLASSES: usize = (BOUNCE_BYTES_MAX.ilog2() - FIRST) as usize + 2;
/// Bytes that are kept while nobody uses them.
const KEPT: usize = 16 * BOUNCE_BYTES_MAX;

/// Buffers by size. They are kept when they come back, so that no memory is asked for on the path.
#[derive(Debug, Default)]
pub(crate) struct BouncePool {
    free: [Vec<DmaBuf>; CLASSES],
    kept: usize,
}

impl BouncePool {
    /// A buffer of `bytes`, with anything in it.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub(crate) fn take<C>(
        &mut self,
        queue: &mut impl Queue<C>,
        bytes: usize,
    ) -> Result<DmaBuf, Error> {
        self.take_from(bytes, |bytes| queue.alloc(bytes))
    }

    /// The same, of memory that `alloc` gives if there is none yet.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub(crate) fn take_from(
        &mut self,
        bytes: usize,
        alloc: impl FnMut(usize) -> Result<DmaBuf, Error>,
    ) -> Result<DmaBuf, Error> {
        let class = Self::class(bytes).ok_or(Error::NoMemory)?;
        let mut buf = match self.free[class].pop() {
            Some(buf) => {
                self.kept -= buf.len();
                buf
            }
            None => self.alloc(alloc, class)?,
        };
        buf.truncate(bytes);
        Ok(buf)
    }

    /// As much as there is memory for, halving `bytes` down to `least`: a power of two of which
    /// `bytes` is a multiple, or `bytes` itself.
    ///
    /// # Errors
    /// [`Error::NoMemory`] if not even that.
    pub(crate) fn take_some<C>(
        &mut self,
        queue: &mut impl Queue<C>,
        bytes: usize,
        least: usize,
    ) -> Result<(DmaBuf, usize), Error> {
        let mut bytes = bytes;
        loop {
            match self.take(queue, bytes) {
                Ok(buf) => return Ok((buf, bytes)),
                Err(error) if bytes <= least => return Err(error),
                Err(_) => bytes = ((bytes / 2) & !(least - 1)).max(least),
            }
        }
    }

    /// Takes a buffer back.
    pub(crate) fn put(&mut self, mut buf: DmaBuf) {
        if !buf.reclaim() || self.kept + buf.len() > KEPT {
            return;
        }
        let class = Self::class(buf.len());
        if let Some(class) = class.filter(|&class| Self::bytes(class) == buf.len()) {
            self.kept += buf.len();
            self.free[class].push(buf);
        }
    }

    #[cold]
    fn alloc(
        &mut self,
        mut alloc: impl FnMut(usize) -> Result<DmaBuf, Error>,
        class: usize,
    ) -> Result<DmaBuf, Error> {
        alloc(Self::bytes(class)).or_else(|_| {
            // What is kept of other sizes may be what is missing.
            self.free.iter_mut().for_each(Vec::clear);
            self.kept = 0;
            alloc(Self::bytes(class)).map_err(|_| Error::NoMemory)
        })
    }

    /// Most bytes of one buffer.
    pub(crate) const MOST: usize = Self::bytes(CLASSES - 1);

    fn class(bytes: usize) -> Option<usize> {
        let power = bytes.checked_next_power_of_two()?.ilog2().max(FIRST);
        Some((power - FIRST) as usize).filter(|&class| class < CLASSES)
    }

    const fn bytes(class: usize) -> usize {
        1 << (FIRST as usize + class)
    }
}
