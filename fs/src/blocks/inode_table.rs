//! Inode tables: where inodes are, and their bytes.

use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::blocks::block_cache::Block;
use crate::error::Error;
use crate::filesystem::Filesystem;
use crate::format::corrupt::{Problem, Structure};
use crate::format::group;
use crate::format::group::GroupDescriptor;
use crate::format::superblock::Superblock;

/// Bytes of an inode table that are read when one inode is needed, with read-ahead.
const INODE_READ: u64 = 64 << 10;

impl Filesystem {
    /// The inode `number` as it is in its table, or as fast commits left it, unchecked.
    pub(crate) fn inode_bytes(&self, number: u32) -> Result<InodeBytes, Error> {
        self.inode_bytes_near(number, &mut Near::default())
    }

    /// The same for one inode after the other.
    pub(crate) fn inode_bytes_near(
        &self,
        number: u32,
        near: &mut Near,
    ) -> Result<InodeBytes, Error> {
        if let Some(block) = self.inner.fast_commit.get().and_then(|changes| changes.inode(number))
        {
            let (block, range) = (Arc::clone(block), 0..block.len());
            return Ok(InodeBytes { block, range, may_be_stale: false });
        }
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

    /// The blocks that inodes are in, whose numbers are in order. Group descriptors are read for that.
    /// What is no inode, or cannot be found, is left out.
    pub(crate) fn inode_blocks(&self, numbers: &[u32]) -> Vec<Range<u64>> {
        let superblock = self.superblock();
        let group_of =
            |number: &u32| number.checked_sub(1)?.checked_div(superblock.inodes_per_group());
        let unknown = numbers
            .chunk_by(|a, b| group_of(a) == group_of(b))
            .filter_map(|group| group_of(group.first()?))
            .filter(|&group| !self.inner.groups.contains(group))
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

    /// Where in the filesystem the inode `number` is, bytes.
    pub(crate) fn inode_address(&self, number: u32) -> Result<u64, Error> {
        let place = self.inode_place(number, &mut Near::default())?;
        Ok(place.address(self.superblock()))
    }

    /// Where the inode `number` is.
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

    /// The block of an inode table; its neighbours are read with it.
    fn inode_block(&self, place: &InodePlace) -> Result<Block, Error> {
        let number = place.block();
        if !self.inner.metadata.is_cached(number) {
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

/// Where an inode was found: the next one as a rule is not far.
#[derive(Default)]
pub(crate) struct Near {
    group: Option<(u32, GroupDescriptor)>,
    block: Option<(u64, Block)>,
}

/// Where an inode is.
struct InodePlace {
    /// First block of the table.
    table: u64,
    /// Block in the table.
    index: u64,
    /// Bytes in the block.
    range: Range<usize>,
    /// Whether the table was perhaps never initialised here.
    may_be_stale: bool,
}

impl InodePlace {
    /// The block that the inode is in.
    fn block(&self) -> u64 {
        self.table.saturating_add(self.index)
    }

    /// Where in the filesystem the inode is, bytes.
    fn address(&self, superblock: &Superblock) -> u64 {
        let in_block = u64::try_from(self.range.start).unwrap_or(u64::MAX);
        superblock.bytes(self.block()).saturating_add(in_block)
    }

    /// The inode `number` in its block.
    fn bytes(self, number: u32, block: Block) -> Result<InodeBytes, Error> {
        let Self { range, may_be_stale, .. } = self;
        if block.get(range.clone()).is_none() {
            return Err(Structure::Inode(number).corrupt(Problem::Missing { logical: 0 }));
        }
        Ok(InodeBytes { block, range, may_be_stale })
    }
}

/// An inode in its block, as long as the superblock says.
pub(crate) struct InodeBytes {
    block: Block,
    range: Range<usize>,
    /// Whether the table was perhaps never initialised here.
    pub may_be_stale: bool,
}

impl Deref for InodeBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.block.get(self.range.clone()).unwrap_or_default()
    }
}
