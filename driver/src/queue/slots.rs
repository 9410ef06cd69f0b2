//! The table of commands in flight.

/// Commands in flight by command identifier.
///
/// An identifier is a slot's number with a generation above it, so that a completion that is late,
/// doubled or made up does not match the command that has the slot now.
pub(super) struct Slots<T> {
    table: Box<[Slot<T>]>,
    /// The first free slot; [`NONE`], which is in no table, when there is none. What was freed
    /// last is used first, as it is in the cache.
    free: u16,
    in_flight: u16,
    /// Bits of an identifier that are the slot's number; those above are the generation.
    index_mask: u16,
}

/// One command in flight, or none.
#[repr(align(64))]
pub(super) struct Slot<T> {
    request: Option<T>,
    /// Identifier of the command in the slot, or of the next one.
    cid: u16,
    /// This slot's number.
    index: u16,
    /// The free slot after this one, when this one is free.
    next: u16,
}

const NONE: u16 = u16::MAX;

impl<T> Slot<T> {
    /// The slot's number.
    #[inline]
    pub(super) fn index(&self) -> u16 {
        self.index
    }

    /// Puts a request into a slot that was free, and gives its identifier.
    #[inline]
    pub(super) fn fill(&mut self, request: T) -> u16 {
        // A free slot has no request, so there is nothing to drop; `forget` spares the question.
        std::mem::forget(self.request.replace(request));
        self.cid
    }
}

impl<T> Slots<T> {
    /// More slots than a table has: four bits of an identifier are left for the generation.
    pub(super) const MOST: u32 = 4096;

    /// A table of `capacity` slots, 1 to [`Self::MOST`] - 1. Identifier ffffh is never used, as
    /// Base 3.3.3.1 asks: no slot has the number with all bits set.
    pub(super) fn new(capacity: u16) -> Self {
        let index_mask = u16::MAX >> capacity.leading_zeros();
        let slot = |index| {
            let next = if index + 1 < capacity { index + 1 } else { NONE };
            Slot { request: None, cid: index, index, next }
        };
        Self { table: (0..capacity).map(slot).collect(), free: 0, in_flight: 0, index_mask }
    }

    pub(super) fn capacity(&self) -> usize {
        self.table.len()
    }

    #[inline]
    pub(super) fn in_flight(&self) -> usize {
        usize::from(self.in_flight)
    }

    /// Takes a free slot, to be filled, if there is one.
    #[inline]
    pub(super) fn take(&mut self) -> Option<&mut Slot<T>> {
        let slot = self.table.get_mut(usize::from(self.free))?;
        self.free = slot.next;
        self.in_flight += 1;
        Some(slot)
    }

    /// Takes the request with this identifier, or `None` if none such is in flight.
    #[inline]
    pub(super) fn remove(&mut self, cid: u16) -> Option<T> {
        let index = cid & self.index_mask;
        let slot = self.table.get_mut(usize::from(index))?;
        if slot.cid != cid {
            return None;
        }
        let request = slot.request.take()?;
        slot.cid = cid.wrapping_add(self.index_mask + 1);
        slot.next = self.free;
        self.free = index;
        self.in_flight -= 1;
        Some(request)
    }

    /// Makes every slot that is free unavailable.
    pub(super) fn close(&mut self) {
        self.free = NONE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert<T>(slots: &mut Slots<T>, request: T) -> u16 {
        slots.take().unwrap().fill(request)
    }

    #[test]
    fn an_identifier_is_good_once() {
        let mut slots = Slots::new(3);
        let first = insert(&mut slots, 'a');
        assert_eq!(slots.in_flight(), 1);
        assert_eq!(slots.remove(first), Some('a'));
        assert_eq!(slots.remove(first), None, "doubled");
        let second = insert(&mut slots, 'b');
        assert_ne!(first, second, "same slot, other generation");
        assert_eq!(slots.remove(first), None, "stale");
        assert_eq!(slots.remove(second), Some('b'));
        let next = slots.table[usize::from(slots.free)].cid;
        assert_eq!(slots.remove(next), None, "not issued yet");
    }

    #[test]
    fn the_table_is_bounded() {
        let mut slots = Slots::new(2);
        insert(&mut slots, 1);
        insert(&mut slots, 2);
        assert!(slots.take().is_none());
        assert_eq!((slots.in_flight(), slots.capacity()), (2, 2));
    }

    #[test]
    fn no_identifier_is_all_ones_and_none_names_a_missing_slot() {
        for capacity in [1, 2, 3, 4, 255, 4095] {
            let mut slots = Slots::new(capacity);
            for _ in 0..70_000u32 {
                let cid = insert(&mut slots, ());
                assert_ne!(cid, 0xffff);
                slots.remove(cid).unwrap();
            }
            assert!((0..=u16::MAX).all(|cid| slots.remove(cid).is_none()));
        }
    }
}
