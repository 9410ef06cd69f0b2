//! Integration tests of the emulator, in one program: a program for each file would be linked
//! apart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::cast_possible_truncation)]

mod admin;
mod atomic;
mod cache;
mod controller_memory;
mod copy;
mod faults;
mod hostile;
mod io;
mod manage;
mod observe;
mod old_version;
mod protection;
mod service;
mod sgl;
mod shadow;
mod socket;
#[path = "host/stepped.rs"]
mod stepped;
mod supported;
