//! The map of a file: logical blocks to physical blocks.

pub(crate) mod cache;
pub(crate) mod extent_tree;
pub(crate) mod indirect;
pub(crate) mod inline;
pub(crate) mod run;

use std::ops::Range;

use nvio_iomap::{Mapping, MappingFlags, MappingKind};

use crate::error::{Error, Unsupported};
use crate::filesystem::Filesystem;
use crate::format::corrupt::{Problem, Structure};
use crate::format::inode::Inode;
use crate::format::inode_flags::InodeFlags;
use crate::format::superblock::Superblock;
use crate::map::run::MapRun;
use crate::recovery::orphans;

/// First logical block that no file has: logical block numbers have 32 bits, and the largest is
/// reserved.
pub(crate) const LOGICAL_END: u64 = 0xffff_ffff;

/// A builder of a [`MapRun`] from mappings in logical order.
pub(crate) struct RunBuilder<'a> {
    superblock: &'a Superblock,
    start: u64,
    /// First logical block that is not covered yet.
    next: u64,
    mappings: Vec<Mapping>,
}

impl<'a> RunBuilder<'a> {
    pub(crate) fn new(superblock: &'a Superblock, start: u64, capacity: usize) -> Self {
        let mappings = Vec::with_capacity(capacity);
        Self { superblock, start, next: start, mappings }
    }

    /// Appends `count` blocks at logical block `logical`. A gap to the end of the previous mapping
    /// becomes a hole.
    pub(crate) fn push(&mut self, logical: u64, count: u64, physical: u64, kind: MappingKind) {
        self.hole_until(logical);
        self.mappings.push(Mapping {
            offset: self.superblock.bytes(logical),
            length: self.superblock.bytes(count),
            addr: self.superblock.bytes(physical),
            kind,
            flags: MappingFlags::empty(),
        });
        self.next = logical.saturating_add(count);
    }

    /// Appends blocks like [`push`](Self::push), but extends the previous mapping if both are
    /// adjacent in the file and on the device and of the same kind.
    pub(crate) fn push_joined(
        &mut self,
        logical: u64,
        count: u64,
        physical: u64,
        kind: MappingKind,
    ) {
        let (offset, addr) = (self.superblock.bytes(logical), self.superblock.bytes(physical));
        match self.mappings.last_mut() {
            Some(last)
                if last.kind == kind
                    && last.end() == offset
                    && last.addr.checked_add(last.length) == Some(addr) =>
            {
                last.length = last.length.saturating_add(self.superblock.bytes(count));
                last.flags = MappingFlags::MERGED;
                self.next = logical.saturating_add(count);
            }
            _ => self.push(logical, count, physical, kind),
        }
    }

    fn hole_until(&mut self, logical: u64) {
        if let Some(count) = logical.checked_sub(self.next).filter(|&count| count > 0) {
            self.mappings
                .push(hole(self.superblock.bytes(self.next), self.superblock.bytes(count)));
            self.next = logical;
        }
    }

    /// Ends the run before logical block `end`.
    pub(crate) fn finish(mut self, end: u64) -> MapRun {
        self.hole_until(end);
        let range = self.superblock.bytes(self.start)..self.superblock.bytes(end);
        MapRun::new(range, self.mappings.into())
    }
}

/// Returns a hole of `length` bytes.
pub(crate) fn hole(offset: u64, length: u64) -> Mapping {
    let flags = MappingFlags::empty();
    Mapping { offset, length, addr: 0, kind: MappingKind::Hole, flags }
}

/// Reads the part of the map that contains logical block `logical`.
pub(crate) fn run_at(fs: &Filesystem, inode: &Inode, logical: u64) -> Result<MapRun, Error> {
    if !fs.is_truncated(inode.number()) {
        return stored_run(fs, inode, logical);
    }
    let end = orphans::end(fs.superblock(), inode);
    if logical < end {
        let run = stored_run(fs, inode, logical)?;
        return Ok(truncate(run, fs.superblock().bytes(end)));
    }
    let (start, end) = (fs.superblock().bytes(end), u64::MAX);
    Ok(MapRun::new(start..end, [hole(start, end.saturating_sub(start))].into()))
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

/// Reads the part of the map that contains logical block `logical`, without a pending truncation of
/// the file.
fn stored_run(fs: &Filesystem, inode: &Inode, logical: u64) -> Result<MapRun, Error> {
    let superblock = fs.superblock();
    if logical >= LOGICAL_END {
        let start = superblock.bytes(LOGICAL_END);
        let end = u64::MAX;
        return Ok(MapRun::new(start..end, [hole(start, end.saturating_sub(start))].into()));
    }
    if inode.flags().contains(InodeFlags::INLINE_DATA) {
        inline::run(fs, inode)
    } else if inode.flags().contains(InodeFlags::EXTENTS) {
        let leaf = extent_tree::leaf(fs, inode, logical)?;
        Ok(match fs.range_changes(inode.number()) {
            Some(changes) => changes.apply(superblock, leaf),
            None => leaf,
        })
    } else {
        indirect::run(fs, inode, logical)
    }
}

/// Maximum number of blocks of a file's map in one read-ahead.
const LEAVES_AHEAD: usize = 64;

/// Reads ahead the blocks that [`run_at`] needs for `logical` and the blocks after it, for
/// sequential access.
pub(crate) fn prefetch(fs: &Filesystem, inode: &Inode, logical: u64) {
    let is_inline = inode.flags().contains(InodeFlags::INLINE_DATA);
    if fs.read_ahead() == 0 || logical >= LOGICAL_END || is_inline {
        return;
    }
    if inode.flags().contains(InodeFlags::EXTENTS) {
        extent_tree::prefetch(fs, inode, logical);
    } else {
        indirect::prefetch(fs, inode, logical);
    }
}

/// Returns the block of a file's map that contains the mappings of its first blocks; `None` if they
/// are in the inode.
pub(crate) fn first_below(inode: &Inode) -> Option<u64> {
    if inode.flags().contains(InodeFlags::EXTENTS) {
        return extent_tree::first_below(inode);
    }
    None
}

/// Returns the physical blocks of the first `bytes` of a file.
pub(crate) fn first_blocks(
    fs: &Filesystem,
    inode: &Inode,
    bytes: u64,
) -> Result<Vec<Range<u64>>, Error> {
    let run = run_at(fs, inode, 0)?;
    let mapped = run.mappings().iter().filter(|mapping| mapping.kind == MappingKind::Mapped);
    let ranges = mapped.map_while(|mapping| {
        let length = bytes.checked_sub(mapping.offset)?.min(mapping.length);
        let block = |addr| fs.superblock().block_at(addr);
        let end = mapping.addr.saturating_add(length);
        // Round up to the end of the last block.
        let up = u64::from(fs.superblock().block_size()).saturating_sub(1);
        Some(block(mapping.addr)..block(end.saturating_add(up)))
    });
    Ok(ranges.collect())
}

/// Reads ahead a leaf and those after it, unless the leaf is cached, because the others were then
/// read ahead with it.
pub(crate) fn prefetch_leaves(fs: &Filesystem, leaf: u64, behind: impl IntoIterator<Item = u64>) {
    if leaf == 0 || fs.is_cached(leaf) {
        return;
    }
    let leaves = std::iter::once(leaf).chain(behind).take(LEAVES_AHEAD);
    fs.prefetch(leaves.map(|number| number..number.saturating_add(1)));
}

/// Reads the part of the map that contains logical block `logical`, for reads of data. Blocks that
/// have newer contents in the journal are mapped as [`MappingKind::Inline`], each separately, at
/// their physical address.
pub(crate) fn data_run(fs: &Filesystem, inode: &Inode, logical: u64) -> Result<MapRun, Error> {
    let run = run_at(fs, inode, logical)?;
    let Some(overlay) = fs.overlay() else { return Ok(run) };
    let superblock = fs.superblock();
    let size = superblock.bytes(1);
    let replaced = |mapping: &Mapping| {
        let start = superblock.block_at(mapping.addr);
        let end = start.saturating_add(superblock.block_at(mapping.length));
        let is_data = mapping.kind == MappingKind::Mapped;
        overlay.blocks(start..if is_data { end } else { start })
    };
    if run.mappings().iter().all(|mapping| replaced(mapping).next().is_none()) {
        return Ok(run);
    }
    let mut mappings = Vec::with_capacity(run.mappings().len());
    for mapping in run.mappings() {
        let mut rest = *mapping;
        for block in replaced(mapping) {
            let before = superblock.bytes(block).saturating_sub(rest.addr);
            if before > 0 {
                mappings.push(Mapping { length: before, ..rest });
            }
            let (offset, addr) =
                (rest.offset.saturating_add(before), rest.addr.saturating_add(before));
            let inline = Mapping { offset, addr, length: size, ..rest };
            mappings.push(Mapping { kind: MappingKind::Inline, ..inline });
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
    Ok(MapRun::new(run.start()..run.end(), mappings.into()))
}

/// Returns an error if the inode's blocks are encrypted.
pub(crate) fn check_readable(inode: &Inode) -> Result<(), Error> {
    if inode.flags().contains(InodeFlags::ENCRYPT) {
        return Err(Error::UnsupportedInode {
            inode: inode.number(),
            what: Unsupported::Encrypted,
        });
    }
    Ok(())
}

/// An extent of a file: a contiguous range of the file that is contiguous on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte in the file.
    pub logical: u64,
    /// First byte on the device, from the start of the filesystem.
    pub physical: u64,
    /// Length, bytes.
    pub length: u64,
    /// True if the blocks are allocated, but were never written. They read as zeroes.
    pub unwritten: bool,
    /// True for data inside the inode, which is not aligned to blocks.
    pub inline: bool,
    /// True for the file's last extent.
    pub last: bool,
}

/// An iterator over the extents of a file in order: one item for each extent of the tree, none for
/// holes. Extents past the end of the file are included. In files without an extent tree, an item
/// is a run of adjacent blocks in one block of pointers.
///
/// Data inside an inode is one extent at the address of the inode.
///
/// The items are those of FIEMAP, except that the kernel may merge adjacent extents.
///
/// After an error the iterator ends.
#[derive(Debug)]
pub struct Extents {
    fs: Filesystem,
    inode: Inode,
    /// First logical block of the next run.
    next_run: u64,
    run: Option<MapRun>,
    /// Index of the next mapping in the run.
    at: usize,
    /// The previous extent, which is returned when it is known whether it is the last.
    held: Option<Extent>,
    /// Number of blocks in the extents so far.
    blocks: u64,
}

impl Extents {
    pub(crate) fn new(fs: &Filesystem, inode: &Inode) -> Self {
        Self {
            fs: fs.clone(),
            inode: inode.clone(),
            next_run: 0,
            run: None,
            at: 0,
            held: None,
            blocks: 0,
        }
    }

    /// Returns the next extent, with `last` not set.
    fn advance(&mut self) -> Result<Option<Extent>, Error> {
        loop {
            while let Some(mapping) = self.run.as_ref().and_then(|run| run.mappings().get(self.at))
            {
                self.at = self.at.saturating_add(1);
                let unwritten = match mapping.kind {
                    MappingKind::Mapped => false,
                    MappingKind::Unwritten => true,
                    _ => continue,
                };
                let Mapping { offset: logical, addr: physical, length, .. } = *mapping;
                self.count(length)?;
                let (inline, last) = (false, false);
                return Ok(Some(Extent { logical, physical, length, unwritten, inline, last }));
            }
            if self.next_run >= LOGICAL_END {
                return Ok(None);
            }
            if self.inode.has_inline_data() {
                self.next_run = LOGICAL_END;
                return inline::extent(&self.fs, &self.inode);
            }
            prefetch(&self.fs, &self.inode, self.next_run);
            let run = run_at(&self.fs, &self.inode, self.next_run)?;
            // The loop ends, because each run ends after the block that was requested.
            self.next_run =
                self.fs.superblock().block_at(run.end()).max(self.next_run.saturating_add(1));
            self.run = Some(run);
            self.at = 0;
        }
    }

    /// Counts the blocks of an extent. A file has at most as many blocks as the filesystem, because
    /// logical blocks do not share physical blocks. This bounds the cost of a cyclic map.
    fn count(&mut self, length: u64) -> Result<(), Error> {
        let limit = self.fs.superblock().blocks_count();
        self.blocks = self.blocks.saturating_add(self.fs.superblock().block_at(length));
        if self.blocks <= limit {
            return Ok(());
        }
        let structure = Structure::BlockMap { inode: self.inode.number() };
        Err(structure.corrupt(Problem::TooManyBlocks { limit }))
    }

    /// Ends the iteration.
    fn stop(&mut self) {
        self.next_run = LOGICAL_END;
        self.run = None;
        self.held = None;
    }
}

impl Iterator for Extents {
    type Item = Result<Extent, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.advance() {
                Ok(Some(extent)) => {
                    if let Some(before) = self.held.replace(extent) {
                        return Some(Ok(before));
                    }
                }
                Ok(None) => {
                    return self.held.take().map(|last| Ok(Extent { last: true, ..last }));
                }
                Err(error) => {
                    self.stop();
                    return Some(Err(error));
                }
            }
        }
    }
}

impl std::iter::FusedIterator for Extents {}
