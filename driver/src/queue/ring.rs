//! The two rings of a queue pair, in memory that the controller shares (Base 3.3.1).

use std::ptr::NonNull;
use std::sync::atomic::{Ordering, fence};

use nvio_spec::{Cqe, Sqe, Status};

use super::memory::RingMemory;
use crate::mmio::{Doorbell, Shadow};

/// The submission ring. It cannot overflow: there are fewer slots than entries.
pub(super) struct SubmissionRing {
    base: NonNull<[u64; 8]>,
    /// Entries, a power of two, less one.
    mask: usize,
    /// Commands placed since the ring began; modulo the entries, it is the tail.
    tail: usize,
    /// The tail that the controller was told.
    rung: usize,
    doorbell: Doorbell,
    /// Commands placed before the ring began.
    before: usize,
    pub(super) doorbells: u64,
    memory: RingMemory,
}

// SAFETY: the ring's memory is its own, and shared with nobody but the device.
unsafe impl Send for SubmissionRing {}

impl SubmissionRing {
    /// A ring of `entries`, a power of two, in `memory`, which is large enough.
    pub(super) fn new(memory: RingMemory, entries: u32, doorbell: Doorbell) -> Self {
        let (base, mask) = (memory.ptr().cast(), entries as usize - 1);
        Self { base, mask, tail: 0, rung: 0, doorbell, before: 0, doorbells: 0, memory }
    }

    pub(super) fn iova(&self) -> u64 {
        self.memory.iova()
    }

    pub(super) fn entries(&self) -> u32 {
        index(self.mask) + 1
    }

    pub(super) fn set_shadow(&mut self, shadow: Option<Shadow>) {
        self.doorbell.set_shadow(shadow);
    }

    /// Commands placed, ever.
    #[inline]
    pub(super) fn placed(&self) -> usize {
        self.before + self.tail
    }

    /// Begins again with an empty ring. The controller must not know of it.
    pub(super) fn restart(&mut self) {
        self.before += self.tail;
        (self.tail, self.rung) = (0, 0);
    }

    /// Places a command at the tail. The controller sees it after [`ring`](Self::ring).
    #[inline]
    pub(super) fn push(&mut self, sqe: Sqe) {
        let words: [u64; 8] = zerocopy::transmute!(sqe);
        self.place(words);
    }

    /// Places a Read, a Write or a Compare of what lies in one memory page, without metadata:
    /// `head` is the first two dwords, `nlb` is 0's based (NVM 3.2).
    #[inline]
    pub(super) fn push_page(&mut self, head: u64, prp1: u64, slba: u64, nlb: u32) {
        self.place([head, 0, 0, prp1, 0, slba, u64::from(nlb), 0].map(u64::to_le));
    }

    #[inline]
    fn place(&mut self, words: [u64; 8]) {
        let at = self.tail & self.mask;
        // SAFETY: `at` is at most `mask`, which the memory holds entries for. The controller does
        // not read the entry before the doorbell, which comes after a fence, so that the write need
        // not be volatile and can be done in large pieces.
        unsafe { self.base.add(at).write(words) };
        self.tail += 1;
    }

    /// Tells the controller of all commands since the last time, if there are any.
    #[inline]
    pub(super) fn ring(&mut self) {
        if self.tail != self.rung {
            // Entries before doorbell. On x86-64, stores to write-back memory are seen before a
            // later store to device memory, so that this costs nothing.
            fence(Ordering::Release);
            self.doorbell.ring(index(self.rung & self.mask), index(self.tail & self.mask));
            self.rung = self.tail;
            self.doorbells += 1;
        }
    }
}

/// A number below the entries of a ring, of which there are at most `Layout::MOST_ENTRIES`.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "at most 4,096")]
fn index(at: usize) -> u32 {
    at as u32
}

/// What is always needed of a completion queue entry.
#[derive(Clone, Copy)]
pub(super) struct Posted {
    pub(super) cid: u16,
    pub(super) status: Status,
    /// Where the entry is.
    at: u32,
}

/// The phase tag in the last dword of an entry (Base 3.3.3.2.2).
const PHASE: u32 = 1 << 16;

/// The completion ring.
pub(super) struct CompletionRing {
    base: NonNull<Cqe>,
    /// Entries, a power of two, less one.
    mask: u32,
    head: u32,
    /// The phase tag of entries that are old: clear in the first round.
    old: u32,
    /// The head that the controller was told.
    rung: u32,
    doorbell: Doorbell,
    pub(super) doorbells: u64,
    memory: RingMemory,
}

// SAFETY: as for `SubmissionRing`.
unsafe impl Send for CompletionRing {}

impl CompletionRing {
    /// A ring of `entries`, a power of two, in `memory`, which is large enough and zeroed.
    pub(super) fn new(memory: RingMemory, entries: u32, doorbell: Doorbell) -> Self {
        let (base, mask) = (memory.ptr().cast(), entries - 1);
        Self { base, mask, head: 0, old: 0, rung: 0, doorbell, doorbells: 0, memory }
    }

    pub(super) fn iova(&self) -> u64 {
        self.memory.iova()
    }

    pub(super) fn set_shadow(&mut self, shadow: Option<Shadow>) {
        self.doorbell.set_shadow(shadow);
    }

    /// Begins again with an empty ring. The controller must not know of it.
    pub(super) fn restart(&mut self) {
        self.memory.clear();
        (self.head, self.rung, self.old) = (0, 0, 0);
    }

    /// Whether the controller has posted nothing new.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.last_dword(self.head) & PHASE == self.old
    }

    /// The dword of an entry that has the phase tag.
    #[inline]
    fn last_dword(&self, at: u32) -> u32 {
        // SAFETY: `at` is at most `mask`, which the memory holds entries for; an entry is four
        // aligned dwords. The read is volatile as the device writes it.
        let last = unsafe { self.base.add(at as usize).cast::<u32>().add(3).read_volatile() };
        u32::from_le(last)
    }

    /// Takes the next completion, if the controller has posted one.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Posted> {
        let at = self.head;
        let last = self.last_dword(at);
        if last & PHASE == self.old {
            return None;
        }
        self.head = (at + 1) & self.mask;
        if self.head == 0 {
            self.old ^= PHASE;
        }
        Some(Posted { cid: (last & 0xffff) as u16, status: Status((last >> 17) as u16), at })
    }

    /// Command specific result (DW0) of an entry that was taken, until the next
    /// [`ring`](Self::ring).
    #[inline]
    pub(super) fn result(&self, posted: Posted) -> u32 {
        // The phase tag is written last, so the rest is read after it.
        fence(Ordering::Acquire);
        // SAFETY: as in `last_dword`. The device does not write the entry again before the
        // doorbell, so that the read need not be volatile, and is not done where nobody asks.
        u32::from_le(unsafe { self.base.add(posted.at as usize).cast::<u32>().read() })
    }

    /// Tells the controller which entries are free again.
    #[inline]
    pub(super) fn ring(&mut self) {
        // The reads of the entries come before the store that gives them back.
        fence(Ordering::Release);
        self.doorbell.ring(self.rung, self.head);
        self.rung = self.head;
        self.doorbells += 1;
    }
}
