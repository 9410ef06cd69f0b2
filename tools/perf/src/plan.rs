//! The settings of a run.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How often the clock is read for latencies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Latency {
    /// Never: the highest rate.
    None,
    /// Once for a batch of results, which is also the start of the requests that replace them.
    #[default]
    Batch,
    /// At each submission and at each result.
    Each,
}

impl Latency {
    /// Returns the word of the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Batch => "batch",
            Self::Each => "each",
        }
    }
}

/// The settings of one thread.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Requests in flight.
    pub depth: usize,
    /// Most bytes of a request.
    pub bytes_max: usize,
    /// Most requests for one doorbell.
    pub batch_submit: usize,
    /// Results to gather before the next submission.
    pub batch_complete: usize,
    /// Nanoseconds before the measurement.
    pub ramp: u64,
    /// Nanoseconds of the measurement. `u64::MAX` is no limit.
    pub time: u64,
    /// Requests of the measurement. `u64::MAX` is no limit.
    pub count: u64,
    /// Readings of the clock.
    pub latency: Latency,
    /// Count errors, and continue after them.
    pub go_on: bool,
    /// Sleep until an interrupt when there is no result.
    pub interrupt: bool,
    /// Returns the processor time of the thread in nanoseconds. Called twice.
    pub cpu: fn() -> u64,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            depth: 1,
            bytes_max: 4096,
            batch_submit: usize::MAX,
            batch_complete: 1,
            ramp: 0,
            time: u64::MAX,
            count: u64::MAX,
            latency: Latency::Batch,
            go_on: false,
            interrupt: false,
            cpu: || 0,
        }
    }
}

/// The state of a thread that others look at while it runs. Each thread writes its own, about a
/// thousand times a second, and no two share a cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Live {
    ios: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
    is_measuring: AtomicBool,
}

impl Live {
    pub(crate) fn publish(&self, ios: u64, bytes: u64, errors: u64, is_measuring: bool) {
        self.ios.store(ios, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
        self.errors.store(errors, Ordering::Relaxed);
        self.is_measuring.store(is_measuring, Ordering::Relaxed);
    }

    /// Returns requests, bytes and errors so far.
    pub fn get(&self) -> (u64, u64, u64) {
        let [ios, bytes, errors] =
            [&self.ios, &self.bytes, &self.errors].map(|count| count.load(Ordering::Relaxed));
        (ios, bytes, errors)
    }

    /// Returns true if the ramp is over.
    pub fn is_measuring(&self) -> bool {
        self.is_measuring.load(Ordering::Relaxed)
    }
}

/// The words that a thread and its observer share.
#[derive(Clone, Copy, Debug)]
pub struct Watch<'w> {
    /// Ends the run early. It is set once, and read a thousand times a second.
    pub stop: &'w AtomicBool,
    /// The progress of the thread.
    pub live: &'w Live,
}
