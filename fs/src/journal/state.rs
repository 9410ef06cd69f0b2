//! The transactions in memory, behind the journal's mutex.

use std::collections::HashMap;
use std::sync::Arc;

use crate::blocks::block_cache::Block;
use crate::change::delayed::Reserved;
use crate::error::Error;
use crate::journal::changes::Changes;
use crate::journal::runs::RunSet;
use crate::journal::transaction::Transaction;
use crate::number::{BlockRun, InodeNumber, PhysicalBlock};

/// The transactions that are not in place on the device.
pub(crate) struct State {
    /// The transaction that changes are added to.
    pub running: Transaction,
    /// The transaction that is being written to the log.
    pub committing: Option<Arc<Transaction>>,
    /// The newest contents in the log of blocks that are not in place yet.
    pub committed: HashMap<PhysicalBlock, Block>,
    /// The last transaction that is durable.
    pub committed_tid: u32,
    /// Blocks that were freed by transactions that are not durable, and those in `held`.
    pub excluded: RunSet,
    /// Number of free blocks, with the excluded ones.
    pub free: u64,
    /// Number of free blocks that are promised to data in the cache.
    pub reserved: Reserved,
    /// Blocks that were freed by durable transactions while requests of their inode were in flight.
    pub held: Vec<(BlockRun, InodeNumber)>,
    /// A write to the log failed, so that nothing can be changed any more.
    pub is_aborted: bool,
    /// Number of changes. An inode that was read while it increased may be an old one.
    pub version: u64,
    /// Number of checkpoints. A block that was read from the device while it increased may be an old
    /// one.
    pub checkpoints: u64,
}

impl State {
    /// Creates the state of an empty log, whose first transaction will be `tid`, of a filesystem with
    /// `free` blocks.
    pub(crate) fn new(tid: u32, free: u64, reserved: Reserved) -> Self {
        Self {
            running: Transaction::new(tid),
            committing: None,
            committed: HashMap::new(),
            committed_tid: tid.wrapping_sub(1),
            excluded: RunSet::default(),
            free,
            reserved,
            held: Vec::new(),
            is_aborted: false,
            version: 0,
            checkpoints: 0,
        }
    }

    /// Returns the newest contents of a block, if they are not in place on the device yet.
    pub(crate) fn image(&self, number: PhysicalBlock) -> Option<Block> {
        let committing = || self.committing.as_ref()?.images.get(&number);
        let image = self.running.images.get(&number).or_else(committing);
        image.or_else(|| self.committed.get(&number)).cloned()
    }

    /// Returns the number of blocks that can be allocated, without those that are reserved.
    pub(crate) fn available(&self) -> u64 {
        let free = self.free.saturating_sub(self.excluded.blocks());
        free.saturating_sub(self.reserved.blocks())
    }

    /// Returns an error if nothing can be changed.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.is_aborted { Err(Error::JournalAborted) } else { Ok(()) }
    }

    /// Adds the changes of a handle to the running transaction.
    pub(crate) fn merge(&mut self, changes: &Changes) {
        if changes.blocks.is_empty() {
            return;
        }
        for (&number, block) in &changes.blocks {
            self.running.insert(number, Arc::clone(block));
        }
        for &number in &changes.revoked {
            self.running.revoke(number);
        }
        self.free = self.free.saturating_sub(changes.allocated);
        for &run in &changes.freed {
            self.free = self.free.saturating_add(run.count());
            self.excluded.insert(run);
            self.running.freed.push((run, changes.owner));
        }
        self.running.needs_flush |= changes.needs_flush;
        for inode in &changes.inodes {
            let has_new_map = self.running.inodes.entry(inode.number()).or_default();
            *has_new_map |= changes.has_new_map;
        }
        self.version = self.version.wrapping_add(1);
    }

    /// Returns the transaction that must be durable for the changes of an inode to be, if it is not
    /// yet. With `data`, only the changes count without which its data cannot be read.
    pub(crate) fn tid_of(&self, inode: InodeNumber, data: bool) -> Option<u32> {
        let counts = |transaction: &Transaction| {
            let has_new_map = transaction.inodes.get(&inode);
            has_new_map.is_some_and(|&has_new_map| has_new_map || !data).then_some(transaction.tid)
        };
        counts(&self.running).or_else(|| counts(self.committing.as_ref()?))
    }

    /// Takes the running transaction in order to commit it. Changes are added to the next one.
    pub(crate) fn start_commit(&mut self) -> Arc<Transaction> {
        let next = Transaction::new(self.running.tid.wrapping_add(1));
        let transaction = Arc::new(std::mem::replace(&mut self.running, next));
        self.committing = Some(Arc::clone(&transaction));
        transaction
    }

    /// Ends the commit of a transaction that is durable. Blocks that it freed stay excluded while
    /// their inode `is_busy`, because a request that was mapped before may read them.
    pub(crate) fn end_commit(
        &mut self,
        transaction: &Transaction,
        is_busy: impl Fn(InodeNumber) -> bool,
    ) {
        self.committing = None;
        self.committed_tid = transaction.tid;
        for number in &transaction.revoked {
            self.committed.remove(number);
        }
        for &(run, owner) in &transaction.freed {
            match owner {
                Some(owner) => self.held.push((run, owner)),
                None => self.excluded.remove(run),
            }
        }
        self.release(is_busy);
        let images = transaction.images.iter();
        self.committed.extend(images.map(|(&number, block)| (number, Arc::clone(block))));
    }

    /// Lets the held blocks of inodes be reused that are no longer busy.
    pub(crate) fn release(&mut self, is_busy: impl Fn(InodeNumber) -> bool) {
        let Self { held, excluded, .. } = self;
        held.retain(|&(run, owner)| {
            let is_held = is_busy(owner);
            if !is_held {
                excluded.remove(run);
            }
            is_held
        });
    }
}
