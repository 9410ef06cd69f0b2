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
use crate::map::after_end::AfterEnd;
use crate::map::builder::RunBuilder;
use crate::map::leaves;
use crate::map::run::MapRun;
use crate::map::unmapped::Unmapped;
use crate::number::{BlockRun, LogicalBlock, PhysicalBlock};

/// A node, with the range of logical blocks `[low, high)` that its parent assigns to it.
pub(crate) struct Node<'a> {
    pub superblock: &'a Superblock,
    pub bytes: &'a [u8],
    pub structure: Structure,
    pub low: LogicalBlock,
    pub high: LogicalBlock,
}

/// The result of a search in an index node.
enum Step {
    /// Continue with the node in this block, which maps the logical blocks `[low, high)`.
    Down { block: PhysicalBlock, low: LogicalBlock, high: LogicalBlock },
    /// A hole before the first child.
    Hole { start: LogicalBlock, end: LogicalBlock },
}

/// Returns the root of an inode's tree.
fn root<'a>(metadata: &'a Metadata, inode: &'a Inode) -> Node<'a> {
    Node {
        superblock: metadata.superblock(),
        bytes: &inode.block,
        structure: Structure::ExtentRoot { inode: inode.number() },
        low: LogicalBlock::START,
        high: LogicalBlock::END,
    }
}

/// Reads the leaf that contains logical block `logical`.
pub(crate) fn leaf(
    metadata: &Metadata,
    inode: &Inode,
    logical: LogicalBlock,
) -> Result<MapRun, Unmapped> {
    let mut end = LogicalBlock::END;
    descend(metadata, inode, logical, &mut end).map_err(|error| Unmapped { error, end })
}

/// Reads the leaf that contains logical block `logical`, and sets `end` to the end of the last node
/// on the path.
fn descend(
    metadata: &Metadata,
    inode: &Inode,
    logical: LogicalBlock,
    end: &mut LogicalBlock,
) -> Result<MapRun, Error> {
    let superblock = metadata.superblock();
    let after_end = AfterEnd::of(metadata, inode);
    let root = root(metadata, inode);
    let header = root.header(None)?;
    let mut depth = header.depth.get();
    if depth == 0 {
        return root.leaf(header, &after_end);
    }
    let mut step = root.step(header, logical)?;
    loop {
        let (number, low, high) = match step {
            Step::Hole { start, end } => {
                return Ok(RunBuilder::new(superblock, start, 1).finish(end));
            }
            Step::Down { block, low, high } => (block, low, high),
        };
        *end = high;
        // The loop runs at most DEPTH_MAX times, because `header` checks the depth of the root, and
        // that the depth of each node is one less than its parent's.
        depth = depth.saturating_sub(1);
        let structure = Structure::ExtentBlock { block: number, inode: inode.number() };
        let block = read_node(metadata, number, structure)?;
        let node = Node { superblock, bytes: &block, structure, low, high };
        let header = node.header(Some(depth))?;
        verify_checksum(&node, header, inode)?;
        if depth == 0 {
            return node.leaf(header, &after_end);
        }
        step = node.step(header, logical)?;
    }
}

/// Reads ahead the leaf that contains logical block `logical` and the leaves after it, unless the
/// first is cached. Nodes on the path are checked only as far as necessary; they are checked fully
/// when they are used.
pub(crate) fn prefetch(metadata: &Metadata, inode: &Inode, logical: LogicalBlock) -> Option<()> {
    let superblock = metadata.superblock();
    let structure = Structure::ExtentRoot { inode: inode.number() };
    let mut bytes: &[u8] = &inode.block;
    let mut block: Block;
    let mut depth = None;
    loop {
        let node = Node {
            superblock,
            bytes,
            structure,
            low: LogicalBlock::START,
            high: LogicalBlock::END,
        };
        let header = node.header(depth).ok()?;
        // The loop ends, because the depth decreases in each iteration.
        let below = header.depth.get().checked_sub(1)?;
        let entries: &[RawIndex] = node.entries(header).ok()?;
        let after = entries.partition_point(|entry| LogicalBlock::from(entry.logical) <= logical);
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
pub(crate) fn first_below(inode: &Inode) -> Option<PhysicalBlock> {
    let (header, entries) = RawHeader::ref_from_prefix(&inode.block).ok()?;
    let (first, _) = RawIndex::ref_from_prefix(entries).ok()?;
    let is_index =
        header.magic.get() == MAGIC && header.depth.get() > 0 && header.entries.get() > 0;
    is_index.then(|| first.child())
}

fn read_node(
    metadata: &Metadata,
    number: PhysicalBlock,
    structure: Structure,
) -> Result<Block, Error> {
    let blocks = metadata.superblock().data_blocks(number, 1u32);
    metadata.block(blocks.map_err(|problem| structure.corrupt(problem))?.start())
}

/// Verifies the checksum of a block, which is stored after the space for the last entry.
pub(crate) fn verify_checksum(
    node: &Node<'_>,
    header: &RawHeader,
    inode: &Inode,
) -> Result<(), Error> {
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
    Problem::verify_checksum(stored, computed).map_err(|problem| node.structure.corrupt(problem))
}

impl<'a> Node<'a> {
    fn corrupt(&self, problem: Problem) -> Error {
        self.structure.corrupt(problem)
    }

    /// Returns the error for an entry that is not after the one before, or not inside the node.
    fn out_of_order(&self, entry: u16, start: LogicalBlock, end: u64, low: LogicalBlock) -> Error {
        let (start, low, high) = (start.into(), low.into(), self.high.into());
        self.corrupt(Problem::ExtentOrder { entry, start, end, low, high })
    }

    /// Parses and checks the header. `depth` is the depth according to the parent, or `None` for
    /// the root. Nodes other than the root must not be empty.
    pub(crate) fn header(&self, depth: Option<u16>) -> Result<&'a RawHeader, Error> {
        let Ok((header, _)) = RawHeader::ref_from_prefix(self.bytes) else {
            return Err(self.corrupt(Problem::Missing { logical: self.low.into() }));
        };
        let corrupt = |problem| self.corrupt(problem);
        Problem::verify_magic(header.magic, MAGIC).map_err(corrupt)?;
        let fits = self.bytes.len().checked_div(ENTRY_SIZE).unwrap_or(0).saturating_sub(1);
        let fits = u16::try_from(fits).unwrap_or(u16::MAX);
        let (entries, max) = (header.entries.get(), header.max.get());
        Problem::verify_max("room for entries", max, fits).map_err(corrupt)?;
        Problem::verify_max("count of entries", entries, max).map_err(corrupt)?;
        let value = header.depth.get();
        match depth {
            None => Problem::verify_max("depth", value, DEPTH_MAX).map_err(corrupt)?,
            Some(expected) => {
                Problem::verify_value("depth", value, expected).map_err(corrupt)?;
            }
        }
        if entries == 0 && (depth.is_some() || value > 0) {
            return Err(self.corrupt(Problem::EmptyNode));
        }
        Ok(header)
    }

    /// Returns the entries in use. The header has been checked.
    pub(crate) fn entries<T: FromBytes + Immutable + KnownLayout + Unaligned>(
        &self,
        header: &RawHeader,
    ) -> Result<&'a [T], Error> {
        let entries = self.bytes.get(ENTRY_SIZE..).unwrap_or_default();
        <[T]>::ref_from_prefix_with_elems(entries, usize::from(header.entries.get()))
            .map(|(entries, _)| entries)
            .map_err(|_| self.corrupt(Problem::Missing { logical: self.low.into() }))
    }

    /// Checks that the entries of an index node are in order and inside the node.
    pub(crate) fn check_order(&self, entries: &[RawIndex]) -> Result<(), Error> {
        let starts = || entries.iter().map(|entry| LogicalBlock::from(entry.logical));
        // Each child maps the blocks from its own start to the start of the next one.
        let ends = starts().skip(1).chain([self.high]);
        let mut low = self.low;
        for (entry, (start, end)) in (0u16..).zip(starts().zip(ends)) {
            if start < low || start >= end || end > self.high {
                return Err(self.out_of_order(entry, start, end.into(), low));
            }
            low = end;
        }
        Ok(())
    }

    /// Checks an index node and returns the child that contains `logical`.
    fn step(&self, header: &RawHeader, logical: LogicalBlock) -> Result<Step, Error> {
        let entries: &[RawIndex] = self.entries(header)?;
        self.check_order(entries)?;
        let starts = || entries.iter().map(|entry| LogicalBlock::from(entry.logical));
        let after = entries.partition_point(|entry| LogicalBlock::from(entry.logical) <= logical);
        let Some(entry) = after.checked_sub(1).and_then(|at| entries.get(at)) else {
            let end = starts().next().unwrap_or(self.high);
            return Ok(Step::Hole { start: self.low, end });
        };
        Ok(Step::Down {
            block: entry.child(),
            low: entry.logical.into(),
            high: starts().nth(after).unwrap_or(self.high),
        })
    }

    /// Checks a leaf and returns its mappings. Wrong entries after the end of the file are left
    /// out if all entries after them are there, too.
    fn leaf(&self, header: &RawHeader, after_end: &AfterEnd<'_>) -> Result<MapRun, Error> {
        let entries: &[RawExtent] = self.entries(header)?;
        let capacity = entries.len().saturating_mul(2).saturating_add(1);
        let mut leaf = RunBuilder::new(self.superblock, self.low, capacity);
        let mut low = self.low;
        for (entry, extent) in (0u16..).zip(entries) {
            let (end, blocks, kind) = match self.extent(entry, extent, low) {
                Ok(checked) => checked,
                Err(error) => {
                    let mut rest = entries.iter().skip(entry.into());
                    if rest.all(|extent| after_end.contains(extent.parts().0)) {
                        after_end.ignore(error);
                        break;
                    }
                    return Err(error);
                }
            };
            leaf.push(extent.parts().0..end, blocks.start(), kind);
            low = end;
        }
        Ok(leaf.finish(self.high))
    }

    /// Checks an entry of a leaf, which may begin at `low`. Returns its end, its blocks and their
    /// kind.
    pub(crate) fn extent(
        &self,
        entry: u16,
        extent: &RawExtent,
        low: LogicalBlock,
    ) -> Result<(LogicalBlock, BlockRun, MappingKind), Error> {
        let (start, count, physical, unwritten) = extent.parts();
        let kind = if unwritten { MappingKind::Unwritten } else { MappingKind::Mapped };
        let end = start.checked_add(count).filter(|&end| end > start && end <= self.high);
        let Some(end) = end.filter(|_| start >= low) else {
            let end = u64::from(start).saturating_add(count.into());
            return Err(self.out_of_order(entry, start, end, low));
        };
        let blocks = self.superblock.data_blocks(physical, count);
        Ok((end, blocks.map_err(|problem| self.corrupt(problem))?, kind))
    }
}

#[cfg(test)]
mod tests;
