//! Creating and deleting I/O queues (Base 5.4 to 5.7).

use std::sync::Arc;

use nvio_spec::Sqe;

use super::Controller;
use super::health::Managed;
use super::inner::Inner;
use super::options::Wait;
use crate::error::{Error, Result};
use crate::interrupts::Vector;
use crate::queue::data_pointer::list_pages;
use crate::queue::pair::QueuePair;
use crate::queue::raw::{Layout, RawQueuePair};
use crate::queue::sleeper::Sleeper;

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
        let inner = &self.0;
        let granted = inner.managed().granted;
        let qid = inner.free_queues().pop().ok_or(Error::NoQueue { granted })?;
        let sleeper = inner.sleeper();
        let core = inner.layout(qid, depth).and_then(|layout| RawQueuePair::new(&layout));
        let mut core = core.inspect_err(|_| inner.release_queues(qid))?;
        match inner.create_queues(qid, &mut core, Sleeper::vector(&sleeper)) {
            Ok(epoch) => Ok(QueuePair::new(core, Arc::clone(inner), qid, epoch, sleeper)),
            Err((error, false)) => {
                inner.release_queues(qid);
                Err(error)
            }
            Err((error, true)) => {
                // The controller may know the queues, so their memory is never used again.
                std::mem::forget(core);
                inner.managed().stranded.push(qid);
                Err(error)
            }
        }
    }
}

impl Inner {
    fn layout(&self, qid: u16, depth: u16) -> Result<Layout<'_>> {
        // A power of two, so that the rings wrap with a mask, and above the number of commands in
        // flight, so that a full ring differs from an empty one.
        let entries_max = self.cap.max_queue_entries().min(Layout::ENTRIES_MAX);
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
        })
    }

    /// Returns the interrupt of a new queue pair; `None` if it is polled.
    fn sleeper(&self) -> Option<Sleeper> {
        let Wait::Interrupt { spin } = self.options.wait else { return None };
        self.interrupts.get().and_then(Vector::take).map(|vector| Sleeper::new(vector, spin))
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
        let mut managed = self.managed();
        managed.check().map_err(|error| (error, false))?;
        let granted = managed.granted;
        if qid > granted {
            return Err((Error::NoQueue { granted }, false));
        }
        core.use_shadow(self.doorbell_memory.as_ref(), qid, self.cap.doorbell_stride());
        let epoch = managed.epoch;
        let entries = core.entries();
        let create_cq = Sqe::create_io_cq(qid, entries, core.cq_iova(), vector);
        let create_sq = Sqe::create_io_sq(qid, entries, core.sq_iova(), qid);
        self.execute_in(&mut managed, "Create I/O Completion Queue", create_cq, None)
            .map_err(|error| managed.not_created(epoch, error))?;
        let name = "Create I/O Submission Queue";
        let Err(error) = self.execute_in(&mut managed, name, create_sq, None) else {
            return Ok(epoch);
        };
        let (error, known) = managed.not_created(epoch, error);
        let undo = Sqe::delete_io_cq(qid);
        let undone = self.execute_in(&mut managed, "Delete I/O Completion Queue", undo, None);
        let gone = managed.is_stopped_since(epoch) || (undone.is_ok() && !known);
        Err((error, !gone))
    }

    /// Deletes the queues of an epoch. The controller does not access their memory afterwards.
    pub(crate) fn delete_queues(&self, qid: u16, epoch: u32) -> Result<()> {
        let mut managed = self.managed();
        let result = self.delete_in(&mut managed, qid, epoch);
        match &result {
            Ok(()) => self.release_queues(qid),
            Err(_) => managed.stranded.push(qid),
        }
        result
    }

    /// Frees the identifier of queues that the controller does not know.
    pub(crate) fn release_queues(&self, qid: u16) {
        self.free_queues().push(qid);
    }

    fn delete_in(&self, managed: &mut Managed, qid: u16, epoch: u32) -> Result<()> {
        let names = ["Delete I/O Submission Queue", "Delete I/O Completion Queue"];
        for (name, sqe) in names.into_iter().zip([Sqe::delete_io_sq(qid), Sqe::delete_io_cq(qid)]) {
            if managed.is_stopped_since(epoch) {
                return Ok(());
            }
            match self.execute_in(managed, name, sqe, None) {
                Err(_) if managed.is_stopped_since(epoch) => return Ok(()),
                other => other?,
            };
        }
        Ok(())
    }
}

impl Managed {
    /// Returns the error of a failed creation, and true if the controller may know the queue all
    /// the same.
    fn not_created(&self, epoch: u32, error: Error) -> (Error, bool) {
        let refused = matches!(error, Error::Command { .. } | Error::QueueFull { .. });
        (error, !refused && !self.is_stopped_since(epoch))
    }
}
