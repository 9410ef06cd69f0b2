//! The two rings of a queue pair, in memory that the controller shares (Base 3.3.1).

use std::ptr::NonNull;
use std::sync::atomic::{Ordering, fence};

use nvio_spec::{Cqe, Sqe, Status};

use crate::dma::Shared;
use crate::mmio::Doorbell;

/// The submission ring. It cannot overflow: there are fewer slots than entries.
pub(super) struct SubmissionRing {
    base: NonNull<Sqe>,
    /// Entries, a power of two, less one.
    mask: u32,
    tail: u32,
    /// The tail that the controller was told.
    rung: u32,
    doorbell: Doorbell,
    _memory: Shared,
}

// SAFETY: the ring's memory is its own, and shared with nobody but the device.
unsafe impl Send for SubmissionRing {}

impl SubmissionRing {
    /// A ring of `entries`, a power of two, in `memory`, which is large enough and zeroed.
    pub(super) fn new(memory: Shared, entries: u32, doorbell: Doorbell) -> Self {
        let (base, mask) = (memory.ptr().cast(), entries - 1);
        Self { base, mask, tail: 0, rung: 0, doorbell, _memory: memory }
    }

    /// Places a command at the tail. The controller sees it after [`ring`](Self::ring).
    #[inline]
    pub(super) fn push(&mut self, sqe: Sqe) {
        // SAFETY: `tail` is at most `mask`, which the memory holds entries for. The controller
        // does not read the entry before the doorbell, which comes after a fence, so that the
        // write need not be volatile and can be done in large pieces.
        unsafe { self.base.add(self.tail as usize).write(sqe) };
        self.tail = (self.tail + 1) & self.mask;
    }

    /// Tells the controller of all commands since the last time, if there are any.
    #[inline]
    pub(super) fn ring(&mut self) {
        if self.tail != self.rung {
            // Entries before doorbell. On x86-64, stores to write-back memory are seen before a
            // later store to device memory, so that this costs nothing.
            fence(Ordering::Release);
            self.doorbell.ring(self.tail);
            self.rung = self.tail;
        }
    }
}

/// What a driver needs of a completion queue entry.
#[derive(Clone, Copy)]
pub(crate) struct Posted {
    /// Command specific result.
    pub(crate) dw0: u32,
    pub(crate) cid: u16,
    pub(crate) status: Status,
}

/// The completion ring.
pub(super) struct CompletionRing {
    base: NonNull<Cqe>,
    /// Entries, a power of two, less one.
    mask: u32,
    head: u32,
    /// The phase tag of entries that are new (Base 3.3.3.2.2): 1 in the first round.
    phase: u32,
    doorbell: Doorbell,
    _memory: Shared,
}

// SAFETY: as for `SubmissionRing`.
unsafe impl Send for CompletionRing {}

impl CompletionRing {
    /// A ring of `entries`, a power of two, in `memory`, which is large enough and zeroed.
    pub(super) fn new(memory: Shared, entries: u32, doorbell: Doorbell) -> Self {
        let (base, mask) = (memory.ptr().cast(), entries - 1);
        Self { base, mask, head: 0, phase: 1, doorbell, _memory: memory }
    }

    /// Whether the controller has posted nothing new.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.last_dword() >> 16 & 1 != self.phase
    }

    /// The dword of the head entry that has the phase tag.
    #[inline]
    fn last_dword(&self) -> u32 {
        // SAFETY: `head` is at most `mask`, which the memory holds entries for; an entry is four
        // aligned dwords. The read is volatile as the device writes it.
        let last =
            unsafe { self.base.add(self.head as usize).cast::<u32>().add(3).read_volatile() };
        u32::from_le(last)
    }

    /// Lets nothing look new any more.
    pub(super) fn close(&mut self) {
        self.phase = 2;
    }

    /// Takes the next completion, if the controller has posted one.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Posted> {
        let last = self.last_dword();
        if last >> 16 & 1 != self.phase {
            return None;
        }
        // The phase tag is written last, so the rest is read after it.
        fence(Ordering::Acquire);
        // SAFETY: as in `last_dword`. The device does not write the entry again before the doorbell,
        // so that the read need not be volatile, and is not done where nobody asks for it.
        let dw0 = unsafe { self.base.add(self.head as usize).cast::<u32>().read() };
        self.head = (self.head + 1) & self.mask;
        if self.head == 0 {
            self.phase ^= 1;
        }
        let dw0 = u32::from_le(dw0);
        Some(Posted { dw0, cid: (last & 0xffff) as u16, status: Status((last >> 17) as u16) })
    }

    /// Tells the controller which entries are free again.
    #[inline]
    pub(super) fn ring(&mut self) {
        // The reads of the entries come before the store that gives them back.
        fence(Ordering::Release);
        self.doorbell.ring(self.head);
    }
}
