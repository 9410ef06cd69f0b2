//! Tests across crates, in one program: a program for each file would be linked apart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation)]

mod doorbells;
mod durable_writes;
mod guest;
mod guest_check;
mod kernel_overwrite;
mod matrix;
mod mount;
mod paths;
mod perf;
mod protected_ext4;
mod sequences;
mod simulation;
mod spdk;
