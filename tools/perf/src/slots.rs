//! The requests in flight, and the buffers of those that are not.

use crate::target::Request;

/// A request in flight, or its memory.
#[derive(Debug)]
pub(crate) struct Slot<B> {
    /// The buffer, while it is not in flight.
    pub(crate) buf: Option<B>,
    /// The request in flight.
    pub(crate) request: Request,
    /// Time in nanoseconds from which the latency counts.
    pub(crate) start: u64,
}

/// A fixed number of slots, with a stack of the free ones.
#[derive(Debug)]
pub(crate) struct Slots<B> {
    slots: Box<[Slot<B>]>,
    free: Box<[u32]>,
    /// Number of free slots, which are the first entries of `free`.
    idle: usize,
    /// Number of slots whose buffer is lost.
    lost: usize,
}

impl<B> Slots<B> {
    pub(crate) fn new(bufs: Vec<B>) -> Self {
        let idle = bufs.len();
        let free = (0_u32..).take(idle).collect();
        let request = Request { pos: 0, bytes: 0, write: false };
        let slot = |buf| Slot { buf: Some(buf), request, start: 0 };
        Self { slots: bufs.into_iter().map(slot).collect(), free, idle, lost: 0 }
    }

    #[inline(always)]
    pub(crate) fn in_flight(&self) -> usize {
        self.slots.len() - self.idle - self.lost
    }

    /// Returns true if all buffers are lost.
    pub(crate) fn is_empty(&self) -> bool {
        self.lost == self.slots.len()
    }

    /// Returns the number and the contents of a free slot, which stays free until
    /// [`take`](Self::take).
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Option<(u32, &mut Slot<B>)> {
        let &number = self.free.get(self.idle.wrapping_sub(1))?;
        Some((number, self.slots.get_mut(number as usize)?))
    }

    /// Takes the slot that [`next`](Self::next) returned last.
    #[inline(always)]
    pub(crate) fn take(&mut self) {
        self.idle -= 1;
    }

    #[inline(always)]
    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut Slot<B>> {
        self.slots.get_mut(usize::try_from(number).ok()?)
    }

    /// Frees a slot whose buffer was put back.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the number is that of a slot")]
    pub(crate) fn put(&mut self, number: u64) {
        if let Some(place) = self.free.get_mut(self.idle) {
            *place = number as u32;
            self.idle += 1;
        }
    }

    /// Gives a slot up, because its buffer is lost.
    #[cold]
    pub(crate) fn lose(&mut self) {
        self.lost += 1;
    }
}
