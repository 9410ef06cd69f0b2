//! The controller in time: its clock, delayed commands and transitions, and injected faults.

use std::time::Duration;

use nvio_spec::opcode::nvm;
use nvio_spec::{Cqe, Sqe, Status};
use zerocopy::little_endian::U16;

use crate::admin::events::Event;
use crate::config::quirk::Quirk;
use crate::controller::queue::Unreachable;
use crate::controller::registers::Transition;
use crate::controller::state::Controller;
use crate::error::Error;
use crate::faults::delayed::{Command, Due};
use crate::faults::plan::{DeviceFault, Plan};
use crate::faults::schedule::{FaultSchedule, Stuck};
use crate::faults::{FaultCounts, Faults, Injector};
use crate::host::memory::HostMemory;

/// Time until CSTS.RDY is set, with [`Quirk::ShortTimeout`].
const SLOW_READY: Duration = Duration::from_millis(600);

impl Controller {
    /// Sets the clock to `now`, the time since a fixed moment. The clock never goes back. The next
    /// [`Self::process`] completes the commands that are due by then. CSTS.RDY may change at once,
    /// if a fault delayed it.
    ///
    /// See the [example](Self#examples).
    pub fn advance_to(&mut self, now: Duration) {
        self.now = self.now.max(nanos(now));
        if let Some((at, transition)) = self.stuck.pending
            && at <= self.now
        {
            self.stuck.pending = None;
            self.transition(transition);
        }
    }

    /// Advances the clock by [`Self::STEP`] and serves every queue once, for a controller without
    /// threads. Returns the number of commands and completions processed.
    ///
    /// See the [example](Self#examples).
    pub fn step(&mut self, memory: &HostMemory) -> usize {
        self.advance_to(Duration::from_nanos(self.now).saturating_add(Self::STEP));
        self.process(memory, usize::MAX)
    }

    /// Returns the time of the controller's clock.
    ///
    /// See the [example](Self#examples).
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.now)
    }

    /// Returns true if an event may depend on the clock.
    #[inline]
    pub(crate) fn needs_clock(&self) -> bool {
        self.schedule.is_some() || self.stuck.pending.is_some() || self.features.keep_alive() != 0
    }

    /// Returns the time until the first delayed command is due; `None` without one.
    ///
    /// See the [example](Self#examples).
    pub fn until_due(&self) -> Option<Duration> {
        let at = self.schedule.as_ref()?.delayed.first()?;
        Some(Duration::from_nanos(at.saturating_sub(self.now)))
    }

    /// Returns how often each fault has happened.
    ///
    /// See the [example](Self#examples).
    pub fn fault_counts(&self) -> FaultCounts {
        let counts = self.schedule.as_ref().map_or_else(FaultCounts::default, |c| c.counts);
        FaultCounts { device: self.device_faults, ..counts }
    }

    /// Replaces the faults. Commands that were fetched before keep their faults. Rules count from
    /// here, and seeds start again.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Setting`] for a rate above a million.
    pub fn set_faults(&mut self, faults: &Faults) -> Result<(), Error> {
        faults.check()?;
        let injector = (!faults.is_empty()).then(|| Injector::new(faults));
        match &mut self.schedule {
            Some(schedule) => schedule.injector = injector,
            None if injector.is_some() => {
                self.schedule = Some(Box::new(FaultSchedule::with(injector, None)));
            }
            None => {}
        }
        Ok(())
    }

    /// Applies a fault to the controller now.
    ///
    /// See the [example](Self#examples).
    pub fn inject(&mut self, fault: DeviceFault) {
        log::info!("fault: {fault:?}");
        self.device_faults += 1;
        match fault {
            DeviceFault::Fatal => self.registers.set_fatal(),
            DeviceFault::StuckReady(time) => self.stuck.ready = Some(time),
            DeviceFault::StuckNotReady(time) => self.stuck.not_ready = Some(time),
            DeviceFault::Removed => {
                self.stuck = Stuck::default();
                self.registers.remove();
                self.drop_state();
            }
            DeviceFault::Event { kind, info, log } => self.events.raise(Event { kind, info, log }),
        }
    }

    /// Inserts a removed device again, in the state of power on. A device that was not removed is
    /// not changed.
    ///
    /// See the [example](Self#examples).
    pub fn reinsert(&mut self) {
        if self.registers.is_removed() {
            self.registers.reinsert();
            self.function_reset();
        }
    }

    /// Returns true if the device is removed.
    pub(crate) fn is_removed(&self) -> bool {
        self.registers.is_removed()
    }

    /// Executes a transition, or delays it if RDY is to be stuck.
    pub(crate) fn transition_in_time(&mut self, transition: Transition) {
        let slow = match transition {
            Transition::Enable => {
                // A delayed reset happens before the enable.
                if let Some((_, Transition::Reset)) = self.stuck.pending.take() {
                    self.transition(Transition::Reset);
                }
                let slow = self.config.has_quirk(Quirk::ShortTimeout).then_some(SLOW_READY);
                self.stuck.not_ready.take().or(slow)
            }
            Transition::Reset => {
                self.stuck.pending = None;
                self.stuck.ready.take()
            }
            _ => None,
        };
        match slow {
            Some(time) => {
                self.stuck.pending = Some((self.now.saturating_add(nanos(time)), transition));
            }
            None => self.transition(transition),
        }
    }

    /// Plans the faults and the delay of a command, and finishes it if it is due.
    pub(crate) fn delay(
        &mut self,
        qid: u16,
        sqe: &Sqe,
        memory: &HostMemory,
    ) -> Result<(), Unreachable> {
        let Some(schedule) = &mut self.schedule else { return Ok(()) };
        let plan = schedule.injector.as_mut().map(|injector| injector.plan(qid == 0, sqe));
        let plan = plan.unwrap_or_default();
        schedule.counts.late += u64::from(!plan.delay.is_zero());
        if let Some(fault) = plan.device {
            self.inject(fault);
            if !self.registers.running() {
                return Ok(());
            }
        }
        let Some(schedule) = &mut self.schedule else { return Ok(()) };
        let at = match schedule.pacer.as_mut().filter(|_| qid != 0) {
            Some(pacer) if sqe.opcode == nvm::FLUSH => pacer.flush_due(self.now),
            Some(pacer) => pacer.due(self.now, self.media.bytes_moved(sqe)),
            None => self.now,
        };
        let at = at.saturating_add(nanos(plan.delay));
        let due = schedule.delayed.insert(at, Command { qid, sqe: *sqe, plan });
        if at <= self.now {
            self.finish(due, memory)?;
        }
        Ok(())
    }

    /// Finishes the commands that are due, while their completion queues have room.
    pub(crate) fn finish_due(&mut self, memory: &HostMemory) -> Result<usize, Unreachable> {
        let (mut done, mut after) = (0, (0, 0));
        while let Some(due) =
            self.schedule.as_ref().and_then(|c| c.delayed.next_due(after, self.now))
        {
            done += usize::from(self.finish(due, memory)?);
            after = due;
        }
        Ok(done)
    }

    /// Executes a delayed command and completes it. Returns false if the completion queue is full.
    fn finish(&mut self, due: Due, memory: &HostMemory) -> Result<bool, Unreachable> {
        let Some(schedule) = &mut self.schedule else { return Ok(false) };
        let Some(&Command { qid, sqe, plan }) = schedule.delayed.get(due) else { return Ok(false) };
        let Some(cqid) = self.sqs.get(qid).map(|sq| sq.cqid) else {
            schedule.delayed.remove(due);
            return Ok(false);
        };
        // An invalid head is reported when the queue is served.
        let (room, _) = self.room(cqid, memory)?;
        if room == 0 && !plan.lost {
            return Ok(false);
        }
        if let Some(schedule) = &mut self.schedule {
            schedule.delayed.remove(due);
        }
        if let Some(cqe) = self.execute_planned(qid, &sqe, memory, &plan) {
            self.stage(&cqe, &sqe, &plan, room);
            self.post_staged(cqid, memory)?;
        }
        Ok(true)
    }

    /// Executes a command that is due. A Write may keep its first block as it was, which the next Read of
    /// the block returns.
    fn execute_planned(
        &mut self,
        qid: u16,
        sqe: &Sqe,
        memory: &HostMemory,
        plan: &Plan,
    ) -> Option<Cqe> {
        let is_write = qid != 0 && sqe.opcode == nvm::WRITE;
        let old = (plan.old_version && is_write).then(|| self.media.old_block(sqe)).flatten();
        let cqe = self.execute(qid, sqe, memory, plan)?;
        if qid == 0 || plan.status.is_some() || !cqe.status().is_success() {
            return Some(cqe);
        }
        let request = self.request(sqe, memory);
        if let Some(schedule) = &mut self.schedule {
            if let Some(old) = old {
                schedule.old_blocks.keep(old);
            }
            while sqe.opcode == nvm::READ
                && let Some(old) = schedule.old_blocks.take(sqe)
            {
                let returned = self.media.return_old_block(request, &old) == Ok(true);
                schedule.counts.old_version += u64::from(returned);
            }
        }
        Some(cqe)
    }

    /// Stages the completion of a command and the extra completions of its faults, while there is
    /// room.
    fn stage(&mut self, cqe: &Cqe, sqe: &Sqe, plan: &Plan, room: usize) {
        let Some(schedule) = self.schedule.as_mut() else { return };
        let qid = cqe.sqid.get();
        let mut spare = room.saturating_sub(usize::from(!plan.lost));
        let mut take = |wanted: bool| {
            let taken = wanted && spare > 0;
            spare -= usize::from(taken);
            taken
        };
        let stale = schedule.last.get(&qid).copied().filter(|_| plan.stale_id);
        if !plan.lost {
            schedule.last.insert(qid, cqe.cid.get());
        }
        let free = |id: &u16| !schedule.is_outstanding(qid, *id, sqe);
        let (stale, unknown) = (stale.filter(free), plan.unknown_id.filter(free));
        for (id, count) in
            [(stale, &mut schedule.counts.stale_id), (unknown, &mut schedule.counts.unknown_id)]
        {
            if let Some(id) = id.filter(|_| take(true)) {
                *count += 1;
                let success = Cqe::pack_status(Status::SUCCESS, false);
                self.staged.push(Cqe { cid: U16::new(id), status_phase: success, ..*cqe });
            }
        }
        schedule.counts.status += u64::from(plan.status.is_some());
        if plan.lost {
            schedule.counts.lost += 1;
            schedule.delayed.lose(Command { qid, sqe: *sqe, plan: *plan });
            return;
        }
        self.staged.push(*cqe);
        if take(plan.duplicate) {
            schedule.counts.duplicate += 1;
            self.staged.push(*cqe);
        }
    }
}

/// Returns nanoseconds, saturating at 64 bits.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
