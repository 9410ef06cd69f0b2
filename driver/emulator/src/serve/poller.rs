//! The polling thread: it lets the controller work, and rests when there is nothing to do.

use std::time::{Duration, Instant};

use crate::serve::shared::Shared;

/// Commands handled before the lock is given up.
const BUDGET: usize = 128;
/// Passes without work during which the thread spins, and looks at no clock.
const SPINS: u32 = 256;
/// Time without work during which the thread yields to others; after that it sleeps.
const YIELD: Duration = Duration::from_millis(2);
/// One sleep: how long a command may have to wait for an idle controller, before what the
/// kernel's timer adds. The second is for one that has been idle for long.
const SLEEP: Duration = Duration::from_micros(50);
const LONG_SLEEP: Duration = Duration::from_micros(100);
/// How long before a command is due the thread stops sleeping: what a sleep may take.
const NOT_SLEEPING: Duration = Duration::from_micros(300);
/// When to sleep longer.
const LONG_IDLE: Duration = Duration::from_millis(100);

/// Polls until [`Shared::stop`]. While no client has an enabled controller, the thread sleeps and
/// is woken by a message.
pub(crate) fn poll(shared: &Shared) {
    let mut idle = Idle::default();
    while let Some(mut device) = shared.active_device() {
        let done = device.process(BUDGET);
        let due = device.until_due();
        drop(device);
        if done > 0 {
            idle = Idle::default();
        } else {
            idle.rest(due);
        }
    }
}

/// How long there has been no work.
#[derive(Debug, Default)]
struct Idle {
    passes: u32,
    since: Option<Instant>,
}

impl Idle {
    /// Waits as long as fits the time without work: spins, then yields, then sleeps, but not
    /// beyond the time when a command is due.
    fn rest(&mut self, due: Option<Duration>) {
        self.passes = self.passes.saturating_add(1);
        if self.passes <= SPINS {
            return std::hint::spin_loop();
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        let soon = due.is_some_and(|due| due < NOT_SLEEPING);
        match since.elapsed() {
            idle if soon || idle < YIELD => std::thread::yield_now(),
            idle if idle < LONG_IDLE => std::thread::sleep(SLEEP),
            _ => std::thread::sleep(LONG_SLEEP),
        }
    }
}
