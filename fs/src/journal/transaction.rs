//! Transactions: the blocks that a set of changes replaces.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::blocks::block_cache::Block;
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
    /// Inodes that were changed, with true if their size or their map was.
    pub inodes: HashMap<InodeNumber, bool>,
    /// True if data that the changes refer to may be in the device's volatile cache.
    pub needs_flush: bool,
}

impl Transaction {
    /// Creates an empty transaction.
    pub(crate) fn new(tid: u32) -> Self {
        Self {
            tid,
            images: BTreeMap::new(),
            revoked: BTreeSet::new(),
            freed: Vec::new(),
            inodes: HashMap::new(),
            needs_flush: false,
        }
    }

    /// Returns true if nothing was changed.
    pub(crate) fn is_empty(&self) -> bool {
        self.images.is_empty() && self.revoked.is_empty()
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
