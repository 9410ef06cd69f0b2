//! The interrupt that a queue pair sleeps on.

use std::time::Duration;

use crate::interrupts::{EventFd, Vector};

/// The interrupt vector of a queue pair, if it has one, with counters.
#[derive(Default)]
pub(crate) struct Sleeper {
    pub(crate) vector: Option<Vector>,
    /// Time to poll before each sleep.
    pub(crate) spin: Duration,
    pub(crate) sleeps: u64,
    pub(crate) missed: u64,
}

impl Sleeper {
    /// Returns the number of the vector for Create I/O Completion Queue.
    pub(crate) fn vector(&self) -> Option<u16> {
        self.vector.as_ref().and_then(Vector::number)
    }

    pub(super) fn event(&self) -> Option<&EventFd> {
        self.vector.as_ref().and_then(Vector::event)
    }

    /// Counts a sleep of queue pair `qid`. `missed` means that a completion came without an
    /// interrupt.
    pub(super) fn count_sleep(&mut self, qid: u16, missed: bool) {
        self.sleeps += 1;
        if missed && self.missed == 0 {
            log::warn!("queue pair {qid} misses interrupts");
        }
        self.missed += u64::from(missed);
    }
}
