//! What requests in flight have of a file.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nvio_iomap::{FileRef, OpenFile, Report, WeakFileRef};

use crate::error::Error;

use crate::filesystem::Filesystem;

/// The part of an open file that all its handles and requests share; see [`Inode`]. There is one
/// for each inode that is open, however many handles there are.
#[derive(Debug)]
pub struct OpenInode {
    fs: Filesystem,
    number: u32,
}

impl OpenInode {
    /// The inode's number.
    pub fn number(&self) -> u32 {
        self.number
    }
}

impl OpenFile for OpenInode {
    type Error = Error;

    fn report(&self, report: &Report<'_, Error>) {
        let Report { pos, bytes, write, error } = *report;
        let what = if write { "write" } else { "read" };
        if error.is_refusal() {
            log::debug!("inode {}: {what} of {bytes} bytes at {pos}: {error}", self.number);
            return;
        }
        log::warn!("inode {}: {what} of {bytes} bytes at {pos}: {error}", self.number);
        self.fs.count_io_error();
    }
}

impl Drop for OpenInode {
    fn drop(&mut self) {
        self.fs.open_inodes().remove(self.number);
    }
}

/// The inodes of a filesystem that are open, by number. It does not keep them open.
#[derive(Debug, Default)]
pub(crate) struct OpenInodes(Mutex<HashMap<u32, WeakFileRef<OpenInode>>>);

impl OpenInodes {
    /// The one of this number; `fs` is the filesystem that this is of.
    pub(crate) fn open(&self, fs: &Filesystem, number: u32) -> FileRef<OpenInode> {
        let mut open = self.lock();
        let known = open.get(&number).and_then(WeakFileRef::upgrade);
        // Nothing is dropped while this is locked: a new one is made only if there is none.
        let shared = known.unwrap_or_else(|| FileRef::new(OpenInode { fs: fs.clone(), number }));
        open.insert(number, shared.downgrade());
        shared
    }

    /// Forgets one that is gone, unless it is open again.
    fn remove(&self, number: u32) {
        let mut open = self.lock();
        if open.get(&number).is_some_and(WeakFileRef::is_gone) {
            open.remove(&number);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, WeakFileRef<OpenInode>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Image;

    #[test]
    fn handles_of_an_inode_share_it() {
        let mut image = Image::new();
        image.inode(12, |_| ());
        image.inode(13, |_| ());
        let fs = image.open();
        let [a, b] = [12, 13].map(|number| fs.inode(number).unwrap());
        let first = fs.file(&a).unwrap();
        let second = fs.file(&a).unwrap();
        let other = fs.file(&b).unwrap();
        let address = |file: &crate::file::File| std::ptr::from_ref(file.open_inode());
        assert_eq!(address(&first), address(&second));
        assert_ne!(address(&first), address(&other));
        assert_eq!(fs.open_inodes().lock().len(), 2);
        drop((first, other));
        assert_eq!(address(&second), address(&fs.file(&a).unwrap()));
        drop(second);
        assert!(fs.open_inodes().lock().is_empty());
    }
}
