//! The first pass: counting the tags of complete fast commits.

use crate::error::Error;
use crate::format::checksum::crc32c;
use crate::format::corrupt::{Problem, Structure};
use crate::recovery::fast_commit::tag;
use crate::recovery::fast_commit::tag::{Found, Tag};

/// The state of a scan between blocks.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Expected transaction number: the one after the last complete transaction.
    transaction: u32,
    inode_size: usize,
    /// Number of tags so far.
    tags: u64,
    /// Number of tags up to the last valid tail.
    valid: u64,
    checksum: u32,
}

impl Scan {
    pub(crate) fn new(transaction: u32, inode_size: usize) -> Self {
        Self { transaction, inode_size, ..Self::default() }
    }

    /// Returns the number of tags in complete fast commits.
    pub(crate) fn valid(&self) -> u64 {
        self.valid
    }

    /// Scans block `index`. Returns true if the next block may contain more tags.
    ///
    /// # Errors
    /// If the first fast commit is damaged, or needs unknown features. Damage after a complete fast
    /// commit ends the scan.
    pub(crate) fn block(&mut self, index: u32, block: &[u8]) -> Result<bool, Error> {
        let corrupt = |problem| Structure::FastCommit { index }.corrupt(problem);
        let mut at = 0;
        loop {
            let (tag, covered) = match tag::read(block, at, self.inode_size) {
                Found::End => return Ok(true),
                // The area was never written, or the first tag is invalid.
                Found::Invalid { .. } if self.tags == 0 => return Ok(false),
                Found::Invalid { .. } if self.valid > 0 => return Ok(false),
                Found::Invalid { tag, length } => {
                    return Err(corrupt(Problem::FastCommitTag { offset: at, tag, length }));
                }
                Found::Tag { tag, covered, next } => {
                    at = next;
                    (tag, covered)
                }
            };
            match tag {
                Tag::Head { features, .. } if features != 0 => {
                    let (value, rule) = (features.into(), "must be 0");
                    return Err(corrupt(Problem::Field { field: "features", value, rule }));
                }
                // The fast commit belongs to an earlier transaction.
                Tag::Head { transaction, .. } if transaction != self.transaction => {
                    return Ok(false);
                }
                // The first tag must be a head.
                _ if self.tags == 0 && !matches!(tag, Tag::Head { .. }) => return Ok(false),
                _ => (),
            }
            self.tags = self.tags.saturating_add(1);
            self.checksum = crc32c(self.checksum, covered);
            if let Tag::Tail { transaction, checksum } = tag {
                let computed = std::mem::take(&mut self.checksum);
                if transaction == self.transaction && checksum == computed {
                    self.valid = self.tags;
                } else if self.valid > 0 {
                    return Ok(false);
                } else {
                    return Err(corrupt(Problem::Checksum { stored: checksum, computed }));
                }
            }
        }
    }
}
