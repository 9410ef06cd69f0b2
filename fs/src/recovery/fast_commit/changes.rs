//! The changes of fast commits.

use std::collections::HashMap;
use std::sync::Arc;

use crate::blocks::block_cache::Block;
use crate::dir::changes::NameChanges;
use crate::map::changes::MapChanges;
use crate::number::InodeNumber;

/// The patches of all fast commits.
#[derive(Debug, Default)]
pub(crate) struct FastCommit {
    pub inodes: HashMap<InodeNumber, Patch>,
    pub names: HashMap<InodeNumber, Arc<NameChanges>>,
    /// Total size of the patched inodes, bytes.
    pub bytes: usize,
    /// Number of fast commits.
    pub commits: u32,
}

/// The patches of one inode.
#[derive(Debug, Default)]
pub(crate) struct Patch {
    /// The new inode with its checksum; `None` if only the map has changed.
    pub bytes: Option<Block>,
    pub ranges: MapChanges,
    /// The inode was free before, or was freed: nothing of its old blocks and attributes is left.
    pub is_new: bool,
}

impl FastCommit {
    /// Returns the number of fast commits that were replayed.
    pub(crate) fn commits(&self) -> u32 {
        self.commits
    }

    /// Returns the bytes of inode `number`, if it was replaced.
    pub(crate) fn inode(&self, number: InodeNumber) -> Option<&Block> {
        self.inodes.get(&number)?.bytes.as_ref()
    }

    /// Returns the changes of an inode's map, if there are any.
    pub(crate) fn ranges(&self, number: InodeNumber) -> Option<&MapChanges> {
        self.inodes.get(&number).map(|patch| &patch.ranges).filter(|ranges| !ranges.is_empty())
    }

    /// Returns the changes of a directory's names, if there are any.
    pub(crate) fn names(&self, directory: InodeNumber) -> Option<&Arc<NameChanges>> {
        self.names.get(&directory)
    }
}
