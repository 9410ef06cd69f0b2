//! Where a ring is: in the DMA arena, or in the controller's own memory.

use std::ptr::NonNull;

use super::QueuePair;
use crate::controller_memory::ControllerPages;
use crate::dma::Shared;

impl<T> QueuePair<T> {
    /// Whether the submission queue is in the Controller Memory Buffer; see
    /// [`Options::controller_memory_queues`](crate::Options::controller_memory_queues).
    pub fn is_in_controller_memory(&self) -> bool {
        self.core.is_in_controller()
    }
}

/// The memory of a ring.
pub(super) struct RingMemory {
    place: Place,
    bytes: usize,
}

enum Place {
    Host(Shared),
    Controller(ControllerPages),
}

impl RingMemory {
    /// `bytes` of the arena.
    pub(super) fn host(shared: Shared, bytes: usize) -> Self {
        Self { place: Place::Host(shared), bytes }
    }

    /// `bytes` of the controller, which are only written, and never read.
    pub(super) fn controller(pages: ControllerPages, bytes: usize) -> Self {
        Self { place: Place::Controller(pages), bytes }
    }

    pub(super) fn ptr(&self) -> NonNull<u8> {
        match &self.place {
            Place::Host(shared) => shared.ptr(),
            Place::Controller(pages) => pages.ptr(),
        }
    }

    /// Where the controller finds it.
    pub(super) fn iova(&self) -> u64 {
        match &self.place {
            Place::Host(shared) => shared.iova(),
            Place::Controller(pages) => pages.iova(),
        }
    }

    /// Whether it is the controller's.
    pub(super) fn is_controller(&self) -> bool {
        matches!(self.place, Place::Controller(_))
    }

    /// Zeroes it. The controller must not know of it.
    pub(super) fn clear(&mut self) {
        // SAFETY: the memory is `bytes` long, and `&mut self` is the only way to it.
        unsafe { self.ptr().write_bytes(0, self.bytes) };
    }
}
