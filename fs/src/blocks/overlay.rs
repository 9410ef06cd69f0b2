//! The overlay of blocks that have newer contents in the journal.

use std::collections::HashMap;
use std::sync::Arc;

use crate::blocks::read::read;
use crate::blocks::source::BlockSource;
use crate::error::Error;
use crate::number::{BlockRun, PhysicalBlock};

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
    entries: Box<[(PhysicalBlock, Copy)]>,
    /// The device that holds the log.
    source: Arc<dyn BlockSource>,
    block_size: u32,
}

impl Overlay {
    pub(crate) fn new(
        copies: HashMap<PhysicalBlock, Copy>,
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

    /// Returns the blocks of `run` that are in the overlay, in order.
    pub(crate) fn blocks(&self, run: BlockRun) -> impl Iterator<Item = PhysicalBlock> {
        let from = self.entries.partition_point(|&(block, _)| block < run.start());
        let rest = self.entries.get(from..).unwrap_or_default();
        rest.iter().map(|&(block, _)| block).take_while(move |&block| block < run.end())
    }

    /// Reads `block` into `bytes` if it is in the overlay, and returns true then.
    pub(crate) fn read(&self, block: PhysicalBlock, bytes: &mut [u8]) -> Result<bool, Error> {
        let found = self.entries.binary_search_by_key(&block, |&(block, _)| block).ok();
        let Some(&(_, copy)) = found.and_then(|at| self.entries.get(at)) else { return Ok(false) };
        read(&*self.source, copy.place().saturating_mul(self.block_size.into()), bytes)?;
        if let Some(first) = bytes.first_chunk_mut::<4>().filter(|_| copy.is_escaped()) {
            *first = MAGIC.to_be_bytes();
        }
        Ok(true)
    }
}
