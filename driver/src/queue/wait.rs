//! Waiting for completions: by polling, or asleep until an interrupt.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::completion::Completion;
use super::pair::{POLLS_PER_CHECK, QueuePair};
use crate::error::Result;
use crate::interrupts::EventFd;

/// Polls between two looks at the clock.
const POLLS_PER_CLOCK: u32 = 64;
/// Calls of a device of this process for one completion.
const RUNS_MAX: u32 = 64;
/// Longest delay of an interrupt after its completion.
const INTERRUPT_DELAY_MAX: Duration = Duration::from_millis(10);

impl<T> QueuePair<T> {
    /// Rings the doorbell, waits until a completion is posted, passes all completions to `done`,
    /// and returns their number; 0 if nothing is in flight.
    ///
    /// Polls. With [`Wait::Interrupt`](crate::Wait::Interrupt), polls for a while and then sleeps.
    /// The health check of [`check`](Self::check) runs meanwhile.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// None at present, because every command in flight ends, if necessary by a reset of the
    /// controller.
    pub fn wait(&mut self, mut done: impl FnMut(Completion<T>)) -> Result<usize> {
        self.core.sq.ring_all();
        match self.run_device(&mut done) {
            0 => {}
            count => return Ok(count),
        }
        match self.sleeper.event() {
            Some(_) => Ok(self.wait_asleep(&mut done)),
            None => Ok(self.wait_polling(&mut done)),
        }
    }

    /// Lets a device of this process work in this thread, and returns the number of completions. A
    /// caller with several commands in flight leaves them to the device's own thread, which works
    /// beside it.
    fn run_device(&mut self, done: &mut dyn FnMut(Completion<T>)) -> usize {
        let mut runs = 0;
        while self.in_flight() == 1 && runs < RUNS_MAX && self.controller.run_device() {
            match self.poll(usize::MAX, &mut *done) {
                0 => runs += 1,
                count => return count,
            }
        }
        0
    }

    fn wait_polling(&mut self, done: &mut dyn FnMut(Completion<T>)) -> usize {
        while self.in_flight() > 0 {
            match self.poll_times(4 * POLLS_PER_CHECK, done) {
                0 => std::thread::yield_now(),
                count => return count,
            }
        }
        0
    }

    fn wait_asleep(&mut self, done: &mut dyn FnMut(Completion<T>)) -> usize {
        let spin = self.sleeper.spin;
        let mut sleep_at = self.controller.now() + spin;
        while self.in_flight() > 0 {
            let count = match self.poll_times(POLLS_PER_CLOCK, done) {
                0 if self.controller.now() >= sleep_at => {
                    let count = self.sleep(done);
                    // After a wakeup without a completion, poll again before the next sleep.
                    sleep_at = self.controller.now() + spin;
                    count
                }
                count => count,
            };
            if count > 0 {
                return count;
            }
        }
        0
    }

    /// Polls at most `times` times, until a poll finds completions.
    fn poll_times(&mut self, times: u32, done: &mut dyn FnMut(Completion<T>)) -> usize {
        for _ in 0..times {
            match self.poll(usize::MAX, &mut *done) {
                0 => std::hint::spin_loop(),
                count => return count,
            }
        }
        0
    }

    /// Sleeps until an interrupt or until the next health check, and returns the number of commands
    /// that the health check ended.
    fn sleep(&mut self, done: &mut dyn FnMut(Completion<T>)) -> usize {
        if !self.prepare_to_sleep() {
            return 0;
        }
        let longest = Duration::from_millis(u64::from(self.check_interval_ms()));
        let Some(event) = self.sleeper.event() else { return 0 };
        let woken = event.wait(longest);
        let missed = !woken && self.is_ready() && !event.wait(INTERRUPT_DELAY_MAX);
        self.sleeper.count_sleep(self.id(), missed);
        if woken { 0 } else { self.check(done) }
    }

    /// Returns the eventfd that becomes readable with a completion, for an event loop. `None`
    /// without [`Wait::Interrupt`](crate::Wait::Interrupt), and if no interrupt vector is left for
    /// this pair.
    ///
    /// Call [`prepare_to_sleep`](Self::prepare_to_sleep) before each wait for the eventfd, and do
    /// not read it. Call this function again after a reset of the controller, which may leave
    /// fewer vectors.
    ///
    /// See the [example](Self#examples).
    pub fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.sleeper.event().map(EventFd::as_fd)
    }

    /// Rings the doorbell, and returns true if the caller may sleep until
    /// [`event_fd`](Self::event_fd) is readable: every completion from now on makes it readable.
    /// Otherwise a completion is ready for [`poll`](Self::poll), a reset is due in
    /// [`check`](Self::check), or there is no eventfd.
    ///
    /// Sleep for at most 100 ms while commands are in flight, and call `poll` afterwards. A poll
    /// that finds nothing then runs the health check, because nothing else notices a controller
    /// that is gone, or a command that is overdue.
    ///
    /// See the [example](Self#examples).
    pub fn prepare_to_sleep(&mut self) -> bool {
        self.core.ring_all();
        let Some(event) = self.sleeper.event() else { return false };
        // In this order: a completion that is posted after the look at the ring signals the eventfd
        // again, and the look finds earlier completions.
        event.clear();
        self.check_within(1);
        !self.is_ready() && self.is_current()
    }
}
