//! Queue pairs: commands out, completions in.

mod blocking;
mod commands;
mod data_pointer;
mod joined;
mod options;
mod pair;
mod pending;
mod raw;
mod ring;
mod split_transfer;
#[cfg(test)]
mod tests;
mod wait;

pub use self::blocking::Blocking;
pub(crate) use data_pointer::list_pages;
pub use options::{CommandOptions, Protection};
pub use pair::{Completion, Counters, Handler, QueuePair, Rejected};
pub(crate) use raw::{Layout, RawQueuePair};
pub use split_transfer::Failed;
pub(crate) use split_transfer::SplitTransfer;
pub(crate) use wait::Sleeper;
