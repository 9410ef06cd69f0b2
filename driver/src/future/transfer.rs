//! The future of a transfer of any size.

use std::task::{Context, Poll};

use super::reactor::Reactor;
use super::request::Request;
use super::ticket::Ticket;
use crate::dma::DmaBuf;
use crate::error::{Error, Result};
use crate::namespace::Namespace;
use crate::queue::{QueuePair, SplitTransfer};
use crate::rejected::{Failed, Rejected};

/// Maximum number of commands of one transfer in flight, so that transfers share the queue.
const WINDOW: usize = 32;

/// Submits the commands of `split`, and waits for all of them. `submit` makes the function that
/// submits the command at an LBA.
pub(super) async fn run<S, F>(
    reactor: &Reactor<QueuePair<Ticket>>,
    namespace: &Namespace,
    split: SplitTransfer,
    submit: F,
) -> Result<DmaBuf, Failed<Error, DmaBuf>>
where
    F: Fn(u64) -> S,
    S: FnMut(&mut QueuePair<Ticket>, u64, DmaBuf) -> Result<(), Rejected<Error, DmaBuf>>,
{
    let mut transfer =
        Transfer { reactor, namespace, split, submit, commands: Vec::new(), unplaced: None };
    std::future::poll_fn(|context| transfer.poll(context)).await;
    transfer.split.finish()
}

/// A command in flight, after its LBA.
type Command<'q, S> = (u64, Request<'q, QueuePair<Ticket>, DmaBuf, S>);

struct Transfer<'q, S, F> {
    reactor: &'q Reactor<QueuePair<Ticket>>,
    namespace: &'q Namespace,
    split: SplitTransfer,
    submit: F,
    /// Commands in flight, with their LBAs.
    commands: Vec<Command<'q, S>>,
    /// LBA and buffer of a command that found no place in the line, while others are in flight.
    unplaced: Option<(u64, DmaBuf)>,
}

impl<S, F: Fn(u64) -> S> Transfer<'_, S, F>
where
    S: FnMut(&mut QueuePair<Ticket>, u64, DmaBuf) -> Result<(), Rejected<Error, DmaBuf>>,
{
    fn poll(&mut self, context: &Context<'_>) -> Poll<()> {
        let mut at = 0;
        while at < self.commands.len() {
            // The last command replaces a command that ended, and is polled next.
            at += usize::from(self.poll_one(at, context).is_pending());
        }
        while let Some((lba, piece)) = self.next_command() {
            let request = Request::new(self.reactor, piece, false, (self.submit)(lba));
            self.commands.push((lba, request));
            let last = self.commands.len() - 1;
            let polled = self.poll_one(last, context);
            // Further commands would only wait, too.
            if self.unplaced.is_some() || (polled.is_pending() && self.has_waiting()) {
                break;
            }
        }
        if self.commands.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Returns the next command, unless the window is full or a command waits.
    fn next_command(&mut self) -> Option<(u64, DmaBuf)> {
        if self.split.has_failed()
            && let Some((_, piece)) = self.unplaced.take()
        {
            self.split.put(piece);
        }
        if self.commands.len() >= WINDOW || self.has_waiting() {
            return None;
        }
        self.unplaced.take().or_else(|| self.split.next_command(self.namespace))
    }

    fn has_waiting(&self) -> bool {
        self.commands.iter().any(|(_, request)| request.is_waiting())
    }

    fn poll_one(&mut self, at: usize, context: &Context<'_>) -> Poll<()> {
        let Some((lba, request)) = self.commands.get_mut(at) else { return Poll::Ready(()) };
        let lba = *lba;
        let Poll::Ready(result) = request.poll(context) else { return Poll::Pending };
        self.commands.swap_remove(at);
        match result {
            Ok(completion) => self.split.completed(completion.buf, completion.status),
            Err(Rejected { error: Error::QueueFull { .. }, payload })
                if !self.commands.is_empty() =>
            {
                self.unplaced = Some((lba, payload));
            }
            Err(Rejected { error, payload }) => self.split.rejected(lba, payload, error),
        }
        Poll::Ready(())
    }
}
