//! Queue pairs: commands out, completions in.

mod blocking;
mod commands;
pub(crate) mod completion;
mod counters;
pub(crate) mod data_pointer;
mod doorbells;
#[cfg(test)]
mod metadata_tests;
mod options;
pub(crate) mod pair;
pub(crate) mod pending;
pub(crate) mod raw;
mod request;
pub(crate) mod retry;
mod ring;
pub(crate) mod sleeper;
mod split_transfer;
#[cfg(test)]
mod tests;
mod wait;
mod write_frozen;

pub use blocking::Blocking;
pub use completion::{Completion, Handler};
pub use counters::Counters;
pub use options::{CommandOptions, Protection};
pub use pair::QueuePair;
pub(crate) use split_transfer::SplitTransfer;
