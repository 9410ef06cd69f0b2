//! The blocks of a directory.

use std::vec;

use crate::cache::Block;
use crate::corrupt::{Problem, Structure};
use crate::map::{Extent, Extents};
use crate::metadata::READ_MAX;
use crate::{Error, Filesystem, Inode, Superblock, dir_checksum};

/// First read of a directory in bytes, with read-ahead; later ones are larger.
const READ_FIRST: u32 = 16 << 10;

/// Blocks of the directory `inode`, whose size is checked.
pub(crate) fn count(superblock: &Superblock, inode: &Inode) -> Result<u64, Error> {
    let corrupt = |problem| Structure::Directory(inode.number()).corrupt(problem);
    let (value, block_size) = (inode.size(), u64::from(superblock.block_size()));
    if value == 0 || value & block_size.saturating_sub(1) != 0 {
        let rule = "must be a multiple of the block size, and not 0";
        return Err(corrupt(Problem::Field { field: "size", value, rule }));
    }
    let max = superblock.size();
    if value > max {
        return Err(corrupt(Problem::TooLarge { field: "size", value, max }));
    }
    Ok(superblock.block_at(value))
}

/// The blocks of a directory in order, read in pieces and checked.
pub(crate) struct Blocks {
    fs: Filesystem,
    inode: Inode,
    extents: Extents,
    /// What is left of the extent being read: its first block in the file and on the device, and
    /// its length.
    run: (u64, u64, u64),
    /// Blocks that were read.
    ready: vec::IntoIter<Block>,
    /// Index of the next block to give.
    index: u64,
    /// Blocks that the directory has.
    count: u64,
    /// Bytes of the next read.
    piece: u32,
}

impl Blocks {
    /// Refuses a directory with a size that none can have.
    pub(crate) fn new(fs: &Filesystem, inode: &Inode) -> Result<Self, Error> {
        let count = count(fs.superblock(), inode)?;
        Ok(Self {
            fs: fs.clone(),
            inode: inode.clone(),
            extents: fs.extents(inode)?,
            run: (0, 0, 0),
            ready: Vec::new().into_iter(),
            index: 0,
            count,
            piece: READ_FIRST,
        })
    }

    /// Blocks that the directory has.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn filesystem(&self) -> &Filesystem {
        &self.fs
    }

    /// The next block and its index.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, Block)>, Error> {
        let index = self.index;
        if index >= self.count {
            return Ok(None);
        }
        let block = match self.ready.next() {
            Some(block) => block,
            None => self.read(index)?,
        };
        let structure = Structure::DirectoryBlock { inode: self.inode.number(), index };
        dir_checksum::verify(self.fs.superblock(), &self.inode, index, &block)
            .map_err(|problem| structure.corrupt(problem))?;
        self.index = index.saturating_add(1);
        Ok(Some((index, block)))
    }

    /// Reads a piece that starts with block `index`, and gives its first block.
    fn read(&mut self, index: u64) -> Result<Block, Error> {
        let missing = Structure::Directory(self.inode.number());
        let missing = || missing.corrupt(Problem::Missing { logical: index });
        if self.run.2 == 0 {
            let Extent { logical, physical, length, unwritten, .. } =
                self.extents.next().transpose()?.ok_or_else(missing)?;
            let superblock = self.fs.superblock();
            self.run = (
                superblock.block_at(logical),
                superblock.block_at(physical),
                superblock.block_at(length),
            );
            if unwritten {
                return Err(missing());
            }
        }
        let (logical, physical, length) = self.run;
        // Directories have no holes, so the next extent goes on where the last one ended.
        if logical != index {
            return Err(missing());
        }
        let superblock = self.fs.superblock();
        // With read-ahead, more at a time: who has read some of a directory as a rule reads on.
        let piece = u64::from(self.piece).min(self.fs.read_ahead());
        let count = superblock.block_at(piece).max(1);
        let count = count.min(length).min(self.count.saturating_sub(index));
        self.piece = self.piece.saturating_mul(4).min(READ_MAX);
        self.run = (
            logical.saturating_add(count),
            physical.saturating_add(count),
            length.saturating_sub(count),
        );
        let blocks = self.fs.blocks(physical, u32::try_from(count).unwrap_or(1))?;
        self.ready = blocks.into_iter();
        self.ready.next().ok_or_else(missing)
    }
}
