//! The store of a namespace: its blocks, and a volatile write cache that a power cut loses.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;

use vm_memory::{Bytes, VolatileSlice};

use crate::config::namespace::NamespaceConfig;
use crate::error::Error;
use crate::media::atomic_groups::Groups;
use crate::media::backing::{RawStore, volatile_error};
use crate::media::metadata_table::MetadataTable;
use crate::random::Random;

/// Largest number of blocks that one command zeroes in the cache instead of below it.
const ZEROED_BLOCKS_MAX: u64 = 65_536;

/// The blocks of a namespace: their data, their metadata if they have any, and a volatile cache of
/// written blocks. Offsets and lengths are in bytes of data; the namespace checks that they are
/// inside it.
///
/// Reads see the cached blocks; a power cut stores some of them and loses the others. The cache is
/// bounded: when it is full, the block that was written first is stored, together with its group.
#[derive(Debug)]
pub(crate) struct Store {
    data: RawStore,
    metadata: Option<MetadataTable>,
    block_size: usize,
    /// Metadata of a block that was never written; empty if blocks have no metadata.
    unwritten: Box<[u8]>,
    /// Largest number of cached blocks; 0 without a cache.
    capacity: usize,
    blocks: BTreeMap<u64, Dirty>,
    /// Cached blocks in the order of their first write.
    order: BTreeMap<u64, u64>,
    /// Groups of blocks that are stored or lost together.
    groups: Groups,
    count: u64,
}

/// A cached block, which differs from the stored one.
#[derive(Debug)]
struct Dirty {
    count: u64,
    /// Data; `None` is zeroes.
    data: Option<Box<[u8]>>,
    /// Metadata; `None` is the metadata of a block that was never written.
    metadata: Option<Box<[u8]>>,
}

/// The part of an access that lies in one block: its range in the block and in the access.
struct Overlap {
    from: usize,
    len: usize,
    at: usize,
}

impl Store {
    /// Opens a store of `blocks` blocks with `data`, with a write cache of `cache` bytes unless the
    /// backing discards or rejects writes.
    ///
    /// # Errors
    /// As [`MetadataTable::open`].
    pub(crate) fn open(
        config: &NamespaceConfig,
        data: RawStore,
        blocks: u64,
        cache: Option<u64>,
    ) -> Result<Self, Error> {
        let shift = config.block_size.trailing_zeros();
        let metadata = config.blocks_metadata();
        let table =
            metadata.map(|metadata| MetadataTable::open(&config.backing, shift, blocks, metadata));
        let cached = |bytes: u64| usize::try_from(bytes >> shift).unwrap_or(usize::MAX).max(1);
        Ok(Self {
            capacity: cache.filter(|_| data.stores_writes()).map_or(0, cached),
            data,
            metadata: table.transpose()?,
            block_size: 1 << shift,
            unwritten: metadata.map_or_else(Box::default, |metadata| metadata.unwritten()),
            blocks: BTreeMap::new(),
            order: BTreeMap::new(),
            groups: Groups::default(),
            count: 0,
        })
    }

    /// Reads the bytes from `offset`. Returns false if the store has no data (null).
    #[inline]
    pub(crate) fn read(&mut self, offset: u64, to: &mut VolatileSlice<'_>) -> io::Result<bool> {
        let has_data = self.data.read(offset, to)?;
        for (&block, dirty) in self.blocks.range(self.touched(offset, to.len() as u64)) {
            let part = self.overlap(block, offset, to.len());
            let written = match &dirty.data {
                Some(data) => to.write_slice(&data[part.from..part.from + part.len], part.at),
                None => to.write_slice(&vec![0; part.len], part.at),
            };
            written.map_err(volatile_error)?;
        }
        Ok(has_data)
    }

    /// Reads whole blocks with their metadata, which is empty if blocks have none. Returns false if
    /// the store has no data (null).
    pub(crate) fn read_blocks(
        &mut self,
        offset: u64,
        data: &mut [u8],
        metadata: &mut [u8],
    ) -> io::Result<bool> {
        let has_data = self.read(offset, &mut VolatileSlice::from(data))?;
        let Some(table) = &mut self.metadata else { return Ok(has_data) };
        table.read(offset, metadata)?;
        let blocks = metadata.chunks_exact_mut(self.unwritten.len());
        for (block, to) in (offset / self.block_size as u64..).zip(blocks) {
            if let Some(dirty) = self.blocks.get(&block) {
                to.copy_from_slice(dirty.metadata.as_ref().unwrap_or(&self.unwritten));
            }
        }
        Ok(has_data)
    }

    /// Writes bytes from `offset`. The range need not be aligned to blocks, because the pages of a
    /// command may split blocks.
    #[inline]
    pub(crate) fn write(&mut self, offset: u64, from: &VolatileSlice<'_>) -> io::Result<()> {
        if !self.has_cache() {
            return self.data.write(offset, from);
        }
        for block in self.touched(offset, from.len() as u64) {
            let part = self.overlap(block, offset, from.len());
            let data = self.block_mut(block, part.len < self.block_size)?;
            let to = &mut data[part.from..part.from + part.len];
            from.read_slice(to, part.at).map_err(volatile_error)?;
        }
        Ok(())
    }

    /// Makes room for a write that fits the cache, so that no block of it is stored before all of
    /// them are cached.
    pub(crate) fn reserve(&mut self, offset: u64, len: u64) -> io::Result<()> {
        loop {
            let range = self.touched(offset, len);
            let here = self.blocks.range(range.clone()).count() as u64;
            let wanted = range.end - range.start - here;
            if self.blocks.len() as u64 + wanted <= self.capacity as u64 || !self.evict()? {
                return Ok(());
            }
        }
    }

    /// Groups the blocks of a range, so that a power cut stores or loses them together. Groups that
    /// had one of these blocks join.
    pub(crate) fn bind(&mut self, offset: u64, len: u64) {
        let range = self.touched(offset, len);
        self.groups.bind(self.blocks.range(range).map(|(&block, _)| block));
    }

    /// Writes whole blocks with their metadata, which is empty if blocks have none.
    pub(crate) fn write_blocks(
        &mut self,
        offset: u64,
        data: &mut [u8],
        metadata: &[u8],
    ) -> io::Result<()> {
        if !self.has_cache() {
            self.data.write(offset, &VolatileSlice::from(data))?;
            return self.write_metadata(offset, metadata);
        }
        let mut metadata = metadata.chunks_exact(self.unwritten.len().max(1));
        let first = offset / self.block_size as u64;
        for (block, data) in (first..).zip(data.chunks_exact(self.block_size)) {
            let dirty = self.dirty(block)?;
            dirty.data = Some(data.into());
            dirty.metadata = metadata.next().map(Box::from);
        }
        Ok(())
    }

    /// Writes the metadata of whole blocks, in the cache if their data is cached. Their data stays.
    pub(crate) fn write_metadata(&mut self, offset: u64, from: &[u8]) -> io::Result<()> {
        let Some(table) = &mut self.metadata else { return Ok(()) };
        let size = self.block_size as u64;
        let blocks = from.chunks_exact(self.unwritten.len());
        for (block, metadata) in (offset / size..).zip(blocks) {
            match self.blocks.get_mut(&block) {
                Some(dirty) => dirty.metadata = Some(metadata.into()),
                None => table.write(block * size, metadata)?,
            }
        }
        Ok(())
    }

    /// Zeroes whole blocks; a large number of them is zeroed below the cache at once.
    pub(crate) fn zero(&mut self, offset: u64, len: u64) -> io::Result<()> {
        let blocks = self.touched(offset, len);
        let count = blocks.end - blocks.start;
        if count > ZEROED_BLOCKS_MAX.min(self.capacity as u64) {
            self.forget(offset, len);
            return self.zero_below(offset, len);
        }
        for block in blocks {
            let dirty = self.dirty(block)?;
            (dirty.data, dirty.metadata) = (None, None);
        }
        Ok(())
    }

    fn zero_below(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.data.zero(offset, len)?;
        self.metadata.as_mut().map_or(Ok(()), |table| table.zero(offset, len))
    }

    /// Makes every write durable.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while self.evict()? {}
        self.flush_below()
    }

    fn flush_below(&mut self) -> io::Result<()> {
        self.data.flush()?;
        self.metadata.as_mut().map_or(Ok(()), MetadataTable::flush)
    }

    /// Makes a range durable. The other cached blocks stay volatile.
    pub(crate) fn commit(&mut self, offset: u64, len: u64) -> io::Result<()> {
        let cached = self.blocks.range(self.touched(offset, len));
        for block in cached.map(|(&block, _)| block).collect::<Vec<_>>() {
            self.store_group(block)?;
        }
        self.flush_below()
    }

    /// Returns true if writes may be lost until they are flushed.
    pub(crate) fn is_volatile(&self) -> bool {
        self.has_cache() || self.data.is_volatile()
    }

    /// Returns true if a power cut may lose writes.
    pub(crate) fn has_cache(&self) -> bool {
        self.capacity > 0
    }

    /// Cuts the power: stores or loses each block, as `random` decides, and each group as a whole.
    pub(crate) fn power_cut(&mut self, random: &mut Random) -> io::Result<()> {
        let dirty: Vec<u64> = self.blocks.keys().copied().collect();
        let mut decided = BTreeMap::new();
        // Draw in the order of the blocks, so that the order of the writes does not matter.
        for block in dirty {
            let stays = match self.groups.of(block) {
                Some(group) => *decided.entry(group).or_insert_with(|| random.below(2) == 0),
                None => random.below(2) == 0,
            };
            if stays {
                self.store(block)?;
            }
        }
        self.blocks.clear();
        self.order.clear();
        self.groups = Groups::default();
        Ok(())
    }

    /// Returns the blocks that a range of bytes touches.
    fn touched(&self, offset: u64, len: u64) -> std::ops::Range<u64> {
        let size = self.block_size as u64;
        offset / size..(offset + len).div_ceil(size)
    }

    /// Returns the part of `block` that an access covers.
    fn overlap(&self, block: u64, offset: u64, len: usize) -> Overlap {
        let size = self.block_size as u64;
        let (start, end) = (block * size, (block + 1) * size);
        let (low, high) = (start.max(offset), end.min(offset + len as u64));
        // Both values are within a block, or within an access that is in memory.
        let small = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Overlap { from: small(low - start), len: small(high - low), at: small(low - offset) }
    }

    /// Returns the data of a block for writing, with its present content if `keep`.
    fn block_mut(&mut self, block: u64, keep: bool) -> io::Result<&mut [u8]> {
        let size = self.block_size;
        let mut before = None;
        if keep && !self.blocks.contains_key(&block) {
            let mut data = vec![0; size].into_boxed_slice();
            self.data.read(block * size as u64, &mut VolatileSlice::from(&mut data[..]))?;
            before = Some(data);
        }
        let data = &mut self.dirty(block)?.data;
        if before.is_some() {
            *data = before;
        }
        Ok(data.get_or_insert_with(|| vec![0; size].into_boxed_slice()))
    }

    /// Returns the entry of a block. A new entry evicts the oldest block if the cache is full.
    fn dirty(&mut self, block: u64) -> io::Result<&mut Dirty> {
        if !self.blocks.contains_key(&block) {
            while self.blocks.len() >= self.capacity && self.evict()? {}
            self.count += 1;
            self.order.insert(self.count, block);
        }
        Ok(match self.blocks.entry(block) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                entry.insert(Dirty { count: self.count, data: None, metadata: None })
            }
        })
    }

    /// Stores the block that was written first, and its group. Returns false if the cache is empty.
    fn evict(&mut self) -> io::Result<bool> {
        let Some(&block) = self.order.values().next() else { return Ok(false) };
        self.store_group(block)?;
        Ok(true)
    }

    /// Stores a block and its group.
    fn store_group(&mut self, block: u64) -> io::Result<()> {
        for member in self.groups.members(block) {
            self.store(member)?;
        }
        Ok(())
    }

    /// Stores a block if it is cached. It stays in the cache if that fails.
    fn store(&mut self, block: u64) -> io::Result<()> {
        let Some(dirty) = self.blocks.get_mut(&block) else { return Ok(()) };
        let offset = block * self.block_size as u64;
        match &mut dirty.data {
            Some(data) => self.data.write(offset, &VolatileSlice::from(&mut data[..]))?,
            None => self.data.zero(offset, self.block_size as u64)?,
        }
        if let Some(table) = &mut self.metadata {
            table.write(offset, dirty.metadata.as_ref().unwrap_or(&self.unwritten))?;
        }
        self.order.remove(&dirty.count);
        self.blocks.remove(&block);
        self.groups.leave(block);
        Ok(())
    }

    /// Drops the blocks of a range from the cache.
    fn forget(&mut self, offset: u64, len: u64) {
        let range = self.touched(offset, len);
        let (order, groups) = (&mut self.order, &mut self.groups);
        self.blocks.retain(|block, dirty| {
            let stays = !range.contains(block);
            if !stays {
                order.remove(&dirty.count);
                groups.leave(*block);
            }
            stays
        });
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use crate::config::namespace::Backing;
    use vm_memory::VolatileMemory;
    use vm_memory::mmap::MmapRegion;

    const SIZE: usize = 64 << 10;
    const BLOCK: usize = 512;

    fn cache(blocks: u64) -> Store {
        let config = NamespaceConfig::new(Backing::memory(SIZE as u64));
        let (data, bytes) = RawStore::open(&config.backing).unwrap();
        Store::open(&config, data, bytes >> 9, Some(blocks * BLOCK as u64)).unwrap()
    }

    fn content(cache: &mut Store) -> Vec<u8> {
        let mut bytes = vec![1; SIZE];
        assert!(cache.read_blocks(0, &mut bytes, &mut []).unwrap());
        bytes
    }

    #[test]
    fn whatever_is_done_reads_see_what_was_written_last() {
        let client = MmapRegion::<()>::new(8192).unwrap();
        for seed in 0..20 {
            let mut random = Random::new(seed);
            let mut cache = cache(1 + seed);
            let mut model = vec![0; SIZE];
            for step in 0..1000u64 {
                let block = random.below(100) * BLOCK as u64;
                let blocks = (1 + random.below(12)) * BLOCK as u64;
                let range = block as usize..(block + blocks) as usize;
                match random.below(8) {
                    0 => {
                        cache.zero(block, blocks).unwrap();
                        model[range].fill(0);
                    }
                    1 => cache.commit(block, blocks).unwrap(),
                    2 if step % 5 == 0 => cache.flush().unwrap(),
                    3 => {
                        let slice = &mut client.get_slice(0, blocks as usize).unwrap();
                        cache.read(block, slice).unwrap();
                        let mut read = vec![0; blocks as usize];
                        slice.read_slice(&mut read, 0).unwrap();
                        assert!(read == model[range], "seed {seed} step {step}");
                    }
                    _ => {
                        // Any range of bytes, because the pages of a command may split blocks.
                        let at = block + random.below(BLOCK as u64);
                        let len = 1 + random.below(4000) as usize;
                        let slice = client.get_slice(0, len).unwrap();
                        let data = vec![random.next() as u8; len];
                        slice.write_slice(&data, 0).unwrap();
                        cache.write(at, &slice).unwrap();
                        model[at as usize..at as usize + len].copy_from_slice(&data);
                    }
                }
                assert!(cache.blocks.len() <= cache.capacity);
                assert_eq!(cache.blocks.len(), cache.order.len());
            }
            assert!(content(&mut cache) == model, "seed {seed}");
            cache.flush().unwrap();
            cache.power_cut(&mut random).unwrap();
            assert!(content(&mut cache) == model, "seed {seed}, flushed");
        }
    }

    #[test]
    fn a_power_cut_takes_some_blocks_and_leaves_some() {
        let run = |seed| {
            let mut cache = cache(128);
            let client = MmapRegion::<()>::new(SIZE).unwrap();
            let slice = client.get_slice(0, SIZE).unwrap();
            slice.write_slice(&[7; SIZE], 0).unwrap();
            cache.write(0, &slice).unwrap();
            cache.power_cut(&mut Random::new(seed)).unwrap();
            content(&mut cache)
        };
        let first = run(1);
        assert!(first == run(1) && first != run(2));
        let kept = first.chunks(BLOCK).filter(|block| **block == [7; BLOCK]).count();
        let lost = first.chunks(BLOCK).filter(|block| **block == [0; BLOCK]).count();
        assert_eq!(kept + lost, 128);
        assert!((40..=88).contains(&kept), "{kept}");
    }
}
