//! The time at which the doorbells of a queue pair are written (PCIe 3.1.2).
//!
//! A poll that finds a completion is followed by the next submission, so that a host with a quick
//! poll would write both doorbells for each command. A write is a store to memory that the device
//! shares, and makes the controller look at one queue entry.
//!
//! - The head of the completion queue is written for half of the ring at once, because the
//!   controller needs it only when its ring is full.
//! - The tail of the submission queue is written at once, unless a caller that submits few commands
//!   for each doorbell has more than [`KNOWN_MIN`] in flight. The controller then has work, and up
//!   to [`HELD_MAX`] commands may wait for each other. They are shown when that number is reached,
//!   when so many commands have completed that fewer than [`KNOWN_MIN`] are left, after
//!   [`POLLS_WHILE_HELD`] empty polls, and before the caller sleeps.
//!
//! The callers that it concerns are found when a head is written, so that others pay one test of a
//! flag for each doorbell.

use super::pair::QueuePair;
use super::raw::RawQueuePair;

/// Fewest commands with the controller while others wait for their doorbell.
pub(super) const KNOWN_MIN: usize = 64;
/// Commands that are shown to the controller at the latest when there are as many.
pub(super) const HELD_MAX: u32 = 8;
/// Empty polls after which commands are shown to the controller: one or two microseconds.
const POLLS_WHILE_HELD: u32 = 1 << 8;
/// Commands for each doorbell from which on a caller gathers them by itself.
const GATHERED: u64 = 4;

/// The way in which the tail doorbell is written.
#[derive(Default)]
pub(super) struct Gathering {
    /// Commands wait for their doorbell.
    pub(super) is_on: bool,
    /// Calls after which commands waited.
    holds: u64,
    /// Calls that had commands to show, up to the last write of a head.
    calls: u64,
}

impl<T> RawQueuePair<T> {
    /// Shows the controller the commands that were submitted, now or with further ones. Returns
    /// true if they wait: [`ring_held`](super::ring::SubmissionRing::ring_held) must then be called
    /// after at most [`POLLS_WHILE_HELD`] empty polls.
    #[inline]
    pub(crate) fn ring(&mut self) -> bool {
        if self.gathering.is_on {
            return self.ring_or_hold();
        }
        self.sq.ring();
        false
    }

    // Cold, so that other callers need not save registers for it.
    #[cold]
    #[inline(never)]
    fn ring_or_hold(&mut self) -> bool {
        let hidden = self.sq.hidden();
        let known = self.in_flight() - hidden as usize;
        if hidden >= HELD_MAX || known < KNOWN_MIN || self.retries.has_waiting() {
            self.sq.ring_all();
            return false;
        }
        if hidden > 0 {
            self.sq.hold();
            self.gathering.holds += 1;
            // At most 4,095 commands are in flight.
            let spare = u32::try_from(known - KNOWN_MIN).unwrap_or(0);
            self.cq.stop_within(spare + 1);
        }
        hidden > 0
    }

    /// Writes both doorbells as far as they were put off, and decides whether commands wait from now
    /// on.
    #[cold]
    #[inline(never)]
    pub(super) fn ring_overdue(&mut self) {
        self.sq.ring_held();
        let completed = u64::from(self.cq.ring());
        if completed > 0 {
            let calls = self.sq.rings + self.gathering.holds;
            let new = calls - std::mem::replace(&mut self.gathering.calls, calls);
            self.gathering.is_on = self.in_flight() > KNOWN_MIN && new * GATHERED > completed;
        }
    }

    /// Writes both doorbells now.
    pub(super) fn ring_all(&mut self) {
        self.sq.ring_all();
        self.cq.ring();
    }
}

impl<T> QueuePair<T> {
    /// Shows the controller the commands that were submitted since the last call: one store.
    ///
    /// If the caller submits one to three commands at a time, and the controller has 64 others, the
    /// store waits until there are eight, so that fewer doorbells are written. Polls show the
    /// commands in time: when fewer than 64 are left with the controller, and after 256 empty polls.
    /// [`wait`](Self::wait) and [`prepare_to_sleep`](Self::prepare_to_sleep) show them at once.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn ring(&mut self) {
        if self.core.ring() {
            self.check_within(POLLS_WHILE_HELD);
        }
    }
}
