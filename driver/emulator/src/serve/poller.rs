//! The polling thread: it runs the controller, and rests while there is no work.
//!
//! A client rings a doorbell with a store to shared memory, which cannot wake a thread. So the
//! thread has to look, and the question is how it spends the time between two looks:
//!
//! 1. It spins for a few microseconds, the time in which a busy client submits its next command.
//! 2. For 2 ms it yields between two looks. On a quiet machine a yield returns at once, and the
//!    next command is found without a delay. If a yield takes long, another thread wants the core,
//!    and had it for a slice of the scheduler, which is milliseconds. For the next 100 ms the
//!    thread then spins for 50 microseconds instead, and after that sleeps for intervals that
//!    double from 1 to 50 microseconds: a thread that sleeps briefly keeps its claim on the core
//!    and is scheduled soon, and a thread that spins uses the slice it has. Then one yield tests
//!    whether the core is still wanted, at the price of a slice in 100 ms.
//! 3. After 2 ms without work it sleeps 50 microseconds at a time, after 100 ms 100 microseconds.
//! 4. While no client has an enabled controller, it waits until a message wakes it.
//! 5. A client of this process may execute its commands itself ([`Helper`](super::helper::Helper)).
//!    While clients execute more of them than the thread does, it counts its own as no work, so that
//!    it takes no core from the clients.
//!
//! The example `contended` measures it. On two cores, with the client on the one and the emulator
//! on the other, in thousands of 4 KiB reads a second at depth 1 and 32:
//!
//! | busy loops in other processes | only yielding | as above |
//! |---|---|---|
//! | none, on a machine that compiles | 342, 1749 | 1799, 2731 |
//! | one, on the emulator's core | 547, 1515 | 987, 2564 |
//! | one on each core | 592, 1488 | 685, 1744 |
//! | two, and no thread bound to a core (median of 3) | 45, 6 | 204, 770 |

use std::time::{Duration, Instant};

use crate::serve::shared::{Look, Shared};

/// Commands processed before the lock is released.
pub(crate) const BUDGET: usize = 128;
/// Passes without work during which the thread spins, and reads no clock.
const SPINS: u32 = 256;
/// Time without work after which the thread sleeps.
const YIELD: Duration = Duration::from_millis(2);
/// Duration of a yield from which on another thread had the core.
const SLOW_YIELD: Duration = Duration::from_micros(200);
/// Time for which a slow yield keeps the thread from yielding.
const CONTENDED: Duration = Duration::from_millis(100);
/// Time without work during which the thread spins instead of yielding.
const CONTENDED_SPIN: Duration = Duration::from_micros(50);
/// First sleep after that; later ones double up to [`SLEEP`].
const FIRST_SLEEP: Duration = Duration::from_micros(1);
/// Longest delay of a command to an idle controller, without the kernel's timer slack. The second
/// applies after [`LONG_IDLE`].
const SLEEP: Duration = Duration::from_micros(50);
const LONG_SLEEP: Duration = Duration::from_micros(100);
/// Time before a command is due at which the thread stops sleeping: the longest usual sleep.
const NOT_SLEEPING: Duration = Duration::from_micros(300);
/// Time without work after which the sleeps are longer.
const LONG_IDLE: Duration = Duration::from_millis(100);

/// Polls until [`Shared::stop`].
pub(crate) fn poll(shared: &Shared) {
    let mut idle = Idle::default();
    loop {
        let (done, due) = match shared.look() {
            Look::End => return,
            Look::Busy => (0, None),
            Look::Device(mut device) => (device.process(BUDGET), device.controller.until_due()),
        };
        if done > shared.take_helped() {
            idle.end();
        } else {
            idle.rest(due);
        }
    }
}

/// The time since the last work, and what the yields have shown.
#[derive(Debug, Default)]
struct Idle {
    passes: u32,
    since: Option<Instant>,
    /// Sleeps of this idle time.
    sleeps: u32,
    /// Time until which the thread does not yield, because another thread wants the core.
    contended_until: Option<Instant>,
}

impl Idle {
    /// Ends the idle time: there was work.
    fn end(&mut self) {
        (self.passes, self.since, self.sleeps) = (0, None, 0);
    }

    /// Rests until the next look, but not beyond the time when a command is `due`.
    fn rest(&mut self, due: Option<Duration>) {
        self.passes = self.passes.saturating_add(1);
        if self.passes <= SPINS {
            return std::hint::spin_loop();
        }
        let now = Instant::now();
        let idle = now - *self.since.get_or_insert(now);
        let soon = due.is_some_and(|due| due < NOT_SLEEPING);
        let contended = self.contended_until.is_some_and(|until| now < until);
        match idle {
            _ if contended && (soon || idle < CONTENDED_SPIN) => std::hint::spin_loop(),
            _ if contended && idle < YIELD => self.sleep_briefly(),
            _ if soon || idle < YIELD => self.yield_core(now),
            _ if idle < LONG_IDLE => std::thread::sleep(SLEEP),
            _ => std::thread::sleep(LONG_SLEEP),
        }
    }

    fn sleep_briefly(&mut self) {
        let time = FIRST_SLEEP.saturating_mul(1 << self.sleeps.min(16));
        self.sleeps += 1;
        std::thread::sleep(time.min(SLEEP));
    }

    fn yield_core(&mut self, now: Instant) {
        std::thread::yield_now();
        if now.elapsed() > SLOW_YIELD {
            self.contended_until = Some(now + CONTENDED);
        }
    }
}
