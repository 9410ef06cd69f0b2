//! The overlay of blocks that have newer contents in the journal.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::blocks::read::read;
use crate::blocks::source::BlockSource;
use crate::error::Error;

/// `h_magic`: the first four bytes of the blocks of a log.
pub(crate) const MAGIC: u32 = 0xc03b_3998;

/// The place of a block's copy in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Copy(u64);

impl Copy {
    /// Creates a copy at block `place` of the journal's device. If it is `escaped`, the first four
    /// bytes are zero in the log and stand for the magic number of log blocks.
    pub(crate) fn new(place: u64, escaped: bool) -> Self {
        Self(place << 1 | u64::from(escaped))
    }

    fn place(self) -> u64 {
        self.0 >> 1
    }

    fn is_escaped(self) -> bool {
        self.0 & 1 != 0
    }
}

/// The blocks of a filesystem that have newer contents in the journal, with the places of their
/// copies: 16 bytes per block. The log must not change during the life of the overlay.
pub(crate) struct Overlay {
    /// Sorted by block number.
    entries: Box<[(u64, Copy)]>,
    /// The device that holds the log.
    source: Arc<dyn BlockSource>,
    block_size: u32,
}

impl Overlay {
    pub(crate) fn new(
        copies: HashMap<u64, Copy>,
        source: Arc<dyn BlockSource>,
        block_size: u32,
    ) -> Self {
        let mut entries: Box<[_]> = copies.into_iter().collect();
        entries.sort_unstable_by_key(|&(block, _)| block);
        Self { entries, source, block_size }
    }

    /// Returns the number of blocks in the overlay.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns the blocks of `range` that are in the overlay, in order.
    pub(crate) fn blocks(&self, range: Range<u64>) -> impl Iterator<Item = u64> {
        self.within(range).iter().map(|&(block, _)| block)
    }

    /// Returns true if all blocks of `bytes`, which begin with block `number`, are in the overlay.
    pub(crate) fn has_all(&self, number: u64, bytes: &[u8]) -> bool {
        let range = self.range(number, bytes);
        let blocks = range.end.saturating_sub(range.start);
        u64::try_from(self.within(range).len()).is_ok_and(|replaced| replaced == blocks)
    }

    fn range(&self, number: u64, bytes: &[u8]) -> Range<u64> {
        let size = usize::try_from(self.block_size).unwrap_or(1).max(1);
        let count = u64::try_from(bytes.len().div_ceil(size)).unwrap_or(0);
        number..number.saturating_add(count)
    }

    fn within(&self, range: Range<u64>) -> &[(u64, Copy)] {
        let from = self.entries.partition_point(|&(block, _)| block < range.start);
        let rest = self.entries.get(from..).unwrap_or_default();
        let count = rest.partition_point(|&(block, _)| block < range.end);
        rest.get(..count).unwrap_or_default()
    }

    /// Replaces the blocks of `bytes`, which begin with block `number`, that are in the overlay.
    pub(crate) fn patch(&self, number: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let size = usize::try_from(self.block_size).unwrap_or(1).max(1);
        for &(block, copy) in self.within(self.range(number, bytes)) {
            let index = usize::try_from(block.saturating_sub(number)).unwrap_or(usize::MAX);
            let Some(bytes) = bytes.chunks_mut(size).nth(index) else { continue };
            read(&*self.source, copy.place().saturating_mul(self.block_size.into()), bytes)?;
            if let Some(first) = bytes.first_chunk_mut::<4>().filter(|_| copy.is_escaped()) {
                *first = MAGIC.to_be_bytes();
            }
        }
        Ok(())
    }
}
