//! One queue pair of a run, with what is in flight on it.

use std::collections::BTreeMap;
use std::time::Duration;

use nvio_driver::QueuePair;

use super::bound::Bounds;
use super::request::Request;
use super::{Checked, ensure};

/// A queue pair with its requests.
pub struct Lane {
    /// The queue pair.
    pub pair: QueuePair<u64>,
    /// Requests in flight, by token.
    pub requests: BTreeMap<u64, Request>,
    /// Requests that the pair took.
    pub submitted: u64,
    /// Requests that ended with success, and with an error.
    pub ended: (u64, u64),
    /// Until when the pair was last looked after.
    attended: Duration,
    /// How long it was neglected, all in all.
    neglected: Duration,
}

impl Lane {
    /// A lane of a queue pair that was just made.
    pub fn new(pair: QueuePair<u64>, now: Duration) -> Self {
        let requests = BTreeMap::new();
        let neglected = Duration::ZERO;
        Self { pair, requests, submitted: 0, ended: (0, 0), attended: now, neglected }
    }

    /// How long the pair was neglected, by now.
    pub fn neglected(&self, now: Duration, bounds: &Bounds) -> Duration {
        let gap = now.saturating_sub(self.attended);
        self.neglected + gap.saturating_sub(bounds.attention)
    }

    /// The pair is looked after from now on.
    pub fn attend(&mut self, now: Duration, bounds: &Bounds) {
        self.neglected = self.neglected(now, bounds);
        self.attended = now;
    }

    /// The pair was looked after until now.
    pub fn attended(&mut self, now: Duration) {
        self.attended = now;
    }

    /// How long a request has taken, in thousandths of what it may.
    pub fn age(&self, request: &Request, now: Duration, bounds: &Bounds) -> u64 {
        let neglected = self.neglected(now, bounds) - request.excused;
        let age = (now - request.at).saturating_sub(neglected);
        u64::try_from(age.as_nanos() * 1000 / bounds.request.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Whether every request is within its bound.
    ///
    /// # Errors
    /// With one that is not.
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

    /// Whether the pair's counters are what was seen of it.
    ///
    /// # Errors
    /// When they are not.
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
