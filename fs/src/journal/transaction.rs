//! Transactions: the blocks that a set of changes replaces.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::blocks::block_cache::Block;
use crate::format::inode::Inode;
use crate::journal::changes::Changes;
use crate::journal::fast_commit::Pending;
use crate::number::{BlockRun, InodeNumber, PhysicalBlock};

/// The changes that become durable together.
pub(crate) struct Transaction {
    /// Sequence number in the log. Numbers wrap.
    pub tid: u32,
    /// The new contents of blocks.
    pub images: BTreeMap<PhysicalBlock, Block>,
    /// Blocks whose older copies in the log must not be replayed.
    pub revoked: BTreeSet<PhysicalBlock>,
    /// Blocks that were freed, with the inode that they belonged to. They may be reused when the
    /// transaction is durable and no request reads them.
    pub freed: Vec<(BlockRun, Option<InodeNumber>)>,
    /// Inodes that were freed. They may be reused when the transaction is durable.
    pub freed_inodes: HashSet<InodeNumber>,
    /// Inodes that were changed, with true if their size or their map was.
    pub inodes: HashMap<InodeNumber, bool>,
    /// True if data that the changes refer to may be in the device's volatile cache.
    pub needs_flush: bool,
    /// The changes that the next fast commit has; `None` if there are others, which need a full one.
    pub pending: Option<Pending>,
    /// Number of durable fast commits of this transaction.
    pub fast_commits: u32,
}

impl Transaction {
    /// Creates an empty transaction.
    pub(crate) fn new(tid: u32) -> Self {
        Self {
            tid,
            images: BTreeMap::new(),
            revoked: BTreeSet::new(),
            freed: Vec::new(),
            freed_inodes: HashSet::new(),
            inodes: HashMap::new(),
            needs_flush: false,
            pending: Some(Pending::default()),
            fast_commits: 0,
        }
    }

    /// Returns true if nothing was changed.
    pub(crate) fn is_empty(&self) -> bool {
        self.images.is_empty() && self.revoked.is_empty()
    }

    /// Adds the changes of inodes to the next fast commit.
    pub(crate) fn add_pending(&mut self, changes: &Changes) {
        self.pending = self.pending.take().filter(|_| changes.is_fast).map(|mut pending| {
            // A replay changes a directory with its names.
            let is_parent =
                |inode: &&Inode| changes.names.iter().any(|name| name.directory == inode.number());
            let inodes = changes.inodes.iter().filter(|inode| !is_parent(inode));
            inodes.for_each(|inode| pending.add_inode(inode.number()));
            changes.names.iter().for_each(|name| pending.add_name(name.clone()));
            for (inode, range) in &changes.ranges {
                pending.add_range(*inode, range.clone());
            }
            pending
        });
        self.pending = self.pending.take().filter(|pending| !pending.is_too_large());
    }

    /// Adds the new contents of a block, which replace older ones. A revoke of it in this transaction
    /// would hide them, so it is taken back.
    pub(crate) fn insert(&mut self, number: PhysicalBlock, block: Block) {
        self.revoked.remove(&number);
        self.images.insert(number, block);
    }

    /// Adds the revoke of a block of metadata that was freed.
    pub(crate) fn revoke(&mut self, number: PhysicalBlock) {
        self.images.remove(&number);
        self.revoked.insert(number);
    }
}
