//! The part of a map after the end of the file, where damage does not concern the contents.

use crate::blocks::damage::DamageList;
use crate::blocks::metadata::Metadata;
use crate::error::Error;
use crate::format::inode::Inode;
use crate::number::LogicalBlock;

/// The logical blocks after the end of a file.
pub(crate) struct AfterEnd<'a> {
    start: LogicalBlock,
    damage: &'a DamageList,
}

impl<'a> AfterEnd<'a> {
    pub(crate) fn of(metadata: &'a Metadata, inode: &Inode) -> Self {
        let blocks = inode.size().div_ceil(metadata.superblock().block_size().into());
        Self { start: LogicalBlock::or_end(blocks), damage: metadata.damage() }
    }

    pub(crate) fn contains(&self, logical: LogicalBlock) -> bool {
        (self.start..LogicalBlock::END).contains(&logical)
    }

    /// Adds the error of a mapping after the end of the file to the list of damage.
    pub(crate) fn ignore(&self, error: Error) {
        if let Error::Corrupt(damage) = error {
            self.damage.add(*damage);
        }
    }
}
