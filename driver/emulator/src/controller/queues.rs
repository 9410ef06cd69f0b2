//! The queues of a controller: their table, their order, and their place in controller memory.

use std::ops::Range;

use nvio_spec::{SQE_SIZE, Status, status};

use crate::controller::controller_memory::ControllerMemory;
use crate::controller::queue::SubmissionQueue;
use crate::controller::state::Controller;

impl Controller {
    pub(crate) fn has_io_queues(&self) -> bool {
        self.cqs.next(1).is_some()
    }

    /// Returns true if a submission queue completes to `cqid`.
    pub(crate) fn cq_is_used(&self, cqid: u16) -> bool {
        self.sqs.iter().any(|(_, sq)| sq.cqid == cqid)
    }

    /// Returns how often the host has moved the tail of submission queue `qid` and the head of
    /// completion queue `qid` since they were created; 0 for a queue that does not exist.
    ///
    /// The controller reads a head when commands are in the submission queue. A value that the host
    /// replaced before the controller read it is not counted.
    ///
    /// See the [example](Self#examples).
    pub fn doorbell_changes(&self, qid: u16) -> (u64, u64) {
        let tails = self.sqs.get(qid).map_or(0, |sq| sq.tail_changes);
        let heads = self.cqs.get(qid).map_or(0, |cq| cq.head_changes);
        (tails, heads)
    }

    /// Returns the Controller Memory Buffer (BAR 2), if there is one.
    ///
    /// See the [example](Self#examples).
    pub fn controller_memory(&self) -> Option<&ControllerMemory> {
        self.registers.buffer.as_ref()
    }

    /// Sets the address of BAR 2 in the host's address space, `None` for none. It is the address of
    /// a legacy buffer (see
    /// [`Config::legacy_controller_memory`](crate::Config::legacy_controller_memory)).
    ///
    /// See the [example](Self#examples).
    pub fn place_controller_memory(&mut self, address: Option<u64>) {
        if let Some(buffer) = &mut self.registers.buffer {
            buffer.place(address);
        }
        self.controller_memory_changed();
    }

    /// Passes the addresses of the buffer to the resolution of data pointers.
    pub(crate) fn controller_memory_changed(&mut self) {
        let window = self.controller_memory().and_then(ControllerMemory::window);
        self.media.transfers.data.controller_memory = window.unwrap_or_default();
    }

    /// Creates a submission queue at `base`, in host memory or in the buffer.
    ///
    /// # Errors
    /// Invalid Use of Controller Memory Buffer if only a part of it is in the buffer.
    pub(crate) fn submission_queue(
        &self,
        base: u64,
        entries: u32,
        cqid: u16,
    ) -> Result<SubmissionQueue, Status> {
        let queue = SubmissionQueue::new(base, entries, cqid);
        let Some((buffer, window)) = self.overlapping(base, u64::from(entries) * SQE_SIZE as u64)
        else {
            return Ok(queue);
        };
        let end = base.checked_add(u64::from(entries) * SQE_SIZE as u64);
        let inside = window.start <= base && end.is_some_and(|end| end <= window.end);
        let offset = usize::try_from(base.wrapping_sub(window.start)).ok().filter(|_| inside);
        let offset = offset.ok_or(status::INVALID_USE_OF_CMB)?;
        Ok(queue.in_controller_memory(buffer.shared_region(), offset))
    }

    /// Refuses a range that overlaps the buffer.
    ///
    /// # Errors
    /// Invalid Use of Controller Memory Buffer.
    pub(crate) fn refuse_controller_memory(&self, base: u64, len: u64) -> Result<(), Status> {
        match self.overlapping(base, len) {
            Some(_) => Err(status::INVALID_USE_OF_CMB),
            None => Ok(()),
        }
    }

    /// Returns the buffer and its addresses, if a range overlaps them.
    fn overlapping(&self, base: u64, len: u64) -> Option<(&ControllerMemory, Range<u64>)> {
        let buffer = self.controller_memory()?;
        let window = buffer.window()?;
        let overlaps = base < window.end && window.start < base.saturating_add(len);
        overlaps.then_some((buffer, window))
    }
}
