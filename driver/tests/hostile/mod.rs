//! Hostile devices against the driver. The fuzz targets and the replay of their corpora run these
//! functions (see `fuzz/README.md`).
//!
//! Each function accepts any bytes, which determine the actions of the device and the requests to
//! the driver, and panics if the driver breaks a promise. The device owns the clock, so that
//! waiting costs no time.

mod admin;
mod bytes;
mod content;
mod device;
mod honest;
mod lent;
mod memory;
mod pair;
mod structures;
mod submit;
mod wire;

pub mod completions;
pub mod parsing;
