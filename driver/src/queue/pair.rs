//! The I/O queue pair that users hold.

use std::mem::ManuallyDrop;
use std::sync::Arc;

use nvio_spec::{Sqe, Status};
use zerocopy::little_endian::U32;

use super::raw::{Ended, Taken};
use super::{RawQueuePair, Sleeper};
use crate::controller::{Failure, Health, Inner};
use crate::dma::DmaBuf;
use crate::namespace::{Namespace, PageRead, WritableNamespace};
use crate::{Error, Result};

/// Polls without a completion after which a queue looks after itself.
pub(super) const POLLS_PER_CHECK: u32 = 1 << 10;
/// Least time between two looks, milliseconds.
const CHECK_INTERVAL_MS: u32 = 100;

/// A submission queue and its completion queue, for one thread.
///
/// Commands are queued by [`read`](Self::read), [`write`](Self::write) and others, shown to the
/// controller by [`ring`](Self::ring) once for a batch, and come back through
/// [`poll`](Self::poll). `T` is the caller's context: it moves in with a command and out with its
/// completion.
///
/// Each command ends once: with the controller's status, or, when the controller failed and was
/// reset, with [`ABORTED_BY_HOST`](nvio_spec::status::ABORTED_BY_HOST) or
/// [`HOST_PATHING_ERROR`](nvio_spec::status::HOST_PATHING_ERROR), for a caller who polls until it
/// does. Such a command may have been executed or not.
///
/// Dropping the pair deletes its queues; buffers of commands in flight are given up.
pub struct QueuePair<T = u64> {
    pub(super) core: ManuallyDrop<RawQueuePair<T>>,
    /// Polls that may find nothing until the queue looks after itself.
    polls_until_check: u32,
    pub(super) controller: Arc<Inner>,
    qid: u16,
    /// The controller's epoch that the queues are of.
    epoch: u32,
    /// Why the queues do not exist, if they do not.
    failure: Option<Failure>,
    /// Whether the controller may know the queues.
    exists_on_device: bool,
    /// When the commands in flight were last looked at.
    last_check_ms: u32,
    /// Polls that found nothing, until `polls_until_check` was granted.
    idle_polls: u64,
    granted_polls: u32,
    /// Polls that found completions, all of which matched no command: idle ones, for a caller.
    stale_only_polls: u64,
    pub(super) sleeper: Option<Sleeper>,
}

/// What became of a command.
#[derive(Debug)]
pub struct Completion<T> {
    /// What was given with the command.
    pub context: T,
    /// The command's buffer; empty for a command without one, and for one that was given
    /// [`ScatterList`](crate::ScatterList), which [`ScatterList::from_completed`](crate::ScatterList::from_completed) takes
    /// out. Also empty after a failure of a controller that could not be stopped: it may still
    /// write to the memory, which is given up.
    pub buf: DmaBuf,
    /// The controller's verdict. Data of a failed read is not defined.
    pub status: Status,
    /// Command specific (DW0).
    pub result: u32,
}

/// Takes completions; see [`QueuePair::poll_with`]. The compiler decides whether a closure is called
/// or inlined; the method of this can be marked `#[inline(always)]`.
pub trait Handler<T> {
    /// A command has ended.
    fn completed(&mut self, completion: Completion<T>);
}

/// A command that was not queued, with what was given for it.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Rejected<T, B = DmaBuf> {
    /// Why.
    pub error: Error,
    /// The buffer.
    pub buf: B,
    /// The context.
    pub context: T,
}

/// What a queue pair did since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Commands queued.
    pub submitted: u64,
    /// Commands that ended.
    pub completed: u64,
    /// Commands that ended with an error.
    pub errors: u64,
    /// Polls.
    pub polls: u64,
    /// Polls that found nothing.
    pub idle_polls: u64,
    /// Doorbells rung, of both queues.
    pub doorbells: u64,
    /// Completions that matched no command: late, doubled or made up.
    pub stale: u64,
    /// Resets of the controller after which the queues were made again, requested ones included;
    /// see [`Resets`](crate::Resets).
    pub resets: u64,
    /// Sleeps of [`QueuePair::wait`] until an interrupt.
    pub sleeps: u64,
    /// Completions that no interrupt came for, found when the sleep was over all the same. Other
    /// than 0, a device or the way to it loses interrupts.
    pub missed_interrupts: u64,
}

impl<T> QueuePair<T> {
    pub(crate) fn new(
        core: RawQueuePair<T>,
        controller: Arc<Inner>,
        qid: u16,
        epoch: u32,
        sleeper: Option<Sleeper>,
    ) -> Self {
        Self {
            core: ManuallyDrop::new(core),
            polls_until_check: POLLS_PER_CHECK,
            controller,
            qid,
            epoch,
            failure: None,
            exists_on_device: true,
            last_check_ms: 0,
            idle_polls: 0,
            granted_polls: POLLS_PER_CHECK,
            stale_only_polls: 0,
            sleeper,
        }
    }

    /// The queues' identifier, 1 to 65,534.
    pub fn id(&self) -> u16 {
        self.qid
    }

    /// Whether the submission queue is in the Controller Memory Buffer; see
    /// [`Options::controller_memory_queues`](crate::Options::controller_memory_queues).
    pub fn is_in_controller_memory(&self) -> bool {
        self.core.is_in_controller()
    }

    /// Commands that can be in flight at once.
    pub fn capacity(&self) -> usize {
        self.core.capacity()
    }

    /// Commands that are in flight.
    #[inline]
    pub fn in_flight(&self) -> usize {
        self.core.in_flight()
    }

    /// What the pair did since it was made.
    pub fn counters(&self) -> Counters {
        let idle = self.idle_polls + u64::from(self.granted_polls - self.polls_until_check);
        let (sleeps, missed_interrupts) = Sleeper::counters(&self.sleeper);
        Counters {
            submitted: self.core.submitted(),
            completed: self.core.ended(),
            errors: self.core.errors(),
            polls: self.core.busy_polls() - self.stale_only_polls + idle,
            idle_polls: idle,
            doorbells: self.core.doorbells(),
            stale: self.core.stale(),
            resets: self.core.restarts(),
            sleeps,
            missed_interrupts,
        }
    }

    /// Queues a read of `buf.len()` bytes at block `lba` (NVM 3.2.4). The length is a multiple of
    /// the block size and at most [`Namespace::max_transfer`].
    ///
    /// Where the metadata is protection information alone, the controller checks it and takes it
    /// away; other metadata needs [`read_with`](Self::read_with).
    ///
    /// # Errors
    /// [`Error::QueueFull`] when every slot is in flight; [`Error::Misaligned`],
    /// [`Error::TransferSize`] and [`Error::OutOfRange`] for what the namespace does not allow;
    /// [`Error::MetadataSize`]; [`Error::Gone`] and others when the controller has failed.
    // Always: called, it costs a third more, and the compiler stops inlining at the second user.
    #[inline(always)]
    pub fn read(
        &mut self,
        namespace: &Namespace,
        lba: u64,
        buf: DmaBuf,
        context: T,
    ) -> Result<(), Rejected<T>> {
        self.transfer(namespace.read_head(), namespace, lba, buf, context)
    }

    /// Queues a read that was prepared: [`read`](Self::read) with less to check.
    ///
    /// # Errors
    /// Gives buffer and context back if the buffer is not of that length or does not begin on a
    /// page, if not all of the blocks are inside, and if every slot is in flight. `read` tells
    /// why, or does it.
    #[inline(always)]
    pub fn read_page(
        &mut self,
        read: &PageRead,
        lba: u64,
        buf: DmaBuf,
        context: T,
    ) -> Result<(), (DmaBuf, T)> {
        if !buf.is_page(read.bytes) || lba > read.last {
            return Err((buf, context));
        }
        self.core.submit_page(read.head, lba, read.nlb, buf, context)
    }

    /// Queues a write of `buf.len()` bytes at block `lba` (NVM 3.2.6), as [`read`](Self::read)
    /// does a read. Where the metadata is protection information alone, the controller makes it.
    ///
    /// It is durable after a [`flush`](Self::flush) that was queued when the write had completed.
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
    ) -> Result<(), Rejected<T>> {
        self.transfer(namespace.write_head(), namespace, lba, buf, context)
    }

    /// Queues a write that is durable when it completes (Force Unit Access).
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn write_through(
        &mut self,
        namespace: &WritableNamespace,
        lba: u64,
        buf: DmaBuf,
        context: T,
    ) -> Result<(), Rejected<T>> {
        match Self::command(namespace.write_head(), namespace, lba, buf.len()) {
            Ok(mut sqe) => {
                sqe.cdw12 = U32::new(sqe.cdw12.get() | super::options::FUA);
                let submitted = self.core.submit_buf(sqe, buf, context);
                submitted.map_err(|(buf, context)| self.full(buf, context))
            }
            Err(error) => Err(Rejected { error, buf, context }),
        }
    }

    #[inline(always)]
    fn transfer(
        &mut self,
        head: u64,
        namespace: &Namespace,
        lba: u64,
        buf: DmaBuf,
        context: T,
    ) -> Result<(), Rejected<T>> {
        let nlb = namespace.plain(lba, buf.len32());
        let Some(nlb) = nlb.filter(|_| buf.is_in_one_page()) else {
            return self.transfer_pages(head, namespace, lba, buf, context);
        };
        match self.core.submit_page(head, lba, nlb, buf, context) {
            Ok(()) => Ok(()),
            Err((buf, context)) => Err(self.full(buf, context)),
        }
    }

    /// [`transfer`](Self::transfer) of more than a page, or with protection information, or of what
    /// is not allowed; apart, so that the common case is small enough to be inlined.
    #[cold]
    #[inline(never)]
    fn transfer_pages(
        &mut self,
        head: u64,
        namespace: &Namespace,
        lba: u64,
        buf: DmaBuf,
        context: T,
    ) -> Result<(), Rejected<T>> {
        match Self::command(head, namespace, lba, buf.len()) {
            Ok(sqe) => self
                .core
                .submit_buf(sqe, buf, context)
                .map_err(|(buf, context)| self.full(buf, context)),
            Err(error) => Err(Rejected { error, buf, context }),
        }
    }

    /// A Read or a Write without metadata.
    fn command(head: u64, namespace: &Namespace, lba: u64, bytes: usize) -> Result<Sqe> {
        let blocks = namespace.check(lba, bytes)?;
        let mut sqe = Sqe::read(namespace.id(), lba, blocks);
        [sqe.opcode, ..] = head.to_le_bytes();
        let metadata = namespace.metadata_size();
        if namespace.protection_type() != 0 && metadata == 8 {
            let protection = super::Protection::by_controller(namespace, lba);
            super::CommandOptions { protection, ..Default::default() }.apply(&mut sqe);
        } else if metadata != 0 {
            let needed = blocks as usize * metadata as usize;
            return Err(Error::MetadataSize { bytes: 0, needed });
        }
        Ok(sqe)
    }

    #[cold]
    #[inline(never)]
    pub(super) fn full<B>(&self, buf: B, context: T) -> Rejected<T, B> {
        let error = match self.failure {
            Some(failure) => failure.error(),
            None => Error::QueueFull { capacity: self.core.capacity() },
        };
        Rejected { error, buf, context }
    }

    /// Shows the controller what was queued since the last time: one store.
    #[inline]
    pub fn ring(&mut self) {
        self.core.ring();
    }

    /// Whether [`poll`](Self::poll) would find something: one load.
    #[inline]
    pub fn is_ready(&self) -> bool {
        self.core.has_posted()
    }

    /// Takes at most `limit` completions, hands each to `done`, and tells how many there were.
    /// Never takes more than a ring has entries, and does not wait; but every so often, when there
    /// is nothing, it looks after commands that are overdue, as [`check`](Self::check) does.
    #[inline]
    pub fn poll(&mut self, limit: usize, mut done: impl FnMut(Completion<T>)) -> usize {
        // Most polls find nothing.
        if !self.core.has_posted() {
            return if self.count_empty_poll() { 0 } else { self.run_health_check(&mut done) };
        }
        self.take(limit, done)
    }

    // Apart from the poll that finds nothing, which is the most frequent.
    #[inline(never)]
    fn take(&mut self, limit: usize, mut done: impl FnMut(Completion<T>)) -> usize {
        match self.core.take(limit, |ended| done(ended.into())) {
            0 => {
                self.stale_only_polls += 1;
                // A device that posts nonsense without end must not keep others from being looked
                // after.
                if self.count_empty_poll() {
                    return 0;
                }
                // Not `run_health_check`: a pointer to `done` would cost each completion.
                let ended = std::iter::from_fn(|| self.run_health_check_once());
                ended.map(&mut done).count()
            }
            taken => taken,
        }
    }

    /// The same as [`poll`](Self::poll), for a handler whose method is to be inlined for certain.
    #[inline]
    pub fn poll_with(&mut self, limit: usize, handler: &mut impl Handler<T>) -> usize {
        if self.core.has_posted() {
            return self.take_with(limit, handler);
        }
        if !self.count_empty_poll() {
            return self.run_health_check(&mut |ended| handler.completed(ended));
        }
        0
    }

    #[inline]
    fn take_with(&mut self, limit: usize, handler: &mut impl Handler<T>) -> usize {
        match self.core.take(limit, |ended| handler.completed(ended.into())) {
            0 => {
                self.stale_only_polls += 1;
                match self.count_empty_poll() {
                    true => 0,
                    false => self.run_health_check(&mut |ended| handler.completed(ended)),
                }
            }
            taken => taken,
        }
    }

    /// Takes one completion, if there is one: [`poll`](Self::poll) for those who wait for a single
    /// command.
    #[inline]
    pub fn pop(&mut self) -> Option<Completion<T>> {
        match self.core.take_one() {
            Taken::Ended(ended) => Some(ended.into()),
            other => {
                self.stale_only_polls += u64::from(matches!(other, Taken::Stale));
                if self.count_empty_poll() { None } else { self.run_health_check_once() }
            }
        }
    }

    /// Counts a poll that found nothing; false when it is time to look after the queue.
    #[inline]
    fn count_empty_poll(&mut self) -> bool {
        self.polls_until_check -= 1;
        self.polls_until_check != 0
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
        // There may be more of the kind.
        self.granted_polls = if ended.is_some() { 1 } else { POLLS_PER_CHECK };
        self.polls_until_check = self.granted_polls;
        ended
    }

    /// Looks after the commands in flight: aborts what is overdue, resets a controller that has
    /// failed, and ends, through `done`, the commands that a reset took with it; tells how many
    /// there were. [`poll`](Self::poll), [`pop`](Self::pop) and [`wait`](Self::wait) do this by
    /// themselves.
    ///
    /// A healthy controller is asked ten times a second at most. Else this may take as long as an
    /// admin command may, and as a reset takes.
    pub fn check(&mut self, mut done: impl FnMut(Completion<T>)) -> usize {
        let mut count = 0;
        while let Some(ended) = self.check_one() {
            count += 1;
            done(ended);
        }
        count
    }

    /// Does what is to be done, and gives a command that a reset has ended, if there is one.
    fn check_one(&mut self) -> Option<Completion<T>> {
        if self.is_current() {
            self.check_overdue();
        }
        if self.is_current() {
            return None;
        }
        // What was posted before the reset was done.
        for _ in 0..self.core.capacity() {
            match self.core.take_one() {
                Taken::Ended(ended) => return Some(ended.into()),
                Taken::Stale => {}
                Taken::Nothing => break,
            }
        }
        let (epoch, health) = self.controller.lifecycle();
        let (status, lost) = match health {
            Health::Live => (Failure::Reset.status(), false),
            Health::Failed { failure, stopped } => (failure.status(), !stopped),
        };
        let ended = self.core.abandon(status, lost);
        if ended.is_none() {
            self.recreate_queues(epoch);
        }
        ended.map(Completion::from)
    }

    /// Makes the queues again after a reset, when no command is in flight.
    fn recreate_queues(&mut self, epoch: u32) {
        self.core.restart();
        self.epoch = epoch;
        let vector = Sleeper::vector(&self.sleeper);
        self.failure = match self.controller.create_queues(self.qid, &mut self.core, vector) {
            Ok(epoch) => {
                (self.epoch, self.exists_on_device) = (epoch, true);
                None
            }
            Err((error, known)) => {
                // A controller that could not be stopped may use those of before the reset.
                let (_, health) = self.controller.lifecycle();
                self.exists_on_device =
                    known || matches!(health, Health::Failed { stopped: false, .. });
                Some(Failure::from(&error))
            }
        };
        if let Some(failure) = self.failure {
            log::warn!("queue pair {} is closed: {}", self.qid, failure.error());
            self.core.close();
        }
    }

    /// Whether the controller was not reset since the queues were made.
    pub(super) fn is_current(&self) -> bool {
        self.controller.epoch() == self.epoch
    }

    /// Least time between two looks, milliseconds.
    pub(super) fn check_interval_ms(&self) -> u32 {
        let bounds = self.controller.io_bounds_ms();
        CHECK_INTERVAL_MS.min(bounds.0 / 4).min(bounds.1 / 4)
    }

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
        // All that are overdue, so that none waits for the interval of those before it. Aborts take
        // time: the clock is looked at for each.
        while let Some(overdue) = self.core.find_overdue(self.controller.millis(), bounds) {
            if overdue.aborted {
                let after = self.controller.io_timeout();
                let error = Error::Timeout { what: "a command that was aborted", after };
                return self.controller.recover(self.epoch, &error);
            }
            self.controller.abort(self.epoch, self.qid, overdue.cid);
            self.core.mark_aborted(overdue.cid, self.controller.millis());
            if !self.is_current() {
                return;
            }
        }
    }
}

impl<T> From<Ended<T>> for Completion<T> {
    #[inline(always)]
    fn from(ended: Ended<T>) -> Self {
        let Ended { status, result, buf, context } = ended;
        Self { context, buf, status, result }
    }
}

impl<T> Drop for QueuePair<T> {
    fn drop(&mut self) {
        let deleted = match self.exists_on_device {
            true => self.controller.delete_queues(self.qid, self.epoch),
            false => {
                self.controller.release_queues(self.qid);
                Ok(())
            }
        };
        match deleted {
            // SAFETY: `core` is dropped once, here. The controller has deleted the queues, was
            // stopped, or refused to make them, so it will not use the memory of the rings or of
            // commands in flight any more.
            Ok(()) => unsafe { ManuallyDrop::drop(&mut self.core) },
            // The controller may still write to this memory: it must never be used again.
            Err(error) => log::warn!("queue pair {} is abandoned: {error}", self.qid),
        }
    }
}
