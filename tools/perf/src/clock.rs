//! Clocks.

use std::time::Instant;

/// Readings from which the cost of one is computed.
const READINGS: u32 = 100_000;

/// A clock in nanoseconds. It never goes back.
pub trait Clock {
    /// Returns the time since a fixed moment.
    fn now(&mut self) -> u64;
}

/// The monotonic clock of the system, from the moment of its creation. Copies have one origin.
#[derive(Clone, Copy, Debug)]
pub struct Monotonic(Instant);

impl Monotonic {
    /// Creates a clock that begins at 0.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Measures the cost of one reading, in nanoseconds.
    pub fn cost(mut self) -> f64 {
        let begin = self.now();
        for _ in 0..READINGS {
            std::hint::black_box(self.now());
        }
        (self.now() - begin) as f64 / f64::from(READINGS)
    }
}

impl Clock for Monotonic {
    #[inline(always)]
    fn now(&mut self) -> u64 {
        let elapsed = self.0.elapsed();
        elapsed.as_secs() * 1_000_000_000 + u64::from(elapsed.subsec_nanos())
    }
}
