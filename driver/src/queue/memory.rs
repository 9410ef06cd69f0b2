//! Where a ring is: in the DMA arena, or in the controller's own memory.

use std::ptr::NonNull;

use crate::dma::Shared;

/// The memory of a ring.
pub(super) struct RingMemory {
    shared: Shared,
    bytes: usize,
}

impl RingMemory {
    /// `bytes` of the arena.
    pub(super) fn host(shared: Shared, bytes: usize) -> Self {
        Self { shared, bytes }
    }

    pub(super) fn ptr(&self) -> NonNull<u8> {
        self.shared.ptr()
    }

    /// Where the controller finds it.
    pub(super) fn iova(&self) -> u64 {
        self.shared.iova()
    }

    /// Zeroes it. The controller must not know of it.
    pub(super) fn clear(&mut self) {
        // SAFETY: the memory is `bytes` long, and `&mut self` is the only way to it.
        unsafe { self.ptr().write_bytes(0, self.bytes) };
    }
}
