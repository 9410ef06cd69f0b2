//! Waiting for completions: by polling, or asleep until an interrupt.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::pair::{Completion, POLLS_PER_CHECK, QueuePair};
use crate::Result;
use crate::interrupts::{Event, Vector};

/// Polls between two looks at the clock.
const POLLS: u32 = 64;
/// How long a signal may come after the completion that it is for.
const LATE_SIGNAL: Duration = Duration::from_millis(10);

/// What a queue pair sleeps with.
pub(crate) struct Sleeper {
    vector: Vector,
    /// How long to poll before each sleep.
    spin: Duration,
    sleeps: u64,
    missed: u64,
}

impl Sleeper {
    pub(crate) fn new(vector: Vector, spin: Duration) -> Self {
        Self { vector, spin, sleeps: 0, missed: 0 }
    }

    /// The vector that a completion queue is to be created with.
    pub(crate) fn vector(sleeper: &Option<Self>) -> Option<u16> {
        sleeper.as_ref().and_then(|sleeper| sleeper.vector.number())
    }

    /// Sleeps, and interrupts missed.
    pub(super) fn counters(sleeper: &Option<Self>) -> (u64, u64) {
        sleeper.as_ref().map_or((0, 0), |sleeper| (sleeper.sleeps, sleeper.missed))
    }
}

impl<T> QueuePair<T> {
    /// Waits until there is a completion, hands all there are to `done`, and tells how many there
    /// were; 0 when nothing is in flight. Rings the doorbell first.
    ///
    /// Polls, or, with [`Wait::Interrupt`](crate::Wait::Interrupt), polls for a while and then
    /// sleeps, and looks after the commands in flight all the same, as [`check`](Self::check) does.
    ///
    /// # Errors
    /// None as yet: each command in flight ends, if need be by a reset of the controller.
    pub fn wait(&mut self, mut done: impl FnMut(Completion<T>)) -> Result<usize> {
        self.ring();
        match self.event() {
            Some(_) => Ok(self.wait_asleep(&mut done)),
            None => Ok(self.wait_polling(&mut done)),
        }
    }

    fn wait_polling(&mut self, done: &mut dyn FnMut(Completion<T>)) -> usize {
        while self.in_flight() > 0 {
            match self.poll_times(4 * POLLS_PER_CHECK, done) {
                0 => std::thread::yield_now(),
                taken => return taken,
            }
        }
        0
    }

    fn wait_asleep(&mut self, done: &mut dyn FnMut(Completion<T>)) -> usize {
        let spin = self.sleeper.as_ref().map_or(Duration::ZERO, |sleeper| sleeper.spin);
        let mut sleep_at = self.controller.now() + spin;
        while self.in_flight() > 0 {
            let taken = match self.poll_times(POLLS, done) {
                0 if self.controller.now() >= sleep_at => {
                    let taken = self.sleep(done);
                    // Who was woken for nothing may be needed soon.
                    sleep_at = self.controller.now() + spin;
                    taken
                }
                taken => taken,
            };
            if taken > 0 {
                return taken;
            }
        }
        0
    }

    /// Polls until there is something, but so many times at most.
    fn poll_times(&mut self, times: u32, done: &mut dyn FnMut(Completion<T>)) -> usize {
        for _ in 0..times {
            match self.poll(usize::MAX, &mut *done) {
                0 => std::hint::spin_loop(),
                taken => return taken,
            }
        }
        0
    }

    /// Sleeps until an interrupt, but not beyond the time to look after the commands in flight;
    /// gives what ended by the latter.
    fn sleep(&mut self, done: &mut dyn FnMut(Completion<T>)) -> usize {
        if !self.prepare_to_sleep() {
            return 0;
        }
        let most = Duration::from_millis(u64::from(self.check_interval_ms()));
        let Some(event) = self.event() else { return 0 };
        if event.wait(most) {
            self.count_sleep(false);
            return 0;
        }
        let missed = self.is_ready() && !event.wait(LATE_SIGNAL);
        self.count_sleep(missed);
        self.check(done)
    }

    fn count_sleep(&mut self, missed: bool) {
        let id = self.id();
        let Some(sleeper) = &mut self.sleeper else { return };
        sleeper.sleeps += 1;
        if missed {
            if sleeper.missed == 0 {
                log::warn!("queue pair {id} misses interrupts");
            }
            sleeper.missed += 1;
        }
    }

    fn event(&self) -> Option<&Event> {
        self.sleeper.as_ref().and_then(|sleeper| sleeper.vector.event())
    }

    /// The eventfd that becomes readable with a completion, for an event loop: with
    /// [`Wait::Interrupt`](crate::Wait::Interrupt), if there is a vector for this pair. It is to be
    /// waited for only after [`prepare_to_sleep`](Self::prepare_to_sleep), and not to be read.
    ///
    /// Ask again after a reset of the controller, which may leave fewer vectors.
    pub fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.event().map(Event::as_fd)
    }

    /// Whether the caller may now sleep until [`event_fd`](Self::event_fd) is readable: what is
    /// posted from here on makes it so. Else there is something to [`poll`](Self::poll) or to
    /// [`check`](Self::check) now, or there is no eventfd. Rings the doorbell.
    ///
    /// No sleep is to be longer than 100 ms while commands are in flight, with a call of `check`
    /// afterwards: nothing else notices a controller that is gone, or a command that is overdue.
    pub fn prepare_to_sleep(&mut self) -> bool {
        self.ring();
        let Some(event) = self.event() else { return false };
        // First this, then a look at the ring: what is posted after the look signals again, and
        // what was posted before is seen by it.
        event.clear();
        !self.is_ready() && self.is_current()
    }
}
