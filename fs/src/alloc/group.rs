//! The block bitmap of one group, and the counts and checksums that go with it.

use std::ops::Range;

use crate::alloc::bitmap;
use crate::file::system_zone::SystemZone;
use crate::format::corrupt::{Problem, Structure};
use crate::format::group::GroupDescriptor;
use crate::format::superblock::Superblock;
use crate::journal::handle::{Handle, Stop};
use crate::number::{BlockRun, PhysicalBlock, as_usize};

/// `bg_flags`: the block bitmap was never written.
const BLOCK_UNINIT: u16 = 0x2;

/// A group whose bitmap agrees with its descriptor.
pub(super) struct Group {
    number: u32,
    pub(super) descriptor: GroupDescriptor,
    pub(super) bits: Vec<u8>,
    /// The blocks of the group.
    pub(super) blocks: BlockRun,
}

impl Group {
    /// Reads the bitmap of a group, or builds it if it was never written.
    ///
    /// # Errors
    /// Damage to the descriptor or the bitmap, with which nothing may be allocated or freed there.
    pub(super) fn load(handle: &Handle<'_>, zone: &SystemZone, number: u32) -> Result<Self, Stop> {
        let superblock = handle.superblock();
        let descriptor = handle.group(number)?;
        let blocks = blocks_of(superblock, number);
        let place = superblock.data_blocks(descriptor.bitmaps[0], 1u32);
        let place = place.map_err(|problem| Structure::GroupDescriptor(number).corrupt(problem))?;
        let mut group = Self { number, descriptor, bits: Vec::new(), blocks };
        if has_flags(superblock) && descriptor.flags & BLOCK_UNINIT != 0 {
            group.bits = built(superblock, zone, blocks);
        } else {
            group.bits = handle.block(place.start())?.to_vec();
            let stored = descriptor.bitmap_checksums[0];
            bitmap::verify(superblock, &group.bits, superblock.blocks_per_group, stored)
                .map_err(|problem| Structure::BlockBitmap(number).corrupt(problem))?;
        }
        let (stored, computed) = (descriptor.free_clusters, group.count_free());
        if stored != computed {
            let problem = Problem::Field {
                field: "count of free blocks",
                value: stored.into(),
                rule: "must be that of the clear bits in the bitmap",
            };
            return Err(Structure::GroupDescriptor(number).corrupt(problem).into());
        }
        Ok(group)
    }

    fn count_free(&self) -> u32 {
        bitmap::count_free(&self.bits, self.length())
    }

    /// Returns the number of blocks of the group, which fits because a bitmap has one block.
    fn length(&self) -> u32 {
        u32::try_from(self.blocks.count()).unwrap_or(u32::MAX)
    }

    /// Returns the bits of a run of blocks of this group.
    pub(super) fn range(&self, run: BlockRun) -> Range<u32> {
        let index = |block: PhysicalBlock| {
            let index = block.get().saturating_sub(self.blocks.start().get());
            u32::try_from(index).unwrap_or(u32::MAX).min(self.length())
        };
        index(run.start())..index(run.end())
    }

    /// Returns the blocks of a range of bits.
    pub(super) fn run(&self, range: Range<u32>) -> BlockRun {
        let count = u64::from(range.end.saturating_sub(range.start));
        self.blocks.part(range.start.into(), count)
    }

    /// Marks a run of blocks of this group as used or free, and stores bitmap, count and checksums.
    ///
    /// # Errors
    /// Damage if one of them was already, or if blocks to be freed belong to the filesystem itself.
    pub(super) fn mark(
        mut self,
        handle: &mut Handle<'_>,
        zone: &SystemZone,
        run: BlockRun,
        used: bool,
    ) -> Result<(), Stop> {
        let range = self.range(run);
        let wrong = range.clone().find(|&at| bitmap::is_set(&self.bits, at) == used);
        let area = zone.overlap(run);
        if let Some(area) = area {
            let problem = Problem::Overlap { start: run.start(), count: run.count(), area };
            return Err(Structure::BlockBitmap(self.number).corrupt(problem).into());
        }
        if let Some(at) = wrong {
            let block = self.blocks.get(at.into()).unwrap_or_default();
            let problem = Problem::Bit { block, used };
            return Err(Structure::BlockBitmap(self.number).corrupt(problem).into());
        }
        let count = range.end.saturating_sub(range.start);
        bitmap::fill(&mut self.bits, range, used);
        let free = &mut self.descriptor.free_clusters;
        *free = if used { free.saturating_sub(count) } else { free.saturating_add(count) };
        self.store(handle)
    }

    fn store(mut self, handle: &mut Handle<'_>) -> Result<(), Stop> {
        let superblock = handle.superblock();
        if superblock.has_metadata_csum() {
            self.descriptor.bitmap_checksums[0] =
                bitmap::checksum(superblock, &self.bits, superblock.blocks_per_group);
        }
        if has_flags(superblock) {
            self.descriptor.flags &= !BLOCK_UNINIT;
        }
        handle.set_block(self.descriptor.bitmaps[0], self.bits);
        handle.set_group(self.number, self.descriptor)
    }
}

/// Returns true if descriptors have flags, which need a checksum.
fn has_flags(superblock: &Superblock) -> bool {
    superblock.has_metadata_csum() || superblock.has_gdt_csum()
}

/// Returns the blocks of a group; the last one is often shorter.
fn blocks_of(superblock: &Superblock, group: u32) -> BlockRun {
    let start = superblock.group_start(group);
    let left = superblock.end().get().saturating_sub(start.get());
    let count = left.min(superblock.blocks_per_group.into());
    BlockRun::new(start, count).unwrap_or_default()
}

/// Builds the bitmap of a group of which only blocks of the filesystem itself are used.
fn built(superblock: &Superblock, zone: &SystemZone, blocks: BlockRun) -> Vec<u8> {
    let mut bits = vec![0; as_usize(superblock.block_size())];
    let index = |block: PhysicalBlock| {
        let index = block.get().saturating_sub(blocks.start().get());
        u32::try_from(index).unwrap_or(u32::MAX)
    };
    for run in zone.overlaps(blocks) {
        bitmap::fill(&mut bits, index(run.start())..index(run.end()), true);
    }
    bitmap::fill(&mut bits, index(blocks.end())..u32::MAX, true);
    bits
}
