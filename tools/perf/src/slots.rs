//! The requests in flight, and the buffers of those that are not.

use crate::target::Request;

/// Number that is not a slot's.
const NONE: u32 = u32::MAX;

/// A request in flight, or its memory. One cache line.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Slot<B> {
    /// The buffer, while it is not in flight.
    pub(crate) buf: Option<B>,
    /// The request in flight.
    pub(crate) request: Request,
    /// Time in nanoseconds from which the latency counts.
    pub(crate) start: u64,
    /// The next free slot.
    next: u32,
}

/// A fixed number of slots. The free ones form a list through the slots themselves, so that "is one
/// free" and "is the number valid" are one comparison.
#[derive(Debug)]
pub(crate) struct Slots<B> {
    slots: Box<[Slot<B>]>,
    /// The first free slot.
    free: u32,
    /// Number of slots whose buffer is lost.
    lost: usize,
}

impl<B> Slots<B> {
    /// Creates a slot for each buffer, for requests of `bytes` bytes.
    pub(crate) fn new(bufs: Vec<B>, bytes: usize) -> Self {
        let request = Request { pos: 0, bytes, write: false };
        let slot = |(number, buf)| Slot { buf: Some(buf), request, start: 0, next: number };
        let mut slots: Box<[Slot<B>]> = (1..).zip(bufs).map(slot).collect();
        if let Some(last) = slots.last_mut() {
            last.next = NONE;
        }
        Self { slots, free: 0, lost: 0 }
    }

    /// Returns true if all buffers are lost.
    pub(crate) fn is_empty(&self) -> bool {
        self.lost == self.slots.len()
    }

    /// Returns the number and the contents of a free slot, which stays free until
    /// [`take`](Self::take).
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Option<(u32, &mut Slot<B>)> {
        Some((self.free, self.slots.get_mut(self.free as usize)?))
    }

    /// Takes the slot that [`next`](Self::next) has returned last.
    #[inline(always)]
    pub(crate) fn take(&mut self) {
        if let Some(slot) = self.slots.get(self.free as usize) {
            self.free = slot.next;
        }
    }

    #[inline(always)]
    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut Slot<B>> {
        self.slots.get_mut(usize::try_from(number).ok()?)
    }

    /// Puts a buffer back and frees its slot, which the caller may look at.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the number is that of a slot")]
    pub(crate) fn put(&mut self, number: u64, buf: B) -> Option<&mut Slot<B>> {
        let Some(slot) = self.slots.get_mut(usize::try_from(number).ok()?) else {
            std::mem::forget(buf);
            return None;
        };
        // The place is empty, so that replacing its buffer drops none.
        std::mem::forget(slot.buf.replace(buf));
        slot.next = self.free;
        self.free = number as u32;
        Some(slot)
    }

    /// Gives a slot up, because its buffer is lost.
    #[cold]
    pub(crate) fn lose(&mut self) {
        self.lost += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_used_again_and_lost_ones_are_not() {
        let mut slots = Slots::new(vec!['a', 'b', 'c'], 512);
        let take = |slots: &mut Slots<char>| {
            let (number, slot) = slots.next()?;
            let buf = slot.buf.take();
            slots.take();
            Some((u64::from(number), buf?))
        };
        let taken: Vec<_> = std::iter::from_fn(|| take(&mut slots)).collect();
        assert_eq!(taken, [(0, 'a'), (1, 'b'), (2, 'c')]);
        assert!(slots.next().is_none());
        for number in [2, 0] {
            slots.put(number, 'x').unwrap();
        }
        slots.lose();
        assert!(!slots.is_empty() && slots.put(3, 'y').is_none());
        let taken: Vec<_> = std::iter::from_fn(|| take(&mut slots)).collect();
        assert_eq!(taken, [(0, 'x'), (2, 'x')]);
        assert!(slots.get_mut(3).is_none());
    }
}
