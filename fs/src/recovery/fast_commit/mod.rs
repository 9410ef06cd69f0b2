//! Fast commits: changes of single files since the last full commit, stored after the log.
//!
//! The kernel applies them to the structures on the device. Here they become patches that readers
//! apply: inodes, ranges of maps, and names in directories. [`scan`] finds the complete fast
//! commits, and [`replay`] creates the patches.

mod names;
mod ranges;
mod replay;
mod scan;
mod tag;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use crate::blocks::block_cache::Block;
use crate::error::Error;
use crate::recovery::journal::FastCommitArea;
pub(crate) use names::{NameChange, NameChanges};
pub(crate) use ranges::Ranges;
use replay::Area;
pub(crate) use replay::replay;

impl Area for FastCommitArea {
    fn blocks(&self) -> u32 {
        self.blocks()
    }

    fn block(&mut self, index: u32) -> Result<&[u8], Error> {
        self.block(index)
    }
}

/// The patches of all fast commits.
#[derive(Debug, Default)]
pub(crate) struct FastCommit {
    inodes: HashMap<u32, Patch>,
    names: HashMap<u32, Arc<NameChanges>>,
    /// Total size of the patched inodes, bytes.
    bytes: usize,
    commits: u32,
}

/// The patches of one inode.
#[derive(Debug, Default)]
struct Patch {
    /// The new inode with its checksum; `None` if only the map has changed.
    bytes: Option<Block>,
    ranges: Ranges,
}

impl FastCommit {
    /// Returns the number of fast commits that were replayed.
    pub(crate) fn commits(&self) -> u32 {
        self.commits
    }

    /// Returns the bytes of inode `number`, if it was replaced.
    pub(crate) fn inode(&self, number: u32) -> Option<&Block> {
        self.inodes.get(&number)?.bytes.as_ref()
    }

    /// Returns the changes of an inode's map, if there are any.
    pub(crate) fn ranges(&self, number: u32) -> Option<&Ranges> {
        self.inodes.get(&number).map(|patch| &patch.ranges).filter(|ranges| !ranges.is_empty())
    }

    /// Returns the changes of a directory's names, if there are any.
    pub(crate) fn names(&self, directory: u32) -> Option<&Arc<NameChanges>> {
        self.names.get(&directory)
    }
}
