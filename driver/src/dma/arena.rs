//! The DMA arena: one range of memory, one range of I/O virtual addresses.

use std::any::Any;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::sync::Arc;

use parking_lot::Mutex;

use super::buf::DmaBuf;
use super::memory::DmaMemory;
use super::page_map::{HUGE_PAGE_SIZE, PAGE_SIZE, PageMap};
use super::pages::{PageRun, Pages, Shared};
use super::space::Claim;
use crate::error::{Error, Result};

/// DMA memory, and the buffers allocated from it. The I/O virtual address of a byte is the arena's
/// address plus the byte's offset.
///
/// The memory is a memfd or another file, so that a vfio-user server or another transport can map
/// it. Each controller has one arena; others are made of memory that was
/// [registered](crate::Controller::register). Cheap to clone; the memory lives until the last
/// clone and the last buffer are dropped.
///
/// # Examples
/// ```
/// use nvio_driver::Arena;
///
/// // Memory without a controller; that of a controller is `Controller::arena`.
/// let arena = Arena::detached(4 << 20)?;
/// assert_eq!(arena.size(), 4 << 20);
/// let buf = arena.alloc(8192)?;
/// let uncleared = arena.alloc_uncleared(4096)?;
/// assert!(arena.is_allocated(buf.iova(), 8192));
/// // The pages at an offset that the caller chose.
/// let buf = arena.take(1 << 20, 4096)?;
/// assert_eq!(buf.iova(), arena.iova() + (1 << 20));
/// println!("offset {} in its file", arena.file_offset());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, derive_more::Debug)]
#[debug("Arena({} bytes at {:#x})", self.size(), self.iova())]
pub struct Arena(Arc<Pages>);

impl Arena {
    /// Allocates an arena of `bytes`, rounded up to 2 MiB, that no device can access, for tests of
    /// code that works with buffers. A device that is given one of its buffers does not find it.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::System`] if the memory cannot be allocated.
    pub fn detached(bytes: usize) -> Result<Self> {
        let memory = Arc::new(DmaMemory::new(bytes)?);
        let claim = Claim::detached(memory.size(), HUGE_PAGE_SIZE)?;
        Ok(Self::over(memory, Arc::new(claim)))
    }

    /// Creates an arena of `memory` at the addresses that were claimed for it.
    pub(crate) fn over(memory: Arc<DmaMemory>, claim: Arc<Claim>) -> Self {
        let free = Arc::new(Mutex::new(PageMap::new(memory.size() / PAGE_SIZE)));
        let iova = claim.iova();
        Self(Arc::new(Pages { memory, iova, free, claim, _lease: None }))
    }

    /// Creates an arena of this memory that drops `lease` with its last clone and its last buffer.
    pub(crate) fn leased(&self, lease: Box<dyn Any + Send + Sync>) -> Self {
        let (memory, free) = (Arc::clone(&self.0.memory), Arc::clone(&self.0.free));
        let (iova, claim) = (self.0.iova, Arc::clone(&self.0.claim));
        Self(Arc::new(Pages { memory, iova, free, claim, _lease: Some(lease) }))
    }

    /// Returns the size in bytes.
    ///
    /// See the [example](Self#examples).
    pub fn size(&self) -> usize {
        self.0.memory.size()
    }

    /// Returns the I/O virtual address of the first byte.
    ///
    /// See the [example](Self#examples).
    pub fn iova(&self) -> u64 {
        self.0.iova
    }

    /// Returns true if every page of the `bytes` at the I/O virtual address `iova` is allocated. A
    /// device accesses only allocated pages; a transport that executes the accesses can check that.
    ///
    /// See the [example](Self#examples).
    pub fn is_allocated(&self, iova: u64, bytes: usize) -> bool {
        let offset = iova.checked_sub(self.0.iova).and_then(|at| usize::try_from(at).ok());
        let end = offset.and_then(|at| at.checked_add(bytes)).filter(|&end| end <= self.size());
        let (Some(at), Some(end)) = (offset, end) else { return false };
        let free = self.0.free.lock();
        (at / PAGE_SIZE..end.div_ceil(PAGE_SIZE)).all(|page| free.is_used(page))
    }

    /// Returns the offset of the first byte in the file that [`AsFd`] returns.
    ///
    /// See the [example](Self#examples).
    pub fn file_offset(&self) -> u64 {
        self.file().1
    }

    /// Returns the file, for a vfio-user server, and the offset of the first byte in it. Valid
    /// while the arena lives.
    pub(crate) fn file(&self) -> (RawFd, u64) {
        self.0.memory.file()
    }

    /// Returns the address of the first byte, for mapping into an IOMMU.
    pub(crate) fn base(&self) -> *mut u8 {
        self.0.memory.base().as_ptr()
    }

    /// Allocates a zeroed buffer of `bytes` that begins on a page.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::ArenaFull`] if there is no free contiguous range of that size.
    pub fn alloc(&self, bytes: usize) -> Result<DmaBuf> {
        let mut buf = self.alloc_uncleared(bytes)?;
        buf.fill(0);
        Ok(buf)
    }

    /// Allocates a buffer as [`alloc`](Self::alloc) does, which has the contents of earlier buffers of this
    /// arena: for memory that is written before it is read.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc).
    pub fn alloc_uncleared(&self, bytes: usize) -> Result<DmaBuf> {
        let run = self.allocate(bytes, PAGE_SIZE)?;
        let too_large = Error::ArenaFull { bytes, arena: DmaBuf::BYTES_MAX };
        DmaBuf::new(run, bytes).ok_or(too_large)
    }

    /// Allocates the `bytes` at `offset`, a multiple of [`PAGE_SIZE`], and keeps their contents:
    /// for registered memory whose layout has a meaning. The last page is allocated whole.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::InUse`] if a buffer has one of the pages; [`Error::ArenaFull`] if the pages are not
    /// all inside the arena, or exceed the size of a buffer; [`Error::Misaligned`].
    pub fn take(&self, offset: usize, bytes: usize) -> Result<DmaBuf> {
        if !offset.is_multiple_of(PAGE_SIZE) {
            return Err(Error::Misaligned { value: offset as u64, align: PAGE_SIZE as u64 });
        }
        let outside = || Error::ArenaFull { bytes, arena: self.size() };
        let (first, pages) = (offset / PAGE_SIZE, bytes.div_ceil(PAGE_SIZE));
        let inside = first.checked_add(pages).is_some_and(|end| end <= self.size() / PAGE_SIZE);
        if !inside || bytes > DmaBuf::BYTES_MAX {
            return Err(outside());
        }
        if !self.0.free.lock().claim(first, pages) {
            return Err(Error::InUse { offset, bytes });
        }
        DmaBuf::new(PageRun::new(&self.0, first, pages), bytes).ok_or_else(outside)
    }

    /// Allocates zeroed memory that host and device access at the same time: queues. It begins at a
    /// multiple of `align`, a power of two.
    pub(crate) fn share(&self, bytes: usize, align: usize) -> Result<Shared> {
        let run = self.allocate(bytes, align)?;
        // SAFETY: the run is exclusive, and at least `bytes` long.
        Ok(unsafe { Shared::new(run.ptr(), run.iova(), bytes, run) })
    }

    fn allocate(&self, bytes: usize, align: usize) -> Result<PageRun> {
        let pages = bytes.div_ceil(PAGE_SIZE);
        let first = self
            .0
            .free
            .lock()
            .allocate(pages, align.div_ceil(PAGE_SIZE))
            .ok_or(Error::ArenaFull { bytes, arena: self.size() })?;
        Ok(PageRun::new(&self.0, first, pages))
    }
}

impl AsFd for Arena {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the file is open while the arena lives, which is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.file().0) }
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
    fn allocated_pages_are_known_by_address() {
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
