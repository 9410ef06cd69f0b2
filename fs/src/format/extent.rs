//! The nodes of extent trees: header, extents and index entries.

use std::mem::offset_of;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::format::checksum::crc32c;
use crate::format::halves::join_64;
use crate::number::{LogicalBlock, PhysicalBlock};

/// `eh_magic`.
pub(crate) const MAGIC: u16 = 0xf30a;
/// Maximum depth of the root, which is the number of index levels above the leaves.
pub(crate) const DEPTH_MAX: u16 = 5;
/// Length of the longest written extent in blocks. Larger values encode an unwritten extent whose
/// length is the excess.
pub(crate) const WRITTEN_MAX: u16 = 32_768;
/// Size of the header and of each entry, bytes.
pub(crate) const ENTRY_SIZE: usize = 12;
/// Number of entries that fit into the root.
pub(crate) const ENTRIES_IN_ROOT: u16 = 4;

/// `struct ext4_extent_header`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawHeader {
    pub magic: U16,
    pub entries: U16,
    pub max: U16,
    pub depth: U16,
    pub generation: U32,
}

/// `struct ext4_extent`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawExtent {
    pub logical: U32,
    length: U16,
    start_hi: U16,
    start_lo: U32,
}

/// `struct ext4_extent_idx`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawIndex {
    pub logical: U32,
    leaf_lo: U32,
    leaf_hi: U16,
    unused: U16,
}

const _: () = {
    assert!(size_of::<RawHeader>() == ENTRY_SIZE);
    assert!(size_of::<RawExtent>() == ENTRY_SIZE);
    assert!(size_of::<RawIndex>() == ENTRY_SIZE);
    assert!(offset_of!(RawExtent, start_lo) == 8 && offset_of!(RawIndex, leaf_hi) == 8);
};

impl RawHeader {
    /// Creates the header of a node with `entries` of at most `max` entries, `depth` levels above
    /// the leaves.
    pub(crate) fn new(entries: u16, max: u16, depth: u16) -> Self {
        let (magic, generation) = (MAGIC.into(), U32::ZERO);
        Self { magic, entries: entries.into(), max: max.into(), depth: depth.into(), generation }
    }
}

impl RawIndex {
    /// Creates an entry for the child node in block `child`, whose first logical block is
    /// `logical`; `None` if the block number has more than 48 bits.
    pub(crate) fn new(logical: LogicalBlock, child: PhysicalBlock) -> Option<Self> {
        let (leaf_lo, leaf_hi) = split(child)?;
        Some(Self { logical: logical.get().into(), leaf_lo, leaf_hi, unused: U16::ZERO })
    }

    /// Returns the block of the child node.
    pub(crate) fn child(&self) -> PhysicalBlock {
        join(self.leaf_lo, self.leaf_hi)
    }
}

impl RawExtent {
    /// Creates an extent of `count` blocks; `None` if an extent cannot have this length, or if the
    /// physical block number has more than 48 bits.
    pub(crate) fn new(
        logical: LogicalBlock,
        count: u16,
        physical: PhysicalBlock,
        unwritten: bool,
    ) -> Option<Self> {
        let (start_lo, start_hi) = split(physical)?;
        let length = match unwritten {
            false => Some(count).filter(|&count| count <= WRITTEN_MAX),
            true => count.checked_add(WRITTEN_MAX),
        };
        let length = length.filter(|_| count > 0)?.into();
        Some(Self { logical: logical.get().into(), length, start_hi, start_lo })
    }

    /// Returns the first logical block, the number of blocks, the first physical block, and true if
    /// the extent is unwritten.
    pub(crate) fn parts(&self) -> (LogicalBlock, u32, PhysicalBlock, bool) {
        let length = self.length.get();
        let unwritten = length.checked_sub(WRITTEN_MAX).filter(|&more| more > 0);
        let physical = join(self.start_lo, self.start_hi);
        let count = u32::from(unwritten.unwrap_or(length));
        (self.logical.into(), count, physical, unwritten.is_some())
    }
}

/// Returns true if `i_block` contains the root of an extent tree.
pub(crate) fn is_root(bytes: &[u8]) -> bool {
    RawHeader::ref_from_prefix(bytes).is_ok_and(|(header, _)| header.magic.get() == MAGIC)
}

/// Returns true if `i_block` contains the root of an extent tree without entries.
pub(crate) fn is_empty_root(bytes: &[u8]) -> bool {
    let is_empty = |header: &RawHeader| {
        header.magic.get() == MAGIC
            && (header.entries.get(), header.depth.get()) == (0, 0)
            && header.max.get() == ENTRIES_IN_ROOT
    };
    RawHeader::ref_from_prefix(bytes).is_ok_and(|(header, _)| is_empty(header))
}

/// Writes the root of an empty tree to `i_block`.
pub(crate) fn clear_root(bytes: &mut [u8]) {
    if let Ok((header, _)) = RawHeader::mut_from_prefix(bytes) {
        *header = RawHeader::new(0, ENTRIES_IN_ROOT, 0);
    }
}

/// Joins the two fields of a 48-bit block number.
fn join(low: U32, high: U16) -> PhysicalBlock {
    join_64(low, u32::from(high.get()).into()).into()
}

/// Splits a block number into its two fields; `None` if it has more than 48 bits.
fn split(block: PhysicalBlock) -> Option<(U32, U16)> {
    let [a, b, c, d, e, f, 0, 0] = block.get().to_le_bytes() else { return None };
    Some((U32::from_bytes([a, b, c, d]), U16::from_bytes([e, f])))
}

/// Stores the checksum of a node that has a block of its own; `seed` is the inode's. The checksum
/// follows the place of the last entry.
pub(crate) fn seal(seed: u32, block: &mut [u8]) {
    let Ok((header, _)) = RawHeader::ref_from_prefix(block) else { return };
    let end = usize::from(header.max.get()).saturating_add(1).saturating_mul(ENTRY_SIZE);
    if let Some((covered, tail)) = block.split_at_mut_checked(end)
        && let Some(field) = tail.first_chunk_mut()
    {
        *field = crc32c(seed, covered).to_le_bytes();
    }
}
