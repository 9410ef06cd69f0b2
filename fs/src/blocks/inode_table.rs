//! Inode tables: the locations and bytes of inodes.

use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::blocks::block_cache::Block;
use crate::blocks::metadata::Metadata;
use crate::error::Error;
use crate::format::corrupt::{Problem, Structure};
use crate::format::group;
use crate::format::group::GroupDescriptor;
use crate::format::superblock::Superblock;

/// Bytes of an inode table that are read ahead when an inode is read.
const INODE_READ: u64 = 64 << 10;

impl Metadata {
    /// Returns the unchecked bytes of inode `number` in its table. `near` is the location of the
    /// last inode, which saves lookups in the caches.
    pub(crate) fn table_bytes(&self, number: u32, near: &mut Near) -> Result<InodeBytes, Error> {
        let place = self.inode_place(number, near)?;
        let at = place.block();
        let block = match &near.block {
            Some((number, block)) if *number == at => Arc::clone(block),
            _ => {
                let block = self.inode_block(&place)?;
                near.block = Some((at, Arc::clone(&block)));
                block
            }
        };
        place.bytes(number, block)
    }

    /// Returns the blocks that contain the inodes `numbers`, which must be sorted, and reads the
    /// necessary group descriptors. Inodes with an invalid number or descriptor are left out.
    pub(crate) fn inode_blocks(&self, numbers: &[u32]) -> Vec<Range<u64>> {
        let superblock = self.superblock();
        let group_of =
            |number: &u32| number.checked_sub(1)?.checked_div(superblock.inodes_per_group());
        let unknown = numbers
            .chunk_by(|a, b| group_of(a) == group_of(b))
            .filter_map(|group| group_of(group.first()?))
            .filter(|&group| !self.groups.contains(group))
            .map(|group| group::location(superblock, group).0);
        self.prefetch(unknown.map(|number| number..number.saturating_add(1)));

        let mut near = Near::default();
        let mut blocks: Vec<Range<u64>> = Vec::new();
        for &number in numbers {
            let Ok(place) = self.inode_place(number, &mut near) else { continue };
            let block = place.block();
            match blocks.last_mut() {
                Some(last) if last.contains(&block) => {}
                Some(last) if last.end == block => last.end = block.saturating_add(1),
                _ => blocks.push(block..block.saturating_add(1)),
            }
        }
        blocks
    }

    /// Returns the byte address of inode `number` in the filesystem.
    pub(crate) fn inode_address(&self, number: u32) -> Result<u64, Error> {
        let place = self.inode_place(number, &mut Near::default())?;
        Ok(place.address(self.superblock()))
    }

    /// Locates the inode `number`.
    fn inode_place(&self, number: u32, near: &mut Near) -> Result<InodePlace, Error> {
        let superblock = self.superblock();
        let no_inode = Error::NoSuchInode { inode: number, count: superblock.inodes_count() };
        let Some(index) = number.checked_sub(1).filter(|_| number <= superblock.inodes_count())
        else {
            return Err(no_inode);
        };
        let per_group = superblock.inodes_per_group();
        let (Some(group), Some(in_group)) =
            (index.checked_div(per_group), index.checked_rem(per_group))
        else {
            return Err(no_inode);
        };
        let descriptor = match near.group {
            Some((number, descriptor)) if number == group => descriptor,
            _ => near.group.insert((group, self.group(group)?)).1,
        };
        let offset = u64::from(in_group).saturating_mul(u64::from(superblock.inode_size()));
        let mask = u64::from(superblock.block_size()).saturating_sub(1);
        let start = usize::try_from(offset & mask).unwrap_or(usize::MAX);
        Ok(InodePlace {
            table: descriptor.inode_table,
            index: superblock.block_at(offset),
            range: start..start.saturating_add(usize::from(superblock.inode_size())),
            may_be_stale: in_group >= per_group.saturating_sub(descriptor.unused_inodes),
        })
    }

    /// Returns the block of an inode table, and reads ahead its neighbours.
    fn inode_block(&self, place: &InodePlace) -> Result<Block, Error> {
        let number = place.block();
        if !self.is_cached(number) {
            let superblock = self.superblock();
            let ahead = superblock.block_at(INODE_READ).max(1);
            let first = place.index.checked_div(ahead).unwrap_or(0).saturating_mul(ahead);
            let end = first.saturating_add(ahead).min(group::inode_table_blocks(superblock));
            let in_table = |index: u64| place.table.saturating_add(index);
            self.prefetch(std::iter::once(in_table(first)..in_table(end)));
        }
        self.block(number)
    }
}

/// The location of the last inode that was read, because the next one is usually near.
#[derive(Default)]
pub(crate) struct Near {
    group: Option<(u32, GroupDescriptor)>,
    block: Option<(u64, Block)>,
}

/// The location of an inode.
struct InodePlace {
    /// First block of the table.
    table: u64,
    /// Index of the block in the table.
    index: u64,
    /// Byte range in the block.
    range: Range<usize>,
    /// This part of the table may never have been initialised.
    may_be_stale: bool,
}

impl InodePlace {
    /// Returns the block that contains the inode.
    fn block(&self) -> u64 {
        self.table.saturating_add(self.index)
    }

    /// Returns the byte address of the inode in the filesystem.
    fn address(&self, superblock: &Superblock) -> u64 {
        let in_block = u64::try_from(self.range.start).unwrap_or(u64::MAX);
        superblock.bytes(self.block()).saturating_add(in_block)
    }

    /// Returns the bytes of inode `number`, given its block.
    fn bytes(self, number: u32, block: Block) -> Result<InodeBytes, Error> {
        let Self { range, may_be_stale, .. } = self;
        if block.get(range.clone()).is_none() {
            return Err(Structure::Inode(number).corrupt(Problem::Missing { logical: 0 }));
        }
        Ok(InodeBytes { block, range, may_be_stale })
    }
}

impl InodeBytes {
    /// Creates the bytes of an inode that a fast commit replaced.
    pub(crate) fn patched(block: &Block) -> Self {
        Self { block: Arc::clone(block), range: 0..block.len(), may_be_stale: false }
    }
}

/// The bytes of an inode, as part of a cached block. Their length is `s_inode_size`.
pub(crate) struct InodeBytes {
    block: Block,
    range: Range<usize>,
    /// This part of the table may never have been initialised.
    pub may_be_stale: bool,
}

impl Deref for InodeBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.block.get(self.range.clone()).unwrap_or_default()
    }
}
