//! The turns of the threads that answer calls.
//!
//! The kernel gives a call to the thread that has waited for one the longest. With one program that
//! calls, each call would so wake another thread, whose caches and core are cold: that halves the rate.
//! So a thread that has answered a call waits for the next one only if no other does. Otherwise the thread
//! is parked until calls pile up.
//!
//! One of the parked threads watches. A call may take long, and while the last thread answers it, nobody
//! would wait for calls: the watcher then does. While there are no calls, it sleeps until one comes, or
//! until the filesystem is unmounted, with which all threads end.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Calls between two looks of a thread whether calls pile up.
const CALLS_PER_LOOK: u64 = 4;
/// Time between two looks of the watcher.
const WATCH: Duration = Duration::from_millis(20);

/// The turns of the threads of a session.
pub(crate) struct Turns {
    /// Threads that wait for a call, or are about to.
    readers: AtomicUsize,
    /// Calls that have begun.
    begun: AtomicU64,
    parked: Mutex<Parked>,
    /// Wakes a parked thread that does not watch.
    wake: Condvar,
    /// Wakes the one that does.
    wake_watcher: Condvar,
    /// The connection to the kernel. Without it no thread is parked.
    connection: OnceLock<OwnedFd>,
}

#[derive(Default)]
struct Parked {
    /// Parked threads, the watcher included.
    count: usize,
    /// How many of them shall wait for calls.
    wanted: usize,
    is_watched: bool,
    /// The filesystem was unmounted.
    ended: bool,
}

/// A call that is being answered.
pub(crate) struct Turn<'a>(&'a Turns);

impl Turns {
    /// Creates the turns of `threads`, which all wait for calls.
    pub(crate) fn new(threads: usize) -> Self {
        Self {
            readers: AtomicUsize::new(threads),
            begun: AtomicU64::new(0),
            parked: Mutex::default(),
            wake: Condvar::new(),
            wake_watcher: Condvar::new(),
            connection: OnceLock::new(),
        }
    }

    /// Parks threads from now on.
    pub(crate) fn start(&self, connection: OwnedFd) {
        let _ = self.connection.set(connection);
    }

    /// Begins a call. After its reply the turn is dropped, which may park the thread.
    pub(crate) fn begin(&self) -> Turn<'_> {
        self.readers.fetch_sub(1, Ordering::Relaxed);
        let call = self.begun.fetch_add(1, Ordering::Relaxed);
        // A program that waits for this call has no other one pending.
        if call.is_multiple_of(CALLS_PER_LOOK)
            && let Some(connection) = self.connection.get()
            && look(connection.as_fd(), Some(Duration::ZERO)).contains(PollFlags::IN)
        {
            self.unpark();
        }
        Turn(self)
    }

    fn end(&self) {
        if let Some(connection) = self.connection.get()
            && self.readers.load(Ordering::Relaxed) > 0
        {
            self.park(connection.as_fd());
        }
        self.readers.fetch_add(1, Ordering::Relaxed);
    }

    /// Lets one more thread wait for calls.
    fn unpark(&self) {
        let mut parked = self.parked();
        if parked.wanted < parked.count {
            parked.wanted += 1;
            // The watcher comes last.
            match parked.count - usize::from(parked.is_watched) >= parked.wanted {
                true => self.wake.notify_one(),
                false => self.wake_watcher.notify_one(),
            }
        }
    }

    fn park(&self, connection: BorrowedFd<'_>) {
        let mut parked = self.parked();
        parked.count += 1;
        let mut watches = false;
        while !parked.ended && parked.wanted == 0 {
            if watches || !parked.is_watched {
                (watches, parked.is_watched) = (true, true);
                let is_needed;
                (parked, is_needed) = self.watch(parked, connection);
                if is_needed {
                    parked.wanted += 1;
                }
            } else {
                parked = self.wake.wait(parked).unwrap_or_else(PoisonError::into_inner);
            }
        }
        parked.count -= 1;
        parked.wanted = parked.wanted.saturating_sub(1);
        if watches {
            parked.is_watched = false;
            // Another one watches.
            self.wake.notify_one();
        }
    }

    /// Watches for a while, and returns true if nobody waits for calls.
    fn watch<'a>(
        &'a self,
        parked: MutexGuard<'a, Parked>,
        connection: BorrowedFd<'_>,
    ) -> (MutexGuard<'a, Parked>, bool) {
        let before = self.begun.load(Ordering::Relaxed);
        let (parked, timeout) =
            self.wake_watcher.wait_timeout(parked, WATCH).unwrap_or_else(PoisonError::into_inner);
        if !timeout.timed_out() || before != self.begun.load(Ordering::Relaxed) {
            return (parked, false);
        }
        // Calls that are no turns leave a thread counted that does not wait.
        let waits = look(connection, Some(Duration::ZERO)).contains(PollFlags::IN);
        if waits || self.readers.load(Ordering::Relaxed) == 0 {
            return (parked, true);
        }
        drop(parked);
        let seen = look(connection, None);
        let mut parked = self.parked();
        if seen.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL) {
            parked.ended = true;
            self.wake.notify_all();
        }
        (parked, false)
    }

    fn parked(&self) -> MutexGuard<'_, Parked> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Waits until the kernel has a call or has closed the connection, and returns which.
fn look(connection: BorrowedFd<'_>, within: Option<Duration>) -> PollFlags {
    let mut fds = [PollFd::new(&connection, PollFlags::IN)];
    let within = within.map(|within| Timespec {
        tv_sec: i64::try_from(within.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: within.subsec_nanos().into(),
    });
    match poll(&mut fds, within.as_ref()) {
        Ok(_) => fds[0].revents(),
        Err(_) => PollFlags::empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::pipe;
    use std::sync::Arc;
    use std::thread;

    /// Waits for what another thread does. The limit ends a test that hangs.
    fn until(condition: impl Fn() -> bool) {
        for _ in 0..30_000 {
            if condition() {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
        panic!("it does not come");
    }

    /// Turns of some threads, and the other end of their connection.
    fn turns(threads: usize) -> (Arc<Turns>, OwnedFd) {
        let (connection, other_end) = pipe().unwrap();
        let turns = Arc::new(Turns::new(threads));
        turns.start(connection);
        (turns, other_end)
    }

    /// Answers a call in a thread of its own, which returns when it waits for the next.
    fn answer(turns: &Arc<Turns>) -> thread::JoinHandle<()> {
        let turns = Arc::clone(turns);
        thread::spawn(move || drop(turns.begin()))
    }

    fn parked(turns: &Turns) -> usize {
        turns.parked().count
    }

    #[test]
    fn one_thread_waits_for_calls_and_the_others_are_parked() {
        let (turns, other_end) = turns(3);
        let surplus: Vec<_> = (0..2).map(|_| answer(&turns)).collect();
        until(|| parked(&turns) == 2);
        // The last one is not parked.
        drop(turns.begin());
        assert_eq!((parked(&turns), turns.readers.load(Ordering::Relaxed)), (2, 1));
        // All return at the end of the connection.
        drop(other_end);
        surplus.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!((parked(&turns), turns.readers.load(Ordering::Relaxed)), (0, 3));
    }

    #[test]
    fn the_watcher_waits_for_calls_while_the_last_thread_answers_one() {
        let (turns, _other_end) = turns(2);
        let watcher = answer(&turns);
        until(|| parked(&turns) == 1);
        let long = turns.begin();
        watcher.join().unwrap();
        assert_eq!(turns.readers.load(Ordering::Relaxed), 1);
        // Then there is one too many, which is parked until the test ends with its process.
        assert_eq!(parked(&turns), 0);
        std::mem::forget(long);
    }

    #[test]
    fn calls_that_pile_up_are_answered_by_more_threads() {
        let (turns, other_end) = turns(3);
        let surplus: Vec<_> = (0..2).map(|_| answer(&turns)).collect();
        until(|| parked(&turns) == 2);
        rustix::io::write(&other_end, b"a call").unwrap();
        for _ in 0..2 * CALLS_PER_LOOK {
            std::mem::forget(turns.begin());
            turns.readers.fetch_add(1, Ordering::Relaxed);
        }
        surplus.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(turns.readers.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn nothing_is_parked_without_a_connection() {
        let turns = Arc::new(Turns::new(8));
        (0..8).for_each(|_| answer(&turns).join().unwrap());
        assert_eq!(turns.readers.load(Ordering::Relaxed), 8);
    }
}
