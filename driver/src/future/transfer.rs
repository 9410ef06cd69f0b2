//! The future of a transfer of any size.

use std::task::{Context, Poll};

use super::command::{Command, Submit};
use super::{AsyncQueue, Ticket};
use crate::dma::DmaBuf;
use crate::namespace::Namespace;
use crate::queue::{Failed, QueuePair, Rejected, SplitTransfer};
use crate::{Error, Result};

/// Most commands of one transfer that are in flight together: others want to get on, too.
const WINDOW: usize = 32;

/// Queues the pieces of `split` with what `submit` makes for each LBA, and waits for all.
pub(super) async fn run<S, F>(
    queue: &AsyncQueue,
    namespace: &Namespace,
    split: SplitTransfer,
    submit: F,
) -> Result<DmaBuf, Failed>
where
    F: Fn(u64) -> S,
    S: FnOnce(&mut QueuePair<Ticket>, DmaBuf, Ticket) -> Result<(), Rejected<Ticket, DmaBuf>>,
{
    let mut transfer =
        Pieces { queue, namespace, split, submit, commands: Vec::new(), waiting: None };
    std::future::poll_fn(|context| transfer.poll(context)).await;
    transfer.split.finish()
}

struct Pieces<'q, S, F> {
    queue: &'q AsyncQueue,
    namespace: &'q Namespace,
    split: SplitTransfer,
    submit: F,
    commands: Vec<(u64, Command<'q, DmaBuf, S>)>,
    /// A piece for which there was no place to wait, while others are in flight.
    waiting: Option<(u64, DmaBuf)>,
}

impl<S: Submit<DmaBuf>, F: Fn(u64) -> S> Pieces<'_, S, F> {
    fn poll(&mut self, context: &Context<'_>) -> Poll<()> {
        let mut at = 0;
        while at < self.commands.len() {
            // What has ended is replaced by the last, which is looked at next.
            at += usize::from(self.poll_one(at, context).is_pending());
        }
        while let Some((lba, piece)) = self.next() {
            let command = Command::new(self.queue, piece, (self.submit)(lba));
            self.commands.push((lba, command));
            let last = self.commands.len() - 1;
            let polled = self.poll_one(last, context);
            // The rest would only wait behind it.
            if self.waiting.is_some() || (polled.is_pending() && self.is_last_waiting()) {
                break;
            }
        }
        if self.commands.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// The next piece to queue, if it is time for one.
    fn next(&mut self) -> Option<(u64, DmaBuf)> {
        if self.split.has_failed()
            && let Some((_, piece)) = self.waiting.take()
        {
            self.split.put(piece);
        }
        if self.commands.len() >= WINDOW || self.is_last_waiting() {
            return None;
        }
        self.waiting.take().or_else(|| self.split.next_command(self.namespace))
    }

    fn is_last_waiting(&self) -> bool {
        self.commands.iter().any(|(_, command)| command.is_waiting())
    }

    fn poll_one(&mut self, at: usize, context: &Context<'_>) -> Poll<()> {
        let Some((lba, command)) = self.commands.get_mut(at) else { return Poll::Ready(()) };
        let lba = *lba;
        let Poll::Ready(result) = command.poll(context) else { return Poll::Pending };
        self.commands.swap_remove(at);
        match result {
            Ok(ended) => self.split.completed(ended.buf, ended.status),
            Err((Error::QueueFull { .. }, piece)) if !self.commands.is_empty() => {
                self.waiting = Some((lba, piece));
            }
            Err((error, piece)) => self.split.rejected(lba, piece, error),
        }
        Poll::Ready(())
    }
}
