//! The DMA arena: one range of memory, one range of I/O virtual addresses.

use std::any::Any;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::scatter_list::Memory;
use super::{Claim, DmaBuf, DmaMemory};
use crate::{Error, Result};

/// Granularity of allocation, bytes. It is the host page size that queues are set up with unless
/// a controller cannot take it.
pub const PAGE_SIZE: usize = 4096;

pub(super) const HUGE_PAGE_SIZE: usize = 2 << 20;

/// Memory for DMA, and the buffers made of it. The I/O virtual address of a byte is the arena's
/// plus the byte's offset.
///
/// It is a memfd or another file, so that it can be handed to a vfio-user server or mapped by
/// another transport. A controller has one of its own; others are memory that was [registered](crate::Controller::register) with it. Cheap to clone; the memory lives as long as
/// a clone or a buffer.
#[derive(Clone)]
pub struct Arena(Arc<Inner>);

struct Inner {
    memory: Arc<DmaMemory>,
    iova: u64,
    free: Arc<Mutex<PageMap>>,
    /// The addresses; dropped when the last clone and the last buffer are.
    claim: Arc<Claim>,
    /// What ends a device's view of the memory when it is dropped, as late.
    _lease: Option<Box<dyn Any + Send + Sync>>,
}

impl Arena {
    /// An arena of `bytes`, rounded up to 2 MiB, that no device sees: for tests of what works with
    /// buffers. A device that is given one of its buffers does not find it.
    ///
    /// # Errors
    /// [`Error::System`] if the memory cannot be had.
    pub fn detached(bytes: usize) -> Result<Self> {
        let memory = Arc::new(DmaMemory::new(bytes)?);
        let claim = Claim::detached(memory.size(), HUGE_PAGE_SIZE)?;
        Ok(Self::over(memory, Arc::new(claim)))
    }

    /// An arena of `memory` at the addresses that were claimed for it.
    pub(crate) fn over(memory: Arc<DmaMemory>, claim: Arc<Claim>) -> Self {
        let free = Arc::new(Mutex::new(PageMap::new(memory.size() / PAGE_SIZE)));
        let iova = claim.iova();
        Self(Arc::new(Inner { memory, iova, free, claim, _lease: None }))
    }

    /// The same memory, with what is to be dropped when the last clone of this arena is, and the
    /// last buffer made by it.
    pub(crate) fn leased(&self, lease: Box<dyn Any + Send + Sync>) -> Self {
        let (memory, free) = (Arc::clone(&self.0.memory), Arc::clone(&self.0.free));
        let (iova, claim) = (self.0.iova, Arc::clone(&self.0.claim));
        Self(Arc::new(Inner { memory, iova, free, claim, _lease: Some(lease) }))
    }

    /// Bytes in the arena.
    pub fn size(&self) -> usize {
        self.0.memory.size()
    }

    /// I/O virtual address of the first byte.
    pub fn iova(&self) -> u64 {
        self.0.iova
    }

    /// Whether the arena is made of 2 MiB pages.
    pub fn huge_pages(&self) -> bool {
        self.0.memory.huge_pages()
    }

    /// Whether every page that `bytes` at the I/O virtual address `iova` touch is allocated. What a
    /// device accesses must be: a transport that sees the accesses can check them.
    pub fn is_allocated(&self, iova: u64, bytes: usize) -> bool {
        let offset = iova.checked_sub(self.0.iova).and_then(|at| usize::try_from(at).ok());
        let end = offset.and_then(|at| at.checked_add(bytes)).filter(|&end| end <= self.size());
        let (Some(at), Some(end)) = (offset, end) else { return false };
        let free = self.free();
        (at / PAGE_SIZE..end.div_ceil(PAGE_SIZE)).all(|page| free.is_used(page))
    }

    /// Offset in the arena's file, which [`AsFd`] gives, of the first byte.
    pub fn file_offset(&self) -> u64 {
        self.file().1
    }

    /// The file, for a vfio-user server, and the offset of the first byte in it. Valid while the
    /// arena lives.
    pub(crate) fn file(&self) -> (RawFd, u64) {
        self.0.memory.file()
    }

    /// First byte, for mapping it into an IOMMU.
    pub(crate) fn base(&self) -> *mut u8 {
        self.0.memory.base().as_ptr()
    }

    /// A zeroed buffer of `bytes`, beginning on a page.
    ///
    /// # Errors
    /// [`Error::ArenaFull`] if there is no contiguous range that large.
    pub fn alloc(&self, bytes: usize) -> Result<DmaBuf> {
        let allocation = self.allocate(bytes, PAGE_SIZE)?;
        let mut buf = DmaBuf::new(allocation, bytes)
            .ok_or(Error::ArenaFull { bytes, arena: DmaBuf::MOST })?;
        buf.fill(0);
        Ok(buf)
    }

    /// The `bytes` at `offset`, a multiple of [`PAGE_SIZE`], with what is in them: for registered
    /// memory, whose places mean something to its owner. The last page is taken whole.
    ///
    /// # Errors
    /// [`Error::InUse`] if a buffer has one of the pages; [`Error::ArenaFull`] if they are not all
    /// inside the arena, or more than a buffer can have; [`Error::Misaligned`].
    pub fn take(&self, offset: usize, bytes: usize) -> Result<DmaBuf> {
        if !offset.is_multiple_of(PAGE_SIZE) {
            return Err(Error::Misaligned { value: offset as u64, align: PAGE_SIZE as u64 });
        }
        let outside = || Error::ArenaFull { bytes, arena: self.size() };
        let (first, pages) = (offset / PAGE_SIZE, bytes.div_ceil(PAGE_SIZE));
        let inside = first.checked_add(pages).is_some_and(|end| end <= self.size() / PAGE_SIZE);
        if !inside || bytes > DmaBuf::MOST {
            return Err(outside());
        }
        if !self.free().claim(first, pages) {
            return Err(Error::InUse { offset, bytes });
        }
        DmaBuf::new(self.allocation(first, pages), bytes).ok_or_else(outside)
    }

    /// Zeroed memory to be shared with the device while the host uses it, too: queues. It begins
    /// at a multiple of `align`, a power of two.
    pub(crate) fn share(&self, bytes: usize, align: usize) -> Result<Shared> {
        let mut allocation = self.allocate(bytes, align)?;
        // SAFETY: the allocation is fresh and exclusively ours, and `pages` long.
        unsafe { allocation.ptr_mut().write_bytes(0, allocation.bytes()) };
        Ok(Shared(allocation))
    }

    fn allocate(&self, bytes: usize, align: usize) -> Result<Allocation> {
        let pages = bytes.div_ceil(PAGE_SIZE);
        let first = self
            .free()
            .take(pages, align.div_ceil(PAGE_SIZE))
            .ok_or(Error::ArenaFull { bytes, arena: self.size() })?;
        Ok(self.allocation(first, pages))
    }

    fn free(&self) -> MutexGuard<'_, PageMap> {
        self.0.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pages as an allocation, after they were marked as used.
    fn allocation(&self, first: usize, pages: usize) -> Allocation {
        let offset = first * PAGE_SIZE;
        // SAFETY: the pages are inside the arena's mapping.
        let ptr = unsafe { self.0.memory.base().add(offset) };
        let iova = self.0.iova + offset as u64;
        let arena = Some(Arc::clone(&self.0));
        Allocation { ptr, iova, arena, first, pages, carried: None }
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Arena({} bytes at {:#x})", self.size(), self.iova())
    }
}

impl AsFd for Arena {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the file is open for as long as the arena lives, which is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.file().0) }
    }
}

/// A run of pages of an arena, given back when dropped.
pub(super) struct Allocation {
    ptr: NonNull<u8>,
    iova: u64,
    /// None for an allocation of no pages that is there for what it carries.
    arena: Option<Arc<Inner>>,
    first: usize,
    pages: usize,
    carried: Option<Memory>,
}

// SAFETY: an allocation is a disjoint part of an arena's memory, which it keeps alive.
unsafe impl Send for Allocation {}
// SAFETY: as above; the memory is reached through the one `DmaBuf` that owns each byte.
unsafe impl Sync for Allocation {}

impl Allocation {
    pub(super) fn carrying(memory: Memory) -> Self {
        let carried = Some(memory);
        Self { ptr: NonNull::dangling(), iova: 0, arena: None, first: 0, pages: 0, carried }
    }

    pub(super) fn carried(&self) -> Option<&Memory> {
        self.carried.as_ref()
    }

    pub(super) fn carried_mut(&mut self) -> Option<&mut Memory> {
        self.carried.as_mut()
    }

    pub(super) fn bytes(&self) -> usize {
        self.pages * PAGE_SIZE
    }

    #[inline]
    pub(super) fn iova(&self) -> u64 {
        self.iova
    }

    #[inline]
    pub(super) fn ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    fn ptr_mut(&mut self) -> *mut u8 {
        self.ptr().as_ptr()
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        if let Some(arena) = &self.arena {
            let mut free = arena.free.lock().unwrap_or_else(PoisonError::into_inner);
            free.give(self.first, self.pages);
        }
    }
}

/// Memory that host and device use at the same time. There are no references into it, only
/// pointers for volatile access.
pub(crate) struct Shared(Allocation);

impl Shared {
    pub(crate) fn ptr(&self) -> NonNull<u8> {
        self.0.ptr()
    }

    pub(crate) fn iova(&self) -> u64 {
        self.0.iova()
    }
}

/// Which pages are free: one bit each, first fit. Not on the I/O path.
pub(crate) struct PageMap {
    used: Vec<u64>,
    pages: usize,
}

impl PageMap {
    /// That many, all free.
    pub(crate) fn new(pages: usize) -> Self {
        Self { used: vec![0; pages.div_ceil(64)], pages }
    }

    fn is_used(&self, page: usize) -> bool {
        self.used[page / 64] >> (page % 64) & 1 != 0
    }

    /// Takes `count` pages in a row, from a multiple of `align` on; gives the first.
    pub(crate) fn take(&mut self, count: usize, align: usize) -> Option<usize> {
        let mut first = 0usize;
        while first.checked_add(count)? <= self.pages {
            match (first..first + count).rev().find(|&page| self.is_used(page)) {
                Some(used) => first = (used + 1).next_multiple_of(align),
                None => {
                    self.mark(first, count);
                    return Some(first);
                }
            }
        }
        None
    }

    /// Takes these pages, which there are, if all of them are free.
    fn claim(&mut self, first: usize, count: usize) -> bool {
        let free = (first..first + count).all(|page| !self.is_used(page));
        if free {
            self.mark(first, count);
        }
        free
    }

    fn mark(&mut self, first: usize, count: usize) {
        (first..first + count).for_each(|page| self.used[page / 64] |= 1 << (page % 64));
    }

    /// Gives pages back.
    pub(crate) fn give(&mut self, first: usize, count: usize) {
        (first..first + count).for_each(|page| self.used[page / 64] &= !(1 << (page % 64)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_linear_and_freed_ranges_are_found_again() {
        let arena = Arena::detached(1).unwrap();
        assert_eq!(arena.size(), HUGE_PAGE_SIZE);
        let first = arena.alloc(1).unwrap();
        let second = arena.alloc(PAGE_SIZE + 1).unwrap();
        assert_eq!((first.len(), first.iova()), (1, arena.iova()));
        assert_eq!(second.iova(), first.iova() + PAGE_SIZE as u64);
        drop(first);
        assert_eq!(arena.alloc(PAGE_SIZE).unwrap().iova(), arena.iova());
        let rest = HUGE_PAGE_SIZE - 3 * PAGE_SIZE;
        let rest = arena.alloc(rest).unwrap();
        assert!(matches!(arena.alloc(2 * PAGE_SIZE), Err(Error::ArenaFull { .. })));
        drop((second, rest));
        assert_eq!(arena.alloc(HUGE_PAGE_SIZE).unwrap().len(), HUGE_PAGE_SIZE);
    }

    #[test]
    fn what_is_allocated_is_known_by_its_address() {
        let arena = Arena::detached(1).unwrap();
        let (first, second) = (arena.alloc(1).unwrap(), arena.alloc(PAGE_SIZE).unwrap());
        let at = first.iova();
        assert!(
            arena.is_allocated(at, 2 * PAGE_SIZE) && !arena.is_allocated(at, 2 * PAGE_SIZE + 1)
        );
        drop(first);
        assert!(!arena.is_allocated(at, 1) && arena.is_allocated(second.iova(), 1));
        assert!(!arena.is_allocated(at - 1, 1) && !arena.is_allocated(u64::MAX, usize::MAX));
    }

    #[test]
    fn queues_begin_where_the_device_needs_them() {
        let arena = Arena::detached(1).unwrap();
        let _first = arena.alloc(1).unwrap();
        let queue = arena.share(PAGE_SIZE, 64 << 10).unwrap();
        assert_eq!(queue.iova() - arena.iova(), 64 << 10);
    }

    #[test]
    fn buffers_are_zeroed_when_they_are_reused() {
        let arena = Arena::detached(1).unwrap();
        let mut buf = arena.alloc(100).unwrap();
        buf.fill(0xaa);
        drop(buf);
        assert!(arena.alloc(100).unwrap().iter().all(|&b| b == 0));
    }

    #[test]
    fn a_buffer_of_nothing_takes_no_page() {
        let arena = Arena::detached(1).unwrap();
        let all = arena.alloc(arena.size()).unwrap();
        let nothing = arena.alloc(0).unwrap();
        assert!(nothing.is_empty());
        drop(nothing);
        assert!(arena.alloc(1).is_err());
        drop(all);
    }

    #[test]
    fn a_place_is_taken_once_with_what_is_in_it() {
        let arena = Arena::detached(1).unwrap();
        let mut all = arena.alloc(arena.size()).unwrap();
        all[3 * PAGE_SIZE] = 7;
        drop(all);
        let buf = arena.take(3 * PAGE_SIZE, PAGE_SIZE + 1).unwrap();
        let page = |buf: &DmaBuf| (buf.iova() - arena.iova()) as usize / PAGE_SIZE;
        assert_eq!((buf[0], buf.len(), page(&buf)), (7, PAGE_SIZE + 1, 3));
        assert!(matches!(arena.take(4 * PAGE_SIZE, 1), Err(Error::InUse { .. })));
        assert!(matches!(arena.take(0, 4 * PAGE_SIZE), Err(Error::InUse { .. })));
        assert_eq!(arena.take(0, 3 * PAGE_SIZE).unwrap().len(), 3 * PAGE_SIZE);
        assert_eq!(page(&arena.alloc(4 * PAGE_SIZE).unwrap()), 5);
        drop(buf);
        arena.take(4 * PAGE_SIZE, 1).unwrap();
        assert!(matches!(arena.take(512, 1), Err(Error::Misaligned { .. })));
        let last = arena.size() - PAGE_SIZE;
        assert!(matches!(arena.take(last, PAGE_SIZE + 1), Err(Error::ArenaFull { .. })));
        for (offset, bytes) in [(usize::MAX & !4095, 1), (0, usize::MAX), (0, 5 << 30)] {
            assert!(matches!(arena.take(offset, bytes), Err(Error::ArenaFull { .. })));
        }
    }

    #[test]
    fn sizes_that_cannot_be_had_are_errors() {
        assert!(Arena::detached(usize::MAX).is_err());
        let arena = Arena::detached(1).unwrap();
        assert!(matches!(arena.alloc(usize::MAX), Err(Error::ArenaFull { .. })));
    }
}
