//! Locks of inodes, for changes of several steps.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::number::InodeNumber;

/// The inodes whose blocks are being changed. A change of several steps, with I/O in between, holds
/// the lock of its inode, so that no other one frees the blocks that it writes to.
#[derive(Default)]
pub(crate) struct InodeLocks {
    held: Mutex<HashSet<InodeNumber>>,
    released: Condvar,
}

impl InodeLocks {
    /// Waits until no other thread changes the blocks of `inode`, and keeps others from it until the
    /// guard is dropped.
    pub(crate) fn lock(&self, inode: InodeNumber) -> InodeLock<'_> {
        let held = self.held();
        let waited = self.released.wait_while(held, |held| !held.insert(inode));
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        InodeLock { locks: self, inode }
    }

    fn held(&self) -> MutexGuard<'_, HashSet<InodeNumber>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lock that is held.
pub(crate) struct InodeLock<'a> {
    locks: &'a InodeLocks,
    inode: InodeNumber,
}

impl Drop for InodeLock<'_> {
    fn drop(&mut self) {
        self.locks.held().remove(&self.inode);
        self.locks.released.notify_all();
    }
}
