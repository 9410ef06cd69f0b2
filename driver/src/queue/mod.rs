//! Queue pairs: commands out, completions in.

mod blocking;
mod commands;
mod core;
mod joined;
mod marks;
mod memory;
mod pair;
mod pointer;
mod ring;
mod slots;
mod split;
#[cfg(test)]
mod tests;
mod transfer;
mod wait;

pub use self::blocking::Blocking;
pub(crate) use self::core::{Core, Layout};
pub use pair::{Completion, Counters, Handler, QueuePair, Rejected};
pub(crate) use pointer::list_pages;
pub use split::Failed;
pub(crate) use split::Split;
pub use transfer::{Protection, Transfer};
pub(crate) use wait::Sleeper;
