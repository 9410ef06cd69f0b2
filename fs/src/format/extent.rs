//! The nodes of extent trees: header, extents and index entries.

use std::mem::offset_of;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `eh_magic`.
pub(crate) const MAGIC: u16 = 0xf30a;
/// Maximum depth of the root, which is the number of index levels above the leaves.
pub(crate) const DEPTH_MAX: u16 = 5;
/// Length of the longest written extent in blocks. Larger values encode an unwritten extent whose
/// length is the excess.
const WRITTEN_MAX: u16 = 32_768;
/// Size of the header and of each entry, bytes.
pub(crate) const ENTRY_SIZE: usize = 12;
/// Number of entries that fit into the root.
const ENTRIES_IN_ROOT: u16 = 4;

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

impl RawIndex {
    /// Returns the block of the child node.
    pub(crate) fn child(&self) -> u64 {
        join(self.leaf_lo, self.leaf_hi)
    }
}

impl RawExtent {
    /// Returns the first logical block, the number of blocks, the first physical block, and true if
    /// the extent is unwritten.
    pub(crate) fn parts(&self) -> (u64, u64, u64, bool) {
        let length = self.length.get();
        let unwritten = length.checked_sub(WRITTEN_MAX).filter(|&more| more > 0);
        let physical = join(self.start_lo, self.start_hi);
        let count = u64::from(unwritten.unwrap_or(length));
        (self.logical.get().into(), count, physical, unwritten.is_some())
    }
}

/// Returns true if `i_block` contains the root of an extent tree.
pub(crate) fn is_root(bytes: &[u8]) -> bool {
    RawHeader::ref_from_prefix(bytes).is_ok_and(|(header, _)| header.magic.get() == MAGIC)
}

/// Writes the root of an empty tree to `i_block`.
pub(crate) fn clear_root(bytes: &mut [u8]) {
    if let Ok((header, _)) = RawHeader::mut_from_prefix(bytes) {
        let max = ENTRIES_IN_ROOT.into();
        let zero = U16::ZERO;
        *header = RawHeader {
            magic: MAGIC.into(),
            entries: zero,
            max,
            depth: zero,
            generation: U32::ZERO,
        };
    }
}

/// Joins the two fields of a 48-bit block number.
fn join(low: U32, high: U16) -> u64 {
    u64::from(low.get()) | (u64::from(high.get()) << 32)
}
