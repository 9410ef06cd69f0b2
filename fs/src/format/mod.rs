//! On-disk structures: parsing and encoding.

pub(crate) mod checksum;
pub(crate) mod corrupt;
pub(crate) mod dir_entry;
pub(crate) mod dir_hash;
pub(crate) mod error_fields;
pub(crate) mod extent;
pub(crate) mod features;
pub(crate) mod file_type;
pub(crate) mod geometry;
pub(crate) mod group;
pub(crate) mod halves;
pub(crate) mod inode;
pub(crate) mod inode_flags;
pub(crate) mod mmp;
pub(crate) mod raw_superblock;
#[cfg(test)]
mod round_trip;
pub(crate) mod superblock;
pub(crate) mod superblock_copy;
pub(crate) mod superblock_fields;
pub(crate) mod superblock_seal;
pub(crate) mod time;
pub(crate) mod uuid;
pub(crate) mod xattr_body;
pub(crate) mod xattr_entry;
