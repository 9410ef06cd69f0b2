//! Blocks of metadata: cached, read ahead, or read from the source.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::blocks::block_cache::{Block, BlockCache};
use crate::blocks::cache::Cache;
use crate::blocks::overlay::Overlay;
use crate::blocks::read::read;
use crate::blocks::source::{BlockSource, ReadRange};
use crate::error::Error;
use crate::format::corrupt::{Problem, Structure};
use crate::format::group;
use crate::format::group::GroupDescriptor;
use crate::format::raw_superblock::{RawSuperblock, SUPERBLOCK_OFFSET};
use crate::format::superblock::Superblock;
use crate::mount::options::Options;

/// Maximum number of cached group descriptors.
const DESCRIPTORS: usize = 4096;
/// Maximum length of one read in a read-ahead, bytes. It is smaller, because the device executes
/// several reads in parallel.
const PIECE: u32 = 128 << 10;

/// A reader of metadata blocks. Callers have checked the block numbers.
pub(crate) struct Metadata {
    source: Arc<dyn BlockSource>,
    /// Blocks with newer contents in the journal.
    overlay: Option<Overlay>,
    superblock: Superblock,
    /// Block size, bytes.
    block_size: u32,
    cache: BlockCache,
    pub(super) groups: Cache<u32, GroupDescriptor>,
    /// Maximum number of blocks in one read-ahead; 0 if read-ahead is off.
    ahead: usize,
    /// Reusable buffer of a read-ahead.
    arrived: Mutex<Vec<u8>>,
}

impl Metadata {
    /// Creates a reader of the blocks of a filesystem from `source`, or from the log for blocks in
    /// `overlay`. `options` bounds the cache and the read-ahead.
    pub(crate) fn new(
        source: Arc<dyn BlockSource>,
        overlay: Option<Overlay>,
        superblock: Superblock,
        options: &Options,
    ) -> Self {
        let block_size = superblock.block_size();
        let size = usize::try_from(block_size).unwrap_or(usize::MAX);
        let capacity = options.cache_bytes.checked_div(size).unwrap_or(0);
        let cache = BlockCache::new(capacity);
        // A read-ahead must not evict its own blocks before they are used, so limit it to a quarter
        // of the cache.
        let ahead = options.read_ahead.checked_div(size).unwrap_or(0).min(capacity >> 2);
        let (groups, arrived) = (Cache::new(DESCRIPTORS), Mutex::default());
        Self { source, overlay, superblock, block_size, cache, groups, ahead, arrived }
    }

    /// Returns the superblock as it was when the filesystem was opened.
    pub(crate) fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Reads the superblock from the device again.
    pub(crate) fn superblock_now(&self) -> Result<Superblock, Error> {
        read_superblock(&*self.source)
    }

    /// Returns the block `number`.
    pub(crate) fn block(&self, number: u64) -> Result<Block, Error> {
        if let Some(block) = self.cache.get(number) {
            return Ok(block);
        }
        let mut bytes = vec![0; usize::try_from(self.block_size).unwrap_or(0)];
        self.read(number, &mut bytes)?;
        Ok(self.keep(number, &bytes))
    }

    /// Returns true if the block `number` is cached.
    pub(crate) fn is_cached(&self, number: u64) -> bool {
        self.cache.contains(number)
    }

    /// Reads the block `number` from the device again.
    pub(crate) fn block_now(&self, number: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; usize::try_from(self.block_size).unwrap_or(0)];
        read(&*self.source, number.saturating_mul(self.block_size.into()), &mut bytes)?;
        Ok(bytes)
    }

    /// Returns the descriptor of a block group.
    pub(crate) fn group(&self, group: u32) -> Result<GroupDescriptor, Error> {
        if let Some(descriptor) = self.groups.get(group) {
            return Ok(descriptor);
        }
        let superblock = &self.superblock;
        let corrupt = |problem| Structure::GroupDescriptor(group).corrupt(problem);
        let (number, offset) = group::location(superblock, group);
        if number >= superblock.blocks_count() {
            return Err(corrupt(Problem::BlockRange { start: number, count: 1 }));
        }
        let block = self.block(number)?;
        let bytes = block
            .get(offset..)
            .and_then(|rest| rest.get(..usize::from(superblock.descriptor_size)))
            .ok_or_else(|| corrupt(Problem::Missing { logical: u64::from(group) }))?;
        let descriptor = GroupDescriptor::parse(superblock, group, bytes)?;
        self.groups.insert(group, descriptor);
        Ok(descriptor)
    }

    /// Returns the blocks with newer contents in the journal.
    pub(crate) fn overlay(&self) -> Option<&Overlay> {
        self.overlay.as_ref()
    }

    /// Returns the maximum number of blocks that one [`prefetch`](Self::prefetch) reads; 0 if
    /// read-ahead is off.
    pub(crate) fn ahead(&self) -> usize {
        self.ahead
    }

    /// Reads ahead the blocks in `wanted` that are not cached, in parallel, from the first on up to
    /// the limit of a read-ahead. Blocks may be repeated. Numbers after the end of the filesystem
    /// are ignored.
    ///
    /// Blocks that fail are not cached. They are read again when they are needed, and the error is
    /// returned then.
    pub(crate) fn prefetch(&self, wanted: impl IntoIterator<Item = Range<u64>>) {
        let end = self.superblock.blocks_count();
        let mut numbers: Vec<u64> = wanted
            .into_iter()
            .flat_map(|range| range.start.min(end)..range.end.min(end))
            .filter(|&number| !self.cache.contains(number))
            .take(self.ahead)
            .collect();
        if numbers.is_empty() {
            return;
        }
        numbers.sort_unstable();
        numbers.dedup();
        match self.arrived.try_lock() {
            Ok(mut arrived) => self.read_ahead(&numbers, &mut arrived),
            // Another thread uses the buffer.
            Err(_) => self.read_ahead(&numbers, &mut Vec::new()),
        }
    }

    /// Reads the sorted blocks `numbers` into `arrived` and inserts them into the cache.
    fn read_ahead(&self, numbers: &[u64], arrived: &mut Vec<u8>) {
        let size = usize::try_from(self.block_size).unwrap_or(1).max(1);
        let bytes = numbers.len().saturating_mul(size);
        if arrived.len() < bytes {
            arrived.resize(bytes, 0);
        }
        // Adjacent blocks become one read.
        let most = usize::try_from(PIECE).unwrap_or(1).checked_div(size).unwrap_or(1).max(1);
        let runs =
            numbers.chunk_by(|&a, &b| a.checked_add(1) == Some(b)).flat_map(|run| run.chunks(most));
        let mut left = arrived.as_mut_slice();
        let mut ranges: Vec<ReadRange<'_>> = Vec::new();
        for run in runs.clone() {
            let length = run.len().saturating_mul(size);
            let Some((buf, rest)) = std::mem::take(&mut left).split_at_mut_checked(length) else {
                return;
            };
            left = rest;
            let start = run.first().copied().unwrap_or(0);
            ranges.push(ReadRange::new(start.saturating_mul(self.block_size.into()), buf));
        }
        self.source.read_many(&mut ranges);
        for (run, range) in runs.zip(ranges) {
            let ReadRange { offset, buf, result, .. } = range;
            let start = run.first().copied().unwrap_or(0);
            let patched = match (&self.overlay, result) {
                (_, Err(error)) => Err(error.to_string()),
                (None, Ok(())) => Ok(()),
                (Some(overlay), Ok(())) => {
                    overlay.patch(start, buf).map_err(|error| error.to_string())
                }
            };
            if let Err(error) = patched {
                log::debug!("read-ahead at byte {offset}: {error}");
                continue;
            }
            for (&number, bytes) in run.iter().zip(buf.chunks_exact(size)) {
                self.keep(number, bytes);
            }
        }
    }

    /// Inserts a block into the cache. All blocks enter the cache here.
    fn keep(&self, number: u64, bytes: &[u8]) -> Block {
        let block: Block = bytes.into();
        self.cache.insert(number, Arc::clone(&block));
        block
    }

    /// Fills `bytes`, a multiple of the block size, from block `number` on.
    fn read(&self, number: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let offset = number.saturating_mul(self.block_size.into());
        let Some(overlay) = &self.overlay else { return read(&*self.source, offset, bytes) };
        if !overlay.has_all(number, bytes) {
            read(&*self.source, offset, bytes)?;
        }
        overlay.patch(number, bytes)
    }
}

/// Reads and checks the superblock on `source`.
pub(crate) fn read_superblock(source: &(impl BlockSource + ?Sized)) -> Result<Superblock, Error> {
    Superblock::parse(&read_raw_superblock(source)?)
}

/// Returns the superblock after the replay of the journal. `before` is the superblock on `source`.
pub(crate) fn replayed_superblock(
    source: &(impl BlockSource + ?Sized),
    overlay: &Overlay,
    before: &Superblock,
) -> Result<Superblock, Error> {
    let (number, size) = (before.superblock_block(), before.block_size());
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    read(source, number.saturating_mul(size.into()), &mut bytes)?;
    overlay.patch(number, &mut bytes)?;
    let offset = SUPERBLOCK_OFFSET.saturating_sub(number.saturating_mul(size.into()));
    let raw = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..));
    let raw = raw.and_then(|bytes| RawSuperblock::ref_from_prefix(bytes).ok());
    let missing = || Structure::Superblock.corrupt(Problem::Missing { logical: number });
    Superblock::parse(raw.ok_or_else(missing)?.0)
}

/// Reads the superblock on `source` without checking it.
pub(crate) fn read_raw_superblock(
    source: &(impl BlockSource + ?Sized),
) -> Result<RawSuperblock, Error> {
    let needed = SUPERBLOCK_OFFSET.saturating_mul(2);
    let device = source.size();
    if device < needed {
        return Err(Error::Truncated { needed, device });
    }
    let mut raw = RawSuperblock::new_zeroed();
    read(source, SUPERBLOCK_OFFSET, raw.as_mut_bytes())?;
    Ok(raw)
}
