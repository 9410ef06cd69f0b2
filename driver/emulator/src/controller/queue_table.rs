//! The table of queues, and the order in which they are served.

use crate::controller::Controller;
use crate::controller::queue::{CompletionQueue, SubmissionQueue};

impl Controller {
    pub(crate) fn cq(&self, qid: u16) -> Option<&CompletionQueue> {
        self.cqs.get(usize::from(qid))?.as_ref()
    }

    pub(crate) fn sq_exists(&self, qid: u16) -> bool {
        self.sqs.get(usize::from(qid)).is_some_and(Option::is_some)
    }

    pub(crate) fn has_io_queues(&self) -> bool {
        self.cqs.iter().skip(1).any(Option::is_some)
    }

    /// Returns true if a submission queue completes to `cqid`.
    pub(crate) fn cq_is_used(&self, cqid: u16) -> bool {
        self.sqs.iter().flatten().any(|sq| sq.cqid == cqid)
    }

    pub(crate) fn insert_cq(&mut self, qid: u16, queue: CompletionQueue) {
        if let Some(slot) = self.cqs.get_mut(usize::from(qid)) {
            *slot = Some(queue);
        }
    }

    pub(crate) fn remove_cq(&mut self, qid: u16) {
        if let Some(slot) = self.cqs.get_mut(usize::from(qid)) {
            *slot = None;
        }
    }

    pub(crate) fn insert_sq(&mut self, qid: u16, queue: SubmissionQueue) {
        if let Some(slot) = self.sqs.get_mut(usize::from(qid)) {
            *slot = Some(queue);
            self.list_active();
        }
    }

    pub(crate) fn remove_sq(&mut self, qid: u16) {
        if let Some(slot) = self.sqs.get_mut(usize::from(qid)) {
            *slot = None;
            self.list_active();
            if let Some(conduct) = &mut self.conduct {
                conduct.drop_queue(qid);
            }
        }
    }

    fn list_active(&mut self) {
        self.active.clear();
        let existing = (0..=self.max_queues).zip(&self.sqs).filter(|(_, sq)| sq.is_some());
        self.active.extend(existing.map(|(qid, _)| qid));
    }
}
