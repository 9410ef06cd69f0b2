//! The part of a map that cannot be read.

use crate::error::Error;
use crate::number::LogicalBlock;

/// The error of a part of a map, and the end of the part. Other parts may be sound.
pub(crate) struct Unmapped {
    pub error: Error,
    /// First logical block after the part.
    pub end: LogicalBlock,
}

impl From<Unmapped> for Error {
    fn from(unmapped: Unmapped) -> Self {
        unmapped.error
    }
}
