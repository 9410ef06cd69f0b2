//! The choice of the requests.

use crate::target::{Request, Wrong};

/// A request, and the time from which its latency counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Issue {
    /// The request.
    pub request: Request,
    /// Its intended start in nanoseconds. Without a rate, the start is the submission.
    pub due: Option<u64>,
}

/// A source of requests. Its methods are called in the hot loop.
pub trait Workload {
    /// True if all requests are reads without hooks, so that the loop counts them by the batch.
    const PLAIN_READS: bool;

    /// Returns the next request, or `None` if there is none now. `now` is the time in nanoseconds.
    fn next(&mut self, now: u64) -> Option<Issue>;

    /// Returns the intended start of the next request, if there is a rate.
    #[inline(always)]
    fn due(&self) -> Option<u64> {
        None
    }

    /// Sets the begin of the load in nanoseconds, from which intended starts count.
    fn begin(&mut self, _now: u64) {}

    /// Returns the number of intended starts up to `time` whose requests were not issued.
    fn missed(&mut self, _time: u64) -> u64 {
        0
    }

    /// Prepares the memory of a write.
    #[inline(always)]
    fn fill(&mut self, _request: &Request, _bytes: &mut [u8]) {}

    /// Takes back a request that was not submitted.
    #[cold]
    fn undo(&mut self, _request: &Request) {}

    /// Ends a request, whose data is `bytes` unless it failed.
    ///
    /// # Errors
    /// Wrong data of a read.
    #[inline(always)]
    fn settle(&mut self, _request: &Request, _bytes: Option<&mut [u8]>) -> Result<(), Wrong> {
        Ok(())
    }
}
