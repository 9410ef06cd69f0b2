//! Extent trees: parsing, lookup and read-ahead.

use nvio_iomap::MappingKind;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::blocks::block_cache::Block;
use crate::blocks::metadata::Metadata;
use crate::error::Error;
use crate::format::checksum::crc32c;
use crate::format::corrupt::{Problem, Structure};
use crate::format::extent::{DEPTH_MAX, ENTRY_SIZE, MAGIC, RawExtent, RawHeader, RawIndex};
use crate::format::inode::Inode;
use crate::format::superblock::Superblock;
use crate::map::builder::{LOGICAL_END, RunBuilder};
use crate::map::leaves;
use crate::map::run::MapRun;

/// A node, with the range of logical blocks `[low, high)` that its parent assigns to it.
struct Node<'a> {
    superblock: &'a Superblock,
    bytes: &'a [u8],
    structure: Structure,
    low: u64,
    high: u64,
}

/// The result of a search in an index node.
enum Step {
    /// Continue with the node in this block, which maps the logical blocks `[low, high)`.
    Down { block: u64, low: u64, high: u64 },
    /// A hole before the first child.
    Hole { start: u64, end: u64 },
}

/// Returns the root of an inode's tree.
fn root<'a>(metadata: &'a Metadata, inode: &'a Inode) -> Node<'a> {
    Node {
        superblock: metadata.superblock(),
        bytes: &inode.block,
        structure: Structure::ExtentRoot { inode: inode.number() },
        low: 0,
        high: LOGICAL_END,
    }
}

/// Reads the leaf that contains logical block `logical`.
pub(crate) fn leaf(metadata: &Metadata, inode: &Inode, logical: u64) -> Result<MapRun, Error> {
    let superblock = metadata.superblock();
    let root = root(metadata, inode);
    let header = root.header(None)?;
    let mut depth = header.depth.get();
    if depth == 0 {
        return root.leaf(header);
    }
    let mut step = root.step(header, logical)?;
    loop {
        let (number, low, high) = match step {
            Step::Hole { start, end } => {
                return Ok(RunBuilder::new(superblock, start, 1).finish(end));
            }
            Step::Down { block, low, high } => (block, low, high),
        };
        // The loop runs at most DEPTH_MAX times, because `header` checks the depth of the root, and
        // that the depth of each node is one less than its parent's.
        depth = depth.saturating_sub(1);
        let structure = Structure::ExtentBlock { block: number, inode: inode.number() };
        let block = read_node(metadata, number, structure)?;
        let node = Node { superblock, bytes: &block, structure, low, high };
        let header = node.header(Some(depth))?;
        verify_checksum(&node, header, inode)?;
        if depth == 0 {
            return node.leaf(header);
        }
        step = node.step(header, logical)?;
    }
}

/// Reads ahead the leaf that contains logical block `logical` and the leaves after it, unless the
/// first is cached. Nodes on the path are checked only as far as necessary; they are checked fully
/// when they are used.
pub(crate) fn prefetch(metadata: &Metadata, inode: &Inode, logical: u64) -> Option<()> {
    let superblock = metadata.superblock();
    let structure = Structure::ExtentRoot { inode: inode.number() };
    let mut bytes: &[u8] = &inode.block;
    let mut block: Block;
    let mut depth = None;
    loop {
        let node = Node { superblock, bytes, structure, low: 0, high: LOGICAL_END };
        let header = node.header(depth).ok()?;
        // The loop ends, because the depth decreases in each iteration.
        let below = header.depth.get().checked_sub(1)?;
        let entries: &[RawIndex] = node.entries(header).ok()?;
        let after = entries.partition_point(|entry| u64::from(entry.logical.get()) <= logical);
        let rest = entries.get(after.checked_sub(1)?..)?;
        let mut children = rest.iter().map(|entry| entry.child());
        let child = children.next()?;
        if below == 0 {
            leaves::prefetch(metadata, child, children);
            return None;
        }
        block = read_node(metadata, child, structure).ok()?;
        bytes = &block;
        depth = Some(below);
    }
}

/// Returns the block of the root's first child; `None` if the root is a leaf.
pub(crate) fn first_below(inode: &Inode) -> Option<u64> {
    let (header, entries) = RawHeader::ref_from_prefix(&inode.block).ok()?;
    let (first, _) = RawIndex::ref_from_prefix(entries).ok()?;
    let is_index =
        header.magic.get() == MAGIC && header.depth.get() > 0 && header.entries.get() > 0;
    is_index.then(|| first.child())
}

fn read_node(metadata: &Metadata, number: u64, structure: Structure) -> Result<Block, Error> {
    if metadata.superblock().is_data_range(number, 1) {
        return metadata.block(number);
    }
    Err(structure.corrupt(Problem::BlockRange { start: number, count: 1 }))
}

/// Verifies the checksum of a block, which is stored after the space for the last entry.
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

    /// Parses and checks the header. `depth` is the depth according to the parent, or `None` for
    /// the root. Nodes other than the root must not be empty.
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

    /// Returns the entries in use. The header has been checked.
    fn entries<T: FromBytes + Immutable + KnownLayout + Unaligned>(
        &self,
        header: &RawHeader,
    ) -> Result<&'a [T], Error> {
        let entries = self.bytes.get(ENTRY_SIZE..).unwrap_or_default();
        <[T]>::ref_from_prefix_with_elems(entries, usize::from(header.entries.get()))
            .map(|(entries, _)| entries)
            .map_err(|_| self.corrupt(Problem::Missing { logical: self.low }))
    }

    /// Checks an index node and returns the child that contains `logical`.
    fn step(&self, header: &RawHeader, logical: u64) -> Result<Step, Error> {
        let entries: &[RawIndex] = self.entries(header)?;
        let starts = || entries.iter().map(|entry| u64::from(entry.logical.get()));
        // Each child maps the blocks from its own start to the start of the next one.
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
            block: entry.child(),
            low: entry.logical.get().into(),
            high: starts().nth(after).unwrap_or(self.high),
        })
    }

    /// Checks a leaf and returns its mappings.
    fn leaf(&self, header: &RawHeader) -> Result<MapRun, Error> {
        let entries: &[RawExtent] = self.entries(header)?;
        let capacity = entries.len().saturating_mul(2).saturating_add(1);
        let mut leaf = RunBuilder::new(self.superblock, self.low, capacity);
        let mut low = self.low;
        for (entry, extent) in (0u16..).zip(entries) {
            let (start, count, physical, unwritten) = extent.parts();
            let kind = if unwritten { MappingKind::Unwritten } else { MappingKind::Mapped };
            let end = start.saturating_add(count);
            if start < low || end <= start || end > self.high {
                let high = self.high;
                return Err(self.corrupt(Problem::ExtentOrder { entry, start, end, low, high }));
            }
            if !self.superblock.is_data_range(physical, count) {
                return Err(self.corrupt(Problem::BlockRange { start: physical, count }));
            }
            leaf.push(start, count, physical, kind);
            low = end;
        }
        Ok(leaf.finish(self.high))
    }
}

#[cfg(test)]
mod tests;
