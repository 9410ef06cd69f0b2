//! Counters of a queue pair.

/// Counters of a queue pair since it was created.
///
/// See the [example](crate::QueuePair#examples).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Commands submitted.
    pub submitted: u64,
    /// Commands that ended.
    pub completed: u64,
    /// Commands that ended with an error.
    pub errors: u64,
    /// Attempts after the first: submissions of a command again after an error, which its submitter
    /// did not see. See [`Options::retries`](crate::Options::retries).
    pub retries: u64,
    /// Polls.
    pub polls: u64,
    /// Polls that found no completion.
    pub idle_polls: u64,
    /// Doorbell writes to registers, of both queues.
    pub doorbells: u64,
    /// Completions that matched no command in flight: late, duplicated or invented.
    pub stale: u64,
    /// Resets of the controller after which the queues were created again, requested ones included;
    /// see [`Resets`](crate::Resets).
    pub resets: u64,
    /// Sleeps of [`QueuePair::wait`](super::QueuePair::wait).
    pub sleeps: u64,
    /// Completions that came without an interrupt, and were found at the end of a sleep. If it is
    /// not 0, interrupts of the device are lost.
    pub missed_interrupts: u64,
}
