//! The engine of all futures: it polls one queue and wakes the futures of its requests.

use std::cell::{RefCell, RefMut};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::permits::Permits;
use super::table::{Outcome, Table};

/// Default number of futures that can wait for room in the queue.
const WAITING_MAX: usize = 4096;

/// Empty polls after which [`Reactor::block_on`] yields to other threads.
const POLLS_PER_YIELD: u32 = 1 << 12;

/// A queue whose requests can be futures.
///
/// A request is submitted with a token, which comes back with its completion.
///
/// See the [example](Reactor#examples).
pub trait ReactorQueue {
    /// The record of a request that ended.
    ///
    /// See the [example](Reactor#examples).
    type Completion;
    /// The error of a request that was rejected.
    ///
    /// See the [example](Reactor#examples).
    type Error;

    /// Returns the number of requests that can be in flight.
    ///
    /// See the [example](Reactor#examples).
    fn capacity(&self) -> usize;

    /// Returns the error of a request that finds no room. `capacity` is the number of futures that
    /// can wait.
    ///
    /// See the [example](Reactor#examples).
    fn busy(capacity: usize) -> Self::Error;

    /// Returns true for an error that a later attempt may not meet, because requests have ended.
    ///
    /// See the [example](Reactor#examples).
    fn is_busy(error: &Self::Error) -> bool;

    /// Rings the doorbell, passes token and record of each request that ended to `done`, and
    /// returns their number. Does not wait.
    ///
    /// See the [example](Reactor#examples).
    fn poll(&mut self, done: &mut dyn FnMut(u64, Self::Completion)) -> usize;

    /// Polls as [`poll`](Self::poll) does, but waits until a request ends; 0 if nothing is in
    /// flight.
    ///
    /// See the [example](Reactor#examples).
    ///
    /// # Errors
    /// The error of the device.
    fn wait(&mut self, done: &mut dyn FnMut(u64, Self::Completion)) -> Result<usize, Self::Error>;

    /// Returns the eventfd that becomes readable with a completion, if the queue has one.
    ///
    /// See the [example](Reactor#examples).
    fn event_fd(&self) -> Option<BorrowedFd<'_>>;

    /// Rings the doorbell, and returns true if the caller may sleep until the eventfd is readable.
    ///
    /// See the [example](Reactor#examples).
    fn prepare_to_sleep(&mut self) -> bool;
}

/// A queue whose requests are futures. Cheap to clone; it stays on one thread.
///
/// A future submits its request when it is first polled. [`poll`](Self::poll) rings the doorbell,
/// processes completions, and wakes their futures. Call it between the rounds of an executor, or
/// use [`drive`](Self::drive), a future that does. No executor is part of this crate;
/// [`block_on`](Self::block_on) is for tests, and for programs with a single future.
///
/// The number of requests in flight is at most the capacity of the queue. Further futures wait, in
/// the order in which they were first polled. At most 4,096 futures wait, unless the constructor
/// was given another number; a future beyond that ends with the queue's error for a full queue, and
/// with its memory. A request counts until its future has returned the result, or was dropped.
///
/// A future can be dropped at any time. A request in flight is then still executed; its memory and
/// its place are free when it has ended.
///
/// # Examples
/// ```
/// use std::os::fd::BorrowedFd;
///
/// use nvio_driver::future::{Reactor, ReactorQueue};
///
/// /// A queue whose requests end at the next poll.
/// struct Echo(Vec<u64>);
///
/// impl ReactorQueue for Echo {
///     type Completion = u64;
///     type Error = &'static str;
///
///     fn capacity(&self) -> usize {
///         4
///     }
///     fn busy(_capacity: usize) -> Self::Error {
///         "too many futures wait"
///     }
///     fn is_busy(_error: &Self::Error) -> bool {
///         false
///     }
///     fn poll(&mut self, done: &mut dyn FnMut(u64, u64)) -> usize {
///         let ended = std::mem::take(&mut self.0);
///         ended.iter().for_each(|&token| done(token, token));
///         ended.len()
///     }
///     fn wait(&mut self, done: &mut dyn FnMut(u64, u64)) -> Result<usize, Self::Error> {
///         Ok(self.poll(done))
///     }
///     fn event_fd(&self) -> Option<BorrowedFd<'_>> {
///         None
///     }
///     fn prepare_to_sleep(&mut self) -> bool {
///         false
///     }
/// }
///
/// let reactor = Reactor::new(Echo(Vec::new()));
/// let request = reactor.submit((), false, |queue, token, ()| {
///     queue.0.push(token);
///     Ok(())
/// });
/// // On this thread, or with `drive` in an executor that does not know the queue.
/// let token = reactor.block_on(request).map_err(|rejected| rejected.error)?;
/// assert_eq!(reactor.block_on(reactor.drive(async { 1 })), 1);
///
/// // An event loop calls these.
/// assert_eq!((reactor.in_flight(), reactor.poll(), reactor.wait()?), (0, 0, 0));
/// assert!(!reactor.prepare_to_sleep() && reactor.event_fd().is_none());
/// assert_eq!(reactor.with_queue(|queue| queue.0.len()), Some(0));
///
/// let small = Reactor::with_waiting(Echo(Vec::new()), 16);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(derive_more::Debug)]
#[debug("Reactor({} requests in flight)", self.in_flight())]
pub struct Reactor<Q: ReactorQueue>(Rc<Inner<Q>>);

struct Inner<Q: ReactorQueue> {
    /// Borrowed while a request is submitted, and by [`Reactor::poll`].
    queue: RefCell<Q>,
    /// Never borrowed while code outside of this module runs.
    table: RefCell<Table<Q::Completion>>,
    /// A permit for each request that can be in flight. Never borrowed while code outside of this
    /// module runs.
    permits: RefCell<Permits>,
    /// Wakers of one poll. Kept, so that a poll allocates no memory.
    wakers: RefCell<Vec<Waker>>,
}

impl<Q: ReactorQueue> Clone for Reactor<Q> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<Q: ReactorQueue> Reactor<Q> {
    /// Makes futures of the requests of `queue`, in which no request is in flight.
    ///
    /// See the [example](Self#examples).
    pub fn new(queue: Q) -> Self {
        Self::with_waiting(queue, WAITING_MAX)
    }

    /// Creates a queue as [`new`](Self::new) does, with room for `waiting` futures that wait.
    ///
    /// See the [example](Self#examples).
    pub fn with_waiting(queue: Q, waiting: usize) -> Self {
        let capacity = queue.capacity();
        Self(Rc::new(Inner {
            queue: RefCell::new(queue),
            table: RefCell::new(Table::new(capacity)),
            permits: RefCell::new(Permits::new(capacity, waiting)),
            wakers: RefCell::default(),
        }))
    }

    /// Returns the number of requests in flight, including those whose futures were dropped.
    ///
    /// See the [example](Self#examples).
    pub fn in_flight(&self) -> usize {
        self.table().in_flight()
    }

    /// Calls `f` with the queue. `None` if the queue is in use, because the caller is a function
    /// that submits a request. `f` must not submit requests or process completions.
    ///
    /// See the [example](Self#examples).
    pub fn with_queue<R>(&self, f: impl FnOnce(&mut Q) -> R) -> Option<R> {
        self.queue().map(|mut queue| f(&mut queue))
    }

    /// Rings the doorbell, processes completions, wakes their futures, and returns the number of
    /// completions. Does not wait.
    ///
    /// See the [example](Self#examples).
    ///
    /// See the [example](Reactor#examples).
    pub fn poll(&self) -> usize {
        self.process(|queue, done| queue.poll(done))
    }

    /// Polls as [`poll`](Self::poll) does, but waits until a request ends; 0 if nothing is in
    /// flight. For an executor without other work. The wait polls, or, with
    /// [`Wait::Interrupt`](crate::Wait::Interrupt), polls for a while and then sleeps.
    ///
    /// See the [example](Self#examples).
    ///
    /// See the [example](Reactor#examples).
    ///
    /// # Errors
    /// The error of the device.
    pub fn wait(&self) -> Result<usize, Q::Error> {
        let mut result = Ok(());
        let count = self.process(|queue, done| match queue.wait(done) {
            Ok(count) => count,
            Err(error) => {
                result = Err(error);
                0
            }
        });
        result.map(|()| count)
    }

    /// Returns the eventfd that becomes readable with a completion, for an event loop. `None`
    /// without [`Wait::Interrupt`](crate::Wait::Interrupt).
    ///
    /// Before each wait for the eventfd, call [`prepare_to_sleep`](Self::prepare_to_sleep); after
    /// it, call [`poll`](Self::poll). Do not wait for more than 100 ms while requests are in
    /// flight, because polls detect a controller that has failed.
    ///
    /// See the [example](Self#examples).
    ///
    /// See the [example](Reactor#examples).
    pub fn event_fd(&self) -> Option<OwnedFd> {
        self.with_queue(|queue| queue.event_fd()?.try_clone_to_owned().ok()).flatten()
    }

    /// Rings the doorbell, and returns true if an event loop may sleep until
    /// [`event_fd`](Self::event_fd) is readable.
    ///
    /// See the [example](Self#examples).
    ///
    /// See the [example](Reactor#examples).
    pub fn prepare_to_sleep(&self) -> bool {
        self.with_queue(ReactorQueue::prepare_to_sleep).unwrap_or(false)
    }

    /// Processes the completions that `poll` finds, and wakes their futures.
    fn process(
        &self,
        poll: impl FnOnce(&mut Q, &mut dyn FnMut(u64, Q::Completion)) -> usize,
    ) -> usize {
        // A function that submits a request finds no completions.
        let Some(mut queue) = self.queue() else { return 0 };
        let mut wakers = self.0.wakers.take();
        let count = poll(&mut queue, &mut |token, completion| {
            let outcome = self.table().complete(token, completion);
            match outcome {
                Outcome::Wake(waker) => wakers.extend(waker),
                Outcome::Orphan(_) => wakers.extend(self.permits().release()),
                Outcome::Unknown(_) => log::warn!("a request ended that no future submitted"),
            }
        });
        self.table().wake_stalled(&mut wakers);
        drop(queue);
        // Wakers run any code, so that nothing is borrowed here.
        wakers.drain(..).for_each(Waker::wake);
        self.0.wakers.replace(wakers);
        count
    }

    /// Runs `future`, and polls the queue whenever the future is pending. For a task of an executor
    /// that cannot poll the queue between its rounds. The task is always ready to run.
    ///
    /// See the [example](Self#examples).
    pub async fn drive<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        std::future::poll_fn(|context| {
            let polled = future.as_mut().poll(context);
            if polled.is_pending() {
                self.poll();
                context.waker().wake_by_ref();
            }
            polled
        })
        .await
    }

    /// Runs `future` to its end on this thread, and polls the queue meanwhile.
    ///
    /// See the [example](Self#examples).
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(self.drive(future));
        let mut context = Context::from_waker(Waker::noop());
        let mut idle = 0;
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return output;
            }
            idle += 1;
            match idle {
                POLLS_PER_YIELD => {
                    idle = 0;
                    std::thread::yield_now();
                }
                _ => std::hint::spin_loop(),
            }
        }
    }

    pub(super) fn table(&self) -> RefMut<'_, Table<Q::Completion>> {
        self.0.table.borrow_mut()
    }

    pub(super) fn permits(&self) -> RefMut<'_, Permits> {
        self.0.permits.borrow_mut()
    }

    /// Releases a permit, and wakes the future that receives it.
    pub(super) fn release_permit(&self) {
        let next = self.permits().release();
        next.into_iter().for_each(Waker::wake);
    }

    /// The error of a request that finds no room.
    pub(super) fn busy(&self) -> Q::Error {
        Q::busy(self.permits().places())
    }

    pub(super) fn queue(&self) -> Option<RefMut<'_, Q>> {
        self.0.queue.try_borrow_mut().ok()
    }
}
