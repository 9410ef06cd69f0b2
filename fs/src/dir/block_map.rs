//! Random access to the blocks of a directory.

use nvio_iomap::MappingKind;

use crate::blocks::block_cache::Block;
use crate::dir::blocks;
use crate::error::Error;
use crate::format::corrupt::{Problem, Structure};
use crate::map::FileMap;
use crate::map::run::MapRun;

/// The block map of a directory. It caches the last used part of the map.
pub(crate) struct DirMap<'a> {
    map: FileMap<'a>,
    run: MapRun,
    count: u64,
}

impl<'a> DirMap<'a> {
    /// Returns an error if the directory's size is invalid.
    pub(crate) fn new(map: FileMap<'a>) -> Result<Self, Error> {
        let count = blocks::count(map.metadata.superblock(), map.inode)?;
        Ok(Self { map, run: MapRun::empty(), count })
    }

    /// Returns the number of blocks of the directory.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Reads block `index`, which must be mapped. The caller checks its contents.
    pub(crate) fn block(&mut self, index: u64) -> Result<Block, Error> {
        let number = self.map.inode.number();
        let missing = || Structure::Directory(number).corrupt(Problem::Missing { logical: index });
        if index >= self.count {
            return Err(missing());
        }
        let superblock = self.map.metadata.superblock();
        let pos = superblock.bytes(index);
        if !self.run.covers(pos) {
            self.run = self.map.run_at(index)?;
        }
        let mapping = self.run.find(pos).filter(|mapping| mapping.kind == MappingKind::Mapped);
        let address = mapping.and_then(|mapping| mapping.device_address(pos));
        self.map.metadata.block(superblock.block_at(address.ok_or_else(missing)?))
    }
}
