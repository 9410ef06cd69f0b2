//! The thread that keeps the multi-mount protection block of a filesystem that is changed.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::error::Error;
use crate::journal::Journal;
use crate::mount::protection::Protection;

/// The thread that writes the block in each interval. It ends on drop.
pub(crate) struct Keeper {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts the thread. If another host takes the block, nothing can be changed any more.
    pub(crate) fn start(
        protection: Arc<Protection>,
        journal: Weak<Journal>,
    ) -> Result<Self, Error> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let stopped = Arc::clone(&stop);
        let keep = move || {
            while !wait_for_stop(&stopped, protection.interval()) {
                keep(&protection, &journal);
            }
        };
        let thread = thread::Builder::new().name("nvio-mmp".into()).spawn(keep);
        let failed = |error: io::Error| Error::Source { offset: 0, length: 0, error: error.into() };
        let thread = thread.map_err(failed)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

fn keep(protection: &Protection, journal: &Weak<Journal>) {
    if protection.lost().is_some() {
        return;
    }
    match protection.renew() {
        Ok(()) => {}
        Err(Error::InUse(holder)) => {
            log::error!("{}", Error::InUse(holder.clone()));
            if let Some(journal) = journal.upgrade() {
                journal.lose(holder);
            }
        }
        Err(error) => log::warn!("the multi-mount protection block is not renewed: {error}"),
    }
}

/// Waits for a time, and returns true as soon as the thread shall end.
fn wait_for_stop((stop, changed): &(Mutex<bool>, Condvar), time: Duration) -> bool {
    let stop = stop.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = changed.wait_timeout_while(stop, time, |stop| !*stop);
    *waited.unwrap_or_else(PoisonError::into_inner).0
}

impl Drop for Keeper {
    fn drop(&mut self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread of multi-mount protection has panicked");
        }
    }
}
