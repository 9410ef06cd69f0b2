//! Extent trees.

use std::mem::offset_of;

use nvio_iomap::MappingKind;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::block_cache::Block;
use crate::checksum::crc32c;
use crate::corrupt::{Problem, Structure};
use crate::map::{LOGICAL_END, Leaf, LeafBuilder};
use crate::{Error, Filesystem, Inode, Superblock};

/// `eh_magic`.
const MAGIC: u16 = 0xf30a;
/// Levels of index nodes above the leaves, at most.
const DEPTH_MAX: u16 = 5;
/// Longest written extent in blocks. Lengths above it mean that many fewer, unwritten.
const WRITTEN_MAX: u16 = 32_768;
/// Size of the header and of every entry, bytes.
const ENTRY_SIZE: usize = 12;

/// `struct ext4_extent_header`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: U16,
    entries: U16,
    max: U16,
    depth: U16,
    generation: U32,
}

/// `struct ext4_extent`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawExtent {
    logical: U32,
    length: U16,
    start_hi: U16,
    start_lo: U32,
}

/// `struct ext4_extent_idx`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawIndex {
    logical: U32,
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

/// 48 bits in two fields.
fn join(low: U32, high: U16) -> u64 {
    u64::from(low.get()) | (u64::from(high.get()) << 32)
}

/// A node and the logical blocks `[low, high)` that its parent gives it.
struct Node<'a> {
    superblock: &'a Superblock,
    bytes: &'a [u8],
    structure: Structure,
    low: u64,
    high: u64,
}

/// Where to go on from an index node.
enum Step {
    /// The node at this block has the logical blocks `[low, high)`.
    Down { block: u64, low: u64, high: u64 },
    /// There is a hole in front of the first child.
    Hole { start: u64, end: u64 },
}

/// Reads the leaf of the tree that logical block `logical` is in.
pub(crate) fn leaf(fs: &Filesystem, inode: &Inode, logical: u64) -> Result<Leaf, Error> {
    let superblock = fs.superblock();
    let number = inode.number();
    let root = Node {
        superblock,
        bytes: &inode.block,
        structure: Structure::ExtentRoot { inode: number },
        low: 0,
        high: LOGICAL_END,
    };
    let header = root.header(None)?;
    let mut depth = header.depth.get();
    if depth == 0 {
        return root.leaf(header);
    }
    let mut step = root.step(header, logical)?;
    loop {
        let (number, low, high) = match step {
            Step::Hole { start, end } => {
                return Ok(LeafBuilder::new(superblock, start, 1).finish(end));
            }
            Step::Down { block, low, high } => (block, low, high),
        };
        // At most DEPTH_MAX rounds: the root's depth is checked, and so is that each node's is
        // one less than its parent's.
        depth = depth.saturating_sub(1);
        let structure = Structure::ExtentBlock { block: number, inode: inode.number() };
        let block = read_node(fs, number, structure)?;
        let node = Node { superblock, bytes: &block, structure, low, high };
        let header = node.header(Some(depth))?;
        verify_checksum(&node, header, inode)?;
        if depth == 0 {
            return node.leaf(header);
        }
        step = node.step(header, logical)?;
    }
}

fn read_node(fs: &Filesystem, number: u64, structure: Structure) -> Result<Block, Error> {
    if fs.superblock().is_data_range(number, 1) {
        return fs.block(number);
    }
    Err(structure.corrupt(Problem::BlockRange { start: number, count: 1 }))
}

/// The checksum of a block is after the place for the last entry.
fn verify_checksum(node: &Node<'_>, header: &RawHeader, inode: &Inode) -> Result<(), Error> {
    if !node.superblock.has_metadata_csum() {
        return Ok(());
    }
    let end = usize::from(header.max.get()).saturating_add(1).saturating_mul(ENTRY_SIZE);
    let parts = node.bytes.split_at_checked(end);
    let stored = parts.and_then(|(_, tail)| Some(U32::ref_from_prefix(tail).ok()?.0.get()));
    let (Some((covered, _)), Some(stored)) = (parts, stored) else {
        return Err(node.structure.corrupt(Problem::NoChecksum));
    };
    let computed = crc32c(inode.checksum_seed, covered);
    if stored == computed {
        return Ok(());
    }
    Err(node.structure.corrupt(Problem::Checksum { stored, computed }))
}

impl<'a> Node<'a> {
    fn corrupt(&self, problem: Problem) -> Error {
        self.structure.corrupt(problem)
    }

    /// Checks the header. Every node but the root (`depth` of `None`) must have the depth that
    /// its parent says, and entries.
    fn header(&self, depth: Option<u16>) -> Result<&'a RawHeader, Error> {
        let Ok((header, _)) = RawHeader::ref_from_prefix(self.bytes) else {
            return Err(self.corrupt(Problem::Missing { logical: self.low }));
        };
        let found = header.magic.get();
        if found != MAGIC {
            let (found, expected) = (found.into(), MAGIC.into());
            return Err(self.corrupt(Problem::Magic { found, expected }));
        }
        let fits = self.bytes.len().checked_div(ENTRY_SIZE).unwrap_or(0).saturating_sub(1);
        let fits = u16::try_from(fits).unwrap_or(u16::MAX);
        let (entries, max) = (header.entries.get(), header.max.get());
        let too_large = |field, value: u16, max: u16| {
            self.corrupt(Problem::TooLarge { field, value: value.into(), max: max.into() })
        };
        if max > fits {
            return Err(too_large("room for entries", max, fits));
        }
        if entries > max {
            return Err(too_large("count of entries", entries, max));
        }
        let value = header.depth.get();
        match depth {
            None if value > DEPTH_MAX => return Err(too_large("depth", value, DEPTH_MAX)),
            Some(expected) if value != expected => {
                let (value, expected) = (value.into(), expected.into());
                return Err(self.corrupt(Problem::Mismatch { field: "depth", value, expected }));
            }
            _ => (),
        }
        if entries == 0 && (depth.is_some() || value > 0) {
            return Err(self.corrupt(Problem::EmptyNode));
        }
        Ok(header)
    }

    /// The entries that the header, which has been checked, says there are.
    fn entries<T: FromBytes + Immutable + KnownLayout + Unaligned>(
        &self,
        header: &RawHeader,
    ) -> Result<&'a [T], Error> {
        let entries = self.bytes.get(ENTRY_SIZE..).unwrap_or_default();
        <[T]>::ref_from_prefix_with_elems(entries, usize::from(header.entries.get()))
            .map(|(entries, _)| entries)
            .map_err(|_| self.corrupt(Problem::Missing { logical: self.low }))
    }

    /// Checks an index node and finds the child for `logical`.
    fn step(&self, header: &RawHeader, logical: u64) -> Result<Step, Error> {
        let entries: &[RawIndex] = self.entries(header)?;
        let starts = || entries.iter().map(|entry| u64::from(entry.logical.get()));
        // Each child has what lies between its own start and the next one's.
        let ends = starts().skip(1).chain([self.high]);
        let mut low = self.low;
        for (entry, (start, end)) in (0u16..).zip(starts().zip(ends)) {
            if start < low || start >= end || end > self.high {
                let high = self.high;
                return Err(self.corrupt(Problem::ExtentOrder { entry, start, end, low, high }));
            }
            low = end;
        }
        let after = entries.partition_point(|entry| u64::from(entry.logical.get()) <= logical);
        let Some(entry) = after.checked_sub(1).and_then(|at| entries.get(at)) else {
            let end = starts().next().unwrap_or(self.high);
            return Ok(Step::Hole { start: self.low, end });
        };
        Ok(Step::Down {
            block: join(entry.leaf_lo, entry.leaf_hi),
            low: entry.logical.get().into(),
            high: starts().nth(after).unwrap_or(self.high),
        })
    }

    /// Checks a leaf and gives its mappings.
    fn leaf(&self, header: &RawHeader) -> Result<Leaf, Error> {
        let entries: &[RawExtent] = self.entries(header)?;
        let capacity = entries.len().saturating_mul(2).saturating_add(1);
        let mut leaf = LeafBuilder::new(self.superblock, self.low, capacity);
        let mut low = self.low;
        for (entry, extent) in (0u16..).zip(entries) {
            let length = extent.length.get();
            let (count, kind) = match length.checked_sub(WRITTEN_MAX).filter(|&more| more > 0) {
                Some(unwritten) => (u64::from(unwritten), MappingKind::Unwritten),
                None => (u64::from(length), MappingKind::Mapped),
            };
            let start = u64::from(extent.logical.get());
            let end = start.saturating_add(count);
            if start < low || end <= start || end > self.high {
                let high = self.high;
                return Err(self.corrupt(Problem::ExtentOrder { entry, start, end, low, high }));
            }
            let physical = join(extent.start_lo, extent.start_hi);
            if !self.superblock.is_data_range(physical, count) {
                return Err(self.corrupt(Problem::BlockRange { start: physical, count }));
            }
            leaf.push(start, count, physical, kind);
            low = end;
        }
        Ok(leaf.finish(self.high))
    }
}
