//! The iterator over the extents of a file.

use nvio_iomap::{Mapping, MappingKind};

use crate::error::Error;
use crate::filesystem::Filesystem;
use crate::format::corrupt::{Problem, Structure};
use crate::format::inode::{BLOCK_FIELD, Inode};
use crate::map::run::MapRun;
use crate::map::unmapped::Unmapped;
use crate::number::LogicalBlock;

/// An extent of a file: a contiguous range of the file that is contiguous on the device.
///
/// See the [example](crate::File#examples).
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
/// A part of the map that cannot be read is one error, and the iterator continues after it. It ends
/// after 1,024 errors, and if the file has more blocks than the filesystem.
///
/// See the [example](crate::File#examples).
#[derive(Debug)]
pub struct Extents {
    fs: Filesystem,
    inode: Inode,
    /// First logical block of the next run.
    next_run: LogicalBlock,
    run: Option<MapRun>,
    /// Index of the next mapping in the run.
    at: usize,
    /// The previous extent, which is returned when it is known whether it is the last.
    held: Option<Extent>,
    /// Number of blocks in the extents so far.
    blocks: u64,
    /// First logical block that is not of interest.
    end: LogicalBlock,
    /// The error of a part of the map after `held`, and the number of errors so far.
    failed: Option<Error>,
    failures: u32,
}

/// Maximum number of errors of one iteration.
const FAILURES_MAX: u32 = 1024;

impl Extents {
    pub(crate) fn new(fs: &Filesystem, inode: &Inode) -> Self {
        Self {
            fs: fs.clone(),
            inode: inode.clone(),
            next_run: LogicalBlock::START,
            run: None,
            at: 0,
            held: None,
            blocks: 0,
            end: LogicalBlock::END,
            failed: None,
            failures: 0,
        }
    }

    /// Ends the iteration before the part of the map that begins at or after byte `pos`, and does
    /// not read that part. Extents that begin before `pos` are not cut.
    ///
    /// See the [example](crate::File#examples).
    #[must_use]
    pub fn until(mut self, pos: u64) -> Self {
        let superblock = self.fs.superblock();
        self.end = LogicalBlock::or_end(pos.div_ceil(superblock.block_size().into()));
        self
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
            if self.next_run >= self.end {
                return Ok(None);
            }
            if self.inode.has_inline_data() {
                self.next_run = LogicalBlock::END;
                return inline_extent(&self.fs, &self.inode);
            }
            let map = self.fs.map(&self.inode);
            map.prefetch(self.next_run);
            let run = match map.run_at(self.next_run) {
                Ok(run) => run,
                Err(Unmapped { error, end }) => {
                    self.next_run = end;
                    self.run = None;
                    return Err(error);
                }
            };
            // The loop ends, because each run ends after the block that was requested.
            // A run covers the block that it was asked for, so that it ends after it.
            self.next_run = self.fs.superblock().logical_at(run.end());
            self.run = Some(run);
            self.at = 0;
        }
    }

    /// Counts the blocks of an extent. A file has at most as many blocks as the filesystem, because
    /// logical blocks do not share physical blocks. This bounds the cost of a cyclic map.
    fn count(&mut self, length: u64) -> Result<(), Error> {
        let limit = self.fs.superblock().blocks_count;
        self.blocks = self.blocks.saturating_add(self.fs.superblock().whole_blocks(length));
        if self.blocks <= limit {
            return Ok(());
        }
        let structure = Structure::BlockMap { inode: self.inode.number() };
        self.stop();
        Err(structure.corrupt(Problem::TooManyBlocks { limit }))
    }

    /// Ends the iteration.
    fn stop(&mut self) {
        self.next_run = LogicalBlock::END;
        self.run = None;
    }
}

impl Iterator for Extents {
    type Item = Result<Extent, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failed.take() {
            return Some(Err(error));
        }
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
                    self.failures = self.failures.saturating_add(1);
                    if self.failures >= FAILURES_MAX {
                        self.stop();
                    }
                    let Some(before) = self.held.take() else { return Some(Err(error)) };
                    self.failed = Some(error);
                    return Some(Ok(before));
                }
            }
        }
    }
}

impl std::iter::FusedIterator for Extents {}

/// Returns the extent that FIEMAP reports for inline data, unless it is empty.
fn inline_extent(fs: &Filesystem, inode: &Inode) -> Result<Option<Extent>, Error> {
    let address = fs.metadata().inode_address(inode.number())?;
    let extent = |length| Extent {
        logical: 0,
        physical: address.saturating_add(BLOCK_FIELD),
        length,
        unwritten: false,
        inline: true,
        last: false,
    };
    Ok(inode.inline_size().filter(|&length| length > 0).map(extent))
}
