//! The transactions in memory, behind the journal's mutex.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::alloc::windows::Windows;
use crate::blocks::block_cache::Block;
use crate::change::delayed::Reserved;
use crate::error::Error;
use crate::error::reasons::MmpHolder;
use crate::journal::changes::Changes;
use crate::journal::fast_commit::Pending;
use crate::journal::runs::RunSet;
use crate::journal::transaction::Transaction;
use crate::number::{BlockRun, InodeNumber, PhysicalBlock};
use crate::recovery::journal::block::is_later;

/// A commit: of a transaction, or one of the fast commits before it.
#[derive(Clone, Copy)]
pub(crate) struct Point {
    pub tid: u32,
    /// Number of durable fast commits of the transaction that suffice, too.
    fast_commits: u32,
    /// The commit was taken from the running transaction before.
    pub is_begun: bool,
}

/// The transactions that are not in place on the device.
pub(crate) struct State {
    /// The transaction that changes are added to.
    pub running: Transaction,
    /// The transaction that is being written to the log.
    pub committing: Option<Arc<Transaction>>,
    /// The inodes of a fast commit of the running transaction, while it is being written.
    pub fast_committing: Option<HashMap<InodeNumber, bool>>,
    /// The newest contents in the log of blocks that are not in place yet.
    pub committed: HashMap<PhysicalBlock, Block>,
    /// The last transaction that is durable.
    pub committed_tid: u32,
    /// Blocks that were freed by transactions that are not durable, and those in `held`.
    pub excluded: RunSet,
    /// Number of free blocks, with the excluded ones.
    pub free: u64,
    /// Free blocks that are left to files that grow.
    pub windows: Windows,
    /// Number of free blocks that are promised to data in the cache.
    pub reserved: Reserved,
    /// Blocks that were freed by durable transactions while requests of their inode were in flight.
    pub held: Vec<(BlockRun, InodeNumber)>,
    /// Inodes in the list of orphans: they are being truncated, or they have no name and are to be freed
    /// when their last handle is closed.
    pub orphans: HashSet<InodeNumber>,
    /// A write to the log failed, so that nothing can be changed any more.
    pub is_aborted: bool,
    /// Another host has taken the filesystem, so that nothing can be changed any more.
    pub lost: Option<Box<MmpHolder>>,
    /// The filesystem was closed, so that nothing can be changed any more.
    pub is_closed: bool,
    /// Number of changes. An inode that was read while it increased may be an old one.
    pub version: u64,
    /// Number of changes of directories.
    pub names_version: u64,
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
            fast_committing: None,
            committed: HashMap::new(),
            committed_tid: tid.wrapping_sub(1),
            excluded: RunSet::default(),
            free,
            windows: Windows::default(),
            reserved,
            held: Vec::new(),
            orphans: HashSet::new(),
            is_aborted: false,
            lost: None,
            is_closed: false,
            version: 0,
            names_version: 0,
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

    /// Returns true if an inode was freed by a transaction that is not durable.
    pub(crate) fn is_freed(&self, inode: InodeNumber) -> bool {
        let committing = self.committing.as_ref();
        self.running.freed_inodes.contains(&inode)
            || committing.is_some_and(|transaction| transaction.freed_inodes.contains(&inode))
    }

    /// Returns an error if nothing can be changed.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if let Some(holder) = &self.lost {
            return Err(Error::InUse(holder.clone()));
        }
        match () {
            () if self.is_aborted => Err(Error::JournalAborted),
            () if self.is_closed => Err(Error::Closed),
            () => Ok(()),
        }
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
        if let Some((inode, window)) = changes.window {
            self.windows.advance(inode, window);
        }
        for &run in &changes.freed {
            self.free = self.free.saturating_add(run.count());
            self.excluded.insert(run);
            self.running.freed.push((run, changes.owner));
        }
        self.orphans.extend(&changes.orphans);
        self.orphans.retain(|inode| !changes.completed.contains(inode));
        self.running.freed_inodes.extend(&changes.freed_inodes);
        self.running.needs_flush |= changes.needs_flush;
        for inode in &changes.inodes {
            let has_new_map = self.running.inodes.entry(inode.number()).or_default();
            *has_new_map |= changes.has_new_map;
        }
        self.running.add_pending(changes);
        self.version = self.version.wrapping_add(1);
        if changes.inodes.iter().any(|inode| inode.is_dir() || inode.links() == 0) {
            self.names_version = self.names_version.wrapping_add(1);
        }
    }

    /// Returns the commit that the changes of an inode need to be durable; `None` if they are. With
    /// `data`, only the changes count without which its data cannot be read.
    pub(crate) fn needed(&self, inode: InodeNumber, data: bool) -> Option<Point> {
        let counts = |inodes: &HashMap<InodeNumber, bool>| {
            inodes.get(&inode).is_some_and(|&has_new_map| has_new_map || !data)
        };
        let Transaction { tid, fast_commits, .. } = self.running;
        let next = fast_commits.wrapping_add(1);
        let fast = self.fast_committing.as_ref();
        if counts(&self.running.inodes) {
            let after_next = fast.map_or(next, |_| next.wrapping_add(1));
            return Some(Point { tid, fast_commits: after_next, is_begun: false });
        }
        if fast.is_some_and(counts) {
            return Some(Point { tid, fast_commits: next, is_begun: true });
        }
        let committing = self.committing.as_ref().filter(|other| counts(&other.inodes))?;
        Some(Point { tid: committing.tid, fast_commits: 0, is_begun: true })
    }

    /// Returns true if a commit is durable.
    pub(crate) fn is_durable(&self, point: Point) -> bool {
        let Transaction { tid, fast_commits, .. } = self.running;
        let is_fast = point.tid == tid && fast_commits >= point.fast_commits;
        is_fast || !is_later(point.tid, self.committed_tid)
    }

    /// Takes the changes of the running transaction for a fast commit. Returns true if it needs a flush
    /// before.
    pub(crate) fn start_fast_commit(&mut self) -> bool {
        self.fast_committing = Some(std::mem::take(&mut self.running.inodes));
        self.running.pending = Some(Pending::default());
        std::mem::take(&mut self.running.needs_flush)
    }

    /// Ends a fast commit, which is durable.
    pub(crate) fn end_fast_commit(&mut self) {
        self.fast_committing = None;
        self.running.fast_commits = self.running.fast_commits.wrapping_add(1);
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
