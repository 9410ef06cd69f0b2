//! Integration tests of the command, in one program: a program for each file would be linked apart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::cast_possible_truncation)]

mod attributes;
mod batch;
mod blocks;
mod by_kernel;
mod change;
mod common;
mod controller;
mod cp;
mod cp_existing;
mod cp_kernel;
mod demo;
mod emulate;
mod familiar;
mod features;
mod formats;
mod fsinfo;
mod journal;
mod manage;
mod names;
mod operands;
mod packaging;
mod partitions;
mod perf;
mod perf_sweep;
mod put;
mod read;
mod refuse;
mod rescue;
mod server_failure;
mod sha256;
mod signals;
mod tar;
mod tar_extract;
mod usage;
mod write;
