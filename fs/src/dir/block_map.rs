//! Random access to the blocks of a directory.

use crate::blocks::block_cache::Block;
use crate::dir::blocks;
use crate::error::Error;
use crate::format::corrupt::{Problem, Structure};
use crate::map::FileMap;
use crate::map::blocks::FileBlocks;
use crate::number::LogicalBlock;

/// The blocks of a directory, up to its size.
pub(crate) struct DirMap<'a> {
    blocks: FileBlocks<'a>,
    count: u64,
}

impl<'a> DirMap<'a> {
    /// Returns an error if the directory's size is invalid.
    pub(crate) fn new(map: FileMap<'a>) -> Result<Self, Error> {
        let count = blocks::count(map.metadata.superblock(), map.inode)?;
        Ok(Self { blocks: FileBlocks::new(map), count })
    }

    /// Returns the number of blocks of the directory.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Reads block `index`, which must be mapped. The caller checks its contents.
    pub(crate) fn block(&mut self, index: u64) -> Result<Block, Error> {
        let structure = Structure::Directory(self.blocks.map.inode.number());
        if index >= self.count {
            return Err(structure.corrupt(Problem::Missing { logical: index }));
        }
        self.blocks.read(LogicalBlock::or_end(index), structure)
    }
}
