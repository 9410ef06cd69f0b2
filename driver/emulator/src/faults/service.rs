//! The service model: latency, rate and bandwidth of commands.

use std::time::Duration;

use crate::error::{Error, require_in};
use crate::random::Random;

/// Picoseconds in a second, so fine that rounding does not change a rate.
const SECOND: u128 = 1_000_000_000_000;

/// The speed of I/O commands, to imitate a drive.
///
/// A command starts when the caps allow it, in the order in which commands are fetched, and
/// completes after the latency. Commands overlap, and a queue that is deep enough reaches the caps.
/// The default is the speed of the machine. Admin commands have no delay.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use nvio_emulator::Service;
///
/// // A common PCIe 4.0 drive.
/// let drive = Service::new()
///     .latency(Duration::from_micros(60))
///     .flush_latency(Duration::from_micros(20))
///     .jitter(Duration::from_micros(20), 1)
///     .iops(1_000_000)
///     .bandwidth(7_000_000_000);
/// # let _ = drive;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service {
    latency: Duration,
    flush_latency: Option<Duration>,
    jitter: Duration,
    seed: u64,
    iops: Option<u64>,
    bandwidth: Option<u64>,
}

impl Service {
    /// Creates a model without latency and caps.
    ///
    /// See the [example](Self#examples).
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the shortest time from a command's start to its completion.
    ///
    /// See the [example](Self#examples).
    pub fn latency(mut self, time: Duration) -> Self {
        self.latency = time;
        self
    }

    /// Sets the time of a Flush, which is then not limited by the caps. It is that of other commands
    /// by default.
    ///
    /// See the [example](Self#examples).
    pub fn flush_latency(mut self, time: Duration) -> Self {
        self.flush_latency = Some(time);
        self
    }

    /// Adds up to `most` to the latency, evenly distributed. `seed` decides the time of each
    /// command.
    ///
    /// See the [example](Self#examples).
    pub fn jitter(mut self, most: Duration, seed: u64) -> Self {
        (self.jitter, self.seed) = (most, seed);
        self
    }

    /// Limits the commands a second, 1 to 10^12.
    ///
    /// See the [example](Self#examples).
    pub fn iops(mut self, commands: u64) -> Self {
        self.iops = Some(commands);
        self
    }

    /// Limits the bytes a second of reads, writes and compares together, 1 to 10^12.
    ///
    /// See the [example](Self#examples).
    pub fn bandwidth(mut self, bytes: u64) -> Self {
        self.bandwidth = Some(bytes);
        self
    }

    pub(crate) fn is_immediate(&self) -> bool {
        self.latency.is_zero()
            && self.jitter.is_zero()
            && self.flush_latency.is_none()
            && self.iops.is_none()
            && self.bandwidth.is_none()
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        for (setting, cap) in [("iops", self.iops), ("bandwidth", self.bandwidth)] {
            if let Some(cap) = cap {
                require_in(1..=1_000_000_000_000, setting, cap, "1 to 10^12")?;
            }
        }
        Ok(())
    }
}

/// The due time of each command.
#[derive(Debug)]
pub(crate) struct Pacer {
    service: Service,
    random: Random,
    /// Times at which the caps allow the next command, in picoseconds.
    next_by_iops: u128,
    next_by_bandwidth: u128,
}

impl Pacer {
    pub(crate) fn new(service: Service) -> Self {
        Self { random: Random::new(service.seed), service, next_by_iops: 0, next_by_bandwidth: 0 }
    }

    /// Returns the time at which a Flush completes that is fetched at `now`, in nanoseconds.
    pub(crate) fn flush_due(&mut self, now: u64) -> u64 {
        match self.service.flush_latency {
            Some(time) => now.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)),
            None => self.due(now, 0),
        }
    }

    /// Returns the time at which a command completes that is fetched at `now` and transfers
    /// `bytes`, in nanoseconds.
    pub(crate) fn due(&mut self, now: u64, bytes: u64) -> u64 {
        let now = u128::from(now) * 1000;
        let mut start = now;
        if let Some(iops) = self.service.iops {
            start = start.max(self.next_by_iops);
            self.next_by_iops = start + SECOND / u128::from(iops);
        }
        if let Some(bandwidth) = self.service.bandwidth.filter(|_| bytes > 0) {
            let took = SECOND * u128::from(bytes) / u128::from(bandwidth);
            self.next_by_bandwidth = self.next_by_bandwidth.max(now) + took;
            // A command completes when its last byte has been transferred.
            start = start.max(self.next_by_bandwidth);
        }
        let jitter = u64::try_from(self.service.jitter.as_nanos()).unwrap_or(u64::MAX);
        let jitter = self.random.below(jitter.saturating_add(1));
        let latency = self.service.latency.as_nanos().saturating_add(u128::from(jitter));
        u64::try_from((start / 1000).saturating_add(latency)).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn commands_start_no_faster_than_the_caps_allow_and_do_not_save_up() {
        let service = Service::new().latency(Duration::from_micros(10)).iops(3000);
        let mut pacer = Pacer::new(service);
        let last = (0..3001).map(|_| pacer.due(0, 0)).last();
        // 3000 starts take a second, within the rounding of 3000 thirds of a nanosecond.
        assert!(last.is_some_and(|last| last.abs_diff(1000 * MS + 10_000) < 10), "{last:?}");
        // Idle time is not saved for later commands.
        assert_eq!(pacer.due(5000 * MS, 0), 5000 * MS + 10_000);
        assert_eq!(pacer.due(5000 * MS, 0), 5000 * MS + 10_000 + 333_333);
    }

    #[test]
    fn bytes_take_their_time_and_commands_without_any_do_not_wait_for_them() {
        let mut pacer = Pacer::new(Service::new().bandwidth(1_000_000_000));
        assert_eq!(pacer.due(0, 4096), 4096);
        assert_eq!(pacer.due(0, 4096), 8192);
        assert_eq!(pacer.due(0, 0), 0);
        assert_eq!(pacer.due(100_000, 1000), 101_000);
    }

    #[test]
    fn flush_has_a_latency_of_its_own() {
        let service = Service::new().latency(Duration::from_micros(80)).iops(1000);
        assert_eq!(Pacer::new(service).flush_due(5), 80_005);
        let mut pacer = Pacer::new(service.flush_latency(Duration::from_micros(20)));
        assert_eq!((pacer.due(5, 4096), pacer.flush_due(5)), (80_005, 20_005));
        assert!(!Service::new().flush_latency(Duration::ZERO).is_immediate());
    }

    #[test]
    fn jitter_is_in_its_range_and_decided_by_the_seed() {
        let run = |seed| {
            let mut pacer = Pacer::new(Service::new().jitter(Duration::from_nanos(1000), seed));
            (0..1000).map(|_| pacer.due(0, 0)).collect::<Vec<_>>()
        };
        assert!(run(1).iter().all(|&due| due <= 1000));
        assert!(run(1).iter().any(|&due| due < 50) && run(1).iter().any(|&due| due > 950));
        assert!(run(1) == run(1) && run(1) != run(2));
    }

    #[test]
    fn impossible_caps_are_named() {
        assert!(Service::new().iops(0).check().is_err());
        assert!(Service::new().bandwidth(u64::MAX).check().is_err());
        let mut never = Pacer::new(Service::new().latency(Duration::MAX).jitter(Duration::MAX, 0));
        assert_eq!(never.due(u64::MAX, u64::MAX), u64::MAX);
    }
}
