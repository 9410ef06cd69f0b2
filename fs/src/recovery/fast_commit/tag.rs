//! Tags, which fast commits consist of.

use std::mem::offset_of;
use std::ops::Range;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::format::dir_entry::NAME_MAX;
use crate::format::extent::RawExtent;
use crate::number::{BlockRun, InodeNumber, LogicalBlock, PhysicalBlock};

/// `struct ext4_fc_tl`, the header of each tag.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    tag: U16,
    length: U16,
}

/// `struct ext4_fc_head`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHead {
    features: U32,
    transaction: U32,
}

/// `struct ext4_fc_add_range`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawAddRange {
    inode: U32,
    extent: RawExtent,
}

/// `struct ext4_fc_del_range`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawDelRange {
    inode: U32,
    logical: U32,
    count: U32,
}

/// `struct ext4_fc_dentry_info`, without the name.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawName {
    directory: U32,
    inode: U32,
}

/// `struct ext4_fc_tail`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawTail {
    transaction: U32,
    checksum: U32,
}

/// Size of the header of a tag, bytes.
pub(crate) const HEADER: usize = size_of::<RawHeader>();
/// Size of a tail without the rest of its block, bytes.
pub(crate) const TAIL: usize = HEADER + size_of::<RawTail>();
/// Number of bytes of a tail that its checksum covers: all bytes before the checksum.
const TAIL_COVERED: usize = HEADER + offset_of!(RawTail, checksum);
/// Minimum size of an inode in a tag, bytes.
const INODE_MIN: usize = 128;

const _: () = {
    assert!(HEADER == 4 && size_of::<RawHead>() == 8 && size_of::<RawTail>() == 8);
    assert!(size_of::<RawAddRange>() == 16 && size_of::<RawDelRange>() == 12);
    assert!(size_of::<RawName>() == 8);
};

/// A name in a directory, and the inode that it refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Name<'a> {
    pub directory: InodeNumber,
    pub inode: InodeNumber,
    pub name: &'a [u8],
}

/// A tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tag<'a> {
    /// Blocks of a file were mapped.
    AddRange {
        inode: InodeNumber,
        logical: LogicalBlock,
        count: u32,
        physical: PhysicalBlock,
        unwritten: bool,
    },
    /// Blocks of a file were unmapped.
    DelRange { inode: InodeNumber, logical: LogicalBlock, count: u32 },
    /// A new inode was created with this name.
    Create(Name<'a>),
    /// A name was added for an existing inode.
    Link(Name<'a>),
    /// A name was removed.
    Unlink(Name<'a>),
    /// The first bytes of an inode.
    Inode { number: InodeNumber, bytes: &'a [u8] },
    /// Padding up to the end of a block.
    Pad,
    /// The end of a fast commit.
    Tail { transaction: u32, checksum: u32 },
    /// The start of the first fast commit.
    Head { features: u32, transaction: u32 },
}

/// The result of reading a tag.
pub(crate) enum Found<'a> {
    /// A tag, the bytes covered by the checksum, and the offset of the next tag.
    Tag { tag: Tag<'a>, covered: &'a [u8], next: usize },
    /// The end of the block.
    End,
    /// An unknown tag, or one with an invalid length.
    Invalid { tag: u16, length: u16 },
}

/// Reads the tag at byte `at` of `block`. `inode_size` is the size of an inode in bytes.
pub(crate) fn read(block: &[u8], at: usize, inode_size: usize) -> Found<'_> {
    let rest = block.get(at..).unwrap_or_default();
    let Ok((header, value)) = RawHeader::ref_from_prefix(rest) else { return Found::End };
    let (tag, length) = (header.tag.get(), header.length.get());
    let value = value.get(..usize::from(length));
    let Some(parsed) = value.and_then(|value| parse(tag, value, inode_size)) else {
        return Found::Invalid { tag, length };
    };
    let size = HEADER.saturating_add(length.into());
    let covered = if matches!(parsed, Tag::Tail { .. }) { TAIL_COVERED } else { size };
    let covered = rest.get(..covered).unwrap_or_default();
    Found::Tag { tag: parsed, covered, next: at.saturating_add(size) }
}

fn parse(tag: u16, value: &[u8], inode_size: usize) -> Option<Tag<'_>> {
    Some(match tag {
        1 => {
            let raw = RawAddRange::read_from_bytes(value).ok()?;
            let (logical, count, physical, unwritten) = raw.extent.parts();
            Tag::AddRange { inode: raw.inode.into(), logical, count, physical, unwritten }
        }
        2 => {
            let raw = RawDelRange::read_from_bytes(value).ok()?;
            let (logical, count) = (raw.logical.into(), raw.count.get());
            Tag::DelRange { inode: raw.inode.into(), logical, count }
        }
        3 => Tag::Create(name(value)?),
        4 => Tag::Link(name(value)?),
        5 => Tag::Unlink(name(value)?),
        6 => {
            let (number, bytes) = U32::ref_from_prefix(value).ok()?;
            if !(INODE_MIN..=inode_size).contains(&bytes.len()) {
                return None;
            }
            Tag::Inode { number: (*number).into(), bytes }
        }
        7 => Tag::Pad,
        8 => {
            let (raw, _) = RawTail::ref_from_prefix(value).ok()?;
            Tag::Tail { transaction: raw.transaction.get(), checksum: raw.checksum.get() }
        }
        9 => {
            let raw = RawHead::read_from_bytes(value).ok()?;
            Tag::Head { features: raw.features.get(), transaction: raw.transaction.get() }
        }
        _ => return None,
    })
}

fn name(value: &[u8]) -> Option<Name<'_>> {
    let (raw, name) = RawName::ref_from_prefix(value).ok()?;
    let fits = (1..=NAME_MAX).contains(&name.len());
    fits.then(|| Name { directory: raw.directory.into(), inode: raw.inode.into(), name })
}

/// Encodes the head of the first fast commit of a transaction.
pub(crate) fn head(transaction: u32) -> Vec<u8> {
    let raw = RawHead { features: U32::ZERO, transaction: transaction.into() };
    with_header(9, raw.as_bytes())
}

/// Encodes the tag of blocks that were mapped. Returns `None` if no extent can describe them.
pub(crate) fn add_range(
    inode: InodeNumber,
    logical: LogicalBlock,
    blocks: BlockRun,
    unwritten: bool,
) -> Option<Vec<u8>> {
    let count = u16::try_from(blocks.count()).ok()?;
    let extent = RawExtent::new(logical, count, blocks.start(), unwritten)?;
    let raw = RawAddRange { inode: inode.get().into(), extent };
    Some(with_header(1, raw.as_bytes()))
}

/// Encodes the tag of blocks that were unmapped.
pub(crate) fn del_range(inode: InodeNumber, range: Range<LogicalBlock>) -> Vec<u8> {
    let count = range.end.since(range.start).into();
    let logical = range.start.get().into();
    let raw = RawDelRange { inode: inode.get().into(), logical, count };
    with_header(2, raw.as_bytes())
}

/// Encodes the tag of the first bytes of an inode.
pub(crate) fn inode(number: InodeNumber, bytes: &[u8]) -> Vec<u8> {
    let number = number.get().to_le_bytes();
    with_header(6, &[&number, bytes].concat())
}

/// Encodes the tag of a name that was added: of a new inode, or of one that has others.
pub(crate) fn added(name: Name<'_>, is_new: bool) -> Vec<u8> {
    let (directory, inode) = (name.directory.get().into(), name.inode.get().into());
    let raw = RawName { directory, inode };
    with_header(if is_new { 3 } else { 4 }, &[raw.as_bytes(), name.name].concat())
}

/// Encodes a padding for the last `left` bytes of a block, which are at least a header.
pub(crate) fn pad(left: usize) -> Vec<u8> {
    let mut bytes = start(7, left.saturating_sub(HEADER));
    bytes.resize(left, 0);
    bytes
}

/// Encodes a tail for the last `left` bytes of a block, without its checksum and the rest of the block.
pub(crate) fn tail(left: usize, transaction: u32) -> Vec<u8> {
    let mut bytes = start(8, left.saturating_sub(HEADER));
    bytes.extend(transaction.to_le_bytes());
    bytes
}

fn with_header(tag: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = start(tag, value.len());
    bytes.extend(value);
    bytes
}

/// Encodes the header of a tag whose value has `length` bytes, which fit because a block has at most
/// 65,536.
fn start(tag: u16, length: usize) -> Vec<u8> {
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    RawHeader { tag: tag.into(), length: length.into() }.as_bytes().to_vec()
}
