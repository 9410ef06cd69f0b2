//! A regular file of a copy, while its contents are read.

use std::ffi::OsString;
use std::rc::Rc;

use indicatif::ProgressBar;
use nvio_ext4::Inode;

use super::host;
use super::place::{Folder, Unfinished};
use super::reads::{Failure, Target};
use crate::error::Error;

/// A name to be created in a directory of the copy.
pub struct Entry {
    /// The path in the filesystem.
    pub source: Vec<u8>,
    /// The inode.
    pub inode: Inode,
    /// The directory on this machine.
    pub folder: Rc<Folder>,
    /// The name there.
    pub name: OsString,
}

/// A file whose contents are being copied.
pub struct Transfer {
    /// Its name.
    pub entry: Entry,
    /// The copy, which has no name yet.
    pub target: Unfinished,
    /// The first failure.
    pub result: Result<(), Error>,
    /// End of the last range that was written.
    pub written: u64,
    progress: ProgressBar,
}

impl Transfer {
    /// Creates a transfer of no data yet, whose bytes are counted by `progress`.
    pub fn new(entry: Entry, target: Unfinished, progress: ProgressBar) -> Self {
        Self { entry, target, result: Ok(()), written: 0, progress }
    }
}

impl Target for Transfer {
    fn write(&mut self, data: &[u8], pos: u64) {
        let path = || self.entry.folder.path.join(&self.entry.name);
        self.result = host::write_at(self.target.file(), data, pos, path);
        let length = data.len() as u64;
        self.written = self.written.max(pos.saturating_add(length));
        self.progress.inc(length);
    }

    fn fail(&mut self, failure: Failure) {
        if self.has_failed() {
            return;
        }
        let source = &self.entry.source;
        self.result = Err(match failure {
            Failure::File(error) => Error::path(source)(error),
            Failure::Queue(error) => nvio::Error::from(error).into(),
            Failure::Lost => Error::ReadsLost { path: crate::name::escaped(source) },
        });
    }

    fn has_failed(&self) -> bool {
        self.result.is_err()
    }
}
