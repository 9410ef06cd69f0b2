//! The counts of sequences.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use super::request::Class;

/// The counts of one sequence, or the sums of several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Outcome {
    pub sequences: u64,
    pub requests: u64,
    pub taken: u64,
    pub rejected: u64,
    /// Results that were delivered by polls.
    pub ended: u64,
    pub succeeded: u64,
    pub failed: u64,
    /// Requests on the simple path.
    pub simple: u64,
    /// Commands, flushes included.
    pub commands: u64,
    /// Commands with an injected fault.
    pub faults: u64,
    /// Resets and power cuts.
    pub mishaps: u64,
    pub bytes_read: u64,
    pub bytes_written: u64,
    /// Number of failures by class.
    pub classes: BTreeMap<String, u64>,
    /// Hash of the sequences.
    pub hash: u64,
}

impl Outcome {
    /// Counts a failure.
    pub fn count(&mut self, class: Class) {
        *self.classes.entry(format!("{class:?}")).or_default() += 1;
    }
}

impl AddAssign<&Outcome> for Outcome {
    fn add_assign(&mut self, other: &Outcome) {
        self.sequences += other.sequences;
        self.requests += other.requests;
        self.taken += other.taken;
        self.rejected += other.rejected;
        self.ended += other.ended;
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.simple += other.simple;
        self.commands += other.commands;
        self.faults += other.faults;
        self.mishaps += other.mishaps;
        self.bytes_read += other.bytes_read;
        self.bytes_written += other.bytes_written;
        // The sum does not depend on the order in which sequences end.
        self.hash = self.hash.wrapping_add(other.hash);
        for (class, count) in &other.classes {
            *self.classes.entry(class.clone()).or_default() += count;
        }
    }
}
