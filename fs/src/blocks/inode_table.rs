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
use crate::number::{BlockRun, InodeNumber, PhysicalBlock, as_u64, as_usize};

/// Bytes of an inode table that are read ahead when an inode is read.
const INODE_READ: u64 = 64 << 10;

impl Metadata {
    /// Returns the unchecked bytes of inode `number` in its table. `near` is the location of the
    /// last inode, which saves lookups in the caches.
    pub(crate) fn table_bytes(
        &self,
        number: InodeNumber,
        near: &mut Near,
    ) -> Result<InodeBytes, Error> {
        let place = self.inode_place(number, near)?;
        let at = place.block;
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
    pub(crate) fn inode_blocks(&self, numbers: &[InodeNumber]) -> Vec<PhysicalBlock> {
        let superblock = self.superblock();
        let group_of = |number: &InodeNumber| {
            number.get().checked_sub(1)?.checked_div(superblock.inodes_per_group)
        };
        let unknown = numbers
            .chunk_by(|a, b| group_of(a) == group_of(b))
            .filter_map(|group| group_of(group.first()?))
            .filter(|&group| !self.groups.contains(group))
            .map(|group| group::location(superblock, group).0);
        self.prefetch(unknown);

        let mut near = Near::default();
        let mut blocks = Vec::new();
        for &number in numbers {
            let Ok(place) = self.inode_place(number, &mut near) else { continue };
            if blocks.last() != Some(&place.block) {
                blocks.push(place.block);
            }
        }
        blocks
    }

    /// Returns the byte address of inode `number` in the filesystem.
    pub(crate) fn inode_address(&self, number: InodeNumber) -> Result<u64, Error> {
        let place = self.inode_place(number, &mut Near::default())?;
        Ok(place.address(self.superblock()))
    }

    /// Locates the inode `number`.
    fn inode_place(&self, number: InodeNumber, near: &mut Near) -> Result<InodePlace, Error> {
        let superblock = self.superblock();
        let no_inode = Error::NoSuchInode { inode: number, count: superblock.inodes_count };
        let Some(index) =
            number.get().checked_sub(1).filter(|_| number <= *superblock.inodes().end())
        else {
            return Err(no_inode);
        };
        let per_group = superblock.inodes_per_group;
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
        let start = as_usize(offset & mask);
        let index = superblock.whole_blocks(offset);
        let Some(block) = descriptor.inode_table.get(index) else { return Err(no_inode) };
        Ok(InodePlace {
            table: descriptor.inode_table,
            index,
            block,
            range: start..start.saturating_add(usize::from(superblock.inode_size())),
            may_be_stale: in_group >= per_group.saturating_sub(descriptor.unused_inodes),
        })
    }

    /// Returns the block of an inode table, and reads ahead its neighbours.
    fn inode_block(&self, place: &InodePlace) -> Result<Block, Error> {
        let number = place.block;
        if !self.is_cached(number) {
            let superblock = self.superblock();
            let ahead = superblock.whole_blocks(INODE_READ).max(1);
            let first = place.index.checked_div(ahead).unwrap_or(0).saturating_mul(ahead);
            self.prefetch(place.table.part(first, ahead).blocks());
        }
        self.block(number)
    }
}

/// The location of the last inode that was read, because the next one is usually near.
#[derive(Default)]
pub(crate) struct Near {
    group: Option<(u32, GroupDescriptor)>,
    block: Option<(PhysicalBlock, Block)>,
}

/// The location of an inode.
struct InodePlace {
    table: BlockRun,
    /// Index of the block in the table.
    index: u64,
    /// The block that contains the inode.
    block: PhysicalBlock,
    /// Byte range in the block.
    range: Range<usize>,
    /// This part of the table may never have been initialised.
    may_be_stale: bool,
}

impl InodePlace {
    /// Returns the byte address of the inode in the filesystem.
    fn address(&self, superblock: &Superblock) -> u64 {
        let in_block = as_u64(self.range.start);
        superblock.address(self.block).saturating_add(in_block)
    }

    /// Returns the bytes of inode `number`, given its block.
    fn bytes(self, number: InodeNumber, block: Block) -> Result<InodeBytes, Error> {
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
