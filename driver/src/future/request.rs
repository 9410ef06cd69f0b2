//! The future of one request.

use std::task::{Context, Poll, Waker};

use super::permits::{Checked, Left, Turn};
use super::reactor::{Reactor, ReactorQueue};
use crate::rejected::Rejected;

/// The future of one request: it waits for a place, submits the request, and returns its
/// completion.
///
/// If the future is dropped while the request is in flight, the queue keeps the memory until the
/// request ends.
pub(super) struct Request<'q, Q: ReactorQueue, P, S> {
    reactor: &'q Reactor<Q>,
    submit: S,
    /// Whether a request that would have to wait is rejected.
    nowait: bool,
    step: Step<P>,
}

enum Step<P> {
    Begin(P),
    Waiting(P, Turn),
    /// With a permit and a table entry, but the queue was busy.
    Stalled(P, u32),
    InFlight(u32),
    Over,
}

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
        let mut request = Request::new(self, payload, nowait, submit);
        std::future::poll_fn(|context| request.poll(context)).await
    }
}

type Output<Q, P> =
    Result<<Q as ReactorQueue>::Completion, Rejected<<Q as ReactorQueue>::Error, P>>;

impl<'q, Q: ReactorQueue, P, S> Request<'q, Q, P, S>
where
    S: FnMut(&mut Q, u64, P) -> Result<(), Rejected<Q::Error, P>>,
{
    pub(super) fn new(reactor: &'q Reactor<Q>, payload: P, nowait: bool, submit: S) -> Self {
        Self { reactor, submit, nowait, step: Step::Begin(payload) }
    }

    /// Returns true if the request was not submitted yet.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.step, Step::Waiting(..) | Step::Stalled(..))
    }

    pub(super) fn poll(&mut self, context: &Context<'_>) -> Poll<Output<Q, P>> {
        let waker = context.waker();
        match std::mem::replace(&mut self.step, Step::Over) {
            Step::Begin(payload) => self.begin(payload, waker),
            Step::Waiting(payload, turn) => {
                // The borrow ends before the old waker is dropped, because that runs any code.
                let checked = self.reactor.state().permits.check(turn, waker);
                match checked {
                    Checked::Granted => self.enter(payload, waker),
                    Checked::Waiting(turn, _old) => {
                        self.step = Step::Waiting(payload, turn);
                        Poll::Pending
                    }
                }
            }
            Step::Stalled(payload, at) => self.submit(payload, at, waker),
            Step::InFlight(at) => {
                let taken = self.reactor.state().table.take(at, waker);
                match taken {
                    Ok(completion) => {
                        self.reactor.release_permit();
                        Poll::Ready(Ok(completion))
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

    fn begin(&mut self, payload: P, waker: &Waker) -> Poll<Output<Q, P>> {
        if self.reactor.state().permits.try_acquire() {
            return self.enter(payload, waker);
        }
        let joined = match self.nowait {
            true => None,
            false => self.reactor.state().permits.join(waker.clone()).ok(),
        };
        match joined {
            Some(turn) => {
                self.step = Step::Waiting(payload, turn);
                Poll::Pending
            }
            None => Poll::Ready(Err(self.busy(payload))),
        }
    }

    /// Allocates a table entry. The request has a permit.
    fn enter(&mut self, payload: P, waker: &Waker) -> Poll<Output<Q, P>> {
        let inserted = self.reactor.state().table.insert();
        match inserted {
            Some(at) => self.submit(payload, at, waker),
            // The table has as many entries as there are permits.
            None => {
                self.reactor.release_permit();
                Poll::Ready(Err(self.busy(payload)))
            }
        }
    }

    /// Submits the request, which has a permit and a table entry.
    fn submit(&mut self, payload: P, at: u32, waker: &Waker) -> Poll<Output<Q, P>> {
        let submitted = match self.reactor.queue() {
            Some(mut queue) => (self.submit)(&mut queue, u64::from(at), payload),
            // The caller is a function that submits another request.
            None => Err(self.busy(payload)),
        };
        let waker = waker.clone();
        let Err(Rejected { error, payload }) = submitted else {
            let old = self.reactor.state().table.launch(at, waker);
            drop(old);
            self.step = Step::InFlight(at);
            return Poll::Pending;
        };
        // A later poll finds room only if another request ends.
        let others = self.reactor.in_flight() > 0;
        if Q::is_busy(&error) && !self.nowait && others {
            let old = self.reactor.state().table.stall(at, waker);
            drop(old);
            self.step = Step::Stalled(payload, at);
            return Poll::Pending;
        }
        self.reactor.abandon(at);
        Poll::Ready(Err(Rejected { error, payload }))
    }

    fn busy(&self, payload: P) -> Rejected<Q::Error, P> {
        Rejected { error: Q::busy(self.reactor.state().permits.places()), payload }
    }
}

impl<Q: ReactorQueue, P, S> Drop for Request<'_, Q, P, S> {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.step, Step::Over) {
            Step::Waiting(_payload, turn) => {
                let Left { next, own } = self.reactor.state().permits.leave(turn);
                drop(own);
                next.into_iter().for_each(Waker::wake);
            }
            Step::Stalled(_, at) | Step::InFlight(at) => self.reactor.abandon(at),
            Step::Begin(..) | Step::Over => {}
        }
    }
}
