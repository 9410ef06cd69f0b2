//! The block of extended attributes of an inode, which several inodes may share.

use std::mem::offset_of;

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::format::checksum::crc32c;
use crate::format::corrupt::Problem;
use crate::format::superblock::Superblock;
use crate::format::xattr_entry::MAGIC;

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
const _: () = assert!(size_of::<RawHeader>() == HEADER && offset_of!(RawHeader, checksum) == 16);

/// Checks the header and the checksum of block `number`.
pub(crate) fn check(superblock: &Superblock, number: u64, block: &[u8]) -> Result<(), Problem> {
    let Ok((header, rest)) = RawHeader::ref_from_prefix(block) else {
        return Err(Problem::Missing { logical: 0 });
    };
    if header.magic != MAGIC {
        return Err(Problem::Magic { found: header.magic.get(), expected: MAGIC });
    }
    if header.blocks != 1 {
        let value = header.blocks.get().into();
        return Err(Problem::Mismatch { field: "count of blocks", value, expected: 1 });
    }
    if !superblock.has_metadata_csum() {
        return Ok(());
    }
    let seed = crc32c(superblock.checksum_seed, &number.to_le_bytes());
    let before = block.get(..offset_of!(RawHeader, checksum)).unwrap_or_default();
    let crc = crc32c(crc32c(seed, before), &[0; 4]);
    let computed = crc32c(crc32c(crc, header.reserved.as_bytes()), rest);
    let stored = header.checksum.get();
    if stored == computed { Ok(()) } else { Err(Problem::Checksum { stored, computed }) }
}
