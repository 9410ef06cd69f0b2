//! Queue pairs: commands out, completions in.

mod blocking;
mod commands;
mod completion;
mod data_pointer;
#[cfg(test)]
mod metadata_tests;
mod options;
mod pair;
mod pending;
mod raw;
mod ring;
mod sleeper;
mod split_transfer;
#[cfg(test)]
mod tests;
mod wait;

pub use blocking::Blocking;
pub use completion::{Completion, Handler};
pub(crate) use data_pointer::list_pages;
pub use options::{CommandOptions, Protection};
pub use pair::{Counters, QueuePair};
pub(crate) use raw::{Layout, RawQueuePair};
pub(crate) use sleeper::Sleeper;
pub(crate) use split_transfer::SplitTransfer;
