//! What the tests across crates share: seeded trees of files, the kernel's view of a tree, the
//! view that `nvio` gives of the same tree, and guards for what a test mounts.
//!
//! The tests themselves are in `tests/`; `tests/README.md` says where a new one goes.
// A library for tests only: a panic here is a failed test, and its message is the report.
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
pub mod sequences;
pub mod simulation;
pub mod sys;
pub mod tree;
pub mod view;
