//! The memory that an arena and its buffers share.

use std::any::Any;
use std::ptr::NonNull;
use std::sync::Arc;

use parking_lot::Mutex;

use super::memory::DmaMemory;
use super::page_map::{PAGE_SIZE, PageMap};
use super::space::Claim;

/// The memory of an arena, its I/O virtual addresses, and its free pages.
pub(super) struct Pages {
    pub(super) memory: Arc<DmaMemory>,
    pub(super) iova: u64,
    pub(super) free: Arc<Mutex<PageMap>>,
    /// The address range; released with the last arena and the last buffer.
    pub(super) claim: Arc<Claim>,
    /// A guard that ends the device's access to the memory when it is dropped.
    pub(super) _lease: Option<Box<dyn Any + Send + Sync>>,
}

/// A run of pages of an arena, freed when dropped.
pub(super) struct PageRun {
    ptr: NonNull<u8>,
    iova: u64,
    /// `None` for a run of no pages.
    pages: Option<Arc<Pages>>,
    first: usize,
    count: usize,
}

// SAFETY: a run is a disjoint part of an arena's memory, which it keeps alive.
unsafe impl Send for PageRun {}
// SAFETY: as above; the memory is accessed through the one `DmaBuf` that owns each byte.
unsafe impl Sync for PageRun {}

impl PageRun {
    /// Creates a run of `count` pages from page `first` on, which were marked as used.
    pub(super) fn new(pages: &Arc<Pages>, first: usize, count: usize) -> Self {
        let offset = first * PAGE_SIZE;
        // SAFETY: the pages are inside the arena's mapping.
        let ptr = unsafe { pages.memory.base().add(offset) };
        let iova = pages.iova + offset as u64;
        Self { ptr, iova, pages: Some(Arc::clone(pages)), first, count }
    }

    /// Creates a run of no pages, at no address.
    pub(super) fn empty() -> Self {
        Self { ptr: NonNull::dangling(), iova: 0, pages: None, first: 0, count: 0 }
    }

    pub(super) fn bytes(&self) -> usize {
        self.count * PAGE_SIZE
    }

    #[inline]
    pub(super) fn iova(&self) -> u64 {
        self.iova
    }

    #[inline]
    pub(super) fn ptr(&self) -> NonNull<u8> {
        self.ptr
    }
}

impl Drop for PageRun {
    fn drop(&mut self) {
        if let Some(pages) = &self.pages {
            pages.free.lock().free(self.first, self.count);
        }
    }
}

/// Memory that host and device access at the same time: pages of an arena, or of the controller.
/// Code holds no references into the memory, only pointers for volatile access.
pub(crate) struct Shared {
    ptr: NonNull<u8>,
    iova: u64,
    bytes: usize,
    /// Keeps the memory.
    _owner: Box<dyn Any + Send + Sync>,
}

// SAFETY: the memory is not tied to a thread.
unsafe impl Send for Shared {}
// SAFETY: there is no access through `&self`, only pointers.
unsafe impl Sync for Shared {}

impl Shared {
    /// Zeroes memory that nothing else accesses yet.
    ///
    /// # Safety
    /// `ptr` is valid for writes of `bytes` bytes, and exclusive, until `owner` is dropped.
    pub(crate) unsafe fn new(
        ptr: NonNull<u8>,
        iova: u64,
        bytes: usize,
        owner: impl Any + Send + Sync,
    ) -> Self {
        let mut shared = Self { ptr, iova, bytes, _owner: Box::new(owner) };
        shared.clear();
        shared
    }

    pub(crate) fn ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    /// I/O virtual address, or the address on the bus of controller memory.
    pub(crate) fn iova(&self) -> u64 {
        self.iova
    }

    /// Zeroes the memory. The device must not access it.
    pub(crate) fn clear(&mut self) {
        // SAFETY: the memory is `bytes` long, and `&mut self` is the only access to it.
        unsafe { self.ptr.write_bytes(0, self.bytes) };
    }
}
