//! The blocks of a directory, in a change.

use crate::alloc::{self, Request};
use crate::blocks::block_cache::Block;
use crate::change::extents::{Found, Tree};
use crate::change::space::goal;
use crate::dir::{blocks, checksum};
use crate::error::Error;
use crate::file::system_zone::SystemZone;
use crate::format::corrupt::{Problem, Structure};
use crate::format::features::IncompatFeatures;
use crate::format::inode::Inode;
use crate::format::superblock::Superblock;
use crate::journal::handle::{Handle, Stop};
use crate::number::{BlockRun, InodeNumber, PhysicalBlock, as_usize};

/// Maximum number of blocks of a directory whose blocks a hash tree refers to.
const BLOCKS_MAX: u64 = 1 << 28;

/// The blocks of a directory, which are read and replaced through a handle.
pub(super) struct Blocks<'d, 'h> {
    pub handle: &'d mut Handle<'h>,
    pub zone: &'d SystemZone,
    pub inode: &'d mut Inode,
    count: u64,
}

impl<'d, 'h> Blocks<'d, 'h> {
    /// # Errors
    /// Damage, if the size of the directory is impossible.
    pub(super) fn new(
        handle: &'d mut Handle<'h>,
        zone: &'d SystemZone,
        inode: &'d mut Inode,
    ) -> Result<Self, Error> {
        let count = blocks::count(handle.superblock(), inode)?;
        Ok(Self { handle, zone, inode, count })
    }

    /// Returns the blocks of a directory that has none yet.
    pub(super) fn none(
        handle: &'d mut Handle<'h>,
        zone: &'d SystemZone,
        inode: &'d mut Inode,
    ) -> Self {
        Self { handle, zone, inode, count: 0 }
    }

    pub(super) fn superblock(&self) -> &'h Superblock {
        self.handle.superblock()
    }

    pub(super) fn number(&self) -> InodeNumber {
        self.inode.number()
    }

    /// Returns the number of blocks.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Returns the number of bytes that the entries of a block have: all but the tail with the checksum.
    pub(super) fn entries_end(&self) -> usize {
        let tail = if self.superblock().has_metadata_csum() { checksum::TAIL_SIZE } else { 0 };
        as_usize(self.superblock().block_size()).saturating_sub(tail)
    }

    pub(super) fn structure(&self, index: u64) -> Structure {
        Structure::DirectoryBlock { inode: self.number(), index }
    }

    fn map(&mut self) -> Tree<'_, 'h> {
        Tree { handle: self.handle, zone: self.zone, inode: self.inode, is_changed: false }
    }

    /// Returns the first block from `index` on that is not in a hole; `None` if there is none. The kernel
    /// skips holes of directories without a hash tree, too, except at the begin.
    pub(super) fn next_mapped(&mut self, index: u64) -> Result<Option<u64>, Stop> {
        let mut at = index;
        // The loop ends, because each step has passed a hole.
        while at > 0 && at < self.count {
            match self.map().find(at)? {
                Found::Extent(_) => break,
                Found::Hole { end } => at = end.max(at.saturating_add(1)),
            }
        }
        Ok((at < self.count).then_some(at))
    }

    /// Returns the place of a block.
    fn place(&mut self, index: u64) -> Result<PhysicalBlock, Stop> {
        let directory = Structure::Directory(self.number());
        let missing = || directory.corrupt(Problem::Missing { logical: index });
        let is_inside = index < self.count;
        let extent = match self.map().find(index)? {
            Found::Extent(extent) if is_inside && !extent.unwritten => extent,
            _ => return Err(missing().into()),
        };
        let start = extent.blocks.get(index.saturating_sub(extent.start)).ok_or_else(missing)?;
        let run = BlockRun::new(start, 1).unwrap_or_default();
        match self.zone.overlap(run) {
            None => Ok(start),
            Some(area) => {
                let problem = Problem::Overlap { start, count: 1, area };
                Err(Structure::BlockMap { inode: self.number() }.corrupt(problem).into())
            }
        }
    }

    /// Returns a block, whose checksum was verified.
    pub(super) fn read(&mut self, index: u64) -> Result<Block, Stop> {
        let number = self.place(index)?;
        let block = self.handle.block(number)?;
        checksum::verify(self.superblock(), self.inode, index, &block)
            .map_err(|problem| self.structure(index).corrupt(problem))?;
        Ok(block)
    }

    /// Replaces a block of names.
    pub(super) fn write_leaf(&mut self, index: u64, bytes: Vec<u8>) -> Result<(), Stop> {
        self.write(index, bytes, checksum::seal)
    }

    /// Replaces a node of the hash tree, whose entries begin at byte `start`.
    pub(super) fn write_node(
        &mut self,
        index: u64,
        bytes: Vec<u8>,
        start: usize,
    ) -> Result<(), Stop> {
        self.write(index, bytes, |seed, bytes| checksum::seal_node(seed, bytes, start))
    }

    fn write(
        &mut self,
        index: u64,
        mut bytes: Vec<u8>,
        seal: impl FnOnce(u32, &mut [u8]),
    ) -> Result<(), Stop> {
        if self.superblock().has_metadata_csum() {
            seal(self.inode.checksum_seed, &mut bytes);
        }
        let number = self.place(index)?;
        self.handle.set_block(number, bytes);
        Ok(())
    }

    /// Adds a block at the end, whose contents the caller writes, and returns its index.
    ///
    /// # Errors
    /// [`Error::NoSpace`]; [`Error::DirectoryFull`] if no directory has more blocks.
    pub(super) fn append(&mut self) -> Result<u64, Stop> {
        let superblock = self.superblock();
        let index = self.count;
        let count = index.saturating_add(1);
        let size = superblock.bytes(count);
        let is_large = superblock.has(IncompatFeatures::LARGEDIR);
        if count > BLOCKS_MAX || size > u64::from(u32::MAX) && !is_large {
            return Err(Error::DirectoryFull { inode: self.number() }.into());
        }
        let mut map = self.map();
        let request = Request { goal: goal(&map, index)?, count: 1, window: 0, owner: None };
        let run = alloc::allocate(map.handle, map.zone, request)?;
        if !map.replace(index..count, Some((run, false)))?.is_empty() {
            let (value, rule) = (superblock.bytes(index), "has blocks after it");
            let problem = Problem::Field { field: "size", value, rule };
            return Err(Structure::Directory(self.number()).corrupt(problem).into());
        }
        self.inode.add_blocks(superblock, 1);
        self.inode.set_size(size);
        self.count = count;
        Ok(index)
    }
}
