//! Changes of the superblock that are part of other changes, and go through the journal: the list of
//! orphans, and features that are in use from then on.

use zerocopy::FromBytes;

use crate::format::corrupt::{Problem, Structure};
use crate::format::features::{CompatFeatures, RoCompatFeatures};
use crate::format::raw_superblock::{RawSuperblock, SUPERBLOCK_OFFSET};
use crate::format::superblock_seal::seal;
use crate::journal::handle::{Handle, Stop};
use crate::number::{PhysicalBlock, as_usize};

/// Marks the filesystem as one that has extended attributes.
pub(super) fn set_ext_attr(handle: &mut Handle<'_>) -> Result<(), Stop> {
    let bit = CompatFeatures::EXT_ATTR;
    if handle.superblock().compat.contains(bit) {
        return Ok(());
    }
    set(handle, |raw| &mut raw.compat, bit.bits())
}

/// Size in bytes from which a file needs the feature `large_file`.
const LARGE: u64 = 1 << 31;

/// Marks the filesystem as one that has large files, if a file of `size` bytes is one.
pub(super) fn set_large_file(handle: &mut Handle<'_>, size: u64) -> Result<(), Stop> {
    let bit = RoCompatFeatures::LARGE_FILE;
    if size < LARGE || handle.superblock().ro_compat.contains(bit) {
        return Ok(());
    }
    set(handle, |raw| &mut raw.ro_compat, bit.bits())
}

/// Sets a bit. An earlier change may have set it: the superblock in memory is as it was at the open.
fn set(
    handle: &mut Handle<'_>,
    field: impl Fn(&mut RawSuperblock) -> &mut zerocopy::little_endian::U32,
    bit: u32,
) -> Result<(), Stop> {
    let mut raw = read(handle)?;
    if field(&mut raw).get() & bit != 0 {
        return Ok(());
    }
    handle.changes.is_fast = false;
    edit(handle, |raw| *field(raw) |= bit)
}

/// Returns the superblock as it is now.
pub(super) fn read(handle: &Handle<'_>) -> Result<RawSuperblock, Stop> {
    let (number, offset) = place(handle);
    let block = handle.block(number)?;
    let raw = block.get(offset..).and_then(|bytes| RawSuperblock::ref_from_prefix(bytes).ok());
    Ok(raw.ok_or_else(|| missing(number))?.0.clone())
}

/// Changes the superblock, whose checksum stays the same if that is possible: a loss of power during a
/// checkpoint may leave a part of it.
pub(super) fn edit(
    handle: &mut Handle<'_>,
    change: impl FnOnce(&mut RawSuperblock),
) -> Result<(), Stop> {
    let (number, offset) = place(handle);
    let block = handle.block_mut(number)?;
    let raw = block.get_mut(offset..).and_then(|bytes| RawSuperblock::mut_from_prefix(bytes).ok());
    let (raw, _) = raw.ok_or_else(|| missing(number))?;
    let before = raw.clone();
    change(raw);
    seal(&before, raw);
    Ok(())
}

fn missing(number: PhysicalBlock) -> Stop {
    Structure::Superblock.corrupt(Problem::Missing { logical: number.into() }).into()
}

/// Returns the block of the superblock, and its byte offset there.
fn place(handle: &Handle<'_>) -> (PhysicalBlock, usize) {
    let superblock = handle.superblock();
    let number = superblock.superblock_block();
    (number, as_usize(SUPERBLOCK_OFFSET.saturating_sub(superblock.address(number))))
}
