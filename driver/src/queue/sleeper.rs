//! The interrupt that a queue pair sleeps on.

use std::time::Duration;

use crate::interrupts::{EventFd, Vector};

/// The interrupt vector of a queue pair, with counters.
pub(crate) struct Sleeper {
    vector: Vector,
    /// Time to poll before each sleep.
    pub(super) spin: Duration,
    sleeps: u64,
    missed: u64,
}

impl Sleeper {
    pub(crate) fn new(vector: Vector, spin: Duration) -> Self {
        Self { vector, spin, sleeps: 0, missed: 0 }
    }

    /// Returns the number of the vector for Create I/O Completion Queue.
    pub(crate) fn vector(sleeper: &Option<Self>) -> Option<u16> {
        sleeper.as_ref().and_then(|sleeper| sleeper.vector.number())
    }

    /// Returns the number of sleeps, and the number of missed interrupts.
    pub(super) fn counters(sleeper: &Option<Self>) -> (u64, u64) {
        sleeper.as_ref().map_or((0, 0), |sleeper| (sleeper.sleeps, sleeper.missed))
    }

    pub(super) fn event(&self) -> Option<&EventFd> {
        self.vector.event()
    }

    /// Counts a sleep of queue pair `qid`. `missed` means that a completion came without an
    /// interrupt.
    pub(super) fn count_sleep(&mut self, qid: u16, missed: bool) {
        self.sleeps += 1;
        if missed {
            if self.missed == 0 {
                log::warn!("queue pair {qid} misses interrupts");
            }
            self.missed += 1;
        }
    }
}
