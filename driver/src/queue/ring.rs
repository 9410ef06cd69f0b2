//! The two rings of a queue pair, in memory that the controller shares (Base 3.3.1).

use std::ptr::NonNull;
use std::sync::atomic::{Ordering, fence};

use nvio_spec::{Cqe, SQE_SIZE, Sqe, Status};

use crate::dma::Shared;
use crate::mmio::Doorbell;

/// The submission ring. It cannot overflow, because fewer commands can be pending than it has
/// entries.
///
/// Most commands are Reads and Writes of one memory page, and half of their words are zero. These
/// words are not written: they are zero from the start, and the entry of another command is cleared
/// before its next use.
pub(super) struct SubmissionRing {
    /// Entry at the tail.
    next: NonNull<Entry>,
    /// First entry that [`prepare`](Self::prepare) must handle: a dirty entry, or the end.
    limit: NonNull<Entry>,
    base: NonNull<Entry>,
    /// Tail that was last written to the doorbell.
    rung: u32,
    /// Tail to be written to the doorbell later; `None` if it was.
    held: Option<u32>,
    pub(super) entries: u32,
    pub(super) doorbell: Doorbell,
    /// Entries of commands that [`push`](Self::push) wrote.
    dirty: DirtyEntries,
    /// Identifier of the command in each dirty entry. The ring itself may be in memory of the
    /// controller, which is slow to read.
    cids: Box<[u16]>,
    /// Commands placed in earlier rounds of the ring.
    before: usize,
    /// Number of doorbell writes.
    pub(super) rings: u64,
    pub(super) memory: Shared,
}

type Entry = [u64; 8];
const _: () = assert!(size_of::<Entry>() == SQE_SIZE);

// SAFETY: the ring owns its memory and shares it only with the device.
unsafe impl Send for SubmissionRing {}

impl SubmissionRing {
    /// Creates a ring of `entries`, a power of two, in `memory`, which is large enough and zeroed.
    pub(super) fn new(memory: Shared, entries: u32, doorbell: Doorbell) -> Self {
        let base = memory.ptr().cast();
        let mut ring = Self {
            next: base,
            limit: base,
            base,
            rung: 0,
            held: None,
            entries,
            doorbell,
            dirty: DirtyEntries::new(entries),
            cids: vec![0; entries as usize].into(),
            before: 0,
            rings: 0,
            memory,
        };
        ring.prepare(|_| false);
        ring
    }

    /// Returns the index of the entry at the tail.
    #[inline]
    fn tail(&self) -> u32 {
        // SAFETY: both are in the ring's memory, and `next` is not before `base`.
        index(unsafe { self.next.offset_from_unsigned(self.base) })
    }

    /// Returns the total number of commands placed.
    pub(super) fn placed(&self) -> usize {
        self.before + self.tail() as usize
    }

    /// Empties the ring. The controller must not know the queue.
    pub(super) fn restart(&mut self) {
        self.before = self.placed();
        (self.next, self.rung, self.held) = (self.base, 0, None);
        self.prepare(|_| false);
    }

    /// Writes a command at the tail. The controller reads it after [`ring`](Self::ring). Returns
    /// true if [`prepare`](Self::prepare) must be called.
    #[must_use]
    pub(super) fn push(&mut self, sqe: Sqe) -> bool {
        let entry: Entry = zerocopy::transmute!(sqe);
        let tail = self.tail();
        self.dirty.set(tail);
        if let Some(cid) = self.cids.get_mut(tail as usize) {
            *cid = sqe.cid.get();
        }
        // SAFETY: `next` is an entry of the ring. The controller does not read it before the
        // doorbell write, which follows a fence, so that the write need not be volatile.
        unsafe { self.next.write(entry) };
        self.advance()
    }

    /// Writes a Read, Write or Compare at the tail whose data lies in one memory page, without
    /// metadata. `head` is the first two dwords, `nlb` is 0's based (NVM 3.2). Returns true if
    /// [`prepare`](Self::prepare) must be called.
    #[inline]
    #[must_use]
    pub(super) fn push_page(&mut self, head: u64, prp1: u64, slba: u64, nlb: u64) -> bool {
        let at = self.next.cast::<u64>();
        for (word, value) in [(0, head), (3, prp1), (5, slba), (6, nlb)] {
            // SAFETY: as in `push`; an entry has eight words, and the others are zero.
            unsafe { at.add(word).write(value.to_le()) };
        }
        self.advance()
    }

    #[inline]
    fn advance(&mut self) -> bool {
        // SAFETY: `next` is before the end of the ring, so this is at most the end.
        self.next = unsafe { self.next.add(1) };
        self.next == self.limit
    }

    /// Clears the entry at the tail if it is dirty, wraps at the end, and finds the next entry to
    /// prepare. Returns the command that was cleared, if its identifier `is_in_flight`.
    ///
    /// The controller has fetched the last command of the entry, because a command that was placed
    /// later has ended: fewer commands can be pending than there are entries.
    pub(super) fn prepare(&mut self, mut is_in_flight: impl FnMut(u16) -> bool) -> Option<Sqe> {
        if self.tail() == self.entries {
            self.before += self.entries as usize;
            self.next = self.base;
        }
        let tail = self.tail();
        let mut cleared = None;
        if self.dirty.clear(tail) {
            let cid = self.cids.get(tail as usize);
            if cid.is_some_and(|&cid| is_in_flight(cid)) {
                // SAFETY: `next` is an entry of the ring, and all bytes of it are initialised.
                cleared = Some(zerocopy::transmute!(unsafe { self.next.read() }));
            }
            // SAFETY: `next` is an entry of the ring, and the controller does not read it now.
            unsafe { self.next.write([0; 8]) };
        }
        let limit = self.dirty.next(tail + 1) as usize;
        // SAFETY: at most the number of entries, so that this is at most the end of the ring.
        self.limit = unsafe { self.base.add(limit) };
        cleared
    }

    /// Returns the last command with this identifier that [`push`](Self::push) wrote, unless its
    /// entry was prepared for a later one.
    #[cold]
    pub(super) fn find(&self, cid: u16) -> Option<Sqe> {
        let tail = self.tail();
        (1..=self.entries).find_map(|age| {
            let at = tail.wrapping_sub(age) & (self.entries - 1);
            if !self.dirty.contains(at) || self.cids.get(at as usize) != Some(&cid) {
                return None;
            }
            // SAFETY: `at` is less than the number of entries, which is a power of two. The device
            // does not write the ring, and all bytes of it are initialised.
            Some(zerocopy::transmute!(unsafe { self.base.add(at as usize).read() }))
        })
    }

    /// Returns the number of commands that the doorbell has not shown to the controller.
    pub(super) fn hidden(&self) -> u32 {
        self.tail().wrapping_sub(self.rung) & (self.entries - 1)
    }

    /// Writes the tail to the doorbell if commands were placed since the last call.
    #[inline]
    pub(super) fn ring(&mut self) {
        let tail = self.tail();
        if tail != self.rung {
            self.ring_to(tail);
        }
    }

    #[inline]
    fn ring_to(&mut self, tail: u32) {
        // Entries before doorbell. On x86-64, stores to write-back memory are visible before a
        // later store to device memory, so that this costs nothing.
        fence(Ordering::Release);
        self.rings += 1;
        self.doorbell.ring(std::mem::replace(&mut self.rung, tail), tail);
    }

    /// Puts the doorbell of the commands placed so far off until
    /// [`ring_held`](Self::ring_held) or [`ring_all`](Self::ring_all).
    pub(super) fn hold(&mut self) {
        self.held = Some(self.tail());
    }

    /// Writes a tail to the doorbell that was put off. Commands that were placed later stay hidden.
    pub(super) fn ring_held(&mut self) {
        let Some(tail) = self.held.take() else { return };
        let shown = tail.wrapping_sub(self.rung) & (self.entries - 1);
        // A later doorbell may have shown them already.
        if (1..=self.hidden()).contains(&shown) {
            self.ring_to(tail);
        }
    }

    /// Writes the tail to the doorbell, also if it was put off.
    pub(super) fn ring_all(&mut self) {
        self.held = None;
        self.ring();
    }
}

/// Converts the index of an entry, which is below `Layout::ENTRIES_MAX`.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "at most 4,096")]
fn index(at: usize) -> u32 {
    at as u32
}

/// A completion queue entry that was found.
#[derive(Clone, Copy)]
pub(crate) struct Posted {
    /// Last dword: command identifier, phase tag and status.
    last: u32,
    entry: NonNull<Cqe>,
}

impl Posted {
    /// Returns the command identifier in bits 15:0; bits 31:16 are undefined.
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
///
/// The doorbell is written for half of the ring at once. The controller then always has room to post
/// entries up to the next write, so that neither side waits for the other.
pub(super) struct CompletionRing {
    /// Entry at the head.
    next: NonNull<Cqe>,
    /// Entry before which [`ring`](Self::ring) must be called; at most the end of the ring.
    stop: NonNull<Cqe>,
    /// End of the ring.
    end: NonNull<Cqe>,
    /// Phase tag of entries that are not new: clear in the first round.
    old: u32,
    /// Head that was last written to the doorbell.
    rung: u32,
    entries: u32,
    pub(super) doorbell: Doorbell,
    /// Number of doorbell writes.
    pub(super) rings: u64,
    base: NonNull<Cqe>,
    pub(super) memory: Shared,
}

// SAFETY: as for `SubmissionRing`.
unsafe impl Send for CompletionRing {}

impl CompletionRing {
    /// Creates a ring of `entries`, a power of two, in `memory`, which is large enough and zeroed.
    pub(super) fn new(memory: Shared, entries: u32, doorbell: Doorbell) -> Self {
        let base = memory.ptr().cast();
        // SAFETY: the memory holds `entries`; this is one past its end.
        let end = unsafe { base.add(entries as usize) };
        let (next, stop, old, rung, rings) = (base, end, 0, 0, 0);
        let mut ring = Self { next, stop, end, entries, old, rung, doorbell, rings, base, memory };
        ring.stop_after(entries / 2);
        ring
    }

    /// Empties the ring. The controller must not know the queue.
    pub(super) fn restart(&mut self) {
        self.memory.clear();
        (self.next, self.rung, self.old) = (self.base, 0, 0);
        self.stop_after(self.entries / 2);
    }

    /// Returns the index of the entry at the head.
    fn head(&self) -> u32 {
        // SAFETY: both are in the ring's memory, and `next` is not before `base`.
        index(unsafe { self.next.offset_from_unsigned(self.base) })
    }

    /// Stops after `count` further entries, or at the end of the ring.
    fn stop_after(&mut self, count: u32) {
        let at = (self.head() + count).min(self.entries) as usize;
        // SAFETY: the memory holds `entries`; this is at most one past its end.
        self.stop = unsafe { self.base.add(at) };
    }

    /// Stops after at most `count` further entries, at least 1.
    pub(super) fn stop_within(&mut self, count: u32) {
        let before = self.stop;
        self.stop_after(count);
        self.stop = self.stop.min(before);
    }

    /// Returns true if the controller has posted no new entry.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        (self.last_dword() ^ self.old) & PHASE == 0
    }

    /// Returns the last dword of the head entry, which has the phase tag.
    #[inline]
    fn last_dword(&self) -> u32 {
        // SAFETY: `next` is before `end`, so that it is an entry: four aligned dwords. The read is
        // volatile because the device writes it.
        u32::from_le(unsafe { self.next.cast::<u32>().add(3).read_volatile() })
    }

    /// Returns the next entry, if the controller has posted one. It stays until
    /// [`advance`](Self::advance).
    #[inline]
    pub(super) fn peek(&self) -> Option<Posted> {
        let last = self.last_dword();
        ((last ^ self.old) & PHASE != 0).then_some(Posted { last, entry: self.next })
    }

    /// Removes the entry that [`peek`](Self::peek) has returned. Returns true if
    /// [`ring`](Self::ring) must be called.
    #[inline]
    #[must_use]
    pub(super) fn advance(&mut self, posted: Posted) -> bool {
        // SAFETY: `posted` is before `stop`, so this is at most the end of the ring.
        self.next = unsafe { posted.entry.add(1) };
        self.next == self.stop
    }

    /// Returns the command specific result (DW0) of the entry at the head.
    #[inline]
    pub(super) fn result(&self, posted: Posted) -> u32 {
        // The controller writes the phase tag last, so that DW0 must be read after it.
        fence(Ordering::Acquire);
        // SAFETY: `posted` is an entry of this ring. The device does not write it again before the
        // doorbell write, so that the read need not be volatile and can be optimised away.
        u32::from_le(unsafe { posted.entry.cast::<u32>().read() })
    }

    /// Wraps at the end, writes the head to the doorbell if entries were removed since the last
    /// call, and returns their number.
    pub(super) fn ring(&mut self) -> u32 {
        if self.next == self.end {
            self.next = self.base;
            self.old ^= PHASE;
        }
        let head = self.head();
        let removed = head.wrapping_sub(self.rung) & (self.entries - 1);
        if removed > 0 {
            // The entries are read before the store that frees them.
            fence(Ordering::Release);
            self.rings += 1;
            self.doorbell.ring(std::mem::replace(&mut self.rung, head), head);
        }
        self.stop_after(self.entries / 2);
        removed
    }
}

/// A set of ring entries.
pub(super) struct DirtyEntries {
    words: Box<[u64]>,
    entries: u32,
}

impl DirtyEntries {
    /// Creates an empty set for a ring of `entries`.
    pub(super) fn new(entries: u32) -> Self {
        Self { words: vec![0; entries.div_ceil(64) as usize].into(), entries }
    }

    /// Adds an entry.
    pub(super) fn set(&mut self, at: u32) {
        if let Some(word) = self.words.get_mut(at as usize / 64) {
            *word |= 1 << (at % 64);
        }
    }

    /// Returns true if the set has an entry.
    pub(super) fn contains(&self, at: u32) -> bool {
        let word = self.words.get(at as usize / 64);
        word.is_some_and(|word| word >> (at % 64) & 1 != 0)
    }

    /// Removes an entry. Returns true if the set had it.
    pub(super) fn clear(&mut self, at: u32) -> bool {
        let Some(word) = self.words.get_mut(at as usize / 64) else { return false };
        let bit = 1 << (at % 64);
        let was = *word & bit != 0;
        *word &= !bit;
        was
    }

    /// Returns the first entry of the set from `from` on, or the number of ring entries.
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
            assert!(marks.contains(1) && marks.clear(1) && !marks.clear(1) && !marks.contains(1));
            assert_eq!(marks.next(1), set.get(2).copied().unwrap_or(entries));
        }
    }
}
