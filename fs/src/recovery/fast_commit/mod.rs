//! Fast commits: changes of single files since the last full commit, noted behind the log.
//!
//! A kernel replays them into the structures on the device. Here they become patches on top of
//! these: inodes, ranges of maps, names in directories. [`scan`] finds what is complete, [`replay`]
//! makes the patches.

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

/// What fast commits have changed.
#[derive(Debug, Default)]
pub(crate) struct FastCommit {
    inodes: HashMap<u32, Patch>,
    names: HashMap<u32, Arc<NameChanges>>,
    /// Bytes of inodes that are kept.
    bytes: usize,
    commits: u32,
}

/// What has changed of an inode.
#[derive(Debug, Default)]
struct Patch {
    /// The inode as it is now, with its checksum; `None` if only its map has changed.
    bytes: Option<Block>,
    ranges: Ranges,
}

impl FastCommit {
    /// How many were replayed.
    pub(crate) fn commits(&self) -> u32 {
        self.commits
    }

    /// The inode `number`, if it has changed.
    pub(crate) fn inode(&self, number: u32) -> Option<&Block> {
        self.inodes.get(&number)?.bytes.as_ref()
    }

    /// Changes of an inode's map, if there are any.
    pub(crate) fn ranges(&self, number: u32) -> Option<&Ranges> {
        self.inodes.get(&number).map(|patch| &patch.ranges).filter(|ranges| !ranges.is_empty())
    }

    /// Changes of a directory's names, if there are any.
    pub(crate) fn names(&self, directory: u32) -> Option<&Arc<NameChanges>> {
        self.names.get(&directory)
    }
}
