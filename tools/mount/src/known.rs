//! The inodes that the kernel knows.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fuser::Errno;
use nvio_ext4::{HeldInode, Inode};

use crate::backend::Backend;
use crate::errno::errno;

/// The inodes that the kernel knows, each with the number of replies that told of it. They are not freed
/// before the kernel forgets them, because it calls them by number.
#[derive(Default)]
pub(crate) struct Known(Mutex<HashMap<u64, Entry>>);

struct Entry {
    count: u64,
    _held: Option<HeldInode>,
}

impl Known {
    /// Notes a reply that tells of an inode.
    pub(crate) fn add(&self, backend: &Backend, inode: &Inode) -> Result<(), Errno> {
        let number = inode.number().get().into();
        if let Some(entry) = self.lock().get_mut(&number) {
            entry.count += 1;
            return Ok(());
        }
        let held = match backend {
            Backend::Read(_) => None,
            Backend::Write(volume) => {
                Some(volume.filesystem().hold(inode).map_err(|error| errno(&error))?)
            }
        };
        // Another thread may have added it meanwhile: one of the two references is enough. It is
        // dropped after the lock.
        let mut known = self.lock();
        let before = known.remove(&number);
        let count = before.as_ref().map_or(0, |before| before.count) + 1;
        known.insert(number, Entry { count, _held: held });
        drop(known);
        drop(before);
        Ok(())
    }

    /// Notes that the kernel has forgotten so many replies.
    pub(crate) fn forget(&self, number: u64, count: u64) {
        let mut known = self.lock();
        let Some(entry) = known.get_mut(&number) else { return };
        entry.count = entry.count.saturating_sub(count);
        if entry.count == 0 {
            // The inode may be freed when it is dropped.
            let gone = known.remove(&number);
            drop(known);
            drop(gone);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        drop(std::mem::take(&mut *self.lock()));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
