//! Group descriptors: the locations of a group's inode table and bitmaps.

use std::mem::offset_of;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::Error;
use crate::format::checksum::{crc16, crc32c};
use crate::format::corrupt::{Corrupt, Problem, Structure};
use crate::format::features::{CompatFeatures, IncompatFeatures, RoCompatFeatures};
use crate::format::halves::{join_32, join_64, split_32, split_64};
use crate::format::superblock::Superblock;
use crate::number::as_usize;
use crate::number::{BlockRun, PhysicalBlock};

/// `struct ext4_group_desc`. Descriptors of 32 bytes end after the checksum, and the upper halves
/// of their fields are zero.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawDescriptor {
    block_bitmap_lo: U32,
    inode_bitmap_lo: U32,
    inode_table_lo: U32,
    free_blocks_lo: U16,
    free_inodes_lo: U16,
    used_dirs_lo: U16,
    flags: U16,
    exclude_bitmap_lo: U32,
    block_bitmap_csum_lo: U16,
    inode_bitmap_csum_lo: U16,
    itable_unused_lo: U16,
    checksum: U16,
    block_bitmap_hi: U32,
    inode_bitmap_hi: U32,
    inode_table_hi: U32,
    free_blocks_hi: U16,
    free_inodes_hi: U16,
    used_dirs_hi: U16,
    itable_unused_hi: U16,
    exclude_bitmap_hi: U32,
    block_bitmap_csum_hi: U16,
    inode_bitmap_csum_hi: U16,
    reserved: U32,
}

const CHECKSUM_OFFSET: usize = offset_of!(RawDescriptor, checksum);

const _: () = {
    assert!(size_of::<RawDescriptor>() == 64 && CHECKSUM_OFFSET == 0x1e);
    assert!(offset_of!(RawDescriptor, inode_table_hi) == 0x28);
    assert!(offset_of!(RawDescriptor, itable_unused_hi) == 0x32);
};

/// The checked fields of a group descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupDescriptor {
    /// Blocks of the block bitmap and the inode bitmap. They are not checked, because readers do
    /// not use the bitmaps.
    pub bitmaps: [PhysicalBlock; 2],
    /// The inode table.
    pub inode_table: BlockRun,
    /// Inodes at the end of the table that were never used; 0 if the filesystem has no descriptor
    /// checksums, because the count is maintained only with those.
    pub unused_inodes: u32,
    /// Count of free clusters in the descriptor.
    pub free_clusters: u32,
    /// Count of free inodes in the descriptor.
    pub free_inodes: u32,
    /// Count of directories.
    pub used_dirs: u32,
    /// Bits that tell which bitmaps and tables were initialised.
    pub flags: u16,
    /// Checksums of the block bitmap and the inode bitmap; 16 bits in descriptors of 32 bytes.
    pub bitmap_checksums: [u32; 2],
}

impl RawDescriptor {
    /// Reads a descriptor of any size.
    fn read(bytes: &[u8]) -> Self {
        let mut raw = Self::new_zeroed();
        raw.as_mut_bytes().iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        raw
    }
}

impl GroupDescriptor {
    /// Verifies the checksum of descriptor `group`, if the filesystem has them.
    pub(crate) fn verify(superblock: &Superblock, group: u32, bytes: &[u8]) -> Result<(), Corrupt> {
        let Some(computed) = checksum(superblock, group, bytes) else { return Ok(()) };
        let stored = RawDescriptor::read(bytes).checksum.get();
        let structure = Structure::GroupDescriptor(group);
        Problem::verify_checksum(stored.into(), computed.into())
            .map_err(|problem| Corrupt::new(structure, problem))
    }

    /// Parses descriptor `group` without verifying its checksum. `bytes` has the length of
    /// `s_desc_size`.
    pub(crate) fn parse(superblock: &Superblock, group: u32, bytes: &[u8]) -> Result<Self, Error> {
        let corrupt = |problem| Structure::GroupDescriptor(group).corrupt(problem);
        let raw = RawDescriptor::read(bytes);
        let table = join_64(raw.inode_table_lo, raw.inode_table_hi).into();
        let inode_table =
            superblock.data_blocks(table, inode_table_blocks(superblock)).map_err(corrupt)?;
        let unused = join_32(raw.itable_unused_lo, raw.itable_unused_hi);
        let counted = counts_unused(superblock);
        if counted {
            Problem::verify_max("count of unused inodes", unused, superblock.inodes_per_group)
                .map_err(corrupt)?;
        }
        Ok(Self {
            bitmaps: [
                join_64(raw.block_bitmap_lo, raw.block_bitmap_hi).into(),
                join_64(raw.inode_bitmap_lo, raw.inode_bitmap_hi).into(),
            ],
            inode_table,
            unused_inodes: if counted { unused } else { 0 },
            free_clusters: join_32(raw.free_blocks_lo, raw.free_blocks_hi),
            free_inodes: join_32(raw.free_inodes_lo, raw.free_inodes_hi),
            used_dirs: join_32(raw.used_dirs_lo, raw.used_dirs_hi),
            flags: raw.flags.get(),
            bitmap_checksums: [
                join_32(raw.block_bitmap_csum_lo, raw.block_bitmap_csum_hi),
                join_32(raw.inode_bitmap_csum_lo, raw.inode_bitmap_csum_hi),
            ],
        })
    }

    /// Writes the fields to the descriptor in `bytes`, whose other fields stay, and stores the
    /// checksum, if the filesystem has them. Upper halves that the descriptor is too short for are
    /// left out.
    pub(crate) fn encode(&self, superblock: &Superblock, group: u32, bytes: &mut [u8]) {
        let mut raw = RawDescriptor::read(bytes);
        let ([blocks, inodes], [blocks_sum, inodes_sum]) = (self.bitmaps, self.bitmap_checksums);
        (raw.block_bitmap_lo, raw.block_bitmap_hi) = split_64(blocks.get());
        (raw.inode_bitmap_lo, raw.inode_bitmap_hi) = split_64(inodes.get());
        (raw.inode_table_lo, raw.inode_table_hi) = split_64(self.inode_table.start().get());
        (raw.free_blocks_lo, raw.free_blocks_hi) = split_32(self.free_clusters);
        (raw.free_inodes_lo, raw.free_inodes_hi) = split_32(self.free_inodes);
        (raw.used_dirs_lo, raw.used_dirs_hi) = split_32(self.used_dirs);
        (raw.block_bitmap_csum_lo, raw.block_bitmap_csum_hi) = split_32(blocks_sum);
        (raw.inode_bitmap_csum_lo, raw.inode_bitmap_csum_hi) = split_32(inodes_sum);
        raw.flags = self.flags.into();
        if counts_unused(superblock) {
            (raw.itable_unused_lo, raw.itable_unused_hi) = split_32(self.unused_inodes);
        }
        let mut copy = |raw: &RawDescriptor| {
            bytes.iter_mut().zip(raw.as_bytes()).for_each(|(to, from)| *to = *from);
            checksum(superblock, group, bytes)
        };
        if let Some(sum) = copy(&raw) {
            raw.checksum = sum.into();
            copy(&raw);
        }
    }
}

/// Returns true if descriptors count the inodes that were never used.
pub(crate) fn counts_unused(superblock: &Superblock) -> bool {
    superblock.has_metadata_csum() || superblock.has_gdt_csum()
}

/// Returns the size of a group's inode table in blocks.
pub(crate) fn inode_table_blocks(superblock: &Superblock) -> u64 {
    let inodes = u64::from(superblock.inodes_per_group);
    let bytes = inodes.saturating_mul(u64::from(superblock.geometry.inode_size));
    bytes.div_ceil(u64::from(superblock.block_size()).max(1))
}

/// Computes the checksum of a descriptor. Returns `None` if the filesystem has no descriptor
/// checksums.
fn checksum(superblock: &Superblock, group: u32, bytes: &[u8]) -> Option<u16> {
    let (before, rest) = bytes.split_at_checked(CHECKSUM_OFFSET)?;
    let after = rest.get(size_of::<U16>()..)?;
    let number = group.to_le_bytes();
    if superblock.has_metadata_csum() {
        let crc = crc32c(crc32c(superblock.checksum_seed, &number), before);
        let crc = crc32c(crc32c(crc, &[0; 2]), after);
        u16::try_from(crc & 0xffff).ok()
    } else if superblock.has_gdt_csum() {
        // The checksum field is skipped. The bytes after it are covered only if descriptors are
        // longer than 32 bytes.
        let crc = crc16(crc16(crc16(!0, &superblock.uuid), &number), before);
        let after = if superblock.has(IncompatFeatures::BITS64) { after } else { &[] };
        Some(crc16(crc, after))
    } else {
        None
    }
}

/// Returns the block that holds the descriptor of `group`, and the byte offset in that block.
pub(crate) fn location(superblock: &Superblock, group: u32) -> (PhysicalBlock, usize) {
    let size = u32::from(superblock.geometry.descriptor_size);
    let per_block = superblock.block_size().checked_div(size).unwrap_or(1).max(1);
    let index = group.checked_div(per_block).unwrap_or(0);
    let in_block = group.checked_rem(per_block).unwrap_or(0).saturating_mul(size);
    let offset = as_usize(in_block);

    if !superblock.has(IncompatFeatures::META_BG) || index < superblock.first_meta_bg {
        let first = superblock.used_block().get().saturating_add(1);
        return (first.saturating_add(u64::from(index)).into(), offset);
    }
    // With meta_bg, each run of groups whose descriptors fill one block stores that block in its
    // first group, after the superblock copy if the group has one.
    let mut first_group = index.saturating_mul(per_block);
    // The second group of the run has a copy of that block.
    let second = first_group.saturating_add(1);
    if superblock.is_copy() && second < superblock.groups_count() {
        first_group = second;
    }
    let mut skip = u64::from(has_superblock(superblock, first_group));
    if first_group == 0 && superblock.superblock_block() == 1 && superblock.first_data_block == 0 {
        // With 1 KiB blocks in larger clusters, group 0 starts one block before the superblock.
        skip = skip.saturating_add(1);
    }
    (superblock.group_start(first_group).get().saturating_add(skip).into(), offset)
}

/// Returns the number of blocks at the start of `group` that hold a superblock, group descriptors,
/// or space reserved for more descriptors. For group 0 the count includes the blocks before the
/// superblock.
pub(crate) fn descriptor_blocks(superblock: &Superblock, group: u32) -> u64 {
    let reserved = u64::from(superblock.reserved_gdt_blocks);
    if group == 0 {
        let fixed = superblock.last_fixed_block().saturating_add(1).saturating_add(reserved);
        // If first_meta_bg is 0, group 0 still stores one block of descriptors after the
        // superblock.
        let spread = superblock.has(IncompatFeatures::META_BG) && superblock.first_meta_bg == 0;
        let fixed = fixed.saturating_add(u64::from(spread));
        return fixed.saturating_sub(u64::from(superblock.first_data_block));
    }
    let copy = has_superblock(superblock, group);
    let size = u32::from(superblock.geometry.descriptor_size);
    let per_block = superblock.block_size().checked_div(size).unwrap_or(1).max(1);
    let index = group.checked_div(per_block).unwrap_or(0);
    if superblock.has(IncompatFeatures::META_BG) && index >= superblock.first_meta_bg {
        // One block of descriptors, in the first, the second and the last group of the run that it
        // describes.
        let in_run = group.checked_rem(per_block).unwrap_or(0);
        let described = in_run <= 1 || in_run == per_block.saturating_sub(1);
        return u64::from(copy).saturating_add(u64::from(described));
    }
    if !copy {
        return 0;
    }
    let descriptors =
        superblock.last_fixed_block().saturating_sub(superblock.superblock_block().get());
    descriptors.saturating_add(1).saturating_add(reserved)
}

/// Returns true if `group` has a copy of the superblock.
pub(crate) fn has_superblock(superblock: &Superblock, group: u32) -> bool {
    if group == 0 {
        return true;
    }
    if superblock.compat.contains(CompatFeatures::SPARSE_SUPER2) {
        return superblock.backup_groups.contains(&group);
    }
    if group == 1 || !superblock.ro_compat.contains(RoCompatFeatures::SPARSE_SUPER) {
        return true;
    }
    [3, 5, 7].iter().any(|&base| is_power_of(group, base))
}

fn is_power_of(value: u32, base: u32) -> bool {
    let mut power = Some(base);
    while let Some(current) = power.filter(|&current| current < value) {
        power = current.checked_mul(base);
    }
    power == Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::superblock::tests::{sample, seal};

    fn descriptor(superblock: &Superblock, group: u32, table: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::from(superblock.geometry.descriptor_size)];
        bytes[8..12].copy_from_slice(&(table as u32).to_le_bytes());
        if bytes.len() >= 64 {
            bytes[0x28..0x2c].copy_from_slice(&((table >> 32) as u32).to_le_bytes());
        }
        bytes[0x1c] = 100;
        let sum = checksum(superblock, group, &bytes).unwrap_or(0);
        bytes[0x1e..0x20].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    #[test]
    fn a_sound_descriptor() {
        let superblock = Superblock::parse(&sample()).unwrap();
        let bytes = descriptor(&superblock, 0, 77);
        let group = GroupDescriptor::parse(&superblock, 0, &bytes).unwrap();
        let expected = GroupDescriptor {
            bitmaps: [0.into(), 0.into()],
            inode_table: BlockRun::new(77.into(), 128).unwrap(),
            unused_inodes: 100,
            free_clusters: 0,
            free_inodes: 0,
            used_dirs: 0,
            flags: 0,
            bitmap_checksums: [0, 0],
        };
        assert_eq!(group, expected);
    }

    #[test]
    fn every_byte_is_covered() {
        let crc32c = Superblock::parse(&sample()).unwrap();
        let mut raw = sample();
        raw.ro_compat = 0x7b.into();
        raw.incompat = 0x242.into();
        let crc16 = Superblock::parse(&seal(raw)).unwrap();
        assert_eq!((crc32c.geometry.descriptor_size, crc16.geometry.descriptor_size), (64, 32));
        for superblock in [crc32c, crc16] {
            let sound = descriptor(&superblock, 3, 77);
            GroupDescriptor::verify(&superblock, 3, &sound).unwrap();
            assert!(GroupDescriptor::verify(&superblock, 4, &sound).is_err(), "group number");
            for at in 0..sound.len() {
                let mut bytes = sound.clone();
                bytes[at] ^= 0x10;
                let error = GroupDescriptor::verify(&superblock, 3, &bytes).unwrap_err();
                let start = "corrupt group descriptor 3: its checksum is";
                assert!(error.to_string().starts_with(start), "byte {at}: {error}");
            }
        }
    }

    #[test]
    fn the_inode_table_is_inside() {
        let superblock = Superblock::parse(&sample()).unwrap();
        // 2,048 inodes of 256 bytes fill 128 blocks of 8,192 bytes; block 1 holds the descriptors.
        for (table, good) in [(0, false), (1, false), (2, true), (8064, true), (8065, false)] {
            let bytes = descriptor(&superblock, 0, table);
            assert_eq!(GroupDescriptor::parse(&superblock, 0, &bytes).is_ok(), good, "{table}");
        }
        let bytes = descriptor(&superblock, 0, 77 | 1 << 40);
        assert!(GroupDescriptor::parse(&superblock, 0, &bytes).is_err());
    }

    #[test]
    fn copies_of_the_superblock() {
        let superblock = Superblock::parse(&sample()).unwrap();
        let with: Vec<u32> = (0..130).filter(|&group| has_superblock(&superblock, group)).collect();
        assert_eq!(with, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
    }

    #[test]
    fn descriptors_that_are_spread() {
        let mut raw = sample();
        raw.incompat = 0x2d2.into();
        raw.blocks_count_lo = (32768 * 200).into();
        raw.inodes_count = (2048 * 200).into();
        raw.first_meta_bg = 1.into();
        let superblock = Superblock::parse(&seal(raw.clone())).unwrap();
        // A block of 4 KiB holds 64 descriptors of 64 bytes.
        assert_eq!(location(&superblock, 63), ((1).into(), 63 * 64));
        assert_eq!(location(&superblock, 64), ((64 * 32768).into(), 0));
        assert_eq!(location(&superblock, 130), ((128 * 32768).into(), 2 * 64));
        // The first block of descriptors follows the superblock even if first_meta_bg is 0.
        assert_eq!(
            (location(&superblock, 0), descriptor_blocks(&superblock, 0)),
            ((1.into(), 0), 2)
        );
        raw.first_meta_bg = 0.into();
        let spread = Superblock::parse(&seal(raw.clone())).unwrap();
        assert_eq!((location(&spread, 0), descriptor_blocks(&spread, 0)), ((1.into(), 0), 2));
        // Group 64 is not a power of 3, 5 or 7, so no copy of the superblock precedes its
        // descriptors.
        assert!(!has_superblock(&superblock, 64));
        // The descriptors that belong to a copy of the superblock: after the copy, and in the second
        // group of each run.
        raw.first_meta_bg = 1.into();
        let copy = Superblock::parse_copy(&seal(raw), 98_304.into()).unwrap();
        assert_eq!(location(&copy, 63), (98_305.into(), 63 * 64));
        assert_eq!(location(&copy, 130), ((129 * 32768).into(), 2 * 64));
        assert_eq!(location(&copy, 70), ((65 * 32768).into(), 6 * 64));
    }
}
