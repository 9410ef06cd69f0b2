//! The controller: registers, queues and commands, without threads and sockets.

pub(crate) mod controller_memory;
pub(crate) mod doorbells;
pub(crate) mod queue;
pub(crate) mod queue_table;
pub(crate) mod queues;
pub(crate) mod registers;
pub(crate) mod shadow_doorbells;
pub(crate) mod state;
pub(crate) mod timed;

use std::sync::Arc;

use nvio_spec::register::DOORBELLS;
use nvio_spec::{CQE_SIZE, Cqe, Sqe, Status, error_event, status};
use zerocopy::little_endian::U16;

use crate::admin::events::Event;
use crate::admin::features::Features;
use crate::controller::doorbells::{Doorbell, Doorbells};
use crate::controller::queue::{CompletionQueue, InvalidDoorbell, SubmissionQueue, Unreachable};
use crate::controller::registers::Transition;
use crate::controller::state::{BURST, Controller, completion, final_status};
use crate::faults::plan::Plan;
use crate::faults::schedule::Stuck;
use crate::host::memory::HostMemory;
use crate::host::request::Request;
use crate::host::sgl;

impl Controller {
    /// Returns the doorbells, which the host rings and [`Self::process`] reads.
    ///
    /// See the [example](Self#examples).
    pub fn doorbells(&self) -> &Arc<Doorbells> {
        &self.doorbells
    }

    /// Returns the number of interrupt vectors, 1 to 2048.
    ///
    /// See the [example](Self#examples).
    pub fn vectors(&self) -> u16 {
        self.config.vectors()
    }

    /// Returns the vectors with new completions since the last call.
    ///
    /// See the [example](Self#examples).
    pub fn take_interrupts(&mut self) -> impl Iterator<Item = u16> + '_ {
        self.interrupts.drain(..)
    }

    /// Returns the interrupt mask (INTMS), which applies to pin-based interrupts and MSI (PCIe
    /// 3.5).
    ///
    /// See the [example](Self#examples).
    pub fn interrupt_mask(&self) -> u32 {
        self.registers.interrupt_mask()
    }

    /// Returns true if [`Self::process`] may have work: the controller is ready, has not failed and
    /// was not shut down.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn is_running(&self) -> bool {
        self.registers.running()
    }

    /// Reads the 32 bits at `offset` of BAR0. Offsets that are not a multiple of 4, reserved or
    /// unsupported read as 0. A 64-bit register is read in two halves.
    ///
    /// See the [example](Self#examples).
    pub fn read_register(&self, offset: u64) -> u32 {
        if offset >= DOORBELLS && !self.registers.is_removed() {
            self.doorbells.load(offset)
        } else {
            self.registers.read(offset)
        }
    }

    /// Writes 32 bits at `offset` of BAR0. Writes to read-only and reserved offsets and to offsets
    /// that are not a multiple of 4 are ignored. A doorbell of a queue that does not exist raises
    /// the asynchronous event Write to Invalid Doorbell Register (Base 5.2.1). Writes through
    /// shared memory raise no such event, because the controller does not see them.
    ///
    /// See the [example](Self#examples).
    pub fn write_register(&mut self, offset: u64, value: u32) {
        if offset >= DOORBELLS {
            return self.write_doorbell(offset, value);
        }
        let transition = self.registers.write(offset, value);
        self.transition_in_time(transition);
    }

    /// Executes the transition that a register write requested.
    pub(crate) fn transition(&mut self, transition: Transition) {
        match transition {
            Transition::None => {}
            Transition::ControllerMemory => self.controller_memory_changed(),
            Transition::Enable => self.enable(),
            Transition::Reset => self.controller_reset(),
            Transition::Shutdown => self.shutdown(),
        }
    }

    fn write_doorbell(&mut self, offset: u64, value: u32) {
        if self.registers.is_removed() {
            return;
        }
        let exists = match self.doorbells.decode(offset) {
            Some(Doorbell::SqTail(qid)) => self.sqs.contains(qid),
            Some(Doorbell::CqHead(qid)) => self.cqs.contains(qid),
            None => false,
        };
        if exists {
            self.doorbells.store(offset, value);
        } else {
            log::warn!("doorbell at {offset:#x}: no such queue");
            self.events.raise(Event::error(error_event::INVALID_DOORBELL_REGISTER));
        }
    }

    fn enable(&mut self) {
        if let Some(reason) = self.registers.refuse_enable() {
            log::warn!("enable refused: {reason}");
            return self.registers.set_fatal();
        }
        let (acq, acq_entries) = self.registers.admin_cq();
        let (asq, asq_entries) = self.registers.admin_sq();
        let bytes = u64::from(acq_entries) * CQE_SIZE as u64;
        let refused = self.refuse_controller_memory(acq, bytes);
        let queue = refused.and_then(|()| self.submission_queue(asq, asq_entries, 0));
        let Ok(queue) = queue else {
            log::warn!("enable refused: an admin queue cannot be in the controller memory buffer");
            return self.registers.set_fatal();
        };
        self.doorbells.clear();
        self.cqs.insert(0, CompletionQueue::new(acq, acq_entries, Some(0)));
        self.sqs.insert(0, queue);
        self.registers.set_ready();
    }

    /// Executes a Controller Reset by CC.EN (Base 3.7.2).
    fn controller_reset(&mut self) {
        self.registers.controller_reset();
        self.drop_state();
    }

    /// Resets all state except stored data, as for a function level reset and a new host.
    ///
    /// See the [example](Self#examples).
    pub fn function_reset(&mut self) {
        if self.registers.running() {
            self.media.health.unsafe_shutdowns += 1;
        }
        self.registers.function_reset();
        self.controller_memory_changed();
        self.stuck = Stuck::default();
        self.drop_state();
    }

    /// Cuts the power and restores it. Each block in the write cache (see
    /// [`Config::write_cache`](crate::Config::write_cache)) is stored or lost, as `seed` decides.
    /// Commands in progress are dropped, and all other state is as at power on. Flushed data stays.
    ///
    /// See the [example](Self#examples).
    pub fn power_cut(&mut self, seed: u64) {
        self.media.power_cut(seed);
        self.function_reset();
    }

    pub(crate) fn drop_state(&mut self) {
        self.sqs.clear();
        self.cqs.clear();
        self.resting.clear();
        self.turn = 0;
        self.staged.clear();
        if let Some(schedule) = &mut self.schedule {
            schedule.drop_all();
        }
        self.events.clear();
        self.restart_keep_alive();
        // The host may use the pages for other data now.
        self.shadow = None;
        self.interrupts.clear();
        self.media.namespaces.clear_changed();
        self.features = Features::new(&self.config, &self.media.namespaces);
        self.doorbells.clear();
    }

    /// Executes a normal or abrupt shutdown by CC.SHN (Base 3.6): makes every write durable.
    fn shutdown(&mut self) {
        log::info!("shutdown notification");
        self.media.shutdown();
        self.registers.set_shutdown_complete();
    }

    /// Makes every write durable, outside of any command. Errors are logged.
    ///
    /// See the [example](Self#examples).
    pub fn flush(&mut self) {
        self.media.shutdown();
    }

    /// Sets CSTS.CFS, because the device around the controller has failed.
    pub(crate) fn fail(&mut self) {
        self.registers.set_fatal();
    }

    /// Processes up to `budget` commands that the doorbells announce. Returns the number of
    /// completions and commands processed, 0 if there was no work.
    ///
    /// A submission queue whose completion queue is full waits until the host moves the head
    /// doorbell. An invalid doorbell value has no effect and raises Invalid Doorbell Write Value. A
    /// queue outside of host memory is fatal: CSTS.CFS is set, and no command is processed until a
    /// reset.
    ///
    /// See the [example](Self#examples).
    pub fn process(&mut self, memory: &HostMemory, budget: usize) -> usize {
        if !self.registers.running() {
            return 0;
        }
        match self.round(memory, budget) {
            Ok(done) => done,
            Err(Unreachable { iova }) => {
                log::error!("queue entry at {iova:#x} is not in the client's memory");
                self.registers.set_fatal();
                1
            }
        }
    }

    fn round(&mut self, memory: &HostMemory, budget: usize) -> Result<usize, Unreachable> {
        let mut done = if self.schedule.is_some() { self.finish_due(memory)? } else { 0 };
        for _ in 0..self.sqs.len() {
            if done >= budget {
                break;
            }
            let Some(qid) = self.sqs.next(self.turn).or_else(|| self.sqs.next(0)) else { break };
            self.turn = qid.wrapping_add(1);
            done += self.serve(qid, memory, BURST.min(budget - done))?;
            // A fault may have stopped the controller.
            if !self.registers.running() {
                return Ok(done);
            }
        }
        done += self.post_events(memory)?;
        // Commands that were submitted in time are processed first.
        if done == 0 && self.keep_alive_expired() {
            log::error!("the Keep Alive Timer has expired");
            self.registers.set_fatal();
        }
        Ok(done)
    }

    /// Restarts the Keep Alive Timer (Base 3.9).
    pub(crate) fn restart_keep_alive(&mut self) {
        self.keep_alive_until = None;
    }

    #[inline]
    fn keep_alive_expired(&mut self) -> bool {
        let timeout = u64::from(self.features.keep_alive()) * 1_000_000;
        if timeout == 0 {
            return false;
        }
        let until = self.now.saturating_add(timeout);
        self.now > *self.keep_alive_until.get_or_insert(until)
    }

    /// Executes up to `most` commands of one queue and posts their completions.
    #[inline]
    fn serve(&mut self, qid: u16, memory: &HostMemory, most: usize) -> Result<usize, Unreachable> {
        let Some(sq) = self.sqs.get_mut(qid).filter(|sq| !sq.starves) else { return Ok(0) };
        let tail = match &self.shadow {
            Some(shadow) if qid != 0 => {
                let tail = shadow.sq_tail(qid, sq, &self.doorbells, memory)?;
                let Some(tail) = tail else { return Ok(0) };
                tail
            }
            _ => self.doorbells.sq_tail(qid),
        };
        let mut invalid = sq.set_tail(tail);
        let cqid = sq.cqid;
        let mut room = 0;
        if !sq.is_empty() {
            let valid;
            (room, valid) = self.room(cqid, memory)?;
            invalid = invalid.and(valid);
        }
        if invalid == Err(InvalidDoorbell) {
            log::warn!("queue {qid}: a doorbell value the queue cannot have");
            self.events.raise(Event::error(error_event::INVALID_DOORBELL_VALUE));
        }
        let done = self.fetch(qid, memory, most.min(room))?;
        self.post_staged(cqid, memory)?;
        Ok(done)
    }

    /// Returns the free entries of a completion queue, by the head that the host has stored, and
    /// whether that head was valid.
    #[inline]
    pub(crate) fn room(
        &mut self,
        cqid: u16,
        memory: &HostMemory,
    ) -> Result<(usize, Result<(), InvalidDoorbell>), Unreachable> {
        let Some(cq) = self.cqs.get_mut(cqid) else { return Ok((0, Ok(()))) };
        let head = match &self.shadow {
            Some(shadow) if cqid != 0 => shadow.cq_head(cqid, cq.head(), memory)?,
            _ => self.doorbells.cq_head(cqid),
        };
        let valid = cq.set_head(head);
        Ok((cq.room() as usize, valid))
    }

    /// Fetches up to `most` commands of one queue. Executes each of them, or plans its delay and its
    /// faults.
    fn fetch(&mut self, qid: u16, memory: &HostMemory, most: usize) -> Result<usize, Unreachable> {
        let mut done = 0;
        while done < most && self.registers.running() {
            let burst = match &self.schedule {
                None => BURST.min(most - done),
                Some(schedule) if schedule.delayed.is_full() => break,
                Some(_) => 1,
            };
            // Not in use while the commands are executed, so that none is copied.
            let mut fetched = std::mem::take(&mut self.fetched);
            let count = self.execute_burst(qid, memory, &mut fetched[..burst]);
            self.fetched = fetched;
            match count? {
                0 => break,
                count => done += count,
            }
        }
        Ok(done)
    }

    /// Fetches commands of one queue until `fetched` is full, the queue is empty or the ring ends,
    /// executes or delays them, and returns their number.
    #[inline]
    fn execute_burst(
        &mut self,
        qid: u16,
        memory: &HostMemory,
        fetched: &mut [Sqe],
    ) -> Result<usize, Unreachable> {
        let Some(sq) = self.sqs.get(qid).filter(|sq| !sq.is_empty()) else { return Ok(0) };
        let count = sq.fetch(memory, fetched)?;
        for sqe in &fetched[..count] {
            self.sqs.get_mut(qid).map(SubmissionQueue::consume);
            if self.schedule.is_some() {
                self.delay(qid, sqe, memory)?;
            } else if let Some(cqe) = self.execute(qid, sqe, memory, &Plan::default()) {
                self.staged.push(cqe);
            }
        }
        Ok(count)
    }

    /// Executes a command of any queue, unless its faults `plan` another status. Logs a failure.
    /// Returns the completion; `None` if the command waits for an event.
    #[inline]
    pub(crate) fn execute(
        &mut self,
        qid: u16,
        sqe: &Sqe,
        memory: &HostMemory,
        plan: &Plan,
    ) -> Option<Cqe> {
        let request = self.request(sqe, memory);
        let (status, dw0) = match plan.status {
            _ if plan.aborted => (status::ABORT_REQUESTED, 0),
            Some(status) => (self.allowed_delay(status), 0),
            None if qid == 0 => match self.execute_admin(request) {
                Ok(dw0) => (Status::SUCCESS, dw0?),
                Err(error) => (final_status(error), 0),
            },
            None => match self.execute_io(request) {
                Ok(()) => (Status::SUCCESS, 0),
                Err(error) => (final_status(error), self.media.take_dw0()),
            },
        };
        if !status.is_success() {
            self.media.health.failed(qid, sqe, status);
        }
        let head = self.sqs.get(qid).map_or(0, SubmissionQueue::head);
        Some(completion(sqe, qid, head, status, dw0))
    }

    #[inline]
    pub(crate) fn request<'a>(&self, sqe: &'a Sqe, memory: &'a HostMemory) -> Request<'a> {
        let page_shift = self.registers.cc().page_shift();
        Request { sqe, memory, page_shift, write_through: self.features.write_through() }
    }

    /// Returns an injected status, without a Command Retry Delay unless the host enabled them
    /// (Base 5.27.1.18).
    fn allowed_delay(&self, status: Status) -> Status {
        match self.features.host_behavior().acre {
            0 => Status(status.0 & !(0b11 << 11)),
            _ => status,
        }
    }

    /// Executes an I/O command. Fused commands, reserved flags, and SGLs unless they are offered, are
    /// refused.
    #[inline]
    fn execute_io(&mut self, request: Request<'_>) -> Result<(), Status> {
        sgl::check(request.sqe.flags, self.config.sgl)?;
        self.media.execute(request)
    }

    /// Posts the completions of a burst. The queue has room, because the burst was limited to it.
    pub(crate) fn post_staged(
        &mut self,
        cqid: u16,
        memory: &HostMemory,
    ) -> Result<(), Unreachable> {
        if self.staged.is_empty() {
            return Ok(());
        }
        if let Some(cq) = self.cqs.get_mut(cqid) {
            cq.post(memory, &self.staged)?;
            if let Some(vector) = cq.vector
                && let Err(at) = self.interrupts.binary_search(&vector)
            {
                self.interrupts.insert(at, vector);
            }
        }
        self.staged.clear();
        Ok(())
    }

    /// Completes Asynchronous Event Requests for pending events, while the admin queue has room.
    fn post_events(&mut self, memory: &HostMemory) -> Result<usize, Unreachable> {
        let mut done = 0;
        while self.events.ready() {
            // An invalid head is reported when the admin queue is served.
            if self.room(0, memory)?.0 == 0 {
                break;
            }
            let Some(sq) = self.sqs.get(0) else { break };
            let (cid, status, dw0) = match self.events.take_withdrawn() {
                Some(cid) => (cid, status::ABORT_REQUESTED, 0),
                None => match self.events.meet() {
                    Some((cid, event)) => (cid, Status::SUCCESS, event.dw0()),
                    None => break,
                },
            };
            let sqe = Sqe { cid: U16::new(cid), ..Sqe::default() };
            self.staged.push(completion(&sqe, 0, sq.head(), status, dw0));
            self.post_staged(0, memory)?;
            done += 1;
        }
        Ok(done)
    }
}
