//! The lock of the log. Threads that wait for it leave as soon as another one has committed their changes.

use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};

use crate::error::Error;
use crate::journal::log::Log;
use crate::journal::state::State;

/// A log that one thread at a time writes to.
///
/// A thread that waited for a plain mutex would get it only after those that came later: it would not
/// return although its changes are durable, and would make no new ones for the next commit.
pub(super) struct LogLock {
    log: Mutex<Log>,
    released: Condvar,
}

/// The log, until this is dropped.
pub(super) struct LogGuard<'l> {
    // The log is unlocked before others are woken, because fields are dropped in order.
    log: MutexGuard<'l, Log>,
    _wake: Wake<'l>,
}

/// Wakes the threads that wait for the log when this is dropped.
struct Wake<'l> {
    lock: &'l LogLock,
    state: &'l Mutex<State>,
}

impl LogLock {
    pub(super) fn new(log: Log) -> Self {
        Self { log: Mutex::new(log), released: Condvar::new() }
    }

    /// Waits for the log, or until `is_done` returns true or an error. Returns none in that case.
    pub(super) fn lock<'l>(
        &'l self,
        state: &'l Mutex<State>,
        mut is_done: impl FnMut(&State) -> Result<bool, Error>,
    ) -> Result<Option<LogGuard<'l>>, Error> {
        let mut held = state.lock().unwrap_or_else(PoisonError::into_inner);
        while !is_done(&held)? {
            let log = match self.log.try_lock() {
                Ok(log) => log,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => {
                    let woken = self.released.wait(held);
                    held = woken.unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
            };
            return Ok(Some(LogGuard { log, _wake: Wake { lock: self, state } }));
        }
        Ok(None)
    }
}

impl Drop for Wake<'_> {
    fn drop(&mut self) {
        // A thread that has found the log locked holds the state until it waits.
        drop(self.state.lock());
        self.lock.released.notify_all();
    }
}

impl Deref for LogGuard<'_> {
    type Target = Log;

    fn deref(&self) -> &Log {
        &self.log
    }
}

impl DerefMut for LogGuard<'_> {
    fn deref_mut(&mut self) -> &mut Log {
        &mut self.log
    }
}
