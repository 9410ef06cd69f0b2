//! The numbers of inodes and blocks.

/// Number of the root directory's inode.
pub(crate) const ROOT: u32 = 2;
