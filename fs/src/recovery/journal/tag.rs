//! Descriptor blocks, with a tag for each of the data blocks that follow.

use zerocopy::FromBytes;
use zerocopy::big_endian::{U16, U32};
use zerocopy::{Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::format::checksum::crc32c;
use crate::format::corrupt::Problem;
use crate::format::halves::split_64;
use crate::number::PhysicalBlock;
use crate::recovery::journal::block::{Kind, RawHeader};
use crate::recovery::journal::superblock::{Checksums, JournalSuperblock};
use crate::recovery::journal::tail;

/// `t_flags`: the block begins with the magic number of log blocks, which is stored as zeroes.
const ESCAPE: u16 = 0x1;
/// No UUID follows the tag.
const SAME_UUID: u16 = 0x2;
/// The last tag of the block.
const LAST: u16 = 0x8;
/// Size of the UUID after a tag, bytes.
const UUID_SIZE: usize = 16;

/// `struct journal_block_tag_s`, without the upper half of the block number, which follows if block
/// numbers have 64 bits.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawTag {
    block: U32,
    checksum: U16,
    flags: U16,
}

/// `struct journal_block_tag3_s`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawTag3 {
    block: U32,
    flags: U32,
    block_hi: U32,
    checksum: U32,
}

const _: () = assert!(size_of::<RawTag>() == 8 && size_of::<RawTag3>() == 16);

/// A tag: the block of the filesystem that a data block belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    /// Block number in the filesystem.
    pub block: PhysicalBlock,
    /// The first four bytes are [`MAGIC`](crate::blocks::overlay::MAGIC), and are stored as zeroes.
    pub escaped: bool,
    checksum: u32,
}

impl Tag {
    /// Verifies the checksum of the data block as it is stored in the log.
    pub(crate) fn verify(
        &self,
        superblock: &JournalSuperblock,
        sequence: u32,
        data: &[u8],
    ) -> Result<(), Problem> {
        let mask = match superblock.checksums {
            Checksums::None | Checksums::Commit => return Ok(()),
            Checksums::V2 => 0xffff,
            Checksums::V3 => u32::MAX,
        };
        let seed = crc32c(superblock.seed, &sequence.to_be_bytes());
        let (stored, computed) = (self.checksum, crc32c(seed, data) & mask);
        Problem::verify_checksum(stored, computed)
    }
}

/// Writes the descriptor block of transaction `sequence` for as many of `copies` as have room in
/// `block`, and returns their number. Each is the number of a block and its contents as they are
/// stored in the log, with true if they are escaped.
pub(crate) fn encode<'a>(
    superblock: &JournalSuperblock,
    sequence: u32,
    copies: impl Iterator<Item = (PhysicalBlock, &'a [u8], bool)>,
    block: &mut [u8],
) -> usize {
    block.fill(0);
    if let Ok((header, _)) = RawHeader::mut_from_prefix(block) {
        *header = RawHeader::new(Kind::Descriptor, sequence);
    }
    let capacity = tags_in(superblock, block.len());
    let size = tag_size(superblock.checksums, superblock.wide);
    let seed = crc32c(superblock.seed, &sequence.to_be_bytes());
    let mut copies = copies.take(capacity).peekable();
    let (mut at, mut count) = (size_of::<RawHeader>(), 0usize);
    while let Some((number, data, escaped)) = copies.next() {
        let mut flags = if escaped { ESCAPE } else { 0 };
        flags |= if count > 0 { SAME_UUID } else { 0 };
        flags |= if copies.peek().is_none() { LAST } else { 0 };
        let place = block.get_mut(at..at.saturating_add(size)).unwrap_or_default();
        store(superblock.checksums, number, crc32c(seed, data), flags, place);
        // An internal journal has a UUID of zeroes, which follows the first tag.
        let uuid = if count == 0 { UUID_SIZE } else { 0 };
        at = at.saturating_add(size).saturating_add(uuid);
        count = count.saturating_add(1);
    }
    tail::seal(superblock, block);
    count
}

/// Returns the number of tags in a descriptor block of `length` bytes.
pub(crate) fn tags_in(superblock: &JournalSuperblock, length: usize) -> usize {
    let tail = if superblock.has_tails() { 4 } else { 0 };
    let room = length.saturating_sub(size_of::<RawHeader>()).saturating_sub(UUID_SIZE);
    let size = tag_size(superblock.checksums, superblock.wide);
    room.saturating_sub(tail).checked_div(size).unwrap_or(0)
}

/// Writes one tag, whose checksum is stored as far as it fits.
fn store(kind: Checksums, number: PhysicalBlock, checksum: u32, flags: u16, place: &mut [u8]) {
    let (low, high) = split_64(number.get());
    let (block, block_hi) = (low.get().into(), high.get().into());
    if kind == Checksums::V3 {
        let raw =
            RawTag3 { block, flags: u32::from(flags).into(), block_hi, checksum: checksum.into() };
        place.iter_mut().zip(raw.as_bytes()).for_each(|(to, from)| *to = *from);
        return;
    }
    let low = if kind == Checksums::V2 { u16::try_from(checksum & 0xffff).unwrap_or(0) } else { 0 };
    let raw = RawTag { block, checksum: low.into(), flags: flags.into() };
    let bytes = raw.as_bytes().iter().chain(block_hi.as_bytes());
    place.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
}

/// An iterator over the tags of a descriptor block.
pub(crate) struct Tags<'a> {
    rest: &'a [u8],
    size: usize,
    checksums: Checksums,
    wide: bool,
}

impl<'a> Tags<'a> {
    pub(crate) fn new(superblock: &JournalSuperblock, bytes: &'a [u8]) -> Self {
        let tail = if superblock.has_tails() { 4 } else { 0 };
        let end = bytes.len().saturating_sub(tail);
        let rest = bytes.get(size_of::<RawHeader>()..end).unwrap_or_default();
        let (checksums, wide) = (superblock.checksums, superblock.wide);
        Self { rest, size: tag_size(checksums, wide), checksums, wide }
    }

    /// Returns the number of data blocks that follow.
    pub(crate) fn count_blocks(self) -> u32 {
        u32::try_from(self.count()).unwrap_or(u32::MAX)
    }
}

/// Returns the size of a tag in bytes. Tags of version 2 have two unused bytes.
fn tag_size(checksums: Checksums, wide: bool) -> usize {
    match (checksums, wide) {
        (Checksums::V3, _) => 16,
        (Checksums::V2, true) => 14,
        (Checksums::V2, false) => 10,
        (_, true) => 12,
        (_, false) => 8,
    }
}

impl Iterator for Tags<'_> {
    type Item = Tag;

    fn next(&mut self) -> Option<Tag> {
        let (bytes, rest) = self.rest.split_at_checked(self.size)?;
        let (tag, flags) = if self.checksums == Checksums::V3 {
            let (raw, _) = RawTag3::ref_from_prefix(bytes).ok()?;
            let (low, high) = (raw.block.get(), raw.block_hi.get());
            // The lower half holds the flags of the other versions.
            let flags = u16::try_from(raw.flags.get() & 0xffff).unwrap_or(0);
            (self.tag(low, high, raw.checksum.get(), flags), flags)
        } else {
            let (raw, high) = RawTag::ref_from_prefix(bytes).ok()?;
            let high = U32::ref_from_prefix(high).map_or(0, |(high, _)| high.get());
            let flags = raw.flags.get();
            (self.tag(raw.block.get(), high, raw.checksum.get().into(), flags), flags)
        };
        self.rest = match flags {
            _ if flags & LAST != 0 => &[],
            _ if flags & SAME_UUID != 0 => rest,
            _ => rest.get(UUID_SIZE..).unwrap_or_default(),
        };
        Some(tag)
    }
}

impl Tags<'_> {
    fn tag(&self, low: u32, high: u32, checksum: u32, flags: u16) -> Tag {
        let high = if self.wide { u64::from(high) << 32 } else { 0 };
        Tag { block: (u64::from(low) | high).into(), escaped: flags & ESCAPE != 0, checksum }
    }
}
