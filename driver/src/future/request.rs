//! The future of one request.

use std::task::{Context, Poll, Waker};

use super::permits::{Checked, Left, Turn};
use super::reactor::{Reactor, ReactorQueue};
use crate::rejected::Rejected;

impl<Q: ReactorQueue> Reactor<Q> {
    /// Submits one request and returns its completion.
    ///
    /// `submit` submits the request with the token and the payload that it is passed, and does
    /// nothing else with the queue. It is called when a place is free, and again after completions
    /// if the queue rejected the request as busy. With `nowait`, a request that would have to wait
    /// is rejected.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// The error of `submit`, and the queue's error for a full queue.
    pub async fn submit<P>(
        &self,
        payload: P,
        nowait: bool,
        submit: impl FnMut(&mut Q, u64, P) -> Result<(), Rejected<Q::Error, P>>,
    ) -> Result<Q::Completion, Rejected<Q::Error, P>> {
        let Some(place) = Place::reserve(self, nowait).await else {
            return Err(Rejected { error: self.busy(), payload });
        };
        place.submit(payload, nowait, submit).await?;
        let completion = std::future::poll_fn(|context| place.poll(context)).await;
        Ok(completion)
    }
}

/// A permit and an entry in the table of requests.
///
/// If it is dropped while the request is in flight, both are free when the request has ended.
pub(super) struct Place<'q, Q: ReactorQueue> {
    reactor: &'q Reactor<Q>,
    at: u32,
}

impl<'q, Q: ReactorQueue> Place<'q, Q> {
    /// Waits for a permit. `None` if the line is full, or if `nowait` and no permit is free.
    pub(super) async fn reserve(reactor: &'q Reactor<Q>, nowait: bool) -> Option<Self> {
        if !reactor.permits().try_acquire() {
            if nowait {
                return None;
            }
            let mut waiting = Waiting { reactor, turn: None };
            std::future::poll_fn(|context| waiting.poll(context)).await?;
        }
        let inserted = reactor.table().insert();
        if inserted.is_none() {
            // The table has as many entries as there are permits.
            reactor.release_permit();
        }
        inserted.map(|at| Self { reactor, at })
    }

    /// Submits the request; see [`Reactor::submit`].
    pub(super) async fn submit<P>(
        &self,
        mut payload: P,
        nowait: bool,
        mut submit: impl FnMut(&mut Q, u64, P) -> Result<(), Rejected<Q::Error, P>>,
    ) -> Result<(), Rejected<Q::Error, P>> {
        let reactor = self.reactor;
        loop {
            let submitted = match reactor.queue() {
                Some(mut queue) => submit(&mut queue, u64::from(self.at), payload),
                // The caller is a function that submits another request.
                None => Err(Rejected { error: reactor.busy(), payload }),
            };
            let Err(rejected) = submitted else { break };
            // A later poll finds room only if another request ends.
            if nowait || !Q::is_busy(&rejected.error) || reactor.in_flight() == 0 {
                return Err(rejected);
            }
            payload = rejected.payload;
            self.next_poll().await;
        }
        reactor.table().launch(self.at);
        Ok(())
    }

    /// Waits for the next poll of the queue.
    async fn next_poll(&self) {
        let mut stalled = false;
        std::future::poll_fn(|context| {
            if std::mem::replace(&mut stalled, true) {
                return Poll::Ready(());
            }
            // The borrow ends before the old waker is dropped, because that runs any code.
            let old = self.reactor.table().stall(self.at, context.waker());
            drop(old);
            Poll::Pending
        })
        .await;
    }

    /// Returns the completion of the request, which is in flight.
    pub(super) fn poll(&self, context: &Context<'_>) -> Poll<Q::Completion> {
        // The borrow ends before the old waker is dropped, because that runs any code.
        let taken = self.reactor.table().take(self.at, context.waker());
        match taken {
            Ok(completion) => Poll::Ready(completion),
            Err(_old) => Poll::Pending,
        }
    }
}

impl<Q: ReactorQueue> Drop for Place<'_, Q> {
    fn drop(&mut self) {
        let abandoned = self.reactor.table().abandon(self.at);
        if abandoned.is_ok() {
            self.reactor.release_permit();
        }
    }
}

/// A place in the line of futures that wait for a permit. It is left when this is dropped.
struct Waiting<'q, Q: ReactorQueue> {
    reactor: &'q Reactor<Q>,
    turn: Option<Turn>,
}

impl<Q: ReactorQueue> Waiting<'_, Q> {
    /// Waits for the permit; `None` if the line is full.
    fn poll(&mut self, context: &Context<'_>) -> Poll<Option<()>> {
        let waker = context.waker();
        let Some(turn) = self.turn.take() else {
            let joined = self.reactor.permits().join(waker.clone());
            self.turn = joined.ok();
            return if self.turn.is_some() { Poll::Pending } else { Poll::Ready(None) };
        };
        // The borrow ends before the old waker is dropped, because that runs any code.
        let checked = self.reactor.permits().check(turn, waker);
        match checked {
            Checked::Granted => Poll::Ready(Some(())),
            Checked::Waiting(turn, _old) => {
                self.turn = Some(turn);
                Poll::Pending
            }
        }
    }
}

impl<Q: ReactorQueue> Drop for Waiting<'_, Q> {
    fn drop(&mut self) {
        let Some(turn) = self.turn.take() else { return };
        let Left { next, own } = self.reactor.permits().leave(turn);
        drop(own);
        next.into_iter().for_each(Waker::wake);
    }
}
