//! Blocks that the journal has newer contents of.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::blocks::metadata::read;
use crate::blocks::source::Source;
use crate::error::Error;
use crate::recovery::journal::block::MAGIC;

/// Where the copy of a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Copy(u64);

impl Copy {
    /// The block `place` of the journal's device. If it is `escaped`, its first four bytes are the
    /// magic number of the journal's blocks, and zeroes in the log.
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

/// The blocks of a filesystem that its journal replaces, by where in the log they are: 16 bytes
/// each. The log must not change while this is in use.
pub(crate) struct Overlay {
    /// In the order of block numbers.
    entries: Box<[(u64, Copy)]>,
    /// The device that the log is on.
    source: Arc<dyn Source>,
    block_size: u32,
}

impl Overlay {
    pub(crate) fn new(
        copies: HashMap<u64, Copy>,
        source: Arc<dyn Source>,
        block_size: u32,
    ) -> Self {
        let mut entries: Box<[_]> = copies.into_iter().collect();
        entries.sort_unstable_by_key(|&(block, _)| block);
        Self { entries, source, block_size }
    }

    /// Blocks that are replaced.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The blocks of `range` that are replaced, in order.
    pub(crate) fn blocks(&self, range: Range<u64>) -> impl Iterator<Item = u64> {
        self.within(range).iter().map(|&(block, _)| block)
    }

    /// Whether all of `bytes`, which begin with block `number`, are replaced.
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

    /// Replaces what of `bytes`, which begin with block `number`, the journal has newer contents of.
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
