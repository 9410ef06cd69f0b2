//! The future of one request.

use std::task::Poll;

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
        mut payload: P,
        nowait: bool,
        mut submit: impl FnMut(&mut Q, u64, P) -> Result<(), Rejected<Q::Error, P>>,
    ) -> Result<Q::Completion, Rejected<Q::Error, P>> {
        let Some(place) = Place::reserve(self, nowait).await else {
            return Err(Rejected { error: self.busy(), payload });
        };
        loop {
            let submitted = match self.queue() {
                Some(mut queue) => submit(&mut queue, u64::from(place.at), payload),
                // The caller is a function that submits another request.
                None => Err(Rejected { error: self.busy(), payload }),
            };
            let Err(rejected) = submitted else { break };
            // A later poll finds room only if another request ends.
            if nowait || !Q::is_busy(&rejected.error) || self.in_flight() == 0 {
                return Err(rejected);
            }
            payload = rejected.payload;
            place.next_poll().await;
        }
        self.table().launch(place.at);
        Ok(place.completion().await)
    }
}

/// A permit and an entry in the table of requests.
///
/// If it is dropped while the request is in flight, both are free when the request has ended.
struct Place<'q, Q: ReactorQueue> {
    reactor: &'q Reactor<Q>,
    at: u32,
}

impl<'q, Q: ReactorQueue> Place<'q, Q> {
    /// Waits for a permit. `None` if the line is full, or if `nowait` and no permit is free.
    async fn reserve(reactor: &'q Reactor<Q>, nowait: bool) -> Option<Self> {
        let permit = match reactor.0.permits.try_acquire() {
            Ok(permit) => permit,
            Err(_) if nowait => return None,
            Err(_) => {
                let _place_in_line = reactor.0.line.try_acquire().ok()?;
                reactor.0.permits.acquire().await.ok()?
            }
        };
        // The table has as many entries as there are permits.
        let at = reactor.table().insert()?;
        permit.forget();
        Some(Self { reactor, at })
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

    /// Waits for the completion of the request, which is in flight.
    async fn completion(&self) -> Q::Completion {
        std::future::poll_fn(|context| {
            let taken = self.reactor.table().take(self.at, context.waker());
            match taken {
                Ok(completion) => Poll::Ready(completion),
                Err(_old) => Poll::Pending,
            }
        })
        .await
    }
}

impl<Q: ReactorQueue> Drop for Place<'_, Q> {
    fn drop(&mut self) {
        let abandoned = self.reactor.table().abandon(self.at);
        if abandoned.is_ok() {
            self.reactor.0.permits.add_permits(1);
        }
    }
}
