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
use std::sync::{Arc, OnceLock};

use crate::blocks::block_cache::Block;
use crate::error::Error;
use crate::filesystem::Filesystem;
use crate::format::inode::Inode;
use crate::format::inode_flags::InodeFlags;
use crate::map::Extents;
use crate::map::extent_tree;
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
    /// The kernel counts the blocks of an inode that it replays: what they come to, in units of 512
    /// bytes, once that is known.
    blocks_512: Option<OnceLock<u64>>,
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

    /// The inode with its blocks counted, if they are.
    pub(crate) fn counted(&self, fs: &Filesystem, inode: Inode) -> Result<Inode, Error> {
        let patch = self.inodes.get(&inode.number());
        let Some(known) = patch.and_then(|patch| patch.blocks_512.as_ref()) else {
            return Ok(inode);
        };
        if !inode.flags().contains(InodeFlags::EXTENTS) {
            return Ok(inode);
        }
        if let Some(blocks) = known.get() {
            return Ok(inode.with_blocks_512(*blocks));
        }
        let blocks = match count_512(fs, &inode) {
            // A kernel leaves the count as it is, then.
            Err(Error::Corrupt(_)) => inode.blocks_512(),
            counted => counted?,
        };
        let blocks = *known.get_or_init(|| blocks);
        Ok(inode.with_blocks_512(blocks))
    }
}

/// The blocks of a file and of its tree, in units of 512 bytes.
fn count_512(fs: &Filesystem, inode: &Inode) -> Result<u64, Error> {
    let superblock = fs.superblock();
    let mut data = 0u64;
    for extent in Extents::stored(fs, inode, 0) {
        data = data.saturating_add(superblock.block_at(extent?.length));
    }
    let nodes = match fs.range_changes(inode.number()) {
        None => extent_tree::nodes_past(fs, inode, 0)?,
        Some(_) => extent_tree::count_nodes(fs, inode)?,
    };
    let unit = u64::from(superblock.block_size() >> 9);
    Ok(data.saturating_add(nodes).saturating_mul(unit))
}
