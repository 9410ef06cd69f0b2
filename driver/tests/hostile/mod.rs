//! Hostile devices against the driver: what the fuzz targets run, and what the corpora are
//! replayed with (see `fuzz/README.md`).
//!
//! Each function takes any bytes, which say what a device does and what is asked of the driver,
//! and panics when a promise of the driver is broken. Time is the device's, so that waiting costs
//! nothing.

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
