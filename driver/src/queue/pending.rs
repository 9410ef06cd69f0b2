//! The table of commands in flight.

use std::mem::MaybeUninit;

/// Commands in flight by command identifier.
///
/// An identifier is a slot's number with a generation above it, so that a completion that is late,
/// doubled or made up does not match the command that has the slot now.
pub(super) struct PendingCommands<T> {
    table: Box<[Slot<T>]>,
    /// The first free slot; [`NONE`], which is in no table, when there is none. What was freed
    /// last is used first, as it is in the cache.
    free: u32,
    /// Bits of an identifier that are the slot's number; those above are the generation.
    index_mask: u32,
    /// What a tag grows by when its slot is freed.
    generation: u32,
}

/// One command in flight, or none.
#[repr(align(64))]
pub(super) struct Slot<T> {
    /// There while the slot is in use. Not an `Option`: taking that costs a fifth of a completion.
    request: MaybeUninit<T>,
    /// Of a slot in use, its `tag`; else [`UNUSED`].
    used: u32,
    /// Of a free slot: the number of the next free one. Of a slot in use: [`AgeMark`], or what was
    /// there before, which is below any mark.
    link: u32,
    /// Identifier of the command in the slot, or of the next one, in bits 31:16, where the first
    /// dword of a command has it.
    tag: u32,
}

/// No tag: those have bits 15:0 clear.
const UNUSED: u32 = u32::MAX;
const NONE: u32 = u16::MAX as u32;

/// What [`PendingCommands::find_overdue`] left in a slot when it saw the command there. It costs nothing where
/// commands are submitted and completed: freeing a slot overwrites it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct AgeMark(u32);

impl AgeMark {
    const SEEN: u32 = 1 << 31;
    const ABORTED: u32 = 1 << 30;
    const TIME: u32 = Self::ABORTED - 1;

    fn new(now: u32, aborted: bool) -> Self {
        Self(Self::SEEN | if aborted { Self::ABORTED } else { 0 } | now & Self::TIME)
    }

    /// Time since the mark was made. Times wrap, after 12 days.
    fn age(self, now: u32) -> u32 {
        now.wrapping_sub(self.0) & Self::TIME
    }
}

/// A command that has been in flight for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overdue {
    pub(super) cid: u16,
    /// Whether [`PendingCommands::mark_aborted`] was called for it, as long ago.
    pub(super) aborted: bool,
}

impl<T> Slot<T> {
    /// Identifier of the next command in the slot.
    pub(super) fn cid(&self) -> u16 {
        (self.tag >> 16) as u16
    }

    /// [`cid`](Self::cid) in bits 31:16.
    #[inline]
    pub(super) fn tag(&self) -> u32 {
        self.tag
    }

    /// Puts a request into a slot that was free.
    #[inline]
    pub(super) fn fill(&mut self, request: T) {
        debug_assert_eq!(self.used, UNUSED);
        self.request.write(request);
        self.used = self.tag;
    }

    fn is_used(&self) -> bool {
        self.used != UNUSED
    }
}

/// A slot in use.
pub(super) struct Pending<'a, T> {
    slot: &'a mut Slot<T>,
    free: &'a mut u32,
    index: u32,
    /// The slot's next tag.
    next: u32,
}

impl<T> Pending<'_, T> {
    /// Takes the request, and frees the slot.
    #[inline]
    pub(super) fn take(self) -> T {
        let Self { slot, free, index, next } = self;
        slot.used = UNUSED;
        slot.tag = next;
        slot.link = *free;
        *free = index;
        // SAFETY: `fill` alone sets `used`, after it has written the request, and this alone clears
        // it; a `Pending` is made only of a slot where it is set, and is consumed here. So the request
        // is there, and is taken once.
        unsafe { slot.request.assume_init_read() }
    }
}

impl<T> PendingCommands<T> {
    /// More slots than a table has: four bits of an identifier are left for the generation.
    pub(super) const MOST: u32 = 4096;

    /// A table of `capacity` slots, 1 to [`Self::MOST`] - 1. Identifier ffffh is never used, as
    /// Base 3.3.3.1 asks: no slot has the number with all bits set.
    pub(super) fn new(capacity: u16) -> Self {
        let index_mask = u32::from(u16::MAX >> capacity.leading_zeros());
        let slot = |index| {
            let link = if index + 1 < capacity { u32::from(index) + 1 } else { NONE };
            let tag = u32::from(index) << 16;
            Slot { request: MaybeUninit::uninit(), used: UNUSED, link, tag }
        };
        let generation = (index_mask + 1) << 16;
        Self { table: (0..capacity).map(slot).collect(), free: 0, index_mask, generation }
    }

    pub(super) fn capacity(&self) -> usize {
        self.table.len()
    }

    /// Takes a free slot, to be filled, if there is one.
    #[inline]
    pub(super) fn take(&mut self) -> Option<&mut Slot<T>> {
        let slot = self.table.get_mut(self.free as usize)?;
        self.free = slot.link;
        Some(slot)
    }

    /// The slot of the command whose identifier is in bits 15:0, whatever is above, or `None` if
    /// none such is in flight.
    #[inline]
    pub(super) fn find(&mut self, cid: u32) -> Option<Pending<'_, T>> {
        let Self { table, free, index_mask, generation } = self;
        let (index, tag) = (cid & *index_mask, cid << 16);
        let slot = table.get_mut(index as usize)?;
        if slot.used != tag {
            return None;
        }
        Some(Pending { slot, free, index, next: tag.wrapping_add(*generation) })
    }

    /// The number of the slot that [`take`](Self::take) would give.
    pub(super) fn next_free(&self) -> Option<u16> {
        u16::try_from(self.free).ok().filter(|&free| usize::from(free) < self.table.len())
    }

    /// Takes any request that is in flight.
    pub(super) fn remove_any(&mut self) -> Option<T> {
        let cid = self.table.iter().find(|slot| slot.is_used())?.cid();
        self.find(u32::from(cid)).map(Pending::take)
    }

    /// Makes every slot that is free unavailable.
    pub(super) fn close(&mut self) {
        self.free = NONE;
    }

    /// Makes all slots available that are free.
    pub(super) fn open(&mut self) {
        self.free = NONE;
        for slot in self.table.iter_mut().rev().filter(|slot| !slot.is_used()) {
            slot.link = self.free;
            self.free = u32::from(slot.cid()) & self.index_mask;
        }
    }

    /// Marks the commands in flight that are seen for the first time with the time, in a unit of
    /// the caller's, and gives the first that was marked as long ago as it has: the first bound is
    /// for commands, the second for those that were aborted.
    pub(super) fn find_overdue(&mut self, now: u32, bounds: (u32, u32)) -> Option<Overdue> {
        let mut overdue = None;
        for slot in self.table.iter_mut().filter(|slot| slot.is_used()) {
            let mark = AgeMark(slot.link);
            if mark.0 & AgeMark::SEEN == 0 {
                slot.link = AgeMark::new(now, false).0;
                continue;
            }
            let aborted = mark.0 & AgeMark::ABORTED != 0;
            let bound = if aborted { bounds.1 } else { bounds.0 };
            if overdue.is_none() && mark.age(now) >= bound {
                overdue = Some(Overdue { cid: slot.cid(), aborted });
            }
        }
        overdue
    }

    /// Notes that a command in flight was told to end, and begins its time anew.
    pub(super) fn mark_aborted(&mut self, cid: u16, now: u32) {
        let slot = self.table.get_mut((u32::from(cid) & self.index_mask) as usize);
        if let Some(slot) = slot.filter(|slot| slot.cid() == cid && slot.is_used()) {
            slot.link = AgeMark::new(now, true).0;
        }
    }
}

impl<T> Drop for PendingCommands<T> {
    fn drop(&mut self) {
        while self.remove_any().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert<T>(slots: &mut PendingCommands<T>, request: T) -> u16 {
        let slot = slots.take().unwrap();
        slot.fill(request);
        slot.cid()
    }

    fn remove<T>(slots: &mut PendingCommands<T>, cid: u16) -> Option<T> {
        slots.find(u32::from(cid)).map(Pending::take)
    }

    #[test]
    fn an_identifier_is_good_once() {
        let mut slots = PendingCommands::new(3);
        let first = insert(&mut slots, 'a');
        assert_eq!(remove(&mut slots, first), Some('a'));
        assert_eq!(remove(&mut slots, first), None, "doubled");
        let second = insert(&mut slots, 'b');
        assert_ne!(first, second, "same slot, other generation");
        assert_eq!(remove(&mut slots, first), None, "stale");
        assert_eq!(remove(&mut slots, second), Some('b'));
        let next = slots.table[slots.free as usize].cid();
        assert_eq!(remove(&mut slots, next), None, "not issued yet");
    }

    #[test]
    fn the_table_is_bounded() {
        let mut slots = PendingCommands::new(2);
        insert(&mut slots, 1);
        insert(&mut slots, 2);
        assert!(slots.take().is_none());
        assert_eq!(slots.capacity(), 2);
        slots.close();
        assert_eq!(slots.remove_any(), Some(1));
        assert_eq!(slots.remove_any(), Some(2));
        assert!(slots.remove_any().is_none());
        slots.open();
        assert!(slots.take().is_some() && slots.take().is_some() && slots.take().is_none());
    }

    #[test]
    fn no_identifier_is_all_ones_and_none_names_a_missing_slot() {
        for capacity in [1, 2, 3, 4, 255, 4095] {
            let mut slots = PendingCommands::new(capacity);
            for _ in 0..70_000u32 {
                let cid = insert(&mut slots, ());
                assert_ne!(cid, 0xffff);
                remove(&mut slots, cid).unwrap();
            }
            assert!((0..=u16::MAX).all(|cid| remove(&mut slots, cid).is_none()));
        }
    }

    #[test]
    fn what_is_in_flight_is_dropped_once_with_the_table() {
        let request = std::rc::Rc::new(());
        let mut slots = PendingCommands::new(3);
        let first = insert(&mut slots, request.clone());
        insert(&mut slots, request.clone());
        drop(remove(&mut slots, first));
        assert_eq!(std::rc::Rc::strong_count(&request), 2);
        drop(slots);
        assert_eq!(std::rc::Rc::strong_count(&request), 1);
    }

    #[test]
    fn only_what_stays_for_long_is_overdue() {
        let mut slots = PendingCommands::new(3);
        let stays = insert(&mut slots, 'a');
        assert_eq!(slots.find_overdue(u32::MAX - 1, (5, 3)), None);
        let goes = insert(&mut slots, 'b');
        assert_eq!(slots.find_overdue(2, (5, 3)), None, "the time wraps");
        remove(&mut slots, goes);
        insert(&mut slots, 'c');
        let overdue = Overdue { cid: stays, aborted: false };
        assert_eq!(slots.find_overdue(3, (5, 3)), Some(overdue));
        slots.mark_aborted(stays, 3);
        slots.mark_aborted(goes, 3);
        assert_eq!(slots.find_overdue(5, (5, 3)), None);
        assert_eq!(slots.find_overdue(6, (5, 3)), Some(Overdue { aborted: true, ..overdue }));
        remove(&mut slots, stays);
        assert_ne!(slots.find_overdue(8, (5, 3)).map(|overdue| overdue.cid), Some(stays));
    }
}
