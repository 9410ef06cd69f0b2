//! Commands that are submitted again after an error, before their submitter sees it.
//!
//! A command of one page is rebuilt from its slot, which stores its head and LBA beside the buffer.
//! Any other command is read back from the submission ring, or from [`Retries::saved`] if later
//! commands needed its entry. The slot stays in use, with a new identifier, so that a late
//! completion of an earlier attempt matches no command. Overlapping writes of the caller are not reordered: a command that is
//! repeated has not ended, and the device orders nothing among commands in flight.

use nvio_spec::opcode::nvm;
use nvio_spec::{Sqe, Status, status};
use zerocopy::little_endian::{U16, U64};

use super::pending::{PageCommand, Slot};
use super::request::Request;
use super::ring::SubmissionRing;

/// Shortest time before all repetitions of a command but the first, milliseconds.
const PAUSE_MS: u32 = 100;
/// Fused operations, in the flags of a command (Base figure 87).
const FUSE_MASK: u8 = 0b11;

/// The bounds of repetitions.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RetryPolicy {
    /// Most repetitions of a command.
    pub(crate) most: u8,
    /// Delays of Command Retry Delay 1 to 3, milliseconds.
    pub(crate) delays_ms: [u32; 3],
    /// Commands with a longer delay are not repeated, milliseconds.
    pub(crate) longest_ms: u32,
}

/// The repetitions of a queue pair.
pub(super) struct Retries {
    policy: RetryPolicy,
    /// The last repetition of each slot.
    last: Box<[Repetition]>,
    /// The last command of each slot that is not of one page, and whose entry in the submission
    /// ring was overwritten before it ended.
    saved: Box<[Sqe]>,
    /// Commands to be repeated, at most one for each slot.
    waiting: Vec<Waiting>,
    /// The commands in `waiting` end instead.
    pub(super) given_up: bool,
    /// The queues do not exist, because of a reset.
    pub(super) held: bool,
    /// Commands that ended with an error.
    pub(super) errors: usize,
    /// Completions after which the command did not end.
    pub(super) kept: usize,
    /// Commands that were submitted again.
    pub(super) repeated: usize,
}

#[derive(Clone, Copy, Default)]
struct Repetition {
    cid: u16,
    /// Number of repetitions of the command so far.
    number: u8,
    /// In the list of waiting commands.
    waits: bool,
}

struct Waiting {
    sqe: Sqe,
    index: u32,
    delay_ms: u32,
    /// Time of the first health check that saw it.
    since_ms: Option<u32>,
}

impl Retries {
    pub(super) fn new(policy: RetryPolicy, depth: u16) -> Self {
        let slots = if policy.most > 0 { usize::from(depth) } else { 0 };
        Self {
            policy,
            last: vec![Repetition::default(); slots].into(),
            saved: vec![Sqe::default(); slots].into(),
            waiting: Vec::with_capacity(slots),
            given_up: false,
            held: false,
            errors: 0,
            kept: 0,
            repeated: 0,
        }
    }

    /// Returns true if commands wait to be submitted again, and so are not with the controller.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Returns true if any command is repeated.
    pub(super) fn are_possible(&self) -> bool {
        !self.saved.is_empty()
    }

    /// Saves a command in flight whose entry in the submission ring is about to be overwritten.
    pub(super) fn save(&mut self, index: u32, sqe: Sqe) {
        if let Some(saved) = self.saved.get_mut(index as usize) {
            *saved = sqe;
        }
    }

    /// Returns the command of a slot in use.
    fn command<T>(&self, sq: &SubmissionRing, slot: &Slot<Request<T>>, index: u32) -> Option<Sqe> {
        if let Some(command) = slot.page_command() {
            return slot.request().map(|request| page_sqe(command, request.buf.iova()));
        }
        sq.find(slot.cid()).or_else(|| {
            // Saved before its entry in the ring was overwritten.
            let saved = self.saved.get(index as usize).copied();
            saved.filter(|sqe| sqe.cid.get() == slot.cid())
        })
    }

    /// Notes that the command of `slot` has ended with a status other than 0. Returns true if it is
    /// repeated: it then has not ended, and `next` is its identifier.
    pub(super) fn note<T>(
        &mut self,
        sq: &SubmissionRing,
        slot: &mut Slot<Request<T>>,
        (index, next): (u32, u32),
        status: Status,
    ) -> bool {
        if status.is_success() {
            return false;
        }
        let repeated = self.keep(sq, slot, (index, next), status);
        match repeated {
            true => self.kept += 1,
            false => self.errors += 1,
        }
        repeated
    }

    /// Repeats a command that a reset of the controller ended. Returns false if it is not repeated.
    pub(super) fn keep<T>(
        &mut self,
        sq: &SubmissionRing,
        slot: &mut Slot<Request<T>>,
        (index, next): (u32, u32),
        status: Status,
    ) -> bool {
        let room = self.waiting.len() < self.waiting.capacity();
        let Some(last) = self.last.get(index as usize).filter(|_| room) else { return false };
        let own = last.cid == slot.cid();
        let before = if own { last.number } else { 0 };
        if (own && last.waits) || before >= self.policy.most || !is_transient(status) {
            return false;
        }
        let Some(sqe) = self.command(sq, slot, index).filter(is_idempotent) else { return false };
        let delay_ms = match status.crd() {
            crd @ 1..=3 => self.policy.delays_ms[usize::from(crd) - 1],
            _ if before == 0 => 0,
            _ => PAUSE_MS.min(self.policy.longest_ms),
        };
        if delay_ms > self.policy.longest_ms {
            return false;
        }
        slot.rename(next);
        if let Some(last) = self.last.get_mut(index as usize) {
            *last = Repetition { cid: slot.cid(), number: before + 1, waits: true };
        }
        let sqe = Sqe { cid: U16::new(slot.cid()), ..sqe };
        self.waiting.push(Waiting { sqe, index, delay_ms, since_ms: None });
        true
    }

    /// Returns true if the command of a slot waits to be repeated.
    pub(super) fn is_waiting(&self, index: usize, cid: u16) -> bool {
        self.last.get(index).is_some_and(|last| last.waits && last.cid == cid)
    }

    /// Removes a command that can be submitted: at the time `now_ms`, or, without a time, only one
    /// without a delay. Removes any command if they are given up.
    pub(super) fn next_due(&mut self, now_ms: Option<u32>) -> Option<Sqe> {
        let given_up = self.given_up;
        let at = self.waiting.iter_mut().position(|waiting| {
            let waited = now_ms.map(|now| {
                let since = *waiting.since_ms.get_or_insert(now);
                now.wrapping_sub(since)
            });
            given_up || waiting.delay_ms <= waited.unwrap_or(0)
        })?;
        let Waiting { sqe, index, .. } = self.waiting.swap_remove(at);
        let last = self.last.get_mut(index as usize);
        if let Some(last) = last.filter(|last| last.cid == sqe.cid.get()) {
            last.waits = false;
        }
        Some(sqe)
    }
}

/// Returns a Read, Write or Compare of one page at `iova`.
fn page_sqe(PageCommand { head, slba, nlb }: PageCommand, iova: u64) -> Sqe {
    let words = [head, 0, 0, iova, 0, slba, nlb.into(), 0];
    zerocopy::transmute!(words.map(U64::new))
}

/// Returns true if a second attempt can succeed. A command that the host aborted can always.
fn is_transient(status: Status) -> bool {
    let aborted = [status::ABORT_REQUESTED, status::ABORTED_SQ_DELETION];
    aborted.contains(&status.bare()) || !status.dnr()
}

/// Returns true for commands whose second execution has the effect of the first.
///
/// A Flush is not one of them: its success after an error does not prove that earlier writes are
/// durable.
fn is_idempotent(sqe: &Sqe) -> bool {
    let opcode = [nvm::READ, nvm::WRITE, nvm::WRITE_ZEROES, nvm::VERIFY].contains(&sqe.opcode);
    opcode && sqe.flags & FUSE_MASK == 0
}
