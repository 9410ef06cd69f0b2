//! Owned DMA buffers.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use super::arena::Allocation;

/// A contiguous buffer that the device can reach, or a part of one.
///
/// It is exclusive: while a command uses it, the queue owns it, and nobody else can look at it.
/// [`split_to`](Self::split_to) makes two disjoint buffers of one; the pages are given back to the
/// arena when the last part is dropped.
///
/// ```
/// # fn main() -> Result<(), nvio_driver::Error> {
/// let arena = nvio_driver::Arena::new(2 << 20, 1 << 32)?;
/// let mut buf = arena.alloc(8192)?;
/// buf[..5].copy_from_slice(b"hello");
/// assert_eq!(buf.iova(), 1 << 32);
/// # Ok(())
/// # }
/// ```
pub struct DmaBuf {
    ptr: NonNull<u8>,
    iova: u64,
    len: usize,
    pages: Arc<Allocation>,
}

// SAFETY: a `DmaBuf` owns its range of the allocation as a `Vec` owns its elements.
unsafe impl Send for DmaBuf {}
// SAFETY: as above.
unsafe impl Sync for DmaBuf {}

impl DmaBuf {
    /// The first `len` bytes of an allocation, which is at least that long.
    pub(super) fn new(pages: Allocation, len: usize) -> Self {
        debug_assert!(len <= pages.bytes());
        Self { ptr: pages.ptr(), iova: pages.iova(), len, pages: Arc::new(pages) }
    }

    /// I/O virtual address of the first byte.
    #[inline]
    pub fn iova(&self) -> u64 {
        self.iova
    }

    /// Takes the first `at` bytes off into a buffer of their own. `None`, and nothing changes, if
    /// there are fewer.
    #[inline]
    pub fn split_to(&mut self, at: usize) -> Option<Self> {
        let left = self.len.checked_sub(at)?;
        let front =
            Self { ptr: self.ptr, iova: self.iova, len: at, pages: Arc::clone(&self.pages) };
        // SAFETY: `at` is at most `len`, so the result points into the range, or one past it.
        self.ptr = unsafe { self.ptr.add(at) };
        self.iova += at as u64;
        self.len = left;
        Some(front)
    }

    /// Puts `next` behind this buffer again, if that is where it was split off.
    ///
    /// # Errors
    /// Gives `next` back if it is not the direct continuation.
    #[inline]
    pub fn join(&mut self, next: Self) -> Result<(), Self> {
        if !Arc::ptr_eq(&self.pages, &next.pages) || self.iova + self.len as u64 != next.iova {
            return Err(next);
        }
        self.len += next.len;
        Ok(())
    }

    /// A buffer of no bytes at the start of this one, as a mark.
    pub(super) fn split_empty(&mut self) -> Self {
        Self { ptr: self.ptr, iova: self.iova, len: 0, pages: Arc::clone(&self.pages) }
    }

    /// Whether this buffer lies in the `len` bytes from the start of `mark`.
    #[inline]
    pub(super) fn within(&self, mark: &Self, len: usize) -> bool {
        Arc::ptr_eq(&self.pages, &mark.pages)
            && self.iova >= mark.iova
            && self.iova + self.len as u64 <= mark.iova + len as u64
    }

    /// Extends this buffer over the `len` bytes that follow it.
    ///
    /// # Safety
    /// They must be of the same allocation, and no other buffer may cover any of them.
    pub(super) unsafe fn grow_over(&mut self, len: usize) {
        self.len += len;
    }
}

impl Deref for DmaBuf {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: `ptr` and `len` are a range of initialised memory (a memfd is zeroed) that this
        // buffer owns, and no command has been given it: those take the buffer by value.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl DerefMut for DmaBuf {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}

impl fmt::Debug for DmaBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DmaBuf({} bytes at {:#x})", self.len, self.iova)
    }
}

#[cfg(test)]
mod tests {
    use crate::Arena;

    #[test]
    fn parts_are_disjoint_and_join_only_in_order() {
        let arena = Arena::new(1, 0x4000_0000).unwrap();
        let mut tail = arena.alloc(1000).unwrap();
        let mut head = tail.split_to(600).unwrap();
        head.fill(1);
        tail.fill(2);
        assert_eq!((head.len(), tail.len(), tail.iova()), (600, 400, 0x4000_0000 + 600));
        assert!(head.iter().all(|&b| b == 1) && tail.iter().all(|&b| b == 2));
        assert!(tail.split_to(401).is_none());
        head = tail.join(head).unwrap_err();
        head.join(tail).unwrap();
        assert_eq!(head.len(), 1000);
        let stranger = arena.alloc(1).unwrap();
        assert!(head.join(stranger).is_err());
    }

    #[test]
    fn pages_are_free_only_when_the_last_part_is() {
        let arena = Arena::new(1, 0).unwrap();
        let mut tail = arena.alloc(arena.size()).unwrap();
        let head = tail.split_to(1).unwrap();
        drop(tail);
        assert!(arena.alloc(1).is_err());
        drop(head);
        assert!(arena.alloc(arena.size()).is_ok());
    }
}
