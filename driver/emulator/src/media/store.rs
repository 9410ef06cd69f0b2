//! The store of a namespace: its blocks, with or without a volatile write cache.

use std::io;

use vm_memory::VolatileSlice;

use crate::config::metadata::Metadata;
use crate::media::metadata_store::BlockStore;
use crate::media::write_cache::WriteCache;
use crate::random::Random;

/// A store as commands access it. Offsets and lengths are in bytes; the namespace checks that they
/// are inside it.
#[derive(Debug)]
pub(crate) enum Store {
    /// Blocks without a cache.
    Direct(BlockStore),
    /// Blocks with a volatile write cache.
    Cached(Box<WriteCache>),
}

impl Store {
    /// Creates a store of `blocks`, with a write cache of `cache` bytes unless the backing discards
    /// or rejects writes.
    pub(crate) fn new(
        blocks: BlockStore,
        block_shift: u32,
        metadata: Option<Metadata>,
        cache: Option<u64>,
    ) -> Self {
        match cache {
            Some(bytes) if blocks.stores_writes() => {
                Self::Cached(Box::new(WriteCache::new(blocks, block_shift, metadata, bytes)))
            }
            _ => Self::Direct(blocks),
        }
    }

    /// Reads into host memory.
    #[inline]
    pub(crate) fn read(&mut self, offset: u64, to: &mut VolatileSlice<'_>) -> io::Result<()> {
        match self {
            Self::Direct(blocks) => blocks.read(offset, to),
            Self::Cached(cache) => cache.read(offset, to),
        }
    }

    /// Reads into memory of this process. Returns false if the store has no data (null).
    pub(crate) fn read_bytes(&mut self, offset: u64, to: &mut [u8]) -> io::Result<bool> {
        match self {
            Self::Direct(blocks) => blocks.read_bytes(offset, to),
            Self::Cached(cache) => cache.read_bytes(offset, to),
        }
    }

    /// Reads the metadata of whole blocks from the one at `offset`.
    pub(crate) fn read_metadata(&mut self, offset: u64, to: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Direct(blocks) => blocks.read_metadata(offset, to),
            Self::Cached(cache) => cache.read_metadata(offset, to),
        }
    }

    /// Writes from host memory.
    #[inline]
    pub(crate) fn write(&mut self, offset: u64, from: &VolatileSlice<'_>) -> io::Result<()> {
        match self {
            Self::Direct(blocks) => blocks.write(offset, from),
            Self::Cached(cache) => cache.write(offset, from),
        }
    }

    /// Writes whole blocks with their metadata, which is empty if blocks have none.
    pub(crate) fn write_blocks(
        &mut self,
        offset: u64,
        data: &[u8],
        metadata: &[u8],
    ) -> io::Result<()> {
        match self {
            Self::Direct(blocks) => blocks.write_blocks(offset, data, metadata),
            Self::Cached(cache) => cache.write_blocks(offset, data, metadata),
        }
    }

    /// Writes the metadata of whole blocks from the one at `offset`; their data stays.
    pub(crate) fn write_metadata(&mut self, offset: u64, from: &[u8]) -> io::Result<()> {
        match self {
            Self::Direct(blocks) => blocks.write_metadata(offset, from),
            Self::Cached(cache) => cache.write_metadata(offset, from),
        }
    }

    /// Zeroes whole blocks, whose metadata becomes that of blocks that were never written.
    pub(crate) fn zero(&mut self, offset: u64, len: u64) -> io::Result<()> {
        match self {
            Self::Direct(blocks) => blocks.zero(offset, len),
            Self::Cached(cache) => cache.zero(offset, len),
        }
    }

    /// Makes every write durable.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Direct(blocks) => blocks.flush(),
            Self::Cached(cache) => cache.flush(),
        }
    }

    /// Makes a range durable. A store without a cache flushes all its writes.
    pub(crate) fn commit(&mut self, offset: u64, len: u64) -> io::Result<()> {
        match self {
            Self::Direct(blocks) => blocks.flush(),
            Self::Cached(cache) => cache.commit(offset, len),
        }
    }

    /// Cuts the power: stores or loses each block in the write cache.
    pub(crate) fn power_cut(&mut self, random: &mut Random) -> io::Result<()> {
        match self {
            Self::Direct(_) => Ok(()),
            Self::Cached(cache) => cache.power_cut(random),
        }
    }

    /// Returns true if writes may be lost until they are flushed.
    pub(crate) fn is_volatile(&self) -> bool {
        match self {
            Self::Direct(blocks) => blocks.is_volatile(),
            Self::Cached(_) => true,
        }
    }
}
