//! The map of a file: logical blocks to physical blocks.

pub(crate) mod after_end;
pub(crate) mod blocks;
pub(crate) mod builder;
pub(crate) mod cache;
pub(crate) mod changes;
pub(crate) mod extent_tree;
pub(crate) mod extents;
pub(crate) mod indirect;
pub(crate) mod inline;
pub(crate) mod leaves;
pub(crate) mod ranges;
pub(crate) mod run;
pub(crate) mod unmapped;

use nvio_iomap::{Mapping, MappingKind};

use crate::blocks::metadata::Metadata;
use crate::error::Error;
use crate::format::inode::Inode;
use crate::format::inode_flags::InodeFlags;
use crate::map::builder::hole;
use crate::map::changes::MapChanges;
use crate::map::run::MapRun;
use crate::map::unmapped::Unmapped;
use crate::number::{BlockRun, LogicalBlock, PhysicalBlock};

/// The map of an inode: the metadata to read it from, and the changes of recovery.
#[derive(Clone, Copy)]
pub(crate) struct FileMap<'a> {
    pub metadata: &'a Metadata,
    pub inode: &'a Inode,
    /// The ranges that fast commits changed, if there are any.
    pub changes: Option<&'a MapChanges>,
    /// True if the next mount truncates the file to its size.
    pub is_truncated: bool,
}

impl FileMap<'_> {
    /// Reads the part of the map that contains logical block `logical`.
    pub(crate) fn run_at(&self, logical: LogicalBlock) -> Result<MapRun, Unmapped> {
        if !self.is_truncated {
            return self.stored_run(logical);
        }
        let superblock = self.metadata.superblock();
        let blocks = self.inode.size().div_ceil(superblock.block_size().into());
        let end = LogicalBlock::or_end(blocks);
        if logical < end {
            return Ok(truncate(self.stored_run(logical)?, superblock.position(end)));
        }
        Ok(endless_hole(superblock.position(end)))
    }

    /// Reads the part of the map that contains logical block `logical`, without a pending
    /// truncation of the file.
    fn stored_run(&self, logical: LogicalBlock) -> Result<MapRun, Unmapped> {
        let Self { metadata, inode, changes, .. } = *self;
        let superblock = metadata.superblock();
        if logical >= LogicalBlock::END {
            return Ok(endless_hole(superblock.position(LogicalBlock::END)));
        }
        if inode.flags().contains(InodeFlags::INLINE_DATA) {
            inline::run(superblock, inode)
                .map_err(|error| Unmapped { error, end: LogicalBlock::END })
        } else if inode.flags().contains(InodeFlags::EXTENTS) {
            let leaf = extent_tree::leaf(metadata, inode, logical)?;
            Ok(match changes {
                Some(changes) => changes.apply(superblock, leaf),
                None => leaf,
            })
        } else {
            indirect::run(metadata, inode, logical)
        }
    }

    /// Reads the part of the map that contains logical block `logical`, for reads of data. Blocks
    /// that have newer contents in the journal are mapped as [`MappingKind::Inline`], each
    /// separately, at their physical address.
    pub(crate) fn data_run(&self, logical: LogicalBlock) -> Result<MapRun, Error> {
        let run = self.run_at(logical)?;
        let Some(overlay) = self.metadata.overlay() else { return Ok(run) };
        let superblock = self.metadata.superblock();
        let replaced = |mapping: &Mapping| {
            let is_data = mapping.kind == MappingKind::Mapped;
            let length = if is_data { mapping.length } else { 0 };
            overlay.blocks(superblock.blocks_at(mapping.addr, length))
        };
        if run.mappings().iter().all(|mapping| replaced(mapping).next().is_none()) {
            return Ok(run);
        }
        let mut mappings = Vec::with_capacity(run.mappings().len());
        for mapping in run.mappings() {
            let homes = replaced(mapping).map(|block| superblock.address(block));
            cut_out(*mapping, homes, superblock.bytes(1), &mut mappings);
        }
        Ok(MapRun::new(run.start()..run.end(), mappings.into()))
    }

    /// Reads ahead the blocks that [`run_at`](Self::run_at) needs for `logical` and the blocks
    /// after it, for sequential access.
    pub(crate) fn prefetch(&self, logical: LogicalBlock) {
        let Self { metadata, inode, .. } = *self;
        let is_inline = inode.flags().contains(InodeFlags::INLINE_DATA);
        if metadata.ahead() == 0 || logical >= LogicalBlock::END || is_inline {
            return;
        }
        if inode.flags().contains(InodeFlags::EXTENTS) {
            extent_tree::prefetch(metadata, inode, logical);
        } else {
            indirect::prefetch(metadata, inode, logical);
        }
    }

    /// Returns the physical blocks of the first `bytes` of the file.
    pub(crate) fn first_blocks(&self, bytes: u64) -> Result<Vec<BlockRun>, Error> {
        let superblock = self.metadata.superblock();
        let run = self.run_at(LogicalBlock::START)?;
        let mapped = run.mappings().iter().filter(|mapping| mapping.kind == MappingKind::Mapped);
        let ranges = mapped.map_while(|mapping| {
            let length = bytes.checked_sub(mapping.offset)?.min(mapping.length);
            let count = length.div_ceil(superblock.block_size().into());
            BlockRun::new(superblock.physical_at(mapping.addr), count)
        });
        Ok(ranges.collect())
    }
}

/// Returns the block of a file's map that contains the mappings of its first blocks; `None` if they
/// are in the inode.
pub(crate) fn first_below(inode: &Inode) -> Option<PhysicalBlock> {
    if inode.flags().contains(InodeFlags::EXTENTS) {
        return extent_tree::first_below(inode);
    }
    None
}

/// Creates a run with a hole from byte `start` to the maximum position.
fn endless_hole(start: u64) -> MapRun {
    MapRun::new(start..u64::MAX, [hole(start, u64::MAX.saturating_sub(start))].into())
}

/// Removes the mappings after byte `end`, which is after the start of the run.
fn truncate(run: MapRun, end: u64) -> MapRun {
    if run.end() <= end {
        return run;
    }
    let before = run.mappings().iter().filter(|mapping| mapping.offset < end);
    let cut = |mapping: &Mapping| {
        let length = mapping.length.min(end.saturating_sub(mapping.offset));
        Mapping { length, ..*mapping }
    };
    MapRun::new(run.start()..end, before.map(cut).collect())
}

/// Appends `mapping` to `mappings`, with an inline mapping for each block whose physical address is
/// in `homes`. A block has `size` bytes.
fn cut_out(
    mapping: Mapping,
    homes: impl Iterator<Item = u64>,
    size: u64,
    mappings: &mut Vec<Mapping>,
) {
    let mut rest = mapping;
    for home in homes {
        let before = home.saturating_sub(rest.addr);
        if before > 0 {
            mappings.push(Mapping { length: before, ..rest });
        }
        let (offset, addr) = (rest.offset.saturating_add(before), rest.addr.saturating_add(before));
        mappings.push(Mapping { kind: MappingKind::Inline, offset, addr, length: size, ..rest });
        rest = Mapping {
            offset: offset.saturating_add(size),
            addr: addr.saturating_add(size),
            length: rest.length.saturating_sub(before).saturating_sub(size),
            ..rest
        };
    }
    if rest.length > 0 {
        mappings.push(rest);
    }
}
