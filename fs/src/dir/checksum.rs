//! Checksums of directory blocks. A block of entries stores it in an unused last entry, a hash tree
//! node after its entries.

use std::mem::offset_of;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::dir::htree::node;
use crate::dir::htree::node::RawCountLimit;
use crate::dir::htree::root::{INFO, RawRootInfo};
use crate::format::checksum::crc32c;
use crate::format::corrupt::Problem;
use crate::format::dir_entry::{RawEntry, decode_rec_len};
use crate::format::inode::Inode;
use crate::format::inode_flags::InodeFlags;
use crate::format::superblock::Superblock;

/// `struct ext4_dir_entry_tail`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawTail {
    inode: U32,
    rec_len: U16,
    name_len: u8,
    file_type: u8,
    checksum: U32,
}

/// `file_type` of the tail.
const TAIL_TYPE: u8 = 0xde;

/// `struct dx_tail`, which follows the last entry that fits.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawNodeTail {
    reserved: U32,
    checksum: U32,
}

/// Size of the tail of a block of entries, bytes.
pub(crate) const TAIL_SIZE: usize = 12;
/// Byte offset of the root's entries, after ".", ".." and the root's own fields.
pub(crate) const ROOT_START: usize = 32;

const _: () = {
    assert!(size_of::<RawTail>() == TAIL_SIZE && size_of::<RawNodeTail>() == node::ENTRY);
    assert!(INFO + size_of::<RawRootInfo>() == ROOT_START);
    assert!(offset_of!(RawTail, checksum) == 8);
};

/// Writes the tail with the checksum to a block of entries; `seed` is the inode's.
pub(crate) fn seal(seed: u32, block: &mut [u8]) {
    let Some((covered, tail)) = block.split_last_chunk_mut::<TAIL_SIZE>() else { return };
    let tail_len = u16::try_from(TAIL_SIZE).unwrap_or(0).into();
    let checksum = crc32c(seed, covered).into();
    let (inode, name_len, file_type) = (U32::ZERO, 0, TAIL_TYPE);
    if let Ok(raw) = RawTail::mut_from_bytes(tail) {
        *raw = RawTail { inode, rec_len: tail_len, name_len, file_type, checksum };
    }
}

/// Writes the tail with the checksum to a node of a hash tree whose entries begin at `start`;
/// `seed` is the inode's.
pub(crate) fn seal_node(seed: u32, block: &mut [u8], start: usize) {
    let Ok((_, computed)) = node_sums(seed, block, start) else { return };
    let counts = block.get(start..).and_then(|rest| RawCountLimit::ref_from_prefix(rest).ok());
    let limit = counts.map_or(0, |(counts, _)| usize::from(counts.limit.get()));
    let tail = block.get_mut(limit.saturating_mul(node::ENTRY).saturating_add(start)..);
    if let Some((tail, _)) = tail.and_then(|tail| RawNodeTail::mut_from_prefix(tail).ok()) {
        tail.checksum = computed.into();
    }
}

/// Verifies the checksum of block `index` of a directory, if the filesystem has metadata checksums.
pub(crate) fn verify(
    superblock: &Superblock,
    inode: &Inode,
    index: u64,
    block: &[u8],
) -> Result<(), Problem> {
    if !superblock.has_metadata_csum() {
        return Ok(());
    }
    let is_indexed = inode.flags().contains(InodeFlags::INDEX);
    let (stored, computed) = match node_start(index, block).filter(|_| is_indexed) {
        Some(start) => node_sums(inode.checksum_seed, block, start)?,
        None => leaf(inode.checksum_seed, block)?,
    };
    Problem::verify_checksum(stored, computed)
}

/// Returns the stored and the computed checksum of a block of entries.
fn leaf(seed: u32, block: &[u8]) -> Result<(u32, u32), Problem> {
    let (covered, tail) = block
        .split_last_chunk::<TAIL_SIZE>()
        .and_then(|(covered, tail)| Some((covered, RawTail::ref_from_bytes(tail).ok()?)))
        .ok_or(Problem::NoChecksum)?;
    let sound = tail.inode == 0
        && usize::from(tail.rec_len.get()) == TAIL_SIZE
        && tail.name_len == 0
        && tail.file_type == TAIL_TYPE;
    if !sound {
        return Err(Problem::NoChecksum);
    }
    Ok((tail.checksum.get(), crc32c(seed, covered)))
}

/// Returns the byte offset of the hash tree entries of a block; `None` if the block contains names.
fn node_start(index: u64, block: &[u8]) -> Option<usize> {
    let entry = |offset: usize| RawEntry::ref_from_prefix(block.get(offset..)?).ok();
    let (first, _) = entry(0)?;
    let rec_len = |entry: &RawEntry| decode_rec_len(entry.rec_len.get(), block.len());
    if index != 0 {
        let is_node = first.inode == 0 && rec_len(first) == block.len();
        return is_node.then_some(node::START);
    }
    let (second, _) = entry(12)?;
    let (info, _) = RawRootInfo::ref_from_prefix(block.get(INFO..)?).ok()?;
    let is_root = rec_len(first) == 12
        && rec_len(second).checked_add(12) == Some(block.len())
        && info.reserved == 0
        && info.info_length == 8;
    is_root.then_some(ROOT_START)
}

/// Returns the stored and the computed checksum of a hash tree node. It covers the entries in use
/// and the tail, with a checksum of zero.
fn node_sums(seed: u32, block: &[u8], start: usize) -> Result<(u32, u32), Problem> {
    let rest = block.get(start..).unwrap_or_default();
    let (counts, _) = RawCountLimit::ref_from_prefix(rest).map_err(|_| Problem::NoChecksum)?;
    let (count, limit) = (counts.count.get(), counts.limit.get());
    Problem::verify_max("count of hash entries", count, limit)?;
    let end = |entries: u16| usize::from(entries).saturating_mul(node::ENTRY).saturating_add(start);
    let covered = block.get(..end(count)).ok_or(Problem::NoChecksum)?;
    let (tail, _) = block
        .get(end(limit)..)
        .and_then(|tail| RawNodeTail::ref_from_prefix(tail).ok())
        .ok_or(Problem::NoChecksum)?;
    let crc = crc32c(crc32c(seed, covered), tail.reserved.as_bytes());
    Ok((tail.checksum.get(), crc32c(crc, &[0; 4])))
}
