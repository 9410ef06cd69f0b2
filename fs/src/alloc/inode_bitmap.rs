//! The inode bitmap of a group, and the counts and checksums that go with it.

use crate::alloc::bitmap;
use crate::error::Error;
use crate::format::checksum::crc32c;
use crate::format::corrupt::{Problem, Structure};
use crate::format::inode::Inode;
use crate::format::superblock::Superblock;
use crate::journal::handle::{Handle, Stop};
use crate::number::as_usize;

/// Marks an inode as free. Its other blocks were freed before.
///
/// # Errors
/// Damage to the bitmap, or if the inode is free already.
pub(crate) fn free(handle: &mut Handle<'_>, inode: &Inode) -> Result<(), Stop> {
    let superblock = handle.superblock();
    let index = inode.number().get().saturating_sub(1);
    let per_group = superblock.inodes_per_group;
    let number = index.checked_div(per_group).unwrap_or(0);
    let bit = index.checked_rem(per_group).unwrap_or(0);
    let mut group = handle.group(number)?;
    let place = superblock.data_blocks(group.bitmaps[1], 1u32);
    let place = place.map_err(|problem| Structure::GroupDescriptor(number).corrupt(problem))?;
    let mut bits = handle.block(place.start())?.to_vec();
    verify(superblock, number, group.bitmap_checksums[1], &bits)?;
    if !bitmap::is_set(&bits, bit) {
        let rule = "must be in use according to the bitmap";
        let problem = Problem::Field { field: "inode", value: inode.number().into(), rule };
        return Err(Structure::InodeBitmap(number).corrupt(problem).into());
    }
    bitmap::fill(&mut bits, bit..bit.saturating_add(1), false);
    group.free_inodes = group.free_inodes.saturating_add(1);
    if inode.is_dir() {
        group.used_dirs = group.used_dirs.saturating_sub(1);
    }
    if superblock.has_metadata_csum() {
        group.bitmap_checksums[1] = checksum(superblock, &bits);
    }
    handle.set_block(place.start(), bits);
    handle.set_group(number, group)
}

/// Verifies the checksum of the bitmap, if the filesystem has metadata checksums.
fn verify(superblock: &Superblock, group: u32, stored: u32, bits: &[u8]) -> Result<(), Error> {
    if !superblock.has_metadata_csum() {
        return Ok(());
    }
    let mut computed = checksum(superblock, bits);
    if superblock.geometry.descriptor_size < 64 {
        computed &= 0xffff;
    }
    Problem::verify_checksum(stored, computed)
        .map_err(|problem| Structure::InodeBitmap(group).corrupt(problem))
}

/// Computes the checksum of a bitmap, which covers the bits of a whole group.
fn checksum(superblock: &Superblock, bits: &[u8]) -> u32 {
    let bytes = as_usize(superblock.inodes_per_group >> 3);
    crc32c(superblock.checksum_seed, bits.get(..bytes).unwrap_or(bits))
}
