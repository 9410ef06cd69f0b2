//! The queues that the blocking calls of a volume share.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use nvio_driver::Error as DriverError;
use nvio_iomap::Error as IomapError;

use crate::error::Error;

/// Most queues of a pool. Further threads wait until a queue is returned.
const QUEUES_MAX: usize = 16;

/// A pool of queues, each used by one blocking call at a time.
pub(crate) struct Pool<Q> {
    state: Mutex<State<Q>>,
    changed: Condvar,
}

struct State<Q> {
    /// Boxed, because a queue is large, and each call moves one out and in.
    idle: Vec<Box<Q>>,
    /// Queues that exist or are being created, idle ones included.
    count: usize,
    /// Threads that wait for a queue. A signal for none would be a system call all the same.
    waiting: usize,
}

impl<Q> Pool<Q> {
    pub(crate) fn new() -> Self {
        let state = State { idle: Vec::with_capacity(QUEUES_MAX), count: 0, waiting: 0 };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Calls `f` with an idle queue, with one that `create` returns, or, if there can be no more,
    /// with the next queue that another thread returns.
    pub(crate) fn with<R>(
        &self,
        create: impl Fn() -> Result<Q, Error>,
        f: impl FnOnce(&mut Q) -> R,
    ) -> Result<R, Error> {
        let mut queue = self.take(create)?;
        let lost = Lost(self);
        let result = f(&mut queue);
        std::mem::forget(lost);
        let mut state = self.state();
        state.idle.push(queue);
        if state.waiting > 0 {
            self.changed.notify_one();
        }
        drop(state);
        Ok(result)
    }

    fn take(&self, create: impl Fn() -> Result<Q, Error>) -> Result<Box<Q>, Error> {
        let mut is_exhausted = false;
        let mut state = self.state();
        loop {
            if let Some(queue) = state.idle.pop() {
                return Ok(queue);
            }
            let is_full = state.count >= QUEUES_MAX || is_exhausted && state.count > 0;
            if is_full {
                state.waiting += 1;
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.waiting -= 1;
                continue;
            }
            state.count += 1;
            drop(state);
            let error = match create() {
                Ok(queue) => return Ok(Box::new(queue)),
                Err(error) => error,
            };
            state = self.forget_one();
            is_exhausted = has_no_room(&error);
            if state.count == 0 || !is_exhausted {
                return Err(error);
            }
        }
    }

    /// Decrements the number of queues, and wakes waiting threads so that one of them creates a
    /// queue.
    fn forget_one(&self) -> MutexGuard<'_, State<Q>> {
        let mut state = self.state();
        state.count -= 1;
        self.changed.notify_all();
        state
    }

    fn state(&self) -> MutexGuard<'_, State<Q>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes a queue from the count if a panic has dropped it.
struct Lost<'a, Q>(&'a Pool<Q>);

impl<Q> Drop for Lost<'_, Q> {
    fn drop(&mut self) {
        drop(self.0.forget_one());
    }
}

/// Returns true if the controller or its arena has no room for another queue.
fn has_no_room(error: &Error) -> bool {
    let error = match error {
        Error::Driver(error) | Error::Iomap(IomapError::Driver(error)) => error,
        _ => return false,
    };
    matches!(error, DriverError::NoQueue { .. } | DriverError::ArenaFull { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_queue_is_used_again() {
        let (pool, created) = (Pool::new(), Cell::new(0));
        let create = || {
            created.set(created.get() + 1);
            Ok(created.get())
        };
        assert_eq!(pool.with(create, |queue| *queue).unwrap(), 1);
        assert_eq!(pool.with(create, |queue| *queue).unwrap(), 1);
        let nested = pool.with(create, |_| pool.with(create, |queue| *queue).unwrap());
        assert_eq!((nested.unwrap(), created.get()), (2, 2));
    }

    #[test]
    fn a_panic_leaves_room_for_another_queue() {
        let pool = Pool::new();
        for _ in 0..=QUEUES_MAX {
            let panics = || pool.with(|| Ok(()), |()| panic!("test"));
            assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        }
        pool.with(|| Ok(()), |()| ()).unwrap();
    }

    #[test]
    fn threads_wait_if_the_controller_has_no_more_queues() {
        let (pool, created, calls) = (Pool::new(), AtomicUsize::new(0), AtomicUsize::new(0));
        let create = || match created.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => Ok(()),
            _ => Err(DriverError::NoQueue { granted: 2 }.into()),
        };
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let used = pool.with(create, |()| std::thread::yield_now());
                        used.unwrap();
                        calls.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(calls.into_inner(), 800);
        let none = Pool::new();
        let refused = || Err::<(), _>(DriverError::NoQueue { granted: 0 }.into());
        assert!(none.with(refused, |()| ()).is_err());
    }
}
