//! ext4 (and ext2, ext3), read-only: where a file is, and what is known about it.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_possible_wrap
    )
)]
#![cfg_attr(test, allow(clippy::cast_possible_truncation))]

mod block_cache;
mod checksum;
mod corrupt;
mod dir;
mod dir_checksum;
mod error;
mod extent;
mod extent_cache;
mod features;
mod file;
mod filesystem;
mod group;
mod indirect;
mod inode;
mod lookup;
mod map;
mod mmp;
mod queue_source;
mod read;
mod source;
mod superblock;
mod symlink;
mod time;

pub use corrupt::{Corrupt, Problem, Structure};
pub use dir::{DirEntry, ReadDir};
pub use error::{Error, PathName, Subject, Unsupported};
pub use features::{CompatFeatures, IncompatFeatures, RoCompatFeatures};
pub use file::File;
pub use filesystem::{Filesystem, Options};
pub use inode::{FileType, Inode, InodeFlags};
pub use lookup::MAX_SYMLINKS;
pub use map::{Extent, Extents};
pub use mmp::MmpHolder;
pub use queue_source::QueueSource;
pub use source::{Source, SourceError};
pub use superblock::Superblock;
pub use time::Timestamp;
