//! The requests of futures, by token.

use std::task::Waker;

use crate::pool::Pool;

/// A fixed number of requests that have a permit.
pub(super) struct Table<C> {
    entries: Pool<Entry<C>>,
    /// Requests in the queue.
    in_flight: usize,
    /// Entries whose futures the next poll wakes, so that they submit again.
    stalled: Vec<u32>,
}

/// State of a request.
pub(super) enum Entry<C> {
    /// Not submitted, because the queue was busy. The waker is `None` when it was woken.
    Stalled(Option<Waker>),
    /// In the queue; a future waits for it.
    InFlight(Waker),
    /// In the queue; its future was dropped.
    Orphan,
    /// Ended; its future has not returned the completion yet.
    Ended(C),
}

/// The effect of a completion. The caller drops the values when nothing is borrowed.
pub(super) enum Outcome<C> {
    /// A future waits. Wake it.
    Wake(Waker),
    /// The future was dropped. The entry and its permit are free.
    Orphan(C),
    /// No request in the queue has this token.
    Unknown(C),
}

impl<C> Table<C> {
    pub(super) fn new(capacity: usize) -> Self {
        let entries = Pool::new(u32::try_from(capacity).unwrap_or(u32::MAX));
        Self { entries, in_flight: 0, stalled: Vec::with_capacity(capacity) }
    }

    /// Returns the number of requests in the queue.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Allocates an entry for a request that is about to be submitted.
    pub(super) fn insert(&mut self) -> Option<u32> {
        self.entries.insert(Entry::Stalled(None)).ok()
    }

    /// Notes that a request is in the queue. Returns the old entry, to be dropped.
    pub(super) fn launch(&mut self, at: u32, waker: Waker) -> Option<Entry<C>> {
        let entry = self.entries.get_mut(at)?;
        self.in_flight += 1;
        Some(std::mem::replace(entry, Entry::InFlight(waker)))
    }

    /// Notes that the queue rejected a request as busy. The next poll wakes `waker`. Returns the
    /// old entry, to be dropped.
    pub(super) fn stall(&mut self, at: u32, waker: Waker) -> Option<Entry<C>> {
        let entry = self.entries.get_mut(at)?;
        if !self.stalled.contains(&at) {
            self.stalled.push(at);
        }
        Some(std::mem::replace(entry, Entry::Stalled(Some(waker))))
    }

    /// Appends the wakers of all stalled requests to `wakers`.
    pub(super) fn wake_stalled(&mut self, wakers: &mut Vec<Waker>) {
        for at in self.stalled.drain(..) {
            if let Some(Entry::Stalled(waker)) = self.entries.get_mut(at) {
                wakers.extend(waker.take());
            }
        }
    }

    /// Stores the completion of a request for its future.
    pub(super) fn complete(&mut self, token: u64, completion: C) -> Outcome<C> {
        let at = u32::try_from(token).unwrap_or(u32::MAX);
        match self.entries.get_mut(at) {
            Some(entry @ Entry::InFlight(_)) => {
                self.in_flight -= 1;
                match std::mem::replace(entry, Entry::Ended(completion)) {
                    Entry::InFlight(waker) => Outcome::Wake(waker),
                    // Not reachable: the pattern above is the state.
                    _ => Outcome::Wake(Waker::noop().clone()),
                }
            }
            Some(Entry::Orphan) => {
                self.in_flight -= 1;
                self.entries.remove(at);
                Outcome::Orphan(completion)
            }
            _ => Outcome::Unknown(completion),
        }
    }

    /// Returns the completion of a request that ended, and frees the entry.
    ///
    /// # Errors
    /// The request has not ended: `waker` is stored, and a waker that it replaces is returned, to
    /// be dropped.
    pub(super) fn take(&mut self, at: u32, waker: &Waker) -> Result<C, Option<Waker>> {
        match self.entries.get_mut(at) {
            Some(Entry::InFlight(known)) if !known.will_wake(waker) => {
                Err(Some(std::mem::replace(known, waker.clone())))
            }
            Some(Entry::Ended(_)) => match self.entries.remove(at) {
                Some(Entry::Ended(completion)) => Ok(completion),
                _ => Err(None),
            },
            _ => Err(None),
        }
    }

    /// Notes that the future of a request was dropped or gives up. Returns the old entry, to be
    /// dropped, and whether the entry is free.
    pub(super) fn abandon(&mut self, at: u32) -> (Option<Entry<C>>, bool) {
        match self.entries.get_mut(at) {
            Some(entry @ Entry::InFlight(_)) => {
                (Some(std::mem::replace(entry, Entry::Orphan)), false)
            }
            Some(Entry::Ended(_) | Entry::Stalled(_)) => (self.entries.remove(at), true),
            Some(Entry::Orphan) | None => (None, false),
        }
    }
}
