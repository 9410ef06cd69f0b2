//! The maximum duration of a request, derived from the driver's options.

use std::time::Duration;

use nvio_driver::Options;

/// CAP.TO of the embedded controller: the maximum wait for CSTS.RDY.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// Minimum time between two health checks of a queue pair.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Time before all repetitions of a command but the first.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Resolution of the clock for timeouts.
const ROUNDING: Duration = Duration::from_millis(2);

/// The time limits of one run.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Maximum time between two calls to a queue pair. Longer gaps are excluded from the age of its
    /// requests.
    pub attention: Duration,
    /// Maximum time from the submission of a request to its completion.
    pub request: Duration,
}

impl Bounds {
    /// Computes the limits for a controller whose CSTS.RDY is stuck for at most `stuck`.
    pub fn new(options: &Options, stuck: Duration) -> Self {
        let (command, admin) = (options.io_timeout, options.admin_timeout);
        let aborted = command.min(admin);
        let interval = LOOK_INTERVAL.min(command / 4).min(aborted / 4);
        let attention = interval;
        // A health check may be late by the interval and by the run's own delay.
        let look = interval + attention + ROUNDING;
        // Found overdue by the first check, aborted at the second, given up at the third.
        let waited = look + command + look + admin + aborted + look;
        let attempt = waited + Self::reset(admin, stuck.min(READY_TIMEOUT));
        // Before a repetition, a health check begins a pause, and one ends it.
        let pause = RETRY_PAUSE.min(command) + 2 * look;
        let retries = u32::from(options.retries);
        Self { attention, request: attempt * (1 + retries) + pause * retries }
    }

    /// Returns the maximum duration of a reset: the controller is stopped by CC.EN, then by a reset
    /// of the function, initialised, and stopped again if that fails. Each change of CSTS.RDY and
    /// each of three admin commands may be slow.
    fn reset(admin: Duration, stuck: Duration) -> Duration {
        let ready = stuck + ROUNDING * 5;
        4 * ready + ready + 3 * (admin + ROUNDING) + 4 * ready
    }
}
