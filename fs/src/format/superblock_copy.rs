//! The places of copies of the superblock.

use std::fmt;

/// A copy of the superblock, for [`Options::superblock`](crate::Options::superblock).
///
/// See the [example](crate::Options#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuperblockCopy {
    /// Number of the block that contains the copy.
    pub block: u64,
    /// Size of the filesystem's blocks, bytes.
    pub block_size: u32,
}

impl fmt::Display for SuperblockCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { block, block_size } = self;
        write!(f, "{block} (blocks of {block_size} bytes)")
    }
}
