//! The counts of runs.

use std::ops::AddAssign;

/// The counts of one run, or the sums of several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Hash of the runs, which depends only on the seeds.
    pub hash: u64,
    /// Number of runs.
    pub runs: u64,
    /// Requests submitted.
    pub requests: u64,
    /// Requests that succeeded.
    pub succeeded: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests that ended because their queue pair was dropped.
    pub dropped: u64,
    /// Queue pairs that were dropped.
    pub lanes_dropped: u64,
    /// Asynchronous events received.
    pub events: u64,
    /// Bytes of reads and compares that were checked.
    pub bytes_checked: u64,
    /// Memory accesses of the controller that were checked.
    pub accesses: u64,
    /// Reads of shadow doorbells by the controller.
    pub shadow_reads: u64,
    /// Resets requested by the test.
    pub resets: u64,
    /// Queue pairs recreated after resets of any cause.
    pub rebuilt: u64,
    /// Power cuts.
    pub power_cuts: u64,
    /// Removals.
    pub removals: u64,
    /// Commands that failed with an injected status.
    pub faults_status: u64,
    /// Commands that were delayed.
    pub faults_late: u64,
    /// Completions that were lost.
    pub faults_lost: u64,
    /// Completions that were duplicated, stale, or had an unknown identifier.
    pub faults_extra: u64,
    /// Faults of the whole controller.
    pub faults_device: u64,
    /// Completions that the driver counted as stale.
    pub stale: u64,
    /// Runs in which the driver counted all extra completions.
    pub stale_exact: u64,
    /// Controllers that were given up, and opened again by the test.
    pub reopened: u64,
    /// The longest request, in thousandths of its time limit.
    pub longest: u64,
    /// Simulated time, microseconds.
    pub clock_us: u64,
}

impl Outcome {
    /// Returns names and values.
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
        // The sum does not depend on the order in which runs end.
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
