//! Queue pairs: commands out, completions in.

mod blocking;
mod commands;
mod data_pointer;
mod joined;
mod marks;
mod memory;
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
pub use options::{Protection, Transfer};
pub use pair::{Completion, Counters, Handler, QueuePair, Rejected};
pub(crate) use raw::{Core, Layout};
pub use split_transfer::Failed;
pub(crate) use split_transfer::Split;
pub(crate) use wait::Sleeper;
