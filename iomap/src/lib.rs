//! iomap: from a range of a file to commands on a device.
//!
//! A filesystem answers one question, "where is this range?", by implementing [`Mapper`]. This
//! crate does the rest.
#![forbid(unsafe_code)]

mod error;
mod mapping;

pub use error::Error;
pub use mapping::{Mapper, Mapping, MappingFlags, MappingKind, Op};
