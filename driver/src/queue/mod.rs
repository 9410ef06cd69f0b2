//! Queue pairs: commands out, completions in.

mod commands;
mod core;
mod marks;
mod memory;
mod pair;
mod pointer;
mod ring;
mod slots;
#[cfg(test)]
mod tests;
mod transfer;
mod wait;

pub(crate) use self::core::{Core, Layout};
pub use pair::{Completion, Counters, QueuePair, Rejected};
pub(crate) use pointer::list_pages;
pub use transfer::{Protection, Transfer};
pub(crate) use wait::Sleeper;
