//! DMA memory that the host and the device read at the same time.

use std::ops::{Deref, Range};

use super::buf::DmaBuf;

/// A [`DmaBuf`] that nobody writes to, so that the host may read it while the device does.
///
/// Clones share the memory. [`thaw`](Self::thaw) returns the buffer when no clone is left and no
/// command reads it; see [`QueuePair::write_frozen`](crate::QueuePair::write_frozen).
///
/// # Examples
/// ```
/// use nvio_driver::Arena;
///
/// let mut buf = Arena::detached(2 << 20)?.alloc(8192)?;
/// buf[..5].copy_from_slice(b"hello");
/// let frozen = buf.freeze();
/// let page = frozen.slice(0..4096).ok_or("too short")?;
/// assert_eq!((&page[..5], page.iova(), page.len()), (&b"hello"[..], frozen.iova(), 4096));
///
/// // Not while there is another handle.
/// let frozen = frozen.thaw().unwrap_err();
/// drop(page);
/// let mut buf = frozen.thaw().map_err(|_| "in use")?;
/// buf[..5].copy_from_slice(b"again");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(derive_more::Debug)]
#[debug("FrozenBuf({} bytes at {:#x})", self.len(), self.iova())]
// The buffer is not exclusive, so that no mutable reference to it may exist outside of `thaw`.
pub struct FrozenBuf(DmaBuf);

impl DmaBuf {
    /// Makes the buffer readable for the host and the device at the same time.
    ///
    /// See the [example](FrozenBuf#examples).
    pub fn freeze(self) -> FrozenBuf {
        FrozenBuf(self)
    }
}

impl FrozenBuf {
    /// Returns the buffer if this is the only handle of its allocation: no clone, no slice, no
    /// other part that [`DmaBuf::split_to`] made, and no command has it.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// Returns the handle if there is another.
    pub fn thaw(mut self) -> Result<DmaBuf, Self> {
        if self.0.is_only_part() { Ok(self.0) } else { Err(self) }
    }

    /// Returns a handle of a part. `None` if `range` is not inside the buffer.
    ///
    /// See the [example](Self#examples).
    pub fn slice(&self, range: Range<usize>) -> Option<Self> {
        if range.end > self.len() {
            return None;
        }
        let mut part = self.0.alias();
        part.truncate(range.end);
        part.split_to(range.start)?;
        Some(Self(part))
    }

    /// Returns the I/O virtual address of the first byte.
    ///
    /// See the [example](Self#examples).
    pub fn iova(&self) -> u64 {
        self.0.iova()
    }

    /// Returns the buffer, to describe it to a device.
    pub(crate) fn as_buf(&self) -> &DmaBuf {
        &self.0
    }
}

impl Clone for FrozenBuf {
    fn clone(&self) -> Self {
        Self(self.0.alias())
    }
}

impl Deref for FrozenBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use crate::Arena;

    #[test]
    fn only_the_last_handle_thaws() {
        let arena = Arena::detached(1).unwrap();
        let mut rest = arena.alloc(8192).unwrap();
        let page = rest.split_to(4096).unwrap().freeze();
        let page = page.thaw().unwrap_err();
        drop(rest);
        let (clone, slice) = (page.clone(), page.slice(100..4096).unwrap());
        assert_eq!((clone.len(), slice.iova()), (4096, page.iova() + 100));
        assert!(page.slice(1..4097).is_none() && page.slice(4097..4097).is_none());
        let page = page.thaw().unwrap_err();
        drop(clone);
        let page = page.thaw().unwrap_err();
        drop(slice);
        // As a command holds it: without access, but alive.
        let mark = page.as_buf().mark();
        let page = page.thaw().unwrap_err();
        drop(mark);
        let mut page = page.thaw().unwrap();
        assert!(page.reclaim() && page.len() == 8192);
    }

    #[test]
    fn pages_are_free_only_when_the_last_handle_is() {
        let arena = Arena::detached(1).unwrap();
        let frozen = arena.alloc(arena.size()).unwrap().freeze();
        let slice = frozen.slice(0..1).unwrap();
        drop(frozen);
        assert!(arena.alloc(1).is_err());
        drop(slice);
        assert!(arena.alloc(arena.size()).is_ok());
    }
}
