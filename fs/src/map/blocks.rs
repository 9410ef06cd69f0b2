//! Random access to the metadata that a file holds.

use nvio_iomap::MappingKind;

use crate::blocks::block_cache::Block;
use crate::error::Error;
use crate::format::corrupt::{Problem, Structure};
use crate::map::FileMap;
use crate::map::run::MapRun;
use crate::number::LogicalBlock;

/// The blocks of a directory, of a symbolic link, or of an attribute's value. It caches the last
/// used part of the map.
pub(crate) struct FileBlocks<'a> {
    pub map: FileMap<'a>,
    run: MapRun,
}

impl<'a> FileBlocks<'a> {
    pub(crate) fn new(map: FileMap<'a>) -> Self {
        Self { map, run: MapRun::empty() }
    }

    /// Reads a block, which must be mapped: a hole is damage to `structure`. The caller checks the
    /// contents.
    pub(crate) fn read(
        &mut self,
        logical: LogicalBlock,
        structure: Structure,
    ) -> Result<Block, Error> {
        let superblock = self.map.metadata.superblock();
        let pos = superblock.position(logical);
        if !self.run.covers(pos) {
            self.run = self.map.run_at(logical)?;
        }
        let mapping = self.run.find(pos).filter(|mapping| mapping.kind == MappingKind::Mapped);
        let address = mapping.and_then(|mapping| mapping.device_address(pos));
        let missing = || structure.corrupt(Problem::Missing { logical: logical.into() });
        self.map.metadata.block(superblock.physical_at(address.ok_or_else(missing)?))
    }
}
