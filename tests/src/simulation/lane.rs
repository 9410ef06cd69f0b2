//! A queue pair of a run, with its requests in flight.

use std::collections::BTreeMap;
use std::time::Duration;

use nvio_driver::QueuePair;

use super::request::Request;
use crate::simulator::bound::Bounds;
use crate::simulator::{Checked, ensure};

/// A queue pair with its requests.
pub struct Lane {
    /// The queue pair.
    pub pair: QueuePair<u64>,
    /// Requests in flight, by token.
    pub requests: BTreeMap<u64, Request>,
    /// Number of submitted requests.
    pub submitted: u64,
    /// Numbers of succeeded and of failed requests.
    pub ended: (u64, u64),
    /// Time when the pair was last attended to.
    attended: Duration,
    /// Total time for which the pair was neglected.
    neglected: Duration,
}

impl Lane {
    /// Creates a lane for a new queue pair.
    pub fn new(pair: QueuePair<u64>, now: Duration) -> Self {
        let requests = BTreeMap::new();
        let neglected = Duration::ZERO;
        Self { pair, requests, submitted: 0, ended: (0, 0), attended: now, neglected }
    }

    /// Returns the total time for which the pair was neglected.
    pub fn neglected(&self, now: Duration, bounds: &Bounds) -> Duration {
        let gap = now.saturating_sub(self.attended);
        self.neglected + gap.saturating_sub(bounds.attention)
    }

    /// Records the start of attention to the pair.
    pub fn attend(&mut self, now: Duration, bounds: &Bounds) {
        self.neglected = self.neglected(now, bounds);
        self.attended = now;
    }

    /// Records the end of attention to the pair.
    pub fn attended(&mut self, now: Duration) {
        self.attended = now;
    }

    /// Returns the age of a request, in thousandths of its limit.
    pub fn age(&self, request: &Request, now: Duration, bounds: &Bounds) -> u64 {
        let neglected = self.neglected(now, bounds) - request.excused;
        let age = (now - request.at).saturating_sub(neglected);
        u64::try_from(age.as_nanos() * 1000 / bounds.request.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Checks that the age of every request is within its limit.
    ///
    /// # Errors
    /// The first request that is too old.
    pub fn check_ages(&self, now: Duration, bounds: &Bounds) -> Checked {
        for (token, request) in &self.requests {
            let age = self.age(request, now, bounds);
            ensure!(
                age <= 1000,
                "request {token} of queue pair {} has not ended in {} ms: {request:?}",
                self.pair.id(),
                bounds.request.as_millis(),
            );
        }
        Ok(())
    }

    /// Checks that the pair's counters match the observed requests.
    ///
    /// # Errors
    /// The first difference.
    pub fn check_counters(&self) -> Checked {
        let counters = self.pair.counters();
        let (good, bad) = self.ended;
        let counted = (counters.submitted, counters.completed, counters.errors);
        let seen = (self.submitted, good + bad, bad);
        let id = self.pair.id();
        ensure!(counted == seen, "queue pair {id} counts {counted:?}, and {seen:?} were seen");
        let (counted, seen) = (self.pair.in_flight(), self.requests.len());
        ensure!(counted == seen, "queue pair {id} has {counted} in flight, and {seen} are missing");
        Ok(())
    }
}
