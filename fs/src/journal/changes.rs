//! The result of a handle, which becomes part of a transaction.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::blocks::block_cache::Block;
use crate::format::group::GroupDescriptor;
use crate::format::inode::Inode;
use crate::number::{BlockRun, InodeNumber, PhysicalBlock};

/// A name that was added to a directory.
#[derive(Clone, Debug)]
pub(crate) struct NewName {
    pub directory: InodeNumber,
    pub name: Box<[u8]>,
    pub inode: InodeNumber,
    /// The inode was created with this name.
    pub is_new: bool,
}

/// The changes of a handle.
#[derive(Default)]
pub(crate) struct Changes {
    pub blocks: BTreeMap<PhysicalBlock, Block>,
    /// Inodes that were changed, as they are now.
    pub inodes: Vec<Inode>,
    /// True if the size or the map of an inode was changed, not only its attributes.
    pub has_new_map: bool,
    /// True if the changes make data reachable that may be in the device's volatile cache.
    pub needs_flush: bool,
    /// Ranges of blocks of files whose maps were changed.
    pub ranges: Vec<(InodeNumber, Range<u64>)>,
    /// The inodes, their maps and the added names are all that was changed, so that a fast commit can have
    /// it.
    pub is_fast: bool,
    /// Names that were added, if a fast commit can have them.
    pub names: Vec<NewName>,
    /// Group descriptors that were changed.
    pub groups: Vec<(u32, GroupDescriptor)>,
    /// The change may use blocks that are reserved.
    pub is_reserved: bool,
    /// Number of blocks that were allocated.
    pub allocated: u64,
    /// Free blocks that are left to an inode that grows.
    pub window: Option<(InodeNumber, BlockRun)>,
    /// Blocks that were freed.
    pub freed: Vec<BlockRun>,
    /// The inode that they belonged to.
    pub owner: Option<InodeNumber>,
    /// Inodes that were freed.
    pub freed_inodes: Vec<InodeNumber>,
    /// Inodes that were put on the list of orphans.
    pub orphans: Vec<InodeNumber>,
    /// Inodes that were taken off the list.
    pub completed: Vec<InodeNumber>,
    /// Freed blocks whose older copies in the log must not be replayed.
    pub revoked: Vec<PhysicalBlock>,
}
