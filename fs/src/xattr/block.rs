//! The block of extended attributes of an inode, which several inodes may share.

use std::mem::offset_of;

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::format::checksum::crc32c;
use crate::format::corrupt::Problem;
use crate::format::superblock::Superblock;
use crate::format::xattr_entry::MAGIC;
use crate::number::PhysicalBlock;

/// `struct ext4_xattr_header`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: U32,
    references: U32,
    blocks: U32,
    hash: U32,
    checksum: U32,
    reserved: [U32; 3],
}

/// Size of the header, bytes. The entries follow it.
pub(crate) const HEADER: usize = 32;
const CHECKSUM: usize = offset_of!(RawHeader, checksum);
const _: () = assert!(size_of::<RawHeader>() == HEADER && CHECKSUM == 16);

/// Checks the header and the checksum of block `number`.
pub(crate) fn check(
    superblock: &Superblock,
    number: PhysicalBlock,
    block: &[u8],
) -> Result<(), Problem> {
    let Ok((header, _)) = RawHeader::ref_from_prefix(block) else {
        return Err(Problem::Missing { logical: 0 });
    };
    Problem::verify_magic(header.magic, MAGIC)?;
    Problem::verify_value("count of blocks", header.blocks.get(), 1u32)?;
    if !superblock.has_metadata_csum() {
        return Ok(());
    }
    Problem::verify_checksum(header.checksum.get(), checksum(superblock, number, block))
}

/// Computes the checksum of block `number`, with a checksum field of zero.
fn checksum(superblock: &Superblock, number: PhysicalBlock, block: &[u8]) -> u32 {
    let seed = crc32c(superblock.checksum_seed, &number.get().to_le_bytes());
    let (before, rest) = block.split_at_checked(CHECKSUM).unwrap_or_default();
    let crc = crc32c(crc32c(seed, before), &[0; 4]);
    crc32c(crc, rest.get(size_of::<U32>()..).unwrap_or_default())
}

/// Returns the number of inodes that share a block, which was checked.
pub(crate) fn references(block: &[u8]) -> u32 {
    RawHeader::ref_from_prefix(block).map_or(0, |(header, _)| header.references.get())
}

/// Sets the number of inodes that share block `number`, and updates the checksum.
pub(crate) fn set_references(
    superblock: &Superblock,
    number: PhysicalBlock,
    references: u32,
    block: &mut [u8],
) {
    let hash = RawHeader::ref_from_prefix(block).map_or(0, |(header, _)| header.hash.get());
    seal(superblock, number, (references, hash), block);
}

/// Writes the header of block `number`, whose entries and values are in `block`: the number of
/// inodes that share it, and the hash of all attributes.
pub(crate) fn seal(
    superblock: &Superblock,
    number: PhysicalBlock,
    (references, hash): (u32, u32),
    block: &mut [u8],
) {
    let mut header = RawHeader::new_zeroed();
    (header.magic, header.blocks) = (MAGIC.into(), 1.into());
    (header.references, header.hash) = (references.into(), hash.into());
    let mut copy = |header: &RawHeader| {
        block.iter_mut().zip(header.as_bytes()).for_each(|(to, from)| *to = *from);
        checksum(superblock, number, block)
    };
    let sum = copy(&header);
    if superblock.has_metadata_csum() {
        header.checksum = sum.into();
        copy(&header);
    }
}
