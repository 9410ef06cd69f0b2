//! Creating and deleting I/O queues (Base 5.4 to 5.7).

use std::sync::Arc;
use std::time::Duration;

use nvio_spec::{Sqe, status};

use super::Controller;
use super::enable::pause_for;
use super::health::Managed;
use super::inner::Inner;
use super::options::Wait;
use crate::admin::Command;
use crate::error::{Error, Result};
use crate::interrupts::Vector;
use crate::queue::data_pointer::list_pages;
use crate::queue::pair::QueuePair;
use crate::queue::raw::{Layout, RawQueuePair};
use crate::queue::retry::RetryPolicy;
use crate::queue::sleeper::Sleeper;
use crate::quirks::Quirk;

/// Longest time in which a controller may refuse the identifiers of queues that were deleted.
const IDENTIFIER_TIMEOUT: Duration = Duration::from_secs(1);
/// Time between two attempts to use an identifier.
const IDENTIFIER_PAUSE: Duration = Duration::from_millis(1);

impl Controller {
    /// Creates a queue pair for `depth` commands in flight, 1 to 4,095. The pair has room for fewer
    /// if the controller has shorter queues; see [`QueuePair::capacity`]. The number of entries of
    /// its rings is a power of two.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::NoQueue`] if all granted queues are in use; [`Error::Command`] if the controller
    /// rejects the command; [`Error::ArenaFull`]; the error of a controller that has failed.
    pub fn queue_pair<T>(&self, depth: u16) -> Result<QueuePair<T>> {
        let begin = self.0.now();
        loop {
            match self.create_pair(depth) {
                // Other identifiers may be free, and this one may become usable.
                Err(Error::Command { status, .. })
                    if status.bare() == status::INVALID_QUEUE_ID
                        && self.0.now().saturating_sub(begin) < IDENTIFIER_TIMEOUT =>
                {
                    self.0.transport.pause(IDENTIFIER_PAUSE);
                }
                created => return created,
            }
        }
    }

    fn create_pair<T>(&self, depth: u16) -> Result<QueuePair<T>> {
        let inner = &self.0;
        let granted = inner.managed.lock().granted;
        let qid = inner.free_queues.lock().pop_front().ok_or(Error::NoQueue { granted })?;
        let sleeper = inner.sleeper();
        let core = inner.layout(qid, depth).and_then(|layout| RawQueuePair::new(&layout));
        let mut core = core.inspect_err(|_| inner.release_queues(qid))?;
        match inner.create_queues(qid, &mut core, sleeper.vector()) {
            Ok(epoch) => Ok(QueuePair::new(core, Arc::clone(inner), qid, epoch, sleeper)),
            Err((error, false)) => {
                inner.release_queues(qid);
                Err(error)
            }
            Err((error, true)) => {
                // The controller may know the queues, so their memory is never used again.
                std::mem::forget(core);
                inner.managed.lock().stranded.push(qid);
                Err(error)
            }
        }
    }
}

impl Inner {
    fn layout(&self, qid: u16, depth: u16) -> Result<Layout<'_>> {
        // A power of two, so that the rings wrap with a mask, and above the number of commands in
        // flight, so that a full ring differs from an empty one.
        let entries_max = match self.quirks.has(Quirk::OneCommand) {
            true => 2,
            false => self.cap.max_queue_entries().min(Layout::ENTRIES_MAX),
        };
        let entries_max = if entries_max.is_power_of_two() {
            entries_max
        } else {
            entries_max.next_power_of_two() / 2
        };
        let entries = (u32::from(depth) + 1).next_power_of_two().clamp(2, entries_max.max(2));
        let depth = depth.clamp(1, u16::try_from(entries - 1).unwrap_or(u16::MAX));
        let page_shift = self.cap.min_page_shift();
        Ok(Layout {
            arena: &self.arena,
            controller_memory: self.controller_memory.as_ref(),
            doorbells: self.transport.doorbells(),
            stride: self.cap.doorbell_stride(),
            page_shift,
            list_pages: list_pages(self.max_transfer, page_shift),
            sgl: self.has_sgl(),
            qid,
            depth,
            entries,
            retry: self.retry_policy(),
        })
    }

    fn retry_policy(&self) -> RetryPolicy {
        RetryPolicy {
            most: self.options.retries,
            delays_ms: self.identify.crdt.map(|delay| u32::from(delay.get()) * 100),
            // A command that waits is not overdue.
            longest_ms: self.io_bounds_ms().0.saturating_sub(1),
        }
    }

    /// Assigns an interrupt vector to a queue pair, if one is free.
    fn sleeper(&self) -> Sleeper {
        let Wait::Interrupt { spin } = self.options.wait else { return Sleeper::default() };
        let vector = self.interrupts.get().and_then(Vector::take);
        Sleeper { vector, spin, ..Sleeper::default() }
    }

    /// Creates the completion queue, with interrupts if it has a vector, then the submission queue,
    /// both on empty rings, and returns their epoch.
    ///
    /// # Errors
    /// The error, and true if the controller may know the queues all the same.
    pub(crate) fn create_queues<T>(
        &self,
        qid: u16,
        core: &mut RawQueuePair<T>,
        vector: Option<u16>,
    ) -> Result<u32, (Error, bool)> {
        let mut managed = self.managed.lock();
        managed.check().map_err(|error| (error, false))?;
        let granted = managed.granted;
        if qid > granted {
            return Err((Error::NoQueue { granted }, false));
        }
        let shadow = self.doorbell_memory.as_ref().filter(|_| managed.shadow);
        core.use_shadow(shadow, qid, self.cap.doorbell_stride());
        let epoch = managed.epoch;
        let entries = core.entries();
        let (sq, cq) = core.ring_iovas();
        let create_cq = Sqe::create_io_cq(qid, entries, cq, vector);
        let create_sq = Sqe::create_io_sq(qid, entries, sq, qid);
        let create_cq = Command::new("Create I/O Completion Queue", create_cq);
        let create_sq = Command::new("Create I/O Submission Queue", create_sq);
        self.execute_in(&mut managed, create_cq)
            .map_err(|error| managed.not_created(epoch, error))?;
        let Err(error) = self.execute_in(&mut managed, create_sq) else {
            pause_for(&*self.transport, self.quirks, Quirk::DelayAfterQueue);
            return Ok(epoch);
        };
        let (error, known) = managed.not_created(epoch, error);
        let undone = self.execute_in(&mut managed, delete_cq(qid));
        let gone = managed.is_stopped_since(epoch) || (undone.is_ok() && !known);
        Err((error, !gone))
    }

    /// Deletes the queues of an epoch. The controller does not access their memory afterwards.
    pub(crate) fn delete_queues(&self, qid: u16, epoch: u32) -> Result<()> {
        let mut managed = self.managed.lock();
        let result = self.delete_in(&mut managed, qid, epoch);
        match &result {
            Ok(()) => self.release_queues(qid),
            Err(_) => managed.stranded.push(qid),
        }
        result
    }

    /// Frees the identifier of queues that the controller does not know.
    pub(crate) fn release_queues(&self, qid: u16) {
        self.free_queues.lock().push_back(qid);
    }

    fn delete_in(&self, managed: &mut Managed, qid: u16, epoch: u32) -> Result<()> {
        let delete_sq = Command::new("Delete I/O Submission Queue", Sqe::delete_io_sq(qid));
        for command in [delete_sq, delete_cq(qid)] {
            if managed.is_stopped_since(epoch) {
                return Ok(());
            }
            match self.execute_in(managed, command) {
                Err(_) if managed.is_stopped_since(epoch) => return Ok(()),
                other => other?,
            };
        }
        Ok(())
    }
}

fn delete_cq(qid: u16) -> Command {
    Command::new("Delete I/O Completion Queue", Sqe::delete_io_cq(qid))
}

impl Managed {
    /// Returns the error of a failed creation, and true if the controller may know the queue all
    /// the same.
    fn not_created(&self, epoch: u32, error: Error) -> (Error, bool) {
        let refused = matches!(error, Error::Command { .. } | Error::QueueFull { .. });
        (error, !refused && !self.is_stopped_since(epoch))
    }
}
