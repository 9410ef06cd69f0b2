//! The result of a run.

use crate::latency::Counts;
use crate::target::{Counters, Error, Request};

/// Reads or writes of a run.
#[derive(Clone, Debug, Default)]
pub struct Side {
    /// Requests that succeeded.
    pub ios: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Their latencies. Empty if the clock was not read.
    pub latency: Counts,
}

impl Side {
    pub(crate) fn clear(&mut self) {
        (self.ios, self.bytes) = (0, 0);
        self.latency.clear();
    }

    /// Adds the requests of another thread.
    pub fn merge(&mut self, other: &Self) {
        self.ios += other.ios;
        self.bytes += other.bytes;
        self.latency.merge(&other.latency);
    }
}

/// Requests in a second of the measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Second {
    /// Requests that succeeded: reads and writes.
    pub ios: [u64; 2],
    /// Bytes of reads and of writes.
    pub bytes: [u64; 2],
    /// Sum of the latencies in nanoseconds, of reads and of writes.
    pub latency: [u64; 2],
    /// Errors.
    pub errors: u64,
}

impl Second {
    pub(crate) fn since(&self, before: &Self) -> Self {
        let less = |a: [u64; 2], b: [u64; 2]| [a[0].wrapping_sub(b[0]), a[1].wrapping_sub(b[1])];
        Self {
            ios: less(self.ios, before.ios),
            bytes: less(self.bytes, before.bytes),
            latency: less(self.latency, before.latency),
            errors: self.errors - before.errors,
        }
    }

    /// Adds the same second of another thread.
    pub fn merge(&mut self, other: &Self) {
        for side in 0..2 {
            self.ios[side] += other.ios[side];
            self.bytes[side] += other.bytes[side];
            self.latency[side] = self.latency[side].wrapping_add(other.latency[side]);
        }
        self.errors += other.errors;
    }
}

/// A request that failed, or returned wrong data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The request.
    pub request: Request,
    /// First wrong byte of a read, in the device or in the file; else the first byte of the request.
    pub pos: u64,
    /// Logical block of `pos`, if it is known.
    pub lba: Option<u64>,
    /// The error.
    pub error: Error,
    /// True for a read that succeeded with wrong data.
    pub is_wrong_data: bool,
}

/// The measurement of one thread, or of several merged.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Reads.
    pub reads: Side,
    /// Writes.
    pub writes: Side,
    /// Duration of the measurement in nanoseconds.
    pub elapsed: u64,
    /// Requests that failed.
    pub errors: u64,
    /// The first failure.
    pub failed: Option<Failed>,
    /// Requests that were due while all places of the queue were in use.
    pub late: u64,
    /// Requests that were due while all places were in use, and were never started.
    pub missed: u64,
    /// The seconds of the measurement.
    pub seconds: Vec<Second>,
    /// Counters of the queue in the measurement.
    pub counters: Counters,
    /// Processor time in nanoseconds.
    pub cpu: u64,
    /// Requests in flight that the queue had room for.
    pub granted: usize,
}

impl Outcome {
    /// Returns the number of requests that succeeded.
    pub fn ios(&self) -> u64 {
        self.reads.ios + self.writes.ios
    }

    /// Returns the bytes of requests that succeeded.
    pub fn bytes(&self) -> u64 {
        self.reads.bytes + self.writes.bytes
    }

    /// Returns the requests a second.
    pub fn iops(&self) -> f64 {
        self.ios() as f64 * 1e9 / self.elapsed.max(1) as f64
    }

    /// Returns the bytes a second.
    pub fn bandwidth(&self) -> f64 {
        self.bytes() as f64 * 1e9 / self.elapsed.max(1) as f64
    }

    /// Returns the latencies of reads and writes together.
    pub fn latency(&self) -> Counts {
        let mut both = self.reads.latency.clone();
        both.merge(&self.writes.latency);
        both
    }

    /// Adds the measurement of another thread, which ran at the same time.
    pub fn merge(&mut self, other: &Self) {
        self.reads.merge(&other.reads);
        self.writes.merge(&other.writes);
        self.elapsed = self.elapsed.max(other.elapsed);
        self.errors += other.errors;
        self.failed = self.failed.take().or_else(|| other.failed.clone());
        self.late += other.late;
        self.missed += other.missed;
        if self.seconds.len() < other.seconds.len() {
            self.seconds.resize(other.seconds.len(), Second::default());
        }
        for (second, more) in self.seconds.iter_mut().zip(&other.seconds) {
            second.merge(more);
        }
        self.counters = self.counters.plus(other.counters);
        self.cpu += other.cpu;
        self.granted += other.granted;
    }
}
