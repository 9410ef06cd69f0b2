//! The future of a transfer of any size.

use std::task::{Context, Poll};

use super::reactor::Reactor;
use super::request::Place;
use super::ticket::{Ticket, without_ticket};
use crate::dma::DmaBuf;
use crate::error::Error;
use crate::namespace::Namespace;
use crate::queue::{Completion, QueuePair, SplitTransfer};
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
    let mut commands: Vec<Place<'_, _>> = Vec::with_capacity(WINDOW);
    // A command that found no room. It is submitted again when another of the transfer has ended.
    let mut stalled = None;
    loop {
        while commands.len() < WINDOW
            && let Some((lba, piece)) = stalled.take().or_else(|| split.next_command(namespace))
        {
            // A transfer waits in the line of futures with one command at most.
            let nowait = !commands.is_empty();
            match launch(reactor, piece, nowait, |pair, piece, ticket| {
                submit(pair, lba, piece, ticket)
            })
            .await
            {
                Ok(place) => commands.push(place),
                Err(Rejected { error: Error::QueueFull { .. }, payload }) if nowait => {
                    stalled = Some((lba, payload));
                    break;
                }
                Err(Rejected { error, payload }) => split.rejected(lba, payload, error),
            }
        }
        if commands.is_empty() {
            break;
        }
        let (at, done) = std::future::poll_fn(|context| first_done(&commands, context)).await;
        commands.swap_remove(at);
        split.completed(done.buf, done.status);
        if split.has_failed()
            && let Some((_, piece)) = stalled.take()
        {
            split.put(piece);
        }
    }
    split.finish()
}

/// Submits one command. With `nowait`, a command that would have to wait is rejected.
async fn launch<'q>(
    reactor: &'q Reactor<QueuePair<Ticket>>,
    piece: DmaBuf,
    nowait: bool,
    mut submit: impl FnMut(&mut QueuePair<Ticket>, DmaBuf, Ticket) -> SubmitResult<DmaBuf, Ticket>,
) -> Result<Place<'q, QueuePair<Ticket>>, Rejected<Error, DmaBuf>> {
    let Some(place) = Place::reserve(reactor, nowait).await else {
        return Err(Rejected { error: reactor.busy(), payload: piece });
    };
    let submitted = place.submit(piece, nowait, |pair, token, piece| {
        without_ticket(submit(pair, piece, Ticket(token)))
    });
    submitted.await?;
    Ok(place)
}

/// Returns the index and the completion of a command that has ended.
fn first_done(
    commands: &[Place<'_, QueuePair<Ticket>>],
    context: &Context<'_>,
) -> Poll<(usize, Completion<()>)> {
    for (at, place) in commands.iter().enumerate() {
        if let Poll::Ready(done) = place.poll(context) {
            return Poll::Ready((at, done));
        }
    }
    Poll::Pending
}
