//! What requests in flight have of a file.

use nvio_iomap::{Inode, Report};

use crate::{Error, Filesystem};

/// The part of an open file that its requests share; see [`Inode`].
#[derive(Debug)]
pub struct OpenInode {
    fs: Filesystem,
    number: u32,
}

impl OpenInode {
    pub(crate) fn new(fs: &Filesystem, number: u32) -> Self {
        Self { fs: fs.clone(), number }
    }

    /// The inode's number.
    pub fn number(&self) -> u32 {
        self.number
    }
}

impl Inode for OpenInode {
    type Error = Error;

    fn report(&self, report: &Report<'_, Error>) {
        let Report { pos, bytes, write, error } = *report;
        let what = if write { "write" } else { "read" };
        log::warn!("inode {}: {what} of {bytes} bytes at {pos}: {error}", self.number);
        self.fs.count_io_error();
    }
}
