//! The queue pair of an [`AsyncQueue`](super::AsyncQueue).

use std::os::fd::BorrowedFd;

use super::reactor::ReactorQueue;
use crate::error::{Error, Result};
use crate::queue::{Completion, QueuePair};
use crate::rejected::{Rejected, SubmitResult};

/// The context of a command of an [`AsyncQueue`](super::AsyncQueue); see
/// [`AsyncQueue::command`](super::AsyncQueue::command).
#[derive(Debug)]
pub struct Ticket(pub(super) u64);

impl ReactorQueue for QueuePair<Ticket> {
    type Completion = Completion<()>;
    type Error = Error;

    fn capacity(&self) -> usize {
        self.capacity()
    }

    fn busy(capacity: usize) -> Error {
        Error::QueueFull { capacity }
    }

    fn is_busy(error: &Error) -> bool {
        matches!(error, Error::QueueFull { .. })
    }

    fn poll(&mut self, done: &mut dyn FnMut(u64, Completion<()>)) -> usize {
        self.ring();
        self.poll(usize::MAX, |completion| untie(completion, done))
    }

    fn wait(&mut self, done: &mut dyn FnMut(u64, Completion<()>)) -> Result<usize> {
        self.wait(|completion| untie(completion, done))
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.event_fd()
    }

    fn prepare_to_sleep(&mut self) -> bool {
        self.prepare_to_sleep()
    }
}

/// Passes a completion and its token to `done`.
fn untie(completion: Completion<Ticket>, done: &mut dyn FnMut(u64, Completion<()>)) {
    let Completion { context: Ticket(token), buf, status, result } = completion;
    done(token, Completion { context: (), buf, status, result });
}

/// Removes the ticket from a rejected command.
pub(super) fn without_ticket<M>(
    submitted: SubmitResult<M, Ticket>,
) -> Result<(), Rejected<Error, M>> {
    submitted.map_err(|Rejected { error, payload: (payload, _) }| Rejected { error, payload })
}
