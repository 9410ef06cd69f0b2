//! The commands of futures, by the ticket that is their context.

use std::task::Waker;

use nvio_spec::Status;

use super::Ticket;
use crate::dma::DmaBuf;
use crate::queue::Completion;

/// A fixed number of commands that a future waits for, or has dropped.
pub(super) struct Table {
    entries: Box<[Entry]>,
    /// The first entry that is not used.
    unused: u32,
}

/// A place in the table.
pub(super) enum Entry {
    Unused {
        next: u32,
    },
    /// A future waits for it.
    InFlight(Waker),
    /// Nobody waits for it any more.
    Orphan,
    /// Its future has not seen it yet.
    Ended(Ended),
}

/// A command that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) buf: DmaBuf,
    pub(super) status: Status,
    pub(super) result: u32,
}

/// What the end of a command means.
pub(super) enum Outcome {
    /// A future is to be woken; it takes what has ended.
    Wake(Waker),
    /// Nobody waits: the entry is free.
    Free,
    /// No command has this ticket.
    Unknown,
}

const NONE: u32 = u32::MAX;

impl Table {
    pub(super) fn new(capacity: usize) -> Self {
        let capacity = u32::try_from(capacity).unwrap_or(NONE).min(NONE - 1);
        let entry = |at| Entry::Unused { next: if at + 1 < capacity { at + 1 } else { NONE } };
        Self { entries: (0..capacity).map(entry).collect(), unused: 0 }
    }

    /// An entry for a command that is about to be queued.
    ///
    /// # Errors
    /// Gives the waker back when none is left.
    pub(super) fn insert(&mut self, waker: Waker) -> Result<u32, Waker> {
        let at = self.unused;
        match self.entries.get_mut(at as usize) {
            Some(entry @ &mut Entry::Unused { next }) => {
                *entry = Entry::InFlight(waker);
                self.unused = next;
                Ok(at)
            }
            _ => Err(waker),
        }
    }

    /// Notes the end of a command.
    pub(super) fn end(&mut self, done: Completion<Ticket>) -> Outcome {
        let Completion { context: Ticket(at), buf, status, result, .. } = done;
        let Some(entry) = self.entries.get_mut(at as usize) else { return Outcome::Unknown };
        match entry {
            Entry::InFlight(_) => {
                let ended = Entry::Ended(Ended { buf, status, result });
                match std::mem::replace(entry, ended) {
                    Entry::InFlight(waker) => Outcome::Wake(waker),
                    _ => Outcome::Unknown,
                }
            }
            Entry::Orphan => {
                self.free(at);
                Outcome::Free
            }
            Entry::Unused { .. } | Entry::Ended(_) => Outcome::Unknown,
        }
    }

    /// Takes what has ended; else `waker` is the one to wake, and one that is not needed any more
    /// comes back, to be dropped.
    pub(super) fn take(&mut self, at: u32, waker: &Waker) -> Result<Ended, Option<Waker>> {
        match self.entries.get_mut(at as usize) {
            Some(Entry::InFlight(known)) if !known.will_wake(waker) => {
                Err(Some(std::mem::replace(known, waker.clone())))
            }
            Some(Entry::Ended(_)) => match self.free(at) {
                Some(Entry::Ended(ended)) => Ok(ended),
                _ => Err(None),
            },
            _ => Err(None),
        }
    }

    /// Notes that the future of a command was dropped, and gives what was in its entry, to be
    /// dropped. The entry is free if the command had ended.
    pub(super) fn abandon(&mut self, at: u32) -> Option<Entry> {
        match self.entries.get_mut(at as usize)? {
            entry @ Entry::InFlight(_) => Some(std::mem::replace(entry, Entry::Orphan)),
            Entry::Ended(_) => self.free(at),
            Entry::Unused { .. } | Entry::Orphan => None,
        }
    }

    /// Takes back an entry whose command was not queued; the waker is to be dropped.
    pub(super) fn withdraw(&mut self, at: u32) -> Option<Waker> {
        match self.free(at)? {
            Entry::InFlight(waker) => Some(waker),
            _ => None,
        }
    }

    fn free(&mut self, at: u32) -> Option<Entry> {
        let entry = self.entries.get_mut(at as usize)?;
        let next = std::mem::replace(&mut self.unused, at);
        Some(std::mem::replace(entry, Entry::Unused { next }))
    }
}
