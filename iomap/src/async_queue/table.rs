//! The requests of futures, by the number that is their token.

use std::task::Waker;

use crate::contract::io_args::Done;

/// A fixed number of requests that a future waits for, or has dropped.
pub(super) struct Table<E> {
    entries: Box<[Entry<E>]>,
    /// The first entry that is not used.
    unused: u32,
    /// Requests that the queue has.
    in_flight: usize,
    /// Entries whose futures are to be woken by the next poll, to try again.
    stalled: Vec<u32>,
}

/// A place in the table.
pub(super) enum Entry<E> {
    Unused {
        next: u32,
    },
    /// It was not taken, as the queue was full. The waker is `None` when it was woken.
    Stalled(Option<Waker>),
    /// A future waits for it.
    InFlight(Waker),
    /// Nobody waits for it any more.
    Orphan,
    /// Its future has not seen it yet.
    Ended(Done<E>),
}

/// What the end of a request means. What is in it is to be dropped when nothing is borrowed.
pub(super) enum Outcome<E> {
    /// A future is to be woken; it takes what has ended.
    Wake(Waker),
    /// Nobody waits: the entry is free, and its permit.
    Free(Done<E>),
    /// No request has this token.
    Unknown(Done<E>),
}

const NONE: u32 = u32::MAX;

impl<E> Table<E> {
    pub(super) fn new(capacity: usize) -> Self {
        let capacity = u32::try_from(capacity).unwrap_or(NONE).min(NONE - 1);
        let entry = |at| Entry::Unused { next: if at + 1 < capacity { at + 1 } else { NONE } };
        let unused = if capacity == 0 { NONE } else { 0 };
        let stalled = Vec::with_capacity(capacity as usize);
        Self { entries: (0..capacity).map(entry).collect(), unused, in_flight: 0, stalled }
    }

    /// Requests that the queue has.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// An entry for a request that is about to be submitted; `None` when none is left.
    pub(super) fn insert(&mut self) -> Option<u32> {
        let at = self.unused;
        match self.entries.get_mut(at as usize) {
            Some(entry @ &mut Entry::Unused { next }) => {
                *entry = Entry::Stalled(None);
                self.unused = next;
                Some(at)
            }
            _ => None,
        }
    }

    /// Notes that the queue is about to take the request; gives what is to be dropped.
    pub(super) fn launch(&mut self, at: u32, waker: Waker) -> Option<Entry<E>> {
        let entry = self.entries.get_mut(at as usize)?;
        self.in_flight += 1;
        Some(std::mem::replace(entry, Entry::InFlight(waker)))
    }

    /// Notes that the queue did not; the waker is woken by the next poll.
    pub(super) fn stall(&mut self, at: u32) {
        let Some(entry) = self.entries.get_mut(at as usize) else { return };
        let before = std::mem::replace(entry, Entry::Stalled(None));
        if let Entry::InFlight(waker) = before {
            self.in_flight -= 1;
            *entry = Entry::Stalled(Some(waker));
            if !self.stalled.contains(&at) {
                self.stalled.push(at);
            }
        }
    }

    /// Gives the wakers of those that are to try again.
    pub(super) fn wake_stalled(&mut self, wakers: &mut Vec<Waker>) {
        for at in self.stalled.drain(..) {
            if let Some(Entry::Stalled(waker)) = self.entries.get_mut(at as usize) {
                wakers.extend(waker.take());
            }
        }
    }

    /// Notes the end of a request.
    pub(super) fn end(&mut self, done: Done<E>) -> Outcome<E> {
        let at = u32::try_from(done.token).unwrap_or(NONE);
        let Some(entry) = self.entries.get_mut(at as usize) else { return Outcome::Unknown(done) };
        match entry {
            Entry::InFlight(_) => {
                self.in_flight -= 1;
                match std::mem::replace(entry, Entry::Orphan) {
                    Entry::InFlight(waker) => {
                        *entry = Entry::Ended(done);
                        Outcome::Wake(waker)
                    }
                    _ => Outcome::Unknown(done),
                }
            }
            Entry::Orphan => {
                self.in_flight -= 1;
                self.free(at);
                Outcome::Free(done)
            }
            Entry::Unused { .. } | Entry::Stalled(_) | Entry::Ended(_) => Outcome::Unknown(done),
        }
    }

    /// Takes what has ended; else `waker` is the one to wake, and one that is not needed any more
    /// comes back, to be dropped.
    pub(super) fn take(&mut self, at: u32, waker: &Waker) -> Result<Done<E>, Option<Waker>> {
        match self.entries.get_mut(at as usize) {
            Some(Entry::InFlight(known)) if !known.will_wake(waker) => {
                Err(Some(std::mem::replace(known, waker.clone())))
            }
            Some(Entry::Ended(_)) => match self.free(at) {
                Some(Entry::Ended(done)) => Ok(done),
                _ => Err(None),
            },
            _ => Err(None),
        }
    }

    /// Notes that the future of a request was dropped, or does not go on with it. Gives what was in
    /// its entry, to be dropped, and whether that is free.
    pub(super) fn abandon(&mut self, at: u32) -> (Option<Entry<E>>, bool) {
        match self.entries.get_mut(at as usize) {
            Some(entry @ Entry::InFlight(_)) => {
                (Some(std::mem::replace(entry, Entry::Orphan)), false)
            }
            Some(Entry::Ended(_) | Entry::Stalled(_)) => (self.free(at), true),
            Some(Entry::Unused { .. } | Entry::Orphan) | None => (None, false),
        }
    }

    fn free(&mut self, at: u32) -> Option<Entry<E>> {
        let entry = self.entries.get_mut(at as usize)?;
        let next = std::mem::replace(&mut self.unused, at);
        Some(std::mem::replace(entry, Entry::Unused { next }))
    }
}
