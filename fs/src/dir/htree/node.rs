//! Nodes of a hash tree, which map ranges of hashes to blocks.

use std::mem::offset_of;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::blocks::block_cache::Block;
use crate::format::superblock::Superblock;

/// Size of an entry, bytes.
pub(crate) const ENTRY: usize = 8;
/// Byte offset of the entries in a node other than the root, after an unused directory entry.
pub(crate) const START: usize = 8;
/// Bits of the block number in an entry; the others are reserved.
pub(crate) const BLOCK_MASK: u32 = 0x0fff_ffff;

/// `struct dx_entry`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawEntry {
    /// Lowest hash in the block. If the lowest bit is set, names with this hash are also in the
    /// block before. The first entry, for all lower hashes, holds [`RawCountLimit`] instead.
    hash: U32,
    block: U32,
}

/// `struct dx_countlimit`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawCountLimit {
    /// Capacity, entries.
    pub limit: U16,
    /// Entries in use, including this one.
    pub count: U16,
}

const _: () = assert!(size_of::<RawEntry>() == ENTRY && offset_of!(RawEntry, block) == 4);

/// A reason why the kernel does not use a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("hash function {0} is unknown, or invalid in this directory")]
    Function(u8),
    #[error("flags {0:#x} are unknown")]
    Flags(u8),
    #[error("{0} levels are too many")]
    Levels(u8),
    #[error("the capacity of a node is {found} entries, not {expected}")]
    Limit { found: u16, expected: u16 },
    #[error("{count} of {limit} entries are in use")]
    Count { count: u16, limit: u16 },
    #[error("block {0} is one of its own descendants")]
    Cycle(u32),
    #[error("it refers to more blocks than the directory has")]
    TooManyBlocks,
}

/// A parsed node, which may be the root.
#[derive(Clone)]
pub(crate) struct Node {
    block: Block,
    start: usize,
    count: usize,
}

impl Node {
    /// Parses the node whose entries start at byte `start`, and whose capacity must be `limit`.
    pub(crate) fn new(block: Block, start: usize, limit: u16) -> Result<Self, Unusable> {
        let rest = block.get(start..).unwrap_or_default();
        let Ok((counts, _)) = RawCountLimit::ref_from_prefix(rest) else {
            return Err(Unusable::Limit { found: 0, expected: limit });
        };
        let (count, found) = (counts.count.get(), counts.limit.get());
        if found != limit {
            return Err(Unusable::Limit { found, expected: limit });
        }
        if count == 0 || count > limit {
            return Err(Unusable::Count { count, limit });
        }
        Ok(Self { block, start, count: usize::from(count) })
    }

    fn entries(&self) -> &[RawEntry] {
        let rest = self.block.get(self.start..).unwrap_or_default();
        <[RawEntry]>::ref_from_prefix_with_elems(rest, self.count)
            .map_or(&[], |(entries, _)| entries)
    }

    /// Returns the hash and the block of each entry. The hash of the first one has no meaning.
    pub(crate) fn all(&self) -> impl Iterator<Item = (u32, u32)> {
        self.entries().iter().map(|entry| (entry.hash.get(), entry.block.get() & BLOCK_MASK))
    }

    /// Returns the index of the last entry whose hash is not above `hash`. If hashes are out of
    /// order, the result is the kernel's, because the search takes the same steps.
    pub(crate) fn search(&self, hash: u32) -> usize {
        let entries = self.entries();
        let (mut low, mut high) = (1, self.count);
        while low < high {
            let middle = low.midpoint(high.saturating_sub(1));
            match entries.get(middle) {
                Some(entry) if entry.hash.get() <= hash => low = middle.saturating_add(1),
                _ => high = middle,
            }
        }
        low.saturating_sub(1)
    }

    /// Returns the lowest hash of entry `at`. The first entry does not store one.
    pub(crate) fn hash(&self, at: usize) -> Option<u32> {
        Some(self.entries().get(at)?.hash.get())
    }

    /// Returns the block that entry `at` refers to, as an index in the directory.
    pub(crate) fn child(&self, at: usize) -> Option<u32> {
        Some(self.entries().get(at)?.block.get() & BLOCK_MASK)
    }
}

/// Writes the entries of a node: hashes and blocks. The hash of the first one is not stored.
/// Returns `None` if there are none, or more than `limit`, the capacity.
pub(crate) fn write(
    block: &mut [u8],
    start: usize,
    limit: u16,
    entries: &[(u32, u32)],
) -> Option<()> {
    let rest = block.get_mut(start..)?;
    let count = u16::try_from(entries.len()).ok().filter(|count| (1..=limit).contains(count))?;
    let (raw, _) = <[RawEntry]>::mut_from_prefix_with_elems(rest, entries.len()).ok()?;
    for (raw, &(hash, block)) in raw.iter_mut().zip(entries) {
        *raw = RawEntry { hash: hash.into(), block: block.into() };
    }
    let (counts, _) = RawCountLimit::mut_from_prefix(rest).ok()?;
    *counts = RawCountLimit { limit: limit.into(), count: count.into() };
    Some(())
}

/// Returns the number of entries that fit into `space` bytes of a node, less the space for its
/// checksum.
pub(crate) fn limit(superblock: &Superblock, space: usize) -> u16 {
    let checksum = if superblock.has_metadata_csum() { ENTRY } else { 0 };
    let limit = space.saturating_sub(checksum).checked_div(ENTRY).unwrap_or(0);
    u16::try_from(limit).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds a node of entries with these hashes. The first hash is not used.
    fn node(hashes: &[u32]) -> Node {
        let mut bytes = vec![0; START];
        let count = hashes.len() as u16;
        for (index, hash) in (100u32..).zip(hashes) {
            bytes.extend(hash.to_le_bytes());
            bytes.extend((index | 0xf000_0000).to_le_bytes());
        }
        bytes[8..10].copy_from_slice(&400u16.to_le_bytes());
        bytes[10..12].copy_from_slice(&count.to_le_bytes());
        Node::new(bytes.into(), START, 400).unwrap()
    }

    #[test]
    fn searches_find_the_last_that_is_not_above() {
        let hashes = [0, 10, 20, 20, 30, 40];
        for count in 1..=hashes.len() {
            let node = node(&hashes[..count]);
            for hash in 0..50 {
                let expected = hashes[..count].iter().rposition(|&low| low <= hash).unwrap();
                assert_eq!(node.search(hash), expected, "{hash} in {count}");
            }
            assert_eq!(node.child(0), Some(100), "the upper bits are not the number's");
            assert_eq!((node.child(count), node.hash(count)), (None, None));
        }
        // If hashes are out of order, the search ends at one of the entries.
        assert!(node(&[0, 50, 3, 9, 2]).search(5) < 5);
    }

    #[test]
    fn counts_that_lie() {
        let new = |limit: u16, count: u16| {
            let mut bytes = vec![0; 64];
            bytes[8..10].copy_from_slice(&limit.to_le_bytes());
            bytes[10..12].copy_from_slice(&count.to_le_bytes());
            Node::new(bytes.into(), START, 7).map(|node| node.entries().len())
        };
        assert_eq!(new(7, 7), Ok(7));
        assert_eq!(new(7, 0), Err(Unusable::Count { count: 0, limit: 7 }));
        assert_eq!(new(7, 8), Err(Unusable::Count { count: 8, limit: 7 }));
        assert_eq!(new(8, 7), Err(Unusable::Limit { found: 8, expected: 7 }));
        let short = Node::new([0; 10].as_slice().into(), START, 7);
        assert!(matches!(short, Err(Unusable::Limit { found: 0, .. })));
    }
}
