//! Fast commits: changes of single files since the last full commit, stored after the log.
//!
//! The kernel applies them to the structures on the device. Here they become patches that readers
//! apply: inodes, ranges of maps, and names in directories. [`scan`] finds the complete fast
//! commits, and [`replay`] creates the patches.

pub(crate) mod changes;
pub(crate) mod replay;
pub(crate) mod scan;
pub(crate) mod tag;
#[cfg(test)]
mod tests;

use crate::error::Error;
use crate::recovery::fast_commit::replay::Area;
use crate::recovery::journal::FastCommitArea;

impl Area for FastCommitArea {
    fn blocks(&self) -> u32 {
        self.blocks()
    }

    fn block(&mut self, index: u32) -> Result<&[u8], Error> {
        self.block(index)
    }
}
