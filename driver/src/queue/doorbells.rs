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

use super::ring::{CompletionRing, SubmissionRing};

/// Fewest commands with the controller while others wait for their doorbell.
pub(super) const KNOWN_MIN: usize = 64;
/// Commands that are shown to the controller at the latest when there are as many.
pub(super) const HELD_MAX: u32 = 8;
/// Empty polls after which commands are shown to the controller: one or two microseconds.
pub(super) const POLLS_WHILE_HELD: u32 = 1 << 8;
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

impl Gathering {
    /// Writes the tail doorbell, or puts it off. Returns true if commands wait. `in_flight` counts
    /// them, too.
    pub(super) fn ring_or_hold(
        &mut self,
        sq: &mut SubmissionRing,
        cq: &mut CompletionRing,
        in_flight: usize,
    ) -> bool {
        let hidden = sq.hidden();
        let known = in_flight - hidden as usize;
        if hidden >= HELD_MAX || known < KNOWN_MIN {
            sq.ring_all();
            return false;
        }
        if hidden > 0 {
            sq.hold();
            self.holds += 1;
            // At most 4,095 commands are in flight.
            let spare = u32::try_from(known - KNOWN_MIN).unwrap_or(0);
            cq.stop_within(spare + 1);
        }
        hidden > 0
    }

    /// Writes both doorbells as far as they were put off, and decides whether commands wait from now
    /// on.
    pub(super) fn ring_overdue(
        &mut self,
        sq: &mut SubmissionRing,
        cq: &mut CompletionRing,
        in_flight: usize,
    ) {
        sq.ring_held();
        let completed = u64::from(cq.ring());
        if completed > 0 {
            let calls = sq.rings + self.holds;
            let new = calls - std::mem::replace(&mut self.calls, calls);
            self.is_on = in_flight > KNOWN_MIN && new * GATHERED > completed;
        }
    }
}
