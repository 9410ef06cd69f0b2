//! Faults by seed: their rates, and the draw for each command.

use std::time::Duration;

use nvio_spec::opcode::nvm;
use nvio_spec::{EventType, Sqe, Status, log_id, status};

use crate::faults::plan::{DeviceFault, Fault, Plan};
use crate::random::Random;

/// Rates of faults by seed, in parts per million of I/O commands; see [`Faults`](crate::Faults).
/// All rates are 0 by default. Each fault is drawn independently, so a command can have several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Rate of [`Fault::Status`], one of: the media error that fits the command, Internal Error,
    /// Data Transfer Error, Namespace Not Ready, Command Abort Requested.
    pub status: u32,
    /// Rate of [`Fault::Late`], by up to [`Self::late_up_to`].
    pub late: u32,
    /// Rate of [`Fault::Lost`].
    pub lost: u32,
    /// Rate of [`Fault::Duplicate`].
    pub duplicate: u32,
    /// Rate of [`Fault::StaleId`].
    pub stale_id: u32,
    /// Rate of [`Fault::UnknownId`], with identifier FFFFh.
    pub unknown_id: u32,
    /// Rate of [`DeviceFault::Fatal`].
    pub fatal: u32,
    /// Rate of [`DeviceFault::StuckReady`], for up to [`Self::stuck_up_to`].
    pub stuck_ready: u32,
    /// Rate of [`DeviceFault::StuckNotReady`], for up to [`Self::stuck_up_to`].
    pub stuck_not_ready: u32,
    /// Rate of [`DeviceFault::Removed`].
    pub removed: u32,
    /// Rate of [`DeviceFault::Event`]: a SMART / Health event, NVM subsystem reliability degraded.
    pub event: u32,
    /// Rate of [`Fault::NotAbortable`], for late and lost commands.
    pub not_abortable: u32,
    /// Rate of [`Fault::OldVersion`].
    pub old_version: u32,
    /// Longest delay of a late command; 100 microseconds by default.
    pub late_up_to: Duration,
    /// Longest time that CSTS.RDY is stuck; 1 millisecond by default.
    pub stuck_up_to: Duration,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            status: 0,
            late: 0,
            lost: 0,
            duplicate: 0,
            stale_id: 0,
            unknown_id: 0,
            fatal: 0,
            stuck_ready: 0,
            stuck_not_ready: 0,
            removed: 0,
            event: 0,
            not_abortable: 0,
            old_version: 0,
            late_up_to: Duration::from_micros(100),
            stuck_up_to: Duration::from_millis(1),
        }
    }
}

impl Rates {
    /// Returns each fault with its rate.
    pub(crate) fn faults(
        &self,
        status: Status,
        late: Duration,
        stuck: Duration,
    ) -> [(Fault, u32); 13] {
        let event = DeviceFault::Event { kind: EventType::HEALTH, info: 0, log: log_id::HEALTH };
        [
            (Fault::Status(status), self.status),
            (Fault::Late(late), self.late),
            (Fault::Lost, self.lost),
            (Fault::Duplicate, self.duplicate),
            (Fault::StaleId, self.stale_id),
            (Fault::UnknownId(u16::MAX), self.unknown_id),
            (Fault::Device(DeviceFault::Fatal), self.fatal),
            (Fault::Device(DeviceFault::StuckReady(stuck)), self.stuck_ready),
            (Fault::Device(DeviceFault::StuckNotReady(stuck)), self.stuck_not_ready),
            (Fault::Device(DeviceFault::Removed), self.removed),
            (Fault::Device(event), self.event),
            (Fault::NotAbortable, self.not_abortable),
            (Fault::OldVersion, self.old_version),
        ]
    }

    /// Returns the largest rate.
    pub(crate) fn largest(&self) -> u32 {
        let faults = self.faults(Status::SUCCESS, Duration::ZERO, Duration::ZERO);
        faults.into_iter().map(|(_, rate)| rate).max().unwrap_or(0)
    }
}

/// Draws the faults of a command. Every command draws the same count of numbers.
pub(crate) fn draw(plan: &mut Plan, random: &mut Random, rates: &Rates, sqe: &Sqe) {
    let up_to = |random: &mut Random, most: Duration| {
        let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(random.below(nanos.saturating_add(1)))
    };
    let media = match sqe.opcode {
        nvm::READ | nvm::COMPARE | nvm::VERIFY => status::UNRECOVERED_READ_ERROR,
        _ => status::WRITE_FAULT,
    };
    let choice = [
        media,
        status::INTERNAL_ERROR,
        status::DATA_TRANSFER_ERROR,
        status::NAMESPACE_NOT_READY,
        status::ABORT_REQUESTED,
    ];
    let chosen = choice[usize::try_from(random.below(choice.len() as u64)).unwrap_or(0)];
    let late = up_to(random, rates.late_up_to);
    let stuck = up_to(random, rates.stuck_up_to);
    for (fault, rate) in rates.faults(chosen, late, stuck) {
        if random.chance(rate) {
            plan.apply(fault);
        }
    }
}
