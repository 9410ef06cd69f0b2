//! The shared parts of the tests across crates: seeded trees of files, the kernel's view of a tree,
//! the view of `nvio` of the same tree, and guards for mounts.
//!
//! The tests themselves are in `tests/`; `tests/README.md` describes where to add a new one.
// A library for tests only: a panic is a failed test, and its message is the report.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation)]

pub mod check;
#[cfg(test)]
mod ext4_rows;
pub mod folded;
pub mod guest;
pub mod matrix;
pub mod media;
pub mod nvio;
#[cfg(test)]
mod points;
pub mod power;
pub mod sequences;
pub mod simulation;
pub mod simulator;
pub mod sums;
pub mod sys;
pub mod tree;
pub mod view;
pub mod walk;
