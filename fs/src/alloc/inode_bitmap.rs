//! The inode bitmap of a group, and the counts and checksums that go with it.

use crate::alloc::bitmap;
use crate::format::corrupt::{Problem, Structure};
use crate::format::inode::Inode;
use crate::journal::handle::{Handle, Stop};

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
    bitmap::verify(superblock, &bits, per_group, group.bitmap_checksums[1])
        .map_err(|problem| Structure::InodeBitmap(number).corrupt(problem))?;
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
        group.bitmap_checksums[1] = bitmap::checksum(superblock, &bits, per_group);
    }
    handle.set_block(place.start(), bits);
    handle.set_group(number, group)
}
