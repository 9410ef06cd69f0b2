//! How long a request may take, from what a controller was opened with.

use std::time::Duration;

use nvio_driver::Options;

/// CAP.TO of the embedded controller: how long CSTS.RDY is waited for.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// Least time between two looks of a queue pair at its commands.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// The clock of timeouts is in milliseconds.
const ROUNDING: Duration = Duration::from_millis(2);

/// The times of one run.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How often a queue pair has to be looked after: what it was not for longer is the run's
    /// fault.
    pub attention: Duration,
    /// Longest time from a request's submission to its end.
    pub request: Duration,
}

impl Bounds {
    /// For a controller whose CSTS.RDY is stuck for `stuck` at most.
    pub fn new(options: &Options, stuck: Duration) -> Self {
        let (command, admin) = (options.io_timeout, options.admin_timeout);
        let aborted = command.min(admin);
        let interval = LOOK_INTERVAL.min(command / 4).min(aborted / 4);
        let attention = interval;
        // A look is as late as the interval and the run's attention let it be.
        let look = interval + attention + ROUNDING;
        // Seen by one look, told to end by a second, and given up by a third.
        let waited = look + command + look + admin + aborted + look;
        Self { attention, request: waited + Self::reset(admin, stuck.min(READY_TIMEOUT)) }
    }

    /// A reset: stopped by CC.EN, then by the function; brought up; and stopped again, if that
    /// fails. Each change of CSTS.RDY may be slow, and each of three admin commands.
    fn reset(admin: Duration, stuck: Duration) -> Duration {
        let ready = stuck + ROUNDING * 5;
        4 * ready + ready + 3 * (admin + ROUNDING) + 4 * ready
    }
}
