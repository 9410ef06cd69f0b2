//! Queue pairs: commands out, completions in.

mod core;
mod pair;
mod prp;
mod ring;
mod slots;
#[cfg(test)]
mod tests;

pub(crate) use self::core::{Core, Layout};
pub use pair::{Completion, QueuePair, Rejected};
pub(crate) use prp::max_bytes as max_prp_bytes;
