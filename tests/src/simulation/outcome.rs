//! What runs amount to.

use std::ops::AddAssign;

/// What one run did, or several together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The runs as a number: the same for the same seeds.
    pub hash: u64,
    /// Runs.
    pub runs: u64,
    /// Requests submitted.
    pub requests: u64,
    /// Requests that ended with success.
    pub succeeded: u64,
    /// Requests that ended with an error.
    pub failed: u64,
    /// Requests that ended with their queue pair.
    pub dropped: u64,
    /// Queue pairs that were dropped.
    pub lanes_dropped: u64,
    /// Asynchronous events that came.
    pub events: u64,
    /// Bytes of reads and comparisons that were checked.
    pub bytes_checked: u64,
    /// Accesses of the controller that were checked.
    pub accesses: u64,
    /// Looks of the controller at a shadow doorbell.
    pub shadow_reads: u64,
    /// Resets that the test asked for.
    pub resets: u64,
    /// Times that a queue pair was made again after a reset, whoever asked for it.
    pub rebuilt: u64,
    /// Power cuts.
    pub power_cuts: u64,
    /// Removals.
    pub removals: u64,
    /// Commands with a status of the controller's choice.
    pub faults_status: u64,
    /// Commands that were late.
    pub faults_late: u64,
    /// Completions that were lost.
    pub faults_lost: u64,
    /// Completions that were doubled, stale or of an unknown identifier.
    pub faults_extra: u64,
    /// Faults of the controller as a whole.
    pub faults_device: u64,
    /// Completions that the driver did not take for any command's.
    pub stale: u64,
    /// Runs whose extra completions were all accounted for.
    pub stale_exact: u64,
    /// Controllers that were given up, and opened again by the test.
    pub reopened: u64,
    /// The longest request, in thousandths of its bound.
    pub longest: u64,
    /// Time of the controllers' clocks, in microseconds.
    pub clock_us: u64,
}

impl Outcome {
    /// Names and values, for people and machines.
    pub fn fields(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("runs", self.runs),
            ("requests", self.requests),
            ("succeeded", self.succeeded),
            ("failed", self.failed),
            ("dropped", self.dropped),
            ("pairs_dropped", self.lanes_dropped),
            ("events", self.events),
            ("bytes_checked", self.bytes_checked),
            ("accesses", self.accesses),
            ("shadow_reads", self.shadow_reads),
            ("resets", self.resets),
            ("rebuilt", self.rebuilt),
            ("power_cuts", self.power_cuts),
            ("removals", self.removals),
            ("faults_status", self.faults_status),
            ("faults_late", self.faults_late),
            ("faults_lost", self.faults_lost),
            ("faults_extra", self.faults_extra),
            ("faults_device", self.faults_device),
            ("stale", self.stale),
            ("stale_exact", self.stale_exact),
            ("reopened", self.reopened),
            ("longest_permille", self.longest),
            ("clock_us", self.clock_us),
        ]
    }
}

impl AddAssign<&Outcome> for Outcome {
    fn add_assign(&mut self, other: &Outcome) {
        let Outcome { hash, longest, .. } = *self;
        // Whatever the order that runs end in.
        self.hash = hash.wrapping_add(other.hash);
        self.longest = longest.max(other.longest);
        self.runs += other.runs;
        self.requests += other.requests;
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.dropped += other.dropped;
        self.lanes_dropped += other.lanes_dropped;
        self.events += other.events;
        self.bytes_checked += other.bytes_checked;
        self.accesses += other.accesses;
        self.shadow_reads += other.shadow_reads;
        self.resets += other.resets;
        self.rebuilt += other.rebuilt;
        self.power_cuts += other.power_cuts;
        self.removals += other.removals;
        self.faults_status += other.faults_status;
        self.faults_late += other.faults_late;
        self.faults_lost += other.faults_lost;
        self.faults_extra += other.faults_extra;
        self.faults_device += other.faults_device;
        self.stale += other.stale;
        self.stale_exact += other.stale_exact;
        self.reopened += other.reopened;
        self.clock_us += other.clock_us;
    }
}
