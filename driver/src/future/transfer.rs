//! The future of a transfer of any size.

use std::task::Poll;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::reactor::Reactor;
use super::ticket::{Ticket, without_ticket};
use crate::dma::DmaBuf;
use crate::error::Error;
use crate::namespace::Namespace;
use crate::queue::{QueuePair, SplitTransfer};
use crate::rejected::{Rejected, SubmitResult, TransferResult};

/// Maximum number of commands of one transfer in flight, so that transfers share the queue.
const WINDOW: usize = 32;

/// Submits the commands of `split`, and waits for all of them. `submit` submits the command at an
/// LBA.
pub(super) async fn run(
    reactor: &Reactor<QueuePair<Ticket>>,
    namespace: &Namespace,
    mut split: SplitTransfer,
    submit: impl Fn(&mut QueuePair<Ticket>, u64, DmaBuf, Ticket) -> SubmitResult<DmaBuf, Ticket>,
) -> TransferResult {
    let submit = &submit;
    let command = |lba, piece, nowait| async move {
        let submitted = reactor.submit(piece, nowait, |pair, token, piece| {
            without_ticket(submit(pair, lba, piece, Ticket(token)))
        });
        (lba, submitted.await)
    };
    let mut commands = FuturesUnordered::new();
    // A command that found no room. It is submitted again when another of the transfer has ended.
    let mut stalled = None;
    let mut is_full = false;
    loop {
        if split.has_failed()
            && let Some((_, piece)) = stalled.take()
        {
            split.put(piece);
        }
        let next = match !is_full && commands.len() < WINDOW {
            true => stalled.take().or_else(|| split.next_command(namespace)),
            false => None,
        };
        let ended = match next {
            Some((lba, piece)) => {
                // A transfer waits in the line of futures with one command at most.
                commands.push(command(lba, piece, !commands.is_empty()));
                std::future::poll_fn(|context| Poll::Ready(commands.poll_next_unpin(context))).await
            }
            None => Poll::Ready(commands.next().await),
        };
        let Poll::Ready(ended) = ended else { continue };
        let Some((lba, result)) = ended else { break };
        is_full = false;
        match result {
            Ok(completion) => split.completed(completion.buf, completion.status),
            Err(Rejected { error: Error::QueueFull { .. }, payload }) if !commands.is_empty() => {
                stalled = Some((lba, payload));
                is_full = true;
            }
            Err(Rejected { error, payload }) => split.rejected(lba, payload, error),
        }
    }
    split.finish()
}
