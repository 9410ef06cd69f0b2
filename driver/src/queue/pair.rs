//! The I/O queue pair of a caller.

use std::mem::ManuallyDrop;
use std::sync::Arc;

use nvio_spec::Sqe;
use zerocopy::little_endian::U32;

use super::completion::{Completion, Handler};
use super::counters::Counters;
use super::doorbells::POLLS_WHILE_HELD;
use super::options::{CommandOptions, Protection};
use super::raw::{Processed, RawQueuePair};
use super::ring::Posted;
use super::sleeper::Sleeper;
use crate::controller::health::{Failure, Health};
use crate::controller::inner::Inner;
use crate::dma::DmaBuf;
use crate::error::{Error, Result};
use crate::namespace::{Namespace, PageRead, WritableNamespace};
use crate::rejected::{Rejected, SubmitResult};

/// Empty polls after which a queue pair runs its health check.
pub(super) const POLLS_PER_CHECK: u32 = 1 << 10;
/// Minimum time between two health checks.
const CHECK_INTERVAL_MS: u32 = 100;

/// A submission queue and its completion queue, for one thread.
///
/// [`read`](Self::read), [`write`](Self::write) and others submit commands. [`ring`](Self::ring)
/// shows a batch of them to the controller, and [`poll`](Self::poll) returns their completions.
/// `T` is the context of a command: it is submitted with the command and returned with its
/// completion.
///
/// Each command ends once, if the caller polls until it does: with the status of the controller,
/// or, if the controller failed and was reset, with
/// [`ABORTED_BY_HOST`](nvio_spec::status::ABORTED_BY_HOST) or
/// [`HOST_PATHING_ERROR`](nvio_spec::status::HOST_PATHING_ERROR). The controller may have executed
/// such a command or not.
///
/// A call that submits fails with [`Error::QueueFull`] if [`capacity`](Self::capacity) commands are
/// in flight.
///
/// Dropping the pair deletes its queues. The buffers of commands in flight are then lost.
///
/// # Examples
/// ```
/// # let served = nvio_testkit::controller::Served::memory(16 << 20);
/// # let controller = &served.controller;
/// # let namespace = controller.writable()?.writable_namespace(1)?;
/// use nvio_driver::spec::{CopyRange, DsmRange};
/// use nvio_driver::{CommandOptions, Completion, ScatterList};
///
/// // `namespace` is a `WritableNamespace`. The context of a command is any type, here a text.
/// let mut queue = controller.queue_pair(64)?;
/// queue.write(&namespace, 0, controller.alloc(4096)?, "write")?;
/// queue.write_through(&namespace, 8, controller.alloc(4096)?, "write")?;
/// queue.write_zeroes(&namespace, (16, 8), false, CommandOptions::default(), "zeroes")?;
/// queue.ring();
/// let mut ended = 0;
/// while ended < 3 {
///     ended += queue.poll(32, |done| assert!(done.status.is_success(), "{}", done.context));
/// }
///
/// // Reads after the writes have ended: the device orders nothing.
/// queue.read(&namespace, 0, controller.alloc(4096)?, "read")?;
/// let page = namespace.page_read(4096);
/// queue.read_page(&page, 8, controller.alloc(4096)?, "page").map_err(|_| "rejected")?;
/// queue.verify(&namespace, (0, 8), CommandOptions::default(), "verify")?;
/// queue.flush(&namespace, "flush")?;
/// assert_eq!(queue.in_flight(), 4);
/// while queue.in_flight() > 0 {
///     queue.wait(|done| assert!(done.status.is_success(), "{}", done.context))?;
/// }
///
/// // Several buffers in one command, with options.
/// let list = || {
///     let data = vec![controller.alloc(4096)?];
///     Ok::<_, nvio_driver::Error>(ScatterList::new(data, None))
/// };
/// let fua = CommandOptions { fua: true, ..CommandOptions::default() };
/// queue.write_with(&namespace, (0, 8), list()?, fua, "write")?;
/// queue.wait(|done| assert!(done.status.is_success()))?;
/// queue.read_with(&namespace, (0, 8), list()?, fua, "read")?;
/// queue.compare(&namespace, (0, 8), list()?, CommandOptions::default(), "compare")?;
/// queue.copy(&namespace, 100, &[CopyRange::new(0, 8)], controller.alloc(4096)?, "copy")?;
/// let range = DsmRange::new(0, 8, 200);
/// queue.deallocate(&namespace, &[range], controller.alloc(4096)?, "deallocate")?;
/// queue.ring();
/// while queue.in_flight() > 0 {
///     let mut handler = |done: Completion<&str>| assert!(done.status.is_success());
///     queue.poll_with(32, &mut handler);
///     // One completion without a closure, and the health check that empty polls also run.
///     if queue.is_ready() {
///         println!("{:?}", queue.pop().map(|done| done.context));
///     }
///     queue.check(|done| println!("{} ended at a reset", done.context));
/// }
///
/// // An event loop sleeps on the interrupt's file descriptor, if the controller has interrupts.
/// if let (true, Some(fd)) = (queue.prepare_to_sleep(), queue.event_fd()) {
///     println!("wait until {fd:?} is readable, then poll");
/// }
/// println!("queue {} of {} commands: {:?}", queue.id(), queue.capacity(), queue.counters());
/// println!("in controller memory: {}", queue.is_in_controller_memory());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(derive_more::Debug)]
#[debug("QueuePair {qid} ({} of {} commands in flight)", self.in_flight(), self.capacity())]
pub struct QueuePair<T = u64> {
    pub(super) core: ManuallyDrop<RawQueuePair<T>>,
    /// Empty polls until the next health check.
    polls_until_check: u32,
    pub(super) controller: Arc<Inner>,
    qid: u16,
    /// Epoch of the controller in which the queues were created.
    epoch: u32,
    /// Reason why the queues do not exist; `None` if they do.
    failure: Option<Failure>,
    /// Whether the controller may know the queues.
    exists_on_device: bool,
    /// Last epoch in which commands were kept for repetition.
    kept_in: u32,
    /// Time of the last health check, in milliseconds of the controller's clock.
    last_check_ms: u32,
    /// Empty polls up to the last health check.
    idle_polls: u64,
    /// Value that `polls_until_check` had after the last health check.
    granted_polls: u32,
    /// Polls whose completions all matched no command. For a caller they are empty.
    stale_only_polls: u64,
    pub(super) sleeper: Sleeper,
}

impl<T> QueuePair<T> {
    pub(crate) fn new(
        core: RawQueuePair<T>,
        controller: Arc<Inner>,
        qid: u16,
        epoch: u32,
        sleeper: Sleeper,
    ) -> Self {
        Self {
            core: ManuallyDrop::new(core),
            polls_until_check: POLLS_PER_CHECK,
            controller,
            qid,
            epoch,
            failure: None,
            exists_on_device: true,
            kept_in: epoch,
            last_check_ms: 0,
            idle_polls: 0,
            granted_polls: POLLS_PER_CHECK,
            stale_only_polls: 0,
            sleeper,
        }
    }

    /// Returns the identifier of the queues, 1 to 65,534.
    ///
    /// See the [example](Self#examples).
    pub fn id(&self) -> u16 {
        self.qid
    }

    /// Returns true if the submission queue is in the Controller Memory Buffer; see
    /// [`Options::controller_memory_queues`](crate::Options::controller_memory_queues).
    ///
    /// See the [example](Self#examples).
    pub fn is_in_controller_memory(&self) -> bool {
        self.core.is_in_controller
    }

    /// Returns the maximum number of commands in flight.
    ///
    /// See the [example](Self#examples).
    pub fn capacity(&self) -> usize {
        self.core.capacity()
    }

    /// Returns the number of commands in flight.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn in_flight(&self) -> usize {
        self.core.in_flight()
    }

    /// Counters since the pair was created.
    ///
    /// See the [example](Self#examples).
    pub fn counters(&self) -> Counters {
        let idle = self.idle_polls + u64::from(self.granted_polls - self.polls_until_check);
        let Sleeper { sleeps, missed: missed_interrupts, .. } = self.sleeper;
        let core = self.core.counters();
        let polls = core.polls - self.stale_only_polls + idle;
        Counters { polls, idle_polls: idle, sleeps, missed_interrupts, ..core }
    }

    /// Submits a read of `buf.len()` bytes at block `lba` (NVM 3.2.4). The length is a multiple of
    /// the block size and at most [`Namespace::max_transfer`].
    ///
    /// If the metadata is protection information alone, the controller checks it and removes it.
    /// Other metadata needs [`read_with`](Self::read_with).
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::QueueFull`] if [`capacity`](Self::capacity) commands are in flight;
    /// [`Error::Misaligned`], [`Error::TransferSize`] and [`Error::OutOfRange`] for a range that
    /// the namespace does not allow; [`Error::Misaligned`] for a buffer that does not begin at a
    /// multiple of 4; [`Error::MetadataSize`]; [`Error::Gone`] and others if the controller has
    /// failed.
    // Always: called, it costs a third more, and the compiler stops inlining at the second user.
    #[inline(always)]
    pub fn read(
        &mut self,
        namespace: &Namespace,
        lba: u64,
        buf: DmaBuf,
        context: T,
    ) -> SubmitResult<DmaBuf, T> {
        self.transfer(namespace.read_head(), namespace, lba, buf, context)
    }

    /// Submits a prepared read: [`read`](Self::read) with fewer checks.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// Returns buffer and context if the buffer has another length or does not begin on a page, if
    /// the blocks are not all inside the namespace, and if [`capacity`](Self::capacity) commands
    /// are in flight. A call of `read` then returns the reason, or succeeds.
    #[inline(always)]
    pub fn read_page(
        &mut self,
        read: &PageRead,
        lba: u64,
        buf: DmaBuf,
        context: T,
    ) -> Result<(), (DmaBuf, T)> {
        if !buf.is_page(read.span) || lba > read.last {
            return Err((buf, context));
        }
        self.core.submit_page(read.head, lba, read.nlb, buf, context)
    }

    /// Submits a write of `buf.len()` bytes at block `lba` (NVM 3.2.6); see [`read`](Self::read).
    /// If the metadata is protection information alone, the controller generates it.
    ///
    /// The data is durable after a [`flush`](Self::flush) that is submitted when the write has
    /// completed.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`read`](Self::read).
    #[inline(always)]
    pub fn write(
        &mut self,
        namespace: &WritableNamespace,
        lba: u64,
        buf: DmaBuf,
        context: T,
    ) -> SubmitResult<DmaBuf, T> {
        self.transfer(namespace.write_head(), namespace, lba, buf, context)
    }

    /// Submits a write that is durable when it completes (Force Unit Access).
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn write_through(
        &mut self,
        namespace: &WritableNamespace,
        lba: u64,
        buf: DmaBuf,
        context: T,
    ) -> SubmitResult<DmaBuf, T> {
        let command = Self::command(namespace.write_head(), namespace, lba, &buf);
        let durable = |sqe: Sqe| Sqe { cdw12: U32::new(sqe.cdw12.get() | Sqe::FUA), ..sqe };
        self.submit_checked(command.map(durable), buf.len(), buf, context)
    }

    #[inline(always)]
    fn transfer(
        &mut self,
        head: u64,
        namespace: &Namespace,
        lba: u64,
        buf: DmaBuf,
        context: T,
    ) -> SubmitResult<DmaBuf, T> {
        let Some(nlb) = namespace.blocks_in_page(lba, buf.span_in_page()) else {
            return self.transfer_other(head, namespace, lba, buf, context);
        };
        match self.core.submit_page(head, lba, nlb, buf, context) {
            Ok(()) => Ok(()),
            Err(payload) => Err(self.full(payload)),
        }
    }

    /// Submits a [`transfer`](Self::transfer) of more than a page, to the middle of a page, or with
    /// protection information, and rejects a range that is not allowed. Separate, so that the
    /// common case is small enough to be inlined. Cold, so that the caller checks its conditions by
    /// branches.
    #[cold]
    #[inline(never)]
    fn transfer_other(
        &mut self,
        head: u64,
        namespace: &Namespace,
        lba: u64,
        buf: DmaBuf,
        context: T,
    ) -> SubmitResult<DmaBuf, T> {
        if buf.is_in_one_page() && buf.is_aligned() {
            let span = buf.span_without_offset();
            if let Some(nlb) = namespace.blocks_in_page(lba, span) {
                let submitted = self.core.submit_page(head, lba, nlb, buf, context);
                return submitted.map_err(|payload| self.full(payload));
            }
        }
        self.submit_checked(Self::command(head, namespace, lba, &buf), buf.len(), buf, context)
    }

    /// Submits a command whose data is the first `len` bytes of `buf`, if its checks succeeded.
    pub(super) fn submit_checked(
        &mut self,
        command: Result<Sqe>,
        len: usize,
        buf: DmaBuf,
        context: T,
    ) -> SubmitResult<DmaBuf, T> {
        match command {
            Ok(sqe) => {
                let submitted = self.core.submit_prefix(sqe, len, buf, context);
                submitted.map_err(|payload| self.full(payload))
            }
            Err(error) => Err(Rejected { error, payload: (buf, context) }),
        }
    }

    /// Returns a Read or a Write without metadata.
    fn command(head: u64, namespace: &Namespace, lba: u64, buf: &DmaBuf) -> Result<Sqe> {
        buf.check_alignment()?;
        Self::head(head, namespace, lba, buf.len())
    }

    /// Returns a Read or a Write of `bytes` bytes without metadata.
    pub(super) fn head(head: u64, namespace: &Namespace, lba: u64, bytes: usize) -> Result<Sqe> {
        let blocks = namespace.check(lba, bytes)?;
        let [opcode, ..] = head.to_le_bytes();
        let metadata = namespace.metadata_size();
        let protection = match metadata {
            0 => Protection::default(),
            8 if namespace.protection_type() != 0 => Protection::by_controller(namespace, lba),
            _ => {
                let needed = blocks as usize * metadata as usize;
                return Err(Error::MetadataSize { bytes: 0, needed });
            }
        };
        let options = CommandOptions { protection, ..Default::default() };
        Ok(options.command(opcode, namespace, lba, blocks))
    }

    /// Returns the rejection of a command that found no free entry.
    #[cold]
    #[inline(never)]
    pub(super) fn full<P>(&self, payload: P) -> Rejected<Error, P> {
        let error = match self.failure {
            Some(failure) => failure.error(),
            None => Error::QueueFull { capacity: self.core.capacity() },
        };
        Rejected { error, payload }
    }

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

    /// Returns true if [`poll`](Self::poll) would find a completion: one load.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn is_ready(&self) -> bool {
        self.core.has_posted()
    }

    /// Passes at most `limit` completions to `done`, and returns their number. One call processes
    /// at most one round of the ring, and does not wait; but after 1,024 empty polls it runs the
    /// health check of [`check`](Self::check).
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn poll(&mut self, limit: usize, mut done: impl FnMut(Completion<T>)) -> usize {
        // Most polls find nothing.
        if !self.core.has_posted() {
            return if self.count_empty_poll() { 0 } else { self.run_health_check(&mut done) };
        }
        self.process(limit, done)
    }

    // Separate from the empty poll, which is the most frequent.
    #[inline(never)]
    fn process(&mut self, limit: usize, mut done: impl FnMut(Completion<T>)) -> usize {
        match self.core.process(limit, &mut done) {
            0 => {
                self.stale_only_polls += 1;
                // A device that posts stale completions without end must not prevent the check.
                if self.count_empty_poll() {
                    return 0;
                }
                // Not `run_health_check`: a pointer to `done` would cost each completion.
                let ended = std::iter::from_fn(|| self.run_health_check_once());
                ended.map(&mut done).count()
            }
            count => count,
        }
    }

    /// Polls as [`poll`](Self::poll) does, with a handler whose method the compiler inlines.
    ///
    /// See the [example](Self#examples).
    // Always: a pointer to `handler` would cost each completion.
    #[inline(always)]
    pub fn poll_with(&mut self, limit: usize, handler: &mut impl Handler<Completion<T>>) -> usize {
        if self.core.has_posted() {
            match self.core.process(limit, handler) {
                0 => self.stale_only_polls += 1,
                count => return count,
            }
        }
        if self.count_empty_poll() {
            return 0;
        }
        // One command a poll: the next poll checks again. In a loop, `handler` would be in memory.
        match self.run_health_check_once() {
            Some(ended) => {
                handler.completed(ended);
                1
            }
            None => 0,
        }
    }

    /// Returns one completion, if there is one: [`poll`](Self::poll) for callers that wait for a
    /// single command.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn pop(&mut self) -> Option<Completion<T>> {
        match self.core.process_one() {
            Processed::Completed(completion) => Some(completion),
            Processed::Failed(posted) => self.pop_failed(posted),
            other => {
                self.stale_only_polls += u64::from(matches!(other, Processed::Stale));
                if self.count_empty_poll() { None } else { self.run_health_check_once() }
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn pop_failed(&mut self, posted: Posted) -> Option<Completion<T>> {
        let completion = self.core.process_failed(posted);
        if completion.is_none() {
            self.stale_only_polls += 1;
        }
        completion
    }

    /// Counts a poll that found nothing. Returns false if the health check is due.
    #[inline]
    fn count_empty_poll(&mut self) -> bool {
        self.polls_until_check -= 1;
        self.polls_until_check != 0
    }

    /// Makes one of the next `polls` empty polls run the health check.
    pub(super) fn check_within(&mut self, polls: u32) {
        if polls < self.polls_until_check {
            self.idle_polls += u64::from(self.granted_polls - self.polls_until_check);
            (self.granted_polls, self.polls_until_check) = (polls, polls);
        }
    }

    #[cold]
    #[inline(never)]
    fn run_health_check(&mut self, done: &mut dyn FnMut(Completion<T>)) -> usize {
        let mut count = 0;
        while let Some(ended) = self.run_health_check_once() {
            count += 1;
            done(ended);
        }
        count
    }

    #[cold]
    #[inline(never)]
    fn run_health_check_once(&mut self) -> Option<Completion<T>> {
        self.idle_polls += u64::from(self.granted_polls);
        let ended = self.check_one();
        // A reset ends more than one command: the next poll checks again.
        self.granted_polls = if ended.is_some() { 1 } else { POLLS_PER_CHECK };
        self.polls_until_check = self.granted_polls;
        ended
    }

    /// Runs the health check: aborts commands that are overdue, resets a controller that has
    /// failed, passes the commands that a reset ended to `done`, and returns their number.
    /// [`poll`](Self::poll), [`pop`](Self::pop) and [`wait`](Self::wait) call it.
    ///
    /// A healthy controller is accessed at most ten times a second. Otherwise this may take as long
    /// as an admin command and a reset.
    ///
    /// See the [example](Self#examples).
    pub fn check(&mut self, mut done: impl FnMut(Completion<T>)) -> usize {
        let mut count = 0;
        while let Some(ended) = self.check_one() {
            count += 1;
            done(ended);
        }
        count
    }

    /// Runs the health check, and returns one command that a reset has ended, if there is one.
    fn check_one(&mut self) -> Option<Completion<T>> {
        if self.is_current() {
            self.core.sq.ring_held();
            self.check_overdue();
        }
        if self.is_current() {
            let failure = self.failure.unwrap_or(Failure::Reset);
            return self.core.end_given_up(failure.status());
        }
        self.core.retries.held = true;
        // First the completions that were posted before the reset.
        for _ in 0..self.core.capacity() {
            match self.core.process_one() {
                Processed::Completed(completion) => return Some(completion),
                Processed::Failed(posted) => {
                    let completion = self.core.process_failed(posted);
                    if completion.is_some() {
                        return completion;
                    }
                }
                Processed::Stale => {}
                Processed::Empty => break,
            }
        }
        let (epoch, health) = self.controller.lifecycle();
        let (status, lost) = match health {
            Health::Live => (Failure::Reset.status(), false),
            Health::Failed { failure, stopped } => (failure.status(), !stopped),
        };
        if health != Health::Live || self.controller.was_reset_on_request(self.epoch) {
            self.core.give_up();
        } else if self.kept_in != epoch {
            self.core.keep_for_repetition();
        }
        self.kept_in = epoch;
        let ended = self.core.end_given_up(status).or_else(|| self.core.abandon(status, lost));
        if ended.is_none() {
            self.recreate_queues(epoch);
        }
        ended
    }

    /// Creates the queues again after a reset. No command is in flight.
    fn recreate_queues(&mut self, epoch: u32) {
        self.core.restart();
        let before = std::mem::replace(&mut self.epoch, epoch);
        let vector = self.sleeper.vector();
        self.failure = match self.controller.create_queues(self.qid, &mut self.core, vector) {
            Ok(epoch) => {
                (self.epoch, self.exists_on_device) = (epoch, true);
                None
            }
            Err((error, exists)) => {
                // A controller that could not be stopped may still use the old queues.
                let (_, health) = self.controller.lifecycle();
                self.exists_on_device =
                    exists || matches!(health, Health::Failed { stopped: false, .. });
                Some(Failure::from(&error))
            }
        };
        if let Some(failure) = self.failure {
            log::warn!("queue pair {} is closed: {}", self.qid, failure.error());
            self.core.pending.close();
        }
        self.core.retries.held = false;
        // The namespaces may have changed.
        match self.failure.is_some() || self.controller.was_reset_on_request(before) {
            true => self.core.give_up(),
            false => self.core.repeat(None),
        }
    }

    /// Returns true if the controller was not reset since the queues were created.
    pub(super) fn is_current(&self) -> bool {
        self.controller.epoch() == self.epoch
    }

    /// Returns the minimum time between two health checks, milliseconds.
    pub(super) fn check_interval_ms(&self) -> u32 {
        let bounds = self.controller.io_bounds_ms();
        CHECK_INTERVAL_MS.min(bounds.0 / 4).min(bounds.1 / 4)
    }

    /// Aborts commands that are overdue, and resets a controller that has failed.
    fn check_overdue(&mut self) {
        let now = self.controller.millis();
        let bounds = self.controller.io_bounds_ms();
        if now.wrapping_sub(self.last_check_ms) < self.check_interval_ms() {
            return;
        }
        self.last_check_ms = now;
        self.controller.note_events();
        if self.core.in_flight() == 0 {
            return;
        }
        if let Err(error) = self.controller.check_alive() {
            return self.controller.recover(self.epoch, &error);
        }
        self.core.repeat(Some(now));
        // All overdue commands in one check, so that none waits for the next interval. An Abort
        // takes time, so that the clock is read for each command.
        while let Some(overdue) = self.core.pending.find_overdue(self.controller.millis(), bounds) {
            if overdue.aborted {
                let after = self.controller.io_timeout();
                let error = Error::Timeout { what: "a command that was aborted", after };
                return self.controller.recover(self.epoch, &error);
            }
            self.controller.abort(self.epoch, self.qid, overdue.cid);
            self.core.pending.mark_aborted(overdue.cid, self.controller.millis());
            if !self.is_current() {
                return;
            }
        }
    }
}

impl<T> Drop for QueuePair<T> {
    fn drop(&mut self) {
        if self.exists_on_device && self.is_current() {
            self.core.sq.ring_held();
        }
        let deleted = match self.exists_on_device {
            true => self.controller.delete_queues(self.qid, self.epoch),
            false => {
                self.controller.release_queues(self.qid);
                Ok(())
            }
        };
        match deleted {
            // SAFETY: `core` is dropped once, here. The controller has deleted the queues, was
            // stopped, or refused to create them, so that it does not access the memory of the
            // rings or of commands in flight any more.
            Ok(()) => unsafe { ManuallyDrop::drop(&mut self.core) },
            // The controller may still write to this memory: it must never be used again.
            Err(error) => log::warn!("queue pair {} is abandoned: {error}", self.qid),
        }
    }
}
