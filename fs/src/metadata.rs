//! The blocks that metadata is in: kept in memory, or read from the source.

use std::sync::Arc;

use zerocopy::{FromZeros, IntoBytes};

use crate::block_cache::{Block, BlockCache};
use crate::raw_superblock::{RawSuperblock, SUPERBLOCK_OFFSET};
use crate::superblock::Superblock;
use crate::{Error, Source};

/// Most bytes of metadata that are read at once.
pub(crate) const READ_MAX: u32 = 256 << 10;

/// Reads metadata. Block numbers have been checked by the callers.
pub(crate) struct Metadata {
    source: Box<dyn Source>,
    /// Bytes in a block.
    block_size: u32,
    cache: BlockCache,
}

impl Metadata {
    /// Reads blocks of `block_size` from `source`, and keeps at most `cache_bytes` of them.
    pub(crate) fn new(source: Box<dyn Source>, block_size: u32, cache_bytes: usize) -> Self {
        let size = usize::try_from(block_size).unwrap_or(usize::MAX);
        let cache = BlockCache::new(cache_bytes.checked_div(size).unwrap_or(0));
        Self { source, block_size, cache }
    }

    /// The superblock, as it is on the device now.
    pub(crate) fn superblock(&self) -> Result<Superblock, Error> {
        read_superblock(&*self.source)
    }

    /// The block `number`.
    pub(crate) fn block(&self, number: u64) -> Result<Block, Error> {
        if let Some(block) = self.cache.get(number) {
            return Ok(block);
        }
        let block: Block = self.block_now(number)?.into();
        self.cache.insert(number, Arc::clone(&block));
        Ok(block)
    }

    /// The block `number`, if it is in memory.
    pub(crate) fn cached(&self, number: u64) -> Option<Block> {
        self.cache.get(number)
    }

    /// The block `number`, as it is on the device now.
    pub(crate) fn block_now(&self, number: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; usize::try_from(self.block_size).unwrap_or(0)];
        self.read(number, &mut bytes)?;
        Ok(bytes)
    }

    /// `count` blocks from `start`, at most [`READ_MAX`] bytes, in one read at most.
    pub(crate) fn blocks(&self, start: u64, count: u32) -> Result<Vec<Block>, Error> {
        let range = start..start.saturating_add(u64::from(count));
        let cached: Vec<Option<Block>> =
            range.clone().map(|number| self.cache.get(number)).collect();
        // From the first that is missing to the last; what lies between is read again.
        let first = cached.iter().position(Option::is_none);
        let last = cached.iter().rposition(Option::is_none);
        let (Some(first), Some(last)) = (first, last) else {
            return Ok(cached.into_iter().flatten().collect());
        };
        let block_size = usize::try_from(self.block_size).unwrap_or(1).max(1);
        let length = last.saturating_sub(first).saturating_add(1).saturating_mul(block_size);
        let mut bytes = vec![0; length.min(usize::try_from(READ_MAX).unwrap_or(usize::MAX))];
        let skip = u64::try_from(first).unwrap_or(0);
        self.read(start.saturating_add(skip), &mut bytes)?;

        let mut fresh = bytes.chunks_exact(block_size);
        let mut blocks = Vec::with_capacity(cached.len());
        for (at, (number, cached)) in range.zip(cached).enumerate() {
            let read = if at >= first { fresh.next() } else { None };
            match (cached, read) {
                (Some(block), _) => blocks.push(block),
                (None, Some(bytes)) => {
                    let block: Block = bytes.into();
                    self.cache.insert(number, Arc::clone(&block));
                    blocks.push(block);
                }
                (None, None) => blocks.push(self.block(number)?),
            }
        }
        Ok(blocks)
    }

    /// Fills `bytes`, whole blocks, from block `number` on.
    fn read(&self, number: u64, bytes: &mut [u8]) -> Result<(), Error> {
        read(&*self.source, number.saturating_mul(self.block_size.into()), bytes)
    }
}

/// The superblock of what is on `source`.
pub(crate) fn read_superblock(source: &(impl Source + ?Sized)) -> Result<Superblock, Error> {
    let mut raw = RawSuperblock::new_zeroed();
    read(source, SUPERBLOCK_OFFSET, raw.as_mut_bytes())?;
    Superblock::parse(&raw)
}

fn read(source: &(impl Source + ?Sized), offset: u64, bytes: &mut [u8]) -> Result<(), Error> {
    let length = bytes.len();
    source.read(offset, bytes).map_err(|error| Error::Source { offset, length, error })
}
