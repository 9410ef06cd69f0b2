//! Images and judgement of the suite `walk` and of the bench of the same name.

pub mod command;
pub mod goal;
pub mod image;

/// Result of a measurement.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
