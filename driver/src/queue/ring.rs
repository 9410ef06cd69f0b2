//! The two rings of a queue pair, in memory that the controller shares (Base 3.3.1).

use std::ptr::NonNull;
use std::sync::atomic::{Ordering, fence};

use nvio_spec::{Cqe, SQE_SIZE, Sqe, Status};

use crate::controller::controller_memory::ControllerPages;
use crate::dma::Shared;
use crate::mmio::{Doorbell, Shadow};

/// The submission ring. It cannot overflow: there are fewer slots than entries.
///
/// Most commands are Reads and Writes of one memory page, of which half the words are zero. Those
/// are not written: entries are zero there from the start, and where another command has left
/// something, it is cleared before the entry's next turn.
pub(super) struct SubmissionRing {
    /// The entry at the tail.
    next: NonNull<Entry>,
    /// An entry that needs attention before it is written: one that is not clean, or the end.
    limit: NonNull<Entry>,
    base: NonNull<Entry>,
    /// The tail that the controller was told.
    rung: u32,
    entries: u32,
    doorbell: Doorbell,
    /// Entries that are not clean.
    dirty: DirtyEntries,
    /// Commands placed before `next` was last at the start of the ring.
    before: usize,
    /// How often there was something to tell the controller.
    rings: u64,
    memory: RingMemory,
}

type Entry = [u64; 8];
const _: () = assert!(size_of::<Entry>() == SQE_SIZE);

// SAFETY: the ring's memory is its own, and shared with nobody but the device.
unsafe impl Send for SubmissionRing {}

impl SubmissionRing {
    /// A ring of `entries`, a power of two, in `memory`, which is large enough and zeroed.
    pub(super) fn new(memory: RingMemory, entries: u32, doorbell: Doorbell) -> Self {
        let base = memory.ptr().cast();
        let mut ring = Self {
            next: base,
            limit: base,
            base,
            rung: 0,
            entries,
            doorbell,
            dirty: DirtyEntries::new(entries),
            before: 0,
            rings: 0,
            memory,
        };
        ring.attend();
        ring
    }

    pub(super) fn iova(&self) -> u64 {
        self.memory.iova()
    }

    pub(super) fn entries(&self) -> u32 {
        self.entries
    }

    /// Whether it is in memory of the controller.
    pub(super) fn is_in_controller(&self) -> bool {
        self.memory.is_controller()
    }

    pub(super) fn set_shadow(&mut self, shadow: Option<Shadow>) {
        self.doorbell.set_shadow(shadow);
    }

    /// The number of the entry at the tail.
    #[inline]
    fn tail(&self) -> u32 {
        // SAFETY: both are in the ring's memory, and `next` is not before `base`.
        index(unsafe { self.next.offset_from_unsigned(self.base) })
    }

    /// Commands placed, ever.
    pub(super) fn placed(&self) -> usize {
        self.before + self.tail() as usize
    }

    /// Doorbells rung, ever.
    pub(super) fn doorbells(&self) -> u64 {
        self.rings - self.doorbell.spared()
    }

    /// Begins again with an empty ring. The controller must not know of it.
    pub(super) fn restart(&mut self) {
        self.before = self.placed();
        (self.next, self.rung) = (self.base, 0);
        self.attend();
    }

    /// Places a command at the tail. The controller sees it after [`ring`](Self::ring).
    pub(super) fn push(&mut self, sqe: Sqe) {
        let entry: Entry = zerocopy::transmute!(sqe);
        let clean = [entry[1], entry[2], entry[4], entry[7]] == [0; 4];
        let tail = self.tail();
        if !clean {
            self.dirty.set(tail);
        }
        // SAFETY: `next` is an entry of the ring. The controller does not read it before the
        // doorbell, which comes after a fence, so that the write need not be volatile.
        unsafe { self.next.write(entry) };
        self.advance();
    }

    /// Places a Read, a Write or a Compare of what lies in one memory page, without metadata:
    /// `head` is the first two dwords, `nlb` is 0's based (NVM 3.2).
    #[inline]
    pub(super) fn push_page(&mut self, head: u64, prp1: u64, slba: u64, nlb: u64) {
        let at = self.next.cast::<u64>();
        for (word, value) in [(0, head), (3, prp1), (5, slba), (6, nlb)] {
            // SAFETY: as in `push`; an entry has eight words, and the others are zero.
            unsafe { at.add(word).write(value.to_le()) };
        }
        // Last, so that the rare case has nothing to keep.
        self.advance();
    }

    #[inline]
    fn advance(&mut self) {
        // SAFETY: `next` is before the end of the ring, so this is at most the end.
        self.next = unsafe { self.next.add(1) };
        if self.next == self.limit {
            self.attend();
        }
    }

    /// Makes `next` an entry that is clean, and finds the one after it that needs attention.
    ///
    /// The controller has taken the entry's last command: with fewer slots than entries, one that
    /// was placed later has ended.
    #[cold]
    #[inline(never)]
    fn attend(&mut self) {
        if self.tail() == self.entries {
            self.before += self.entries as usize;
            self.next = self.base;
        }
        let tail = self.tail();
        if self.dirty.clear(tail) {
            // SAFETY: it is an entry of the ring, and nobody reads it now.
            unsafe { self.next.write([0; 8]) };
        }
        let limit = self.dirty.next(tail + 1) as usize;
        // SAFETY: at most the number of entries, so that this is at most the end of the ring.
        self.limit = unsafe { self.base.add(limit) };
    }

    /// Tells the controller of all commands since the last time, if there are any.
    #[inline]
    pub(super) fn ring(&mut self) {
        let tail = self.tail();
        if tail != self.rung {
            // Entries before doorbell. On x86-64, stores to write-back memory are seen before a
            // later store to device memory, so that this costs nothing.
            fence(Ordering::Release);
            self.rings += 1;
            self.doorbell.ring(std::mem::replace(&mut self.rung, tail), tail);
        }
    }
}

/// A number below the entries of a ring, of which there are at most `Layout::ENTRIES_MAX`.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "at most 4,096")]
fn index(at: usize) -> u32 {
    at as u32
}

/// A completion queue entry that was taken.
#[derive(Clone, Copy)]
pub(super) struct Posted {
    /// The last dword: the command identifier, the phase tag, and the status.
    last: u32,
    entry: NonNull<Cqe>,
}

impl Posted {
    /// The command identifier in bits 15:0, with other bits above.
    #[inline]
    pub(super) fn cid(self) -> u32 {
        self.last
    }

    #[inline]
    pub(super) fn status(self) -> Status {
        Status((self.last >> 17) as u16)
    }
}

/// The phase tag in the last dword of an entry (Base 3.3.3.2.2).
const PHASE: u32 = 1 << 16;

/// The completion ring.
pub(super) struct CompletionRing {
    /// The entry at the head.
    next: NonNull<Cqe>,
    /// The entry after the last.
    end: NonNull<Cqe>,
    /// The phase tag of entries that are old: clear in the first round.
    old: u32,
    /// The head that the controller was told.
    rung: u32,
    doorbell: Doorbell,
    /// How often entries were given back: once for each poll that found something.
    rings: u64,
    base: NonNull<Cqe>,
    memory: RingMemory,
}

// SAFETY: as for `SubmissionRing`.
unsafe impl Send for CompletionRing {}

impl CompletionRing {
    /// A ring of `entries`, a power of two, in `memory`, which is large enough and zeroed.
    pub(super) fn new(memory: RingMemory, entries: u32, doorbell: Doorbell) -> Self {
        let base = memory.ptr().cast();
        // SAFETY: the memory holds `entries`; this is one past its end.
        let end = unsafe { base.add(entries as usize) };
        Self { next: base, end, old: 0, rung: 0, doorbell, rings: 0, base, memory }
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
        (self.next, self.rung, self.old) = (self.base, 0, 0);
    }

    /// How often entries were given back.
    pub(super) fn rings(&self) -> u64 {
        self.rings
    }

    /// Doorbells rung, ever.
    pub(super) fn doorbells(&self) -> u64 {
        self.rings - self.doorbell.spared()
    }

    /// Whether the controller has posted nothing new.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        (self.last_dword() ^ self.old) & PHASE == 0
    }

    /// The dword of the head entry that has the phase tag.
    #[inline]
    fn last_dword(&self) -> u32 {
        // SAFETY: `next` is before `end`, so that it is an entry: four aligned dwords. The read is
        // volatile as the device writes it.
        u32::from_le(unsafe { self.next.cast::<u32>().add(3).read_volatile() })
    }

    /// Takes the next completion, if the controller has posted one.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Posted> {
        let entry = self.next;
        let last = self.last_dword();
        if (last ^ self.old) & PHASE == 0 {
            return None;
        }
        // SAFETY: `next` is before `end`, so this is at most `end`.
        self.next = unsafe { entry.add(1) };
        if self.next == self.end {
            self.wrap();
        }
        Some(Posted { last, entry })
    }

    #[cold]
    #[inline(never)]
    fn wrap(&mut self) {
        self.next = self.base;
        self.old ^= PHASE;
    }

    /// Command specific result (DW0) of an entry that was taken, until the next
    /// [`ring`](Self::ring).
    #[inline]
    pub(super) fn result(&self, posted: Posted) -> u32 {
        // The phase tag is written last, so the rest is read after it.
        fence(Ordering::Acquire);
        // SAFETY: it is an entry of this ring, which the device does not write again before the
        // doorbell, so that the read need not be volatile, and is not done where nobody asks.
        u32::from_le(unsafe { posted.entry.cast::<u32>().read() })
    }

    /// Tells the controller which entries are free again.
    #[inline]
    pub(super) fn ring(&mut self) {
        // The reads of the entries come before the store that gives them back.
        fence(Ordering::Release);
        // SAFETY: both are in the ring's memory, and `next` is not before `base`.
        let head = index(unsafe { self.next.offset_from_unsigned(self.base) });
        self.rings += 1;
        self.doorbell.ring(std::mem::replace(&mut self.rung, head), head);
    }
}

/// Which entries of a ring are marked.
pub(super) struct DirtyEntries {
    words: Box<[u64]>,
    entries: u32,
}

impl DirtyEntries {
    /// No mark, for `entries`.
    pub(super) fn new(entries: u32) -> Self {
        Self { words: vec![0; entries.div_ceil(64) as usize].into(), entries }
    }

    /// DirtyEntries an entry.
    pub(super) fn set(&mut self, at: u32) {
        if let Some(word) = self.words.get_mut(at as usize / 64) {
            *word |= 1 << (at % 64);
        }
    }

    /// Takes a mark away; whether there was one.
    pub(super) fn clear(&mut self, at: u32) -> bool {
        let Some(word) = self.words.get_mut(at as usize / 64) else { return false };
        let bit = 1 << (at % 64);
        let was = *word & bit != 0;
        *word &= !bit;
        was
    }

    /// The first marked entry from `from` on, or the number of entries.
    pub(super) fn next(&self, from: u32) -> u32 {
        let mut at = from;
        while at < self.entries {
            let word = self.words.get(at as usize / 64).map_or(0, |word| word >> (at % 64));
            if word != 0 {
                return at + word.trailing_zeros();
            }
            at = (at | 63) + 1;
        }
        self.entries
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_in_order() {
        for entries in [2, 64, 128, 4096] {
            let mut marks = DirtyEntries::new(entries);
            assert_eq!(marks.next(0), entries);
            let set: Vec<_> =
                [0, 1, 63, 64, 100, 4095].into_iter().filter(|&at| at < entries).collect();
            set.iter().for_each(|&at| marks.set(at));
            let mut found = vec![];
            let mut at = marks.next(0);
            while at < entries {
                found.push(at);
                at = marks.next(at + 1);
            }
            assert_eq!(found, set);
            assert!(marks.clear(1) && !marks.clear(1));
            assert_eq!(marks.next(1), set.get(2).copied().unwrap_or(entries));
        }
    }
}
