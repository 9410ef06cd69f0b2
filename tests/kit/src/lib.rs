//! Set-up that the tests of all crates share: seeded random numbers, images made by mke2fs, and
//! controllers on the embedded emulator.
//!
//! Every crate may dev-depend on this one. A panic here is a failed test, and its message is the
//! report.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation)]

#[cfg(feature = "controller")]
pub mod controller;
#[cfg(feature = "host")]
pub mod host;
pub mod image;
pub mod random;
#[cfg(feature = "host")]
pub mod spdk;
