//! Private DMA memory that data is copied through.

use super::buf::DmaBuf;

/// Maximum number of bytes that one copy bounces.
///
/// See the [example](BouncePool#examples).
pub const BOUNCE_BYTES_MAX: usize = 1 << 20;

/// log2 of the smallest buffer: a page.
const SHIFT_MIN: u32 = 12;
/// Number of sizes: powers of two from a page to twice [`BOUNCE_BYTES_MAX`], for metadata that
/// accompanies the data.
const CLASSES: usize = (BOUNCE_BYTES_MAX.ilog2() - SHIFT_MIN) as usize + 2;
/// Maximum number of bytes in buffers that are not in use.
const KEPT_BYTES_MAX: usize = 16 * BOUNCE_BYTES_MAX;

/// DMA buffers by size. Buffers that come back are kept for the next request, so that the I/O path
/// allocates no memory.
///
/// # Examples
/// ```
/// use nvio_driver::{Arena, BouncePool};
///
/// let arena = Arena::detached(4 << 20)?;
/// let mut pool = BouncePool::default();
/// let buf = pool.take(10_000, |bytes| arena.alloc(bytes))?;
/// pool.put(buf);
/// // At least 4096 bytes if memory is short.
/// let (buf, bytes) = pool.take_some(1 << 20, 4096, |bytes| arena.alloc(bytes))?;
/// assert_eq!((bytes, buf.len() <= BouncePool::BUFFER_BYTES_MAX), (1 << 20, true));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct BouncePool {
    free: [Vec<DmaBuf>; CLASSES],
    kept_bytes: usize,
}

impl BouncePool {
    /// Largest buffer that is kept, bytes.
    pub const BUFFER_BYTES_MAX: usize = class_bytes(CLASSES - 1);

    /// Returns a buffer of `bytes` with undefined contents. `alloc` allocates the memory if no
    /// buffer is kept.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// The error of `alloc`, also after all kept buffers were freed.
    pub fn take<E>(
        &mut self,
        bytes: usize,
        mut alloc: impl FnMut(usize) -> Result<DmaBuf, E>,
    ) -> Result<DmaBuf, E> {
        let kept = class_of(bytes).and_then(|class| self.free[class].pop());
        let mut buf = match kept {
            Some(buf) => {
                self.kept_bytes -= buf.len();
                buf
            }
            None => self.allocate(class_of(bytes).map_or(bytes, class_bytes), &mut alloc)?,
        };
        buf.truncate(bytes);
        Ok(buf)
    }

    /// Returns a buffer of `bytes`, or of less if memory is short, and its length. `bytes` is
    /// halved down to `least`, a power of two of which `bytes` is a multiple, or `bytes` itself.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// The error of `alloc` for `least` bytes.
    pub fn take_some<E>(
        &mut self,
        bytes: usize,
        least: usize,
        mut alloc: impl FnMut(usize) -> Result<DmaBuf, E>,
    ) -> Result<(DmaBuf, usize), E> {
        let mut bytes = bytes;
        loop {
            match self.take(bytes, &mut alloc) {
                Ok(buf) => return Ok((buf, bytes)),
                Err(error) if bytes <= least => return Err(error),
                Err(_) => bytes = ((bytes / 2) & !(least - 1)).max(least),
            }
        }
    }

    /// Keeps a buffer for the next request, or frees it.
    ///
    /// See the [example](Self#examples).
    pub fn put(&mut self, mut buf: DmaBuf) {
        if !buf.reclaim() || self.kept_bytes + buf.len() > KEPT_BYTES_MAX {
            return;
        }
        let class = class_of(buf.len());
        if let Some(class) = class.filter(|&class| class_bytes(class) == buf.len()) {
            self.kept_bytes += buf.len();
            self.free[class].push(buf);
        }
    }

    #[cold]
    fn allocate<E>(
        &mut self,
        bytes: usize,
        alloc: &mut impl FnMut(usize) -> Result<DmaBuf, E>,
    ) -> Result<DmaBuf, E> {
        alloc(bytes).or_else(|_| {
            // The kept buffers of other sizes may hold the memory that is missing.
            self.free.iter_mut().for_each(Vec::clear);
            self.kept_bytes = 0;
            alloc(bytes)
        })
    }
}

/// Returns the index of the smallest size that has room for `bytes`.
fn class_of(bytes: usize) -> Option<usize> {
    let shift = bytes.checked_next_power_of_two()?.ilog2().max(SHIFT_MIN);
    Some((shift - SHIFT_MIN) as usize).filter(|&class| class < CLASSES)
}

const fn class_bytes(class: usize) -> usize {
    1 << (SHIFT_MIN as usize + class)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dma::Arena;

    #[test]
    fn buffers_that_come_back_are_used_again() {
        let arena = Arena::detached(4 << 20).unwrap();
        let mut pool = BouncePool::default();
        let mut allocated = 0;
        let mut take = |pool: &mut BouncePool, bytes| {
            pool.take(bytes, |bytes| {
                allocated += 1;
                arena.alloc(bytes)
            })
        };
        for bytes in [1, 4096, 100] {
            let buf = take(&mut pool, bytes).unwrap();
            assert_eq!(buf.len(), bytes);
            pool.put(buf);
        }
        let large = take(&mut pool, BouncePool::BUFFER_BYTES_MAX + 1).unwrap();
        pool.put(large);
        assert_eq!((allocated, pool.kept_bytes), (2, 4096), "larger buffers are not kept");
    }

    #[test]
    fn kept_buffers_are_freed_when_memory_is_short() {
        let arena = Arena::detached(2 << 20).unwrap();
        let mut pool = BouncePool::default();
        let small: Vec<_> =
            (0..512).map(|_| pool.take(4096, |n| arena.alloc(n)).unwrap()).collect();
        assert!(pool.take(4096, |n| arena.alloc(n)).is_err(), "the arena is full");
        small.into_iter().for_each(|buf| pool.put(buf));
        assert_eq!(pool.take(1 << 20, |n| arena.alloc(n)).unwrap().len(), 1 << 20);
        let half = arena.alloc(1 << 20).unwrap();
        let (buf, bytes) = pool.take_some(1 << 20, 4096, |n| arena.alloc(n)).unwrap();
        assert_eq!((buf.len(), bytes), (1 << 20, 1 << 20));
        assert!(pool.take_some(1 << 20, 4096, |n| arena.alloc(n)).is_err());
        drop(half);
    }
}
