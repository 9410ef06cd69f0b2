//! Blocks of metadata: cached, read ahead, or read from the source.

use std::sync::{Arc, Mutex, OnceLock};

use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::blocks::block_cache::{Block, BlockCache};
use crate::blocks::cache::Cache;
use crate::blocks::damage::DamageList;
use crate::blocks::descriptor_copy;
use crate::blocks::newer::Newer;
use crate::blocks::overlay::Overlay;
use crate::blocks::read::read;
use crate::blocks::source::{BlockSource, ReadRange};
use crate::error::Error;
use crate::format::corrupt::{Corrupt, Problem, Structure};
use crate::format::group;
use crate::format::group::GroupDescriptor;
use crate::format::raw_superblock::{RawSuperblock, SUPERBLOCK_OFFSET};
use crate::format::superblock::Superblock;
use crate::format::superblock_copy::SuperblockCopy;
use crate::mount::options::Options;
use crate::number::{InodeNumber, PhysicalBlock, as_usize};

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
    /// Damage that reads went around.
    damage: Arc<DamageList>,
    /// Changed blocks, if the filesystem is open for changes.
    newer: OnceLock<Arc<dyn Newer>>,
    /// The result of the search for a copy of the group descriptors, after the first damage.
    sound_copy: OnceLock<Option<SuperblockCopy>>,
}

impl Metadata {
    /// Creates a reader of the blocks of a filesystem from `source`, or from the log for blocks in
    /// `overlay`. `options` bounds the cache and the read-ahead. Damage is added to `damage`.
    pub(crate) fn new(
        source: Arc<dyn BlockSource>,
        overlay: Option<Overlay>,
        superblock: Superblock,
        options: &Options,
        damage: Arc<DamageList>,
    ) -> Self {
        let block_size = superblock.block_size();
        let size = as_usize(block_size);
        let capacity = options.cache_bytes.checked_div(size).unwrap_or(0);
        let cache = BlockCache::new(capacity);
        // A read-ahead must not evict its own blocks before they are used, so limit it to a quarter
        // of the cache.
        let ahead = options.read_ahead.checked_div(size).unwrap_or(0).min(capacity >> 2);
        let (groups, arrived) = (Cache::new(DESCRIPTORS), Mutex::default());
        Self {
            source,
            overlay,
            superblock,
            block_size,
            cache,
            groups,
            ahead,
            arrived,
            damage,
            newer: OnceLock::new(),
            sound_copy: OnceLock::new(),
        }
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
    pub(crate) fn block(&self, number: PhysicalBlock) -> Result<Block, Error> {
        let Some(newer) = self.newer.get() else {
            if let Some(block) = self.cache.get(number) {
                return Ok(block);
            }
            let mut bytes = vec![0; as_usize(self.block_size)];
            self.read(number, &mut bytes)?;
            return Ok(self.keep(number, &bytes));
        };
        // The loop ends, because a checkpoint takes longer than a read.
        loop {
            let (image, since) = newer.image(number);
            if let Some(block) = image.or_else(|| self.cache.get(number)) {
                return Ok(block);
            }
            let mut bytes = vec![0; as_usize(self.block_size)];
            self.read(number, &mut bytes)?;
            let mut kept = None;
            if newer.keep_block(since, &mut || kept = Some(self.keep(number, &bytes)))
                && let Some(block) = kept
            {
                return Ok(block);
            }
        }
    }

    /// Opens the filesystem for changes: blocks are read from `newer` first. Returns false if it is
    /// open for changes already.
    pub(crate) fn set_newer(&self, newer: Arc<dyn Newer>) -> bool {
        self.newer.set(newer).is_ok()
    }

    /// Returns true if the filesystem is open for changes.
    pub(crate) fn can_change(&self) -> bool {
        self.newer.get().is_some()
    }

    /// Returns the block `number`, if it is cached.
    pub(crate) fn cached(&self, number: PhysicalBlock) -> Option<Block> {
        self.cache.get(number)
    }

    /// Replaces the cached contents of a block.
    pub(crate) fn replace(&self, number: PhysicalBlock, block: Block) {
        self.cache.insert(number, block);
    }

    /// Replaces the cached descriptor of a group.
    pub(crate) fn replace_group(&self, group: u32, descriptor: GroupDescriptor) {
        self.groups.insert(group, descriptor);
    }

    /// Returns true if an inode lost its last name and was not freed yet.
    pub(crate) fn is_unlinked(&self, inode: InodeNumber) -> bool {
        self.newer.get().is_some_and(|newer| newer.is_unlinked(inode))
    }

    /// Returns a number to pass to [`keep_parsed`](Self::keep_parsed).
    pub(crate) fn version(&self) -> u64 {
        self.newer.get().map_or(0, |newer| newer.version())
    }

    /// Returns the number of changes of directories: see [`Newer::names_version`].
    pub(crate) fn names_version(&self) -> u64 {
        self.newer.get().map_or(0, |newer| newer.names_version())
    }

    /// Calls `keep`, which puts an inode or a group descriptor into a cache, unless something was
    /// changed since [`version`](Self::version) returned `since`.
    pub(crate) fn keep_parsed(&self, since: u64, mut keep: impl FnMut()) {
        match self.newer.get() {
            Some(newer) => newer.keep_parsed(since, &mut keep),
            None => keep(),
        }
    }

    /// Returns true if the block `number` is cached.
    pub(crate) fn is_cached(&self, number: PhysicalBlock) -> bool {
        self.cache.contains(number)
    }

    /// Reads the block `number` from the device again.
    pub(crate) fn block_now(&self, number: PhysicalBlock) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; as_usize(self.block_size)];
        read(&*self.source, self.superblock.address(number), &mut bytes)?;
        Ok(bytes)
    }

    /// Returns the list of damage that reads went around.
    pub(crate) fn damage(&self) -> &Arc<DamageList> {
        &self.damage
    }

    /// Returns the descriptor of a block group. A wrong checksum is added to the list of damage:
    /// like the kernel for a read-only mount, reads only need the place of the inode table.
    pub(crate) fn group(&self, group: u32) -> Result<GroupDescriptor, Error> {
        if let Some(descriptor) = self.groups.get(group) {
            return Ok(descriptor);
        }
        let superblock = &self.superblock;
        let corrupt = |problem| Structure::GroupDescriptor(group).corrupt(problem);
        let (number, offset) = group::location(superblock, group);
        let version = self.version();
        if number >= superblock.end() {
            return Err(corrupt(Problem::BlockRange { start: number, count: 1 }));
        }
        let block = self.block(number)?;
        let bytes = block
            .get(offset..)
            .and_then(|rest| rest.get(..usize::from(superblock.geometry.descriptor_size)))
            .ok_or_else(|| corrupt(Problem::Missing { logical: u64::from(group) }))?;
        let descriptor = GroupDescriptor::parse(superblock, group, bytes)
            .map_err(|error| self.with_sound_copy(error, group))?;
        if let Err(damage) = GroupDescriptor::verify(superblock, group, bytes) {
            self.damage.add(Corrupt { sound_copy: self.sound_copy(group), ..damage });
        }
        self.keep_parsed(version, || self.groups.insert(group, descriptor));
        Ok(descriptor)
    }

    /// Adds the place of a sound copy to the error of a group descriptor.
    #[cold]
    fn with_sound_copy(&self, error: Error, group: u32) -> Error {
        match error {
            Error::Corrupt(damage) => {
                Corrupt { sound_copy: self.sound_copy(group), ..*damage }.into()
            }
            error => error,
        }
    }

    /// Returns the copy of the superblock whose descriptors are sound, as far as the first damaged
    /// group shows.
    fn sound_copy(&self, group: u32) -> Option<SuperblockCopy> {
        let search = || descriptor_copy::sound_copy(&*self.source, &self.superblock, group);
        *self.sound_copy.get_or_init(search)
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
    pub(crate) fn prefetch(&self, wanted: impl IntoIterator<Item = PhysicalBlock>) {
        let newest = |number| self.newer.get().is_some_and(|newer| newer.image(number).0.is_some());
        let end = self.superblock.end();
        let mut numbers: Vec<PhysicalBlock> = wanted
            .into_iter()
            .filter(|&number| number < end && !self.cache.contains(number) && !newest(number))
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
    fn read_ahead(&self, numbers: &[PhysicalBlock], arrived: &mut Vec<u8>) {
        let size = as_usize(self.block_size).max(1);
        let bytes = numbers.len().saturating_mul(size);
        if arrived.len() < bytes {
            arrived.resize(bytes, 0);
        }
        // Adjacent blocks become one read.
        let most = as_usize(PIECE).checked_div(size).unwrap_or(1).max(1);
        let runs =
            numbers.chunk_by(|a, &b| a.checked_add(1) == Some(b)).flat_map(|run| run.chunks(most));
        let mut left = arrived.as_mut_slice();
        let mut ranges: Vec<ReadRange<'_>> = Vec::new();
        for run in runs.clone() {
            let length = run.len().saturating_mul(size);
            let Some((buf, rest)) = std::mem::take(&mut left).split_at_mut_checked(length) else {
                return;
            };
            left = rest;
            let start = run.first().copied().unwrap_or_default();
            ranges.push(ReadRange::new(self.superblock.address(start), buf));
        }
        let since = self.newer.get().map(|newer| newer.image(PhysicalBlock::default()).1);
        self.source.read_many(&mut ranges);
        for (run, ReadRange { offset, buf, result, .. }) in runs.zip(ranges) {
            if let Err(error) = result {
                log::debug!("read-ahead at byte {offset}: {error}");
                continue;
            }
            for (&number, bytes) in run.iter().zip(buf.chunks_exact_mut(size)) {
                match self.overlay.as_ref().map(|overlay| overlay.read(number, bytes)) {
                    Some(Err(error)) => log::debug!("read-ahead of block {number}: {error}"),
                    _ => self.keep_ahead(since, number, bytes),
                }
            }
        }
    }

    /// Inserts a block that was read ahead, unless it may be an old one.
    fn keep_ahead(&self, since: Option<u64>, number: PhysicalBlock, bytes: &[u8]) {
        match (self.newer.get(), since) {
            (Some(newer), Some(since)) => {
                newer.keep_block(since, &mut || drop(self.keep(number, bytes)));
            }
            _ => drop(self.keep(number, bytes)),
        }
    }

    /// Inserts a block into the cache.
    fn keep(&self, number: PhysicalBlock, bytes: &[u8]) -> Block {
        let block: Block = bytes.into();
        self.cache.insert(number, Arc::clone(&block));
        block
    }

    /// Fills `bytes` with the contents of a block.
    fn read(&self, number: PhysicalBlock, bytes: &mut [u8]) -> Result<(), Error> {
        match &self.overlay {
            Some(overlay) if overlay.read(number, bytes)? => Ok(()),
            _ => read(&*self.source, self.superblock.address(number), bytes),
        }
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
    let number = before.superblock_block();
    let mut bytes = vec![0; as_usize(before.block_size())];
    if !overlay.read(number, &mut bytes)? {
        if before.is_copy() {
            return Ok(before.clone());
        }
        read(source, before.address(number), &mut bytes)?;
    }
    let offset = SUPERBLOCK_OFFSET.saturating_sub(before.address(number));
    let raw = bytes.get(as_usize(offset)..);
    let raw = raw.and_then(|bytes| RawSuperblock::ref_from_prefix(bytes).ok());
    let missing = || Structure::Superblock.corrupt(Problem::Missing { logical: number.into() });
    Ok(Superblock::parse(raw.ok_or_else(missing)?.0)?.with_descriptors_of(before))
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
