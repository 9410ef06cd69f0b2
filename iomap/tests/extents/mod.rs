//! A file whose extents are scattered over a disk.
#![allow(clippy::unwrap_used, dead_code)]

use nvio_iomap::{Error, FileRef, Mapper, Mapping, Op, OpenFile};

/// The shared state of the file: none.
pub struct NoState;

impl OpenFile for NoState {
    type Error = Error;
}

/// A file of extents of three blocks each, the last extent first on the disk, with a block that is
/// not the file's between them.
pub struct Scattered {
    shared: FileRef<NoState>,
    size: u64,
}

impl Scattered {
    pub const BLOCK: u64 = 4096;
    const EXTENT: u64 = 3 * Self::BLOCK;

    pub fn new(size: u64) -> Self {
        Self { shared: FileRef::new(NoState), size }
    }

    fn extents(&self) -> u64 {
        self.size.div_ceil(Self::EXTENT)
    }

    /// Bytes of a disk that the file needs.
    pub fn disk_bytes(&self) -> u64 {
        self.extents() * (Self::EXTENT + Self::BLOCK)
    }

    /// Returns the address on the disk of byte `pos` of the file.
    pub fn address(&self, pos: u64) -> u64 {
        let extent = self.extents() - 1 - pos / Self::EXTENT;
        extent * (Self::EXTENT + Self::BLOCK) + Self::BLOCK + pos % Self::EXTENT
    }
}

impl Mapper for Scattered {
    type OpenFile = NoState;

    fn open_file(&self) -> &FileRef<NoState> {
        &self.shared
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn block_size(&self) -> u32 {
        Self::BLOCK as u32
    }

    fn begin(&mut self, pos: u64, _length: u64, _op: Op) -> Result<Mapping, Error> {
        let offset = pos - pos % Self::EXTENT;
        Ok(Mapping::mapped(offset, Self::EXTENT, self.address(offset)))
    }
}
