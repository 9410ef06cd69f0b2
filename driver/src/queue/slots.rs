//! The table of commands in flight.

/// Commands in flight by command identifier.
///
/// An identifier is a slot's number with a generation above it, so that a completion that is late,
/// doubled or made up does not match the command that has the slot now.
pub(super) struct Slots<T> {
    table: Box<[Slot<T>]>,
    /// The free slots, a stack: what was used last is in the cache.
    free: Vec<u16>,
    /// Bits of an identifier that are the slot's number.
    shift: u32,
}

/// A slot that was taken for a command and has none yet.
pub(crate) struct FreeSlot(u16);

impl FreeSlot {
    pub(super) fn index(&self) -> u16 {
        self.0
    }
}

#[repr(align(64))]
struct Slot<T> {
    request: Option<T>,
    /// Identifier of the command in the slot, or of the next one.
    cid: u16,
}

impl<T> Slots<T> {
    /// Most slots of a table: four bits of an identifier are left for the generation.
    pub(super) const MOST: u32 = 4096;

    /// A table of `capacity` slots, 1 to [`Self::MOST`] - 1. Identifier ffffh is never used, as
    /// Base 3.3.3.1 asks: no slot has the number with all bits set.
    pub(super) fn new(capacity: u16) -> Self {
        let shift = u16::BITS - capacity.leading_zeros();
        // All ones is a slot's number only if the capacity is a power of two: it then needs one
        // more bit, which `shift` has.
        let table = (0..capacity).map(|cid| Slot { request: None, cid }).collect();
        Self { table, free: (0..capacity).rev().collect(), shift }
    }

    pub(super) fn capacity(&self) -> usize {
        self.table.len()
    }

    #[inline]
    pub(super) fn in_flight(&self) -> usize {
        self.table.len() - self.free.len()
    }

    /// Takes a free slot for the next command, if there is one.
    #[inline]
    pub(super) fn take(&mut self) -> Option<FreeSlot> {
        self.free.pop().map(FreeSlot)
    }

    /// Puts a request into its slot and gives its identifier.
    #[inline]
    pub(super) fn insert(&mut self, FreeSlot(index): FreeSlot, request: T) -> u16 {
        let slot = &mut self.table[usize::from(index)];
        // A free slot has no request, so there is nothing to drop; `forget` spares the question.
        std::mem::forget(slot.request.replace(request));
        slot.cid
    }

    /// Takes the request with this identifier, or `None` if none such is in flight.
    #[inline]
    pub(super) fn remove(&mut self, cid: u16) -> Option<T> {
        let index = cid & ((1 << self.shift) - 1);
        let slot = self.table.get_mut(usize::from(index))?;
        if slot.cid != cid {
            return None;
        }
        let request = slot.request.take()?;
        slot.cid = cid.wrapping_add(1 << self.shift);
        // Within the capacity that the stack was made with: this slot was not on it.
        self.free.push(index);
        Some(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert<T>(slots: &mut Slots<T>, request: T) -> u16 {
        let free = slots.take().unwrap();
        slots.insert(free, request)
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
        let next = slots.table[usize::from(*slots.free.last().unwrap())].cid;
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
