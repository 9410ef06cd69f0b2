//! The future of one command.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::permits::{Checked, Left, Turn};
use super::table::{Ended, Entry};
use super::{AsyncQueue, Ticket};
use crate::queue::{QueuePair, Rejected};
use crate::{Error, Result};

/// Queues a command with `memory` when there is room for it, and gives what it ended with.
///
/// Dropped before that, it leaves a command that was queued to itself: its memory stays with the
/// queue until it has ended.
pub(super) struct Command<'q, M, S> {
    queue: &'q AsyncQueue,
    step: Step<M, S>,
}

enum Step<M, S> {
    Begin(M, S),
    Waiting(M, S, Turn),
    InFlight(u32),
    Over,
}

/// What queues a command.
pub(super) trait Submit<M>:
    FnOnce(&mut QueuePair<Ticket>, M, Ticket) -> Result<(), Rejected<Ticket, M>>
{
}

impl<M, S> Submit<M> for S where
    S: FnOnce(&mut QueuePair<Ticket>, M, Ticket) -> Result<(), Rejected<Ticket, M>>
{
}

/// Why a command was not queued, with its memory.
pub(super) type NotQueued<M> = (Error, M);

impl<'q, M, S: Submit<M>> Command<'q, M, S> {
    pub(super) fn new(queue: &'q AsyncQueue, memory: M, submit: S) -> Self {
        Self { queue, step: Step::Begin(memory, submit) }
    }

    /// Whether it has not been queued yet.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.step, Step::Waiting(..))
    }

    pub(super) fn poll(&mut self, context: &Context<'_>) -> Poll<Result<Ended, NotQueued<M>>> {
        let waker = context.waker();
        match std::mem::replace(&mut self.step, Step::Over) {
            Step::Begin(memory, submit) => self.begin(memory, submit, waker),
            Step::Waiting(memory, submit, turn) => {
                // The borrow ends before what comes back is dropped, which can run any code.
                let checked = self.queue.state().permits.check(turn, waker);
                match checked {
                    Checked::Granted => self.submit(memory, submit, waker),
                    Checked::Waiting(turn, _old) => {
                        self.step = Step::Waiting(memory, submit, turn);
                        Poll::Pending
                    }
                }
            }
            Step::InFlight(at) => {
                let taken = self.queue.state().table.take(at, waker);
                match taken {
                    Ok(ended) => {
                        self.queue.give_permit();
                        Poll::Ready(Ok(ended))
                    }
                    Err(_old) => {
                        self.step = Step::InFlight(at);
                        Poll::Pending
                    }
                }
            }
            Step::Over => Poll::Pending,
        }
    }

    fn begin(&mut self, memory: M, submit: S, waker: &Waker) -> Poll<Result<Ended, NotQueued<M>>> {
        if self.queue.state().permits.try_take() {
            return self.submit(memory, submit, waker);
        }
        let joined = self.queue.state().permits.join(waker.clone());
        match joined {
            Ok(turn) => {
                self.step = Step::Waiting(memory, submit, turn);
                Poll::Pending
            }
            Err(_waker) => Poll::Ready(Err((self.queue.full(), memory))),
        }
    }

    /// Queues the command, with a permit.
    fn submit(&mut self, memory: M, submit: S, waker: &Waker) -> Poll<Result<Ended, NotQueued<M>>> {
        let inserted = self.queue.state().table.insert(waker.clone());
        let (error, memory) = match inserted {
            Ok(at) => {
                let submitted = match self.queue.0.pair.try_borrow_mut() {
                    Ok(mut pair) => submit(&mut pair, memory, Ticket(at))
                        .map_err(|rejected| (rejected.error, rejected.buf)),
                    // From inside of another command's closure.
                    Err(_) => Err((self.queue.full(), memory)),
                };
                match submitted {
                    Ok(()) => {
                        self.step = Step::InFlight(at);
                        return Poll::Pending;
                    }
                    Err(refused) => {
                        let _waker = self.queue.state().table.withdraw(at);
                        refused
                    }
                }
            }
            // There are as many entries as permits.
            Err(_waker) => (self.queue.full(), memory),
        };
        self.queue.give_permit();
        Poll::Ready(Err((error, memory)))
    }
}

impl<M: Unpin, S: Submit<M> + Unpin> Future for Command<'_, M, S> {
    type Output = Result<Ended, NotQueued<M>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.get_mut().poll(context)
    }
}

impl<M, S> Drop for Command<'_, M, S> {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.step, Step::Over) {
            Step::Waiting(_memory, _submit, turn) => {
                let Left { next, own } = self.queue.state().permits.leave(turn);
                drop(own);
                next.into_iter().for_each(Waker::wake);
            }
            Step::InFlight(at) => {
                let entry = self.queue.state().table.abandon(at);
                if matches!(entry, Some(Entry::Ended(_))) {
                    self.queue.give_permit();
                }
            }
            Step::Begin(..) | Step::Over => {}
        }
    }
}
