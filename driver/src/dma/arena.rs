//! The DMA arena: one range of memory, one range of I/O virtual addresses.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, RawFd};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use vm_memory::{FileOffset, MmapRegion};

use super::DmaBuf;
use super::parts::Memory;
use crate::{Error, Result};

/// Granularity of allocation, bytes. It is the host page size that queues are set up with unless
/// a controller cannot take it.
pub const PAGE_SIZE: usize = 4096;

const HUGE_PAGE_SIZE: usize = 2 << 20;

/// Memory for DMA: a memfd, so that it can be handed to a vfio-user server or mapped by another
/// transport, of 2 MiB pages if there are any and ordinary pages if not. The I/O virtual address of
/// a byte is the arena's plus the byte's offset in the memfd.
#[derive(Clone)]
pub struct Arena(Arc<Inner>);

struct Inner {
    region: MmapRegion<()>,
    base: NonNull<u8>,
    memfd: RawFd,
    iova: u64,
    huge: bool,
    free: Mutex<PageMap>,
}

// SAFETY: `base` points into `region`, which lives as long; access to the memory goes through
// `Allocation`s, which are disjoint.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Arena {
    /// An arena of `bytes`, rounded up to 2 MiB, whose first byte the device will know as `iova`.
    ///
    /// # Errors
    /// [`Error::System`] if the memory cannot be had.
    pub fn new(bytes: usize, iova: u64) -> Result<Self> {
        let len = bytes
            .max(1)
            .checked_next_multiple_of(HUGE_PAGE_SIZE)
            .ok_or(Error::ArenaFull { bytes, arena: usize::MAX })?;
        if iova.checked_add(len as u64).is_none() || !iova.is_multiple_of(HUGE_PAGE_SIZE as u64) {
            return Err(Error::Misaligned { value: iova, align: HUGE_PAGE_SIZE as u64 });
        }
        let (region, huge) = match map_memfd(len, libc::MFD_HUGETLB) {
            Ok(region) => (region, true),
            Err(why) => {
                log::debug!("no 2 MiB pages for the DMA arena ({why}): using ordinary pages");
                let region = map_memfd(len, 0)
                    .map_err(|source| Error::System { call: "memfd for the DMA arena", source })?;
                (region, false)
            }
        };
        let memfd = region.file_offset().map_or(-1, |f| f.file().as_raw_fd());
        let base = NonNull::new(region.as_ptr()).ok_or_else(|| Error::System {
            call: "mmap of the DMA arena",
            source: io::Error::from_raw_os_error(libc::ENOMEM),
        })?;
        let free = Mutex::new(PageMap::new(len / PAGE_SIZE));
        Ok(Self(Arc::new(Inner { region, base, memfd, iova, huge, free })))
    }

    /// Bytes in the arena.
    pub fn size(&self) -> usize {
        self.0.region.size()
    }

    /// I/O virtual address of the first byte.
    pub fn iova(&self) -> u64 {
        self.0.iova
    }

    /// Whether the arena is made of 2 MiB pages.
    pub fn huge_pages(&self) -> bool {
        self.0.huge
    }

    /// Whether every page that `bytes` at the I/O virtual address `iova` touch is allocated. What a
    /// device accesses must be: a transport that sees the accesses can check them.
    pub fn is_allocated(&self, iova: u64, bytes: usize) -> bool {
        let offset = iova.checked_sub(self.0.iova).and_then(|at| usize::try_from(at).ok());
        let end = offset.and_then(|at| at.checked_add(bytes)).filter(|&end| end <= self.size());
        let (Some(at), Some(end)) = (offset, end) else { return false };
        let free = self.0.free.lock().unwrap_or_else(PoisonError::into_inner);
        (at / PAGE_SIZE..end.div_ceil(PAGE_SIZE)).all(|page| free.is_used(page))
    }

    /// The memfd, for a vfio-user server. Valid while the arena lives.
    pub(crate) fn memfd(&self) -> RawFd {
        self.0.memfd
    }

    /// First byte, for mapping it into an IOMMU.
    pub(crate) fn base(&self) -> *mut u8 {
        self.0.base.as_ptr()
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
        let mut free = self.0.free.lock().unwrap_or_else(PoisonError::into_inner);
        let first = free
            .take(pages, align.div_ceil(PAGE_SIZE))
            .ok_or(Error::ArenaFull { bytes, arena: self.0.region.size() })?;
        let offset = first * PAGE_SIZE;
        // SAFETY: the pages are inside the arena's mapping.
        let ptr = unsafe { self.0.base.add(offset) };
        let iova = self.0.iova + offset as u64;
        let arena = Some(Arc::clone(&self.0));
        Ok(Allocation { ptr, iova, arena, first, pages, carried: None })
    }
}

impl AsFd for Arena {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the memfd is open for as long as the arena lives, which is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.0.memfd) }
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

fn map_memfd(len: usize, flags: libc::c_uint) -> io::Result<MmapRegion<()>> {
    // SAFETY: the name is a NUL-terminated string.
    let fd = unsafe { libc::memfd_create(c"nvio-arena".as_ptr(), libc::MFD_CLOEXEC | flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just created and nobody else owns it.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(len as u64)?;
    // Populated now: huge pages that turn out to be missing must fail here and not as SIGBUS.
    let map = libc::MAP_SHARED | if flags == 0 { 0 } else { libc::MAP_POPULATE };
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    MmapRegion::build(Some(FileOffset::new(file, 0)), len, protection, map)
        .map_err(|e| io::Error::other(e.to_string()))
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
                    (first..first + count)
                        .for_each(|page| self.used[page / 64] |= 1 << (page % 64));
                    return Some(first);
                }
            }
        }
        None
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
        let arena = Arena::new(1, 1 << 32).unwrap();
        assert_eq!(arena.size(), HUGE_PAGE_SIZE);
        let first = arena.alloc(1).unwrap();
        let second = arena.alloc(PAGE_SIZE + 1).unwrap();
        assert_eq!((first.len(), first.iova()), (1, 1 << 32));
        assert_eq!(second.iova(), first.iova() + PAGE_SIZE as u64);
        drop(first);
        assert_eq!(arena.alloc(PAGE_SIZE).unwrap().iova(), 1 << 32);
        let rest = HUGE_PAGE_SIZE - 3 * PAGE_SIZE;
        let rest = arena.alloc(rest).unwrap();
        assert!(matches!(arena.alloc(2 * PAGE_SIZE), Err(Error::ArenaFull { .. })));
        drop((second, rest));
        assert_eq!(arena.alloc(HUGE_PAGE_SIZE).unwrap().len(), HUGE_PAGE_SIZE);
    }

    #[test]
    fn what_is_allocated_is_known_by_its_address() {
        let arena = Arena::new(1, 1 << 32).unwrap();
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
        let arena = Arena::new(1, 0).unwrap();
        let _first = arena.alloc(1).unwrap();
        let queue = arena.share(PAGE_SIZE, 64 << 10).unwrap();
        assert_eq!(queue.iova(), 64 << 10);
    }

    #[test]
    fn buffers_are_zeroed_when_they_are_reused() {
        let arena = Arena::new(1, 0).unwrap();
        let mut buf = arena.alloc(100).unwrap();
        buf.fill(0xaa);
        drop(buf);
        assert!(arena.alloc(100).unwrap().iter().all(|&b| b == 0));
    }

    #[test]
    fn a_buffer_of_nothing_takes_no_page() {
        let arena = Arena::new(1, 0).unwrap();
        let all = arena.alloc(arena.size()).unwrap();
        let nothing = arena.alloc(0).unwrap();
        assert!(nothing.is_empty());
        drop(nothing);
        assert!(arena.alloc(1).is_err());
        drop(all);
    }

    #[test]
    fn sizes_that_cannot_be_had_are_errors() {
        assert!(Arena::new(usize::MAX, 0).is_err());
        assert!(Arena::new(1, u64::MAX).is_err());
        let arena = Arena::new(1, 0).unwrap();
        assert!(matches!(arena.alloc(usize::MAX), Err(Error::ArenaFull { .. })));
    }
}
