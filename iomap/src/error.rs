//! What can go wrong between a file and its device.

/// An error of this layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The filesystem gave a mapping that breaks the contract of [`Mapper::begin`](crate::Mapper::begin).
    #[error("mapping [{offset}, +{length}) does not cover position {pos}")]
    BadMapping {
        /// Position that was to be mapped.
        pos: u64,
        /// Start of the mapping.
        offset: u64,
        /// Length of the mapping.
        length: u64,
    },
    /// The body of an iteration moved further than its mapping.
    #[error("advance by {by} bytes exceeds the {left} bytes that are left of the mapping")]
    AdvanceTooFar {
        /// Bytes moved.
        by: u64,
        /// Bytes that were left.
        left: u64,
    },
    /// Position or length is not a multiple of the block that direct I/O needs (EINVAL).
    #[error("position {pos} and length {length} are not aligned to {align} bytes")]
    Misaligned {
        /// Position in the file, bytes.
        pos: u64,
        /// Length, bytes.
        length: u64,
        /// Alignment needed, bytes.
        align: u64,
    },
}
