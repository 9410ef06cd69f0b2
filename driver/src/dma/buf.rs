//! Owned DMA buffers.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use super::page_map::PAGE_SIZE;
use super::pages::PageRun;
use crate::error::{Error, Result};

/// [`PAGE_SIZE`] in the width of lengths.
const PAGE: u32 = 4096;
const _: () = assert!(PAGE as usize == PAGE_SIZE);

/// A contiguous buffer that the device can access, or a part of one; at most 4 GiB less a page.
///
/// A buffer is exclusive: while a command uses it, the queue owns it. [`split_to`](Self::split_to)
/// makes two disjoint buffers of one; the pages are freed when the last part is dropped.
///
/// # Examples
/// ```
/// use nvio_driver::{Arena, PageSpan};
///
/// let arena = Arena::detached(2 << 20)?;
/// let mut buf = arena.alloc(8192)?;
/// buf[..5].copy_from_slice(b"hello");
/// assert_eq!((buf.iova(), buf.len(), buf.is_empty()), (arena.iova(), 8192, false));
///
/// // Two disjoint buffers, each for a command of its own, and one buffer again.
/// let mut page = buf.split_to(4096).ok_or("too short")?;
/// assert!(page.is_page(PageSpan::new(4096)) && page.is_aligned());
/// page.join(buf).map_err(|_| "not neighbours")?;
///
/// page.truncate(100);
/// assert_eq!(page.len(), 100);
/// assert!(page.reclaim(), "no other part exists");
/// assert_eq!(page.len(), 8192);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
// Two words, because it is moved twice for each command.
#[derive(derive_more::Debug)]
#[debug("DmaBuf({} bytes at {:#x})", self.len32(), self.iova())]
pub struct DmaBuf {
    /// `len` in the low half, and `start`, the offset in the allocation, in the high half. One
    /// word, because they are moved together. `start + len` is inside the allocation.
    span: u64,
    pages: Arc<Allocation>,
}

/// A length of buffers that begin on a page, as [`DmaBuf::is_page`] compares it with a buffer in the fewest
/// instructions.
///
/// See the [example](DmaBuf#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSpan(u64);

impl PageSpan {
    /// The length of no buffer.
    // Its low bits are set, which are zero in each `span_in_page`.
    pub const NONE: Self = Self(u64::MAX);

    /// Creates the length from a number of bytes.
    ///
    /// See the [example](DmaBuf#examples).
    pub const fn new(bytes: u32) -> Self {
        Self((bytes as u64) << DmaBuf::SPAN_SHIFT)
    }
}

/// The pages of a buffer and of its parts.
struct Allocation {
    run: PageRun,
    carried: Option<Carried>,
}

/// Buffers that an empty buffer carries; see [`ScatterList`](super::ScatterList).
#[derive(Debug, Default)]
pub(super) struct Carried {
    pub(super) data: Vec<DmaBuf>,
    pub(super) metadata: Option<DmaBuf>,
    pub(super) label: u64,
    /// Other handles of memory that the host may read meanwhile, instead of `data`. They are not
    /// accessed.
    pub(super) shared: Vec<DmaBuf>,
}

impl DmaBuf {
    /// Bit of [`span_in_page`](Self::span_in_page) where the length begins.
    pub(crate) const SPAN_SHIFT: u32 = u32::BITS - PAGE.trailing_zeros();
    /// Maximum length of a buffer.
    pub(super) const BYTES_MAX: usize = u32::MAX as usize + 1 - PAGE_SIZE;

    /// Returns a buffer of the first `len` bytes of a run of pages. `None` if the run is shorter,
    /// or too long for a buffer.
    pub(super) fn new(run: PageRun, len: usize) -> Option<Self> {
        let inside = len <= run.bytes() && run.bytes() <= Self::BYTES_MAX;
        let len = u32::try_from(len).ok().filter(|_| inside)?;
        Some(Self { span: pack(0, len), pages: Arc::new(Allocation { run, carried: None }) })
    }

    /// Creates an empty buffer that carries others.
    pub(super) fn carrying(carried: Carried) -> Self {
        let pages = Allocation { run: PageRun::empty(), carried: Some(carried) };
        Self { span: 0, pages: Arc::new(pages) }
    }

    /// Buffers that this buffer carries.
    pub(super) fn carried(&self) -> Option<&Carried> {
        self.pages.carried.as_ref()
    }

    /// Buffers that this buffer carries, mutable.
    pub(super) fn carried_mut(&mut self) -> Option<&mut Carried> {
        Arc::get_mut(&mut self.pages)?.carried.as_mut()
    }

    /// Returns the I/O virtual address of the first byte.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn iova(&self) -> u64 {
        self.pages.run.iova() + u64::from(self.start())
    }

    /// Returns the length in bytes.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn len(&self) -> usize {
        self.len32() as usize
    }

    /// Returns [`len`](Self::len) in its stored width.
    #[inline]
    pub(crate) fn len32(&self) -> u32 {
        (self.span & 0xffff_ffff) as u32
    }

    /// Returns the offset in the allocation.
    #[inline]
    pub(super) fn start(&self) -> u32 {
        (self.span >> 32) as u32
    }

    /// Returns true if the buffer, which is not empty, lies in one memory page of any size that
    /// controllers support. Allocations begin on a page.
    #[inline]
    pub(crate) fn is_in_one_page(&self) -> bool {
        // Neither is above 4 GiB less a page, so that the sum does not wrap.
        (self.start() & (PAGE - 1)).wrapping_add(self.len32()) <= PAGE
    }

    /// Returns the offset in the page in bits 63:52, and the length in bits 51:20. The other bits
    /// are zero.
    #[inline(always)]
    pub(crate) fn span_in_page(&self) -> u64 {
        // Allocations begin on a page.
        self.span << Self::SPAN_SHIFT
    }

    /// Returns [`span_in_page`](Self::span_in_page) as if the buffer began on a page.
    pub(crate) fn span_without_offset(&self) -> u64 {
        u64::from(self.len32()) << Self::SPAN_SHIFT
    }

    /// Returns true if the buffer begins on a page and has this length.
    ///
    /// See the [example](Self#examples).
    #[inline(always)]
    pub fn is_page(&self, span: PageSpan) -> bool {
        self.span_in_page() == span.0
    }

    /// Returns true if the buffer begins at a multiple of four bytes, as controllers require (Base
    /// 4.1.1).
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn is_aligned(&self) -> bool {
        // Allocations begin on a page.
        self.start() & 3 == 0
    }

    /// Checks that the buffer begins at a multiple of four bytes. A controller may ignore the low
    /// bits of an address, and would then access the bytes before the buffer.
    ///
    /// # Errors
    /// [`Error::Misaligned`].
    pub(crate) fn check_alignment(&self) -> Result<()> {
        match self.is_aligned() {
            true => Ok(()),
            false => Err(Error::Misaligned { value: self.iova(), align: 4 }),
        }
    }

    /// Returns true if the buffer has no bytes.
    ///
    /// See the [example](Self#examples).
    pub fn is_empty(&self) -> bool {
        self.len32() == 0
    }

    /// Returns the offset in the allocation of the byte after the last.
    #[inline]
    fn end(&self) -> u32 {
        self.start() + self.len32()
    }

    #[inline]
    fn ptr(&self) -> NonNull<u8> {
        // SAFETY: `start` is inside the allocation, or one past its end.
        unsafe { self.pages.run.ptr().add(self.start() as usize) }
    }

    /// Splits the first `at` bytes off into a buffer of their own. `None`, and nothing changes, if
    /// the buffer is shorter.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn split_to(&mut self, at: usize) -> Option<Self> {
        if at > self.len() {
            return None;
        }
        let at = at as u64;
        let front = self.span - (self.len() as u64 - at);
        // `at` from the length to the start, in one addition.
        self.span += (at << 32) - at;
        Some(Self { span: front, pages: Arc::clone(&self.pages) })
    }

    /// Shortens the buffer to its first `len` bytes. A shorter buffer is unchanged. No buffer has
    /// the rest until [`reclaim`](Self::reclaim).
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        let len = u32::try_from(len).unwrap_or(u32::MAX).min(self.len32());
        self.span = pack(self.start(), len);
    }

    /// Extends the buffer to all pages of its allocation, and returns true, if no other part of the
    /// allocation exists.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn reclaim(&mut self) -> bool {
        // No other part of the pages, no mark, and no way to make one while this is borrowed.
        let Some(pages) = Arc::get_mut(&mut self.pages) else { return false };
        let Ok(len) = u32::try_from(pages.run.bytes()) else { return false };
        self.span = pack(0, len);
        true
    }

    /// Appends `next`, which was split off the end of this buffer.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// Returns `next` if it is not the direct continuation.
    #[inline]
    pub fn join(&mut self, next: Self) -> Result<(), Self> {
        if !Arc::ptr_eq(&self.pages, &next.pages) || self.end() != next.start() {
            return Err(next);
        }
        self.span = pack(self.start(), self.len32() + next.len32());
        Ok(())
    }

    /// Drops a buffer that is not the last part of its allocation. Dropping an `Arc` would first
    /// store it in memory, for the case that it is the last.
    #[inline(always)]
    pub(super) fn drop_part(self) {
        if let Some(last) = Arc::into_inner(self.pages) {
            drop_pages(last);
        }
    }

    /// Returns true if no other part of the allocation and no mark exists.
    pub(super) fn is_only_part(&mut self) -> bool {
        Arc::get_mut(&mut self.pages).is_some()
    }

    /// Creates a buffer of the same memory. The caller writes to neither while both exist.
    pub(super) fn alias(&self) -> Self {
        Self { span: self.span, pages: Arc::clone(&self.pages) }
    }

    /// Creates an empty buffer that marks the start of this one.
    #[inline]
    pub(crate) fn mark(&self) -> Self {
        Self { span: pack(self.start(), 0), pages: Arc::clone(&self.pages) }
    }

    /// Returns true if this buffer lies before `rest`, and not before offset `start`, in one
    /// allocation with it.
    #[inline]
    pub(super) fn is_between(&self, start: u32, rest: &Self) -> bool {
        Arc::ptr_eq(&self.pages, &rest.pages) && self.start() >= start && self.end() <= rest.start()
    }

    /// Extends this buffer over the `len` bytes before it.
    ///
    /// # Safety
    /// The bytes must belong to the allocation of this buffer, and no other buffer may cover any of
    /// them.
    #[inline]
    pub(super) unsafe fn grow_back(&mut self, len: u32) {
        self.span = pack(self.start() - len, self.len32() + len);
    }
}

#[cold]
#[inline(never)]
fn drop_pages(pages: Allocation) {
    drop(pages);
}

#[inline]
fn pack(start: u32, len: u32) -> u64 {
    u64::from(start) << 32 | u64::from(len)
}

impl Deref for DmaBuf {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the range is initialised memory (a memfd is zeroed) that this buffer owns, as a
        // `Vec` owns its elements. No command has it, because commands take buffers by value.
        unsafe { std::slice::from_raw_parts(self.ptr().as_ptr(), self.len()) }
    }
}

impl DerefMut for DmaBuf {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.ptr().as_ptr(), self.len()) }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Arena, PageSpan};

    #[test]
    fn a_page_has_the_length_and_begins_on_a_page() {
        let arena = Arena::detached(1).unwrap();
        let mut all = arena.alloc(16_384).unwrap();
        let mut second = all.split_to(8192).unwrap();
        let first = second.split_to(4096).unwrap();
        let is = |buf: &crate::DmaBuf, bytes| buf.is_page(PageSpan::new(bytes));
        assert!(is(&first, 4096) && is(&second, 4096) && is(&all, 8192));
        assert!(!is(&first, 4095) && !is(&first, 8192) && !is(&all, 4096) && !is(&first, 0));
        let rest = second.split_to(512).unwrap();
        assert!(is(&rest, 512) && !is(&second, 3584));
        for buf in [first, second, rest, all, arena.alloc(0).unwrap()] {
            assert!(!buf.is_page(PageSpan::NONE));
        }
    }

    #[test]
    fn parts_are_disjoint_and_join_only_in_order() {
        let arena = Arena::detached(1).unwrap();
        let mut tail = arena.alloc(1000).unwrap();
        let mut head = tail.split_to(600).unwrap();
        head.fill(1);
        tail.fill(2);
        assert_eq!((head.len(), tail.len(), tail.iova()), (600, 400, arena.iova() + 600));
        assert!(head.iter().all(|&b| b == 1) && tail.iter().all(|&b| b == 2));
        assert!(tail.split_to(401).is_none() && tail.split_to(1 << 32).is_none());
        head = tail.join(head).unwrap_err();
        head.join(tail).unwrap();
        assert_eq!(head.len(), 1000);
        let stranger = arena.alloc(1).unwrap();
        assert!(head.join(stranger).is_err());
    }

    #[test]
    fn split_off_memory_is_reclaimed_after_its_last_owner() {
        let arena = Arena::detached(1).unwrap();
        let mut buf = arena.alloc(8192).unwrap();
        buf.truncate(100);
        buf.truncate(200);
        assert_eq!(buf.len(), 100);
        let front = buf.split_to(10).unwrap();
        assert!(!buf.reclaim());
        assert_eq!(buf.len(), 90);
        drop(front);
        assert!(buf.reclaim());
        assert_eq!((buf.len(), buf.iova()), (8192, arena.iova()));
    }

    #[test]
    fn pages_are_free_only_when_the_last_part_is() {
        let arena = Arena::detached(1).unwrap();
        let mut tail = arena.alloc(arena.size()).unwrap();
        let head = tail.split_to(1).unwrap();
        drop(tail);
        assert!(arena.alloc(1).is_err());
        drop(head);
        assert!(arena.alloc(arena.size()).is_ok());
    }
}
