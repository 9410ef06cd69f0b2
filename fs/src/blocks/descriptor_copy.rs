//! Copies of group descriptors, which follow the copies of the superblock.

use zerocopy::{FromZeros, IntoBytes};

use crate::blocks::read::read;
use crate::blocks::source::BlockSource;
use crate::error::Error;
use crate::format::group;
use crate::format::group::GroupDescriptor;
use crate::format::raw_superblock::RawSuperblock;
use crate::format::superblock::Superblock;
use crate::format::superblock_copy::SuperblockCopy;
use crate::number::PhysicalBlock;

/// Maximum number of copies that are tried.
const COPIES_MAX: usize = 4;

/// Returns the first copy of the superblock that is sound, and whose descriptor of `group` is.
/// Failures of the source count as no copy.
pub(crate) fn sound_copy(
    source: &dyn BlockSource,
    superblock: &Superblock,
    group: u32,
) -> Option<SuperblockCopy> {
    let groups = (1..superblock.groups_count()).filter(|&at| group::has_superblock(superblock, at));
    let blocks = groups.map(|at| superblock.group_start(at));
    let others = blocks.filter(|&block| block != superblock.used_block());
    let sound = others.take(COPIES_MAX).find(|&block| {
        let descriptor = descriptor_of_copy(source, superblock, block, group);
        matches!(descriptor, Ok(true))
    });
    sound.map(|block| SuperblockCopy { block: block.get(), block_size: superblock.block_size() })
}

/// Returns true if the copy in `block` is of the filesystem, and has a sound descriptor of `group`.
fn descriptor_of_copy(
    source: &dyn BlockSource,
    superblock: &Superblock,
    block: PhysicalBlock,
    group: u32,
) -> Result<bool, Error> {
    let mut raw = RawSuperblock::new_zeroed();
    read(source, superblock.address(block), raw.as_mut_bytes())?;
    let copy = Superblock::parse_copy(&raw, block)?;
    let (number, offset) = group::location(&copy, group);
    if copy.uuid != superblock.uuid
        || copy.block_size() != superblock.block_size()
        || number >= superblock.end()
    {
        return Ok(false);
    }
    let mut bytes = vec![0; usize::from(copy.geometry.descriptor_size)];
    let address = superblock.address(number).saturating_add(u64::try_from(offset).unwrap_or(0));
    read(source, address, &mut bytes)?;
    GroupDescriptor::parse(&copy, group, &bytes)?;
    Ok(GroupDescriptor::verify(&copy, group, &bytes).is_ok())
}
