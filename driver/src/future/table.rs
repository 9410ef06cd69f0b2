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

/// A request, and the waker of its future while that waits.
pub(super) struct Entry<C> {
    state: State<C>,
    waker: Option<Waker>,
}

enum State<C> {
    /// Not in the queue.
    Idle,
    /// In the queue; a future waits for it.
    InFlight,
    /// In the queue; its future was dropped.
    Orphan,
    /// Ended; its future has not returned the completion yet.
    Ended(C),
}

/// The effect of a completion. The caller drops the values when nothing is borrowed.
pub(super) enum Outcome<C> {
    /// A future waits. Wake it.
    Wake(Option<Waker>),
    /// The future was dropped. The entry is free, its permit is not yet.
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
        self.entries.insert(Entry { state: State::Idle, waker: None }).ok()
    }

    /// Notes that a request is in the queue.
    pub(super) fn launch(&mut self, at: u32) {
        if let Some(entry) = self.entries.get_mut(at) {
            entry.state = State::InFlight;
            self.in_flight += 1;
        }
    }

    /// Notes that the queue rejected a request as busy. The next poll wakes `waker`. Returns a
    /// waker that it replaces, to be dropped.
    pub(super) fn stall(&mut self, at: u32, waker: &Waker) -> Option<Waker> {
        if !self.stalled.contains(&at) {
            self.stalled.push(at);
        }
        self.entries.get_mut(at)?.set_waker(waker)
    }

    /// Appends the wakers of all stalled requests to `wakers`.
    pub(super) fn wake_stalled(&mut self, wakers: &mut Vec<Waker>) {
        for at in self.stalled.drain(..) {
            if let Some(Entry { state: State::Idle, waker }) = self.entries.get_mut(at) {
                wakers.extend(waker.take());
            }
        }
    }

    /// Stores the completion of a request for its future.
    pub(super) fn complete(&mut self, token: u64, completion: C) -> Outcome<C> {
        let at = u32::try_from(token).unwrap_or(u32::MAX);
        match self.entries.get_mut(at) {
            Some(Entry { state: state @ State::InFlight, waker }) => {
                self.in_flight -= 1;
                *state = State::Ended(completion);
                Outcome::Wake(waker.take())
            }
            Some(Entry { state: State::Orphan, .. }) => {
                self.in_flight -= 1;
                self.entries.remove(at);
                Outcome::Orphan(completion)
            }
            _ => Outcome::Unknown(completion),
        }
    }

    /// Returns the completion of a request that ended.
    ///
    /// # Errors
    /// The request has not ended: `waker` is stored, and a waker that it replaces is returned, to
    /// be dropped.
    pub(super) fn take(&mut self, at: u32, waker: &Waker) -> Result<C, Option<Waker>> {
        let entry = self.entries.get_mut(at).ok_or(None)?;
        match std::mem::replace(&mut entry.state, State::Idle) {
            State::Ended(completion) => Ok(completion),
            other => {
                entry.state = other;
                Err(entry.set_waker(waker))
            }
        }
    }

    /// Notes that the future of a request was dropped, or has ended. Returns the entry if it is
    /// free now, to be dropped.
    ///
    /// # Errors
    /// The request is in the queue: its waker is returned, to be dropped.
    pub(super) fn abandon(&mut self, at: u32) -> Result<Option<Entry<C>>, Option<Waker>> {
        if let Some(Entry { state: state @ State::InFlight, waker }) = self.entries.get_mut(at) {
            *state = State::Orphan;
            return Err(waker.take());
        }
        Ok(self.entries.remove(at))
    }
}

impl<C> Entry<C> {
    fn set_waker(&mut self, waker: &Waker) -> Option<Waker> {
        match &self.waker {
            Some(known) if known.will_wake(waker) => None,
            _ => self.waker.replace(waker.clone()),
        }
    }
}
