//! An open file whose data may be overwritten, and where that is.

use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;

use nvio_iomap::{FileRef, Mapper, Mapping, MappingKind, Op};

use crate::error::Error;
use crate::file::File;
use crate::file::open_inode::OpenInode;
use crate::file::system_zone::SystemZone;
use crate::file::writable::Protected;
use crate::format::corrupt::{Problem, Structure};
use crate::map::hole;

/// A [`File`] that may be overwritten; see [`WritableFilesystem`](crate::WritableFilesystem).
pub struct WritableFile {
    file: File,
    /// The inode that may be written to: `file` can be replaced by a caller.
    opened: FileRef<OpenInode>,
    system_zone: Arc<SystemZone>,
    /// The mapping that was last found to be outside of metadata.
    sound: Mapping,
    /// A range of which every byte was found to have a block.
    checked: Range<u64>,
    /// Whether the rest of the last block of the device may be written, too: with zeroes, by a
    /// caller who sees to that.
    pub(crate) with_tail: bool,
}

impl fmt::Debug for WritableFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WritableFile").field("inode", self.file.inode()).finish_non_exhaustive()
    }
}

impl Deref for WritableFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl DerefMut for WritableFile {
    fn deref_mut(&mut self) -> &mut File {
        &mut self.file
    }
}

impl WritableFile {
    pub(crate) fn new(file: File, system_zone: Arc<SystemZone>) -> Self {
        let opened = file.inode_shared().clone();
        Self { file, opened, system_zone, sound: hole(0, 0), checked: 0..0, with_tail: false }
    }

    /// The mapping of `pos`, if it is one of written blocks that are not metadata.
    fn overwritable(&mut self, pos: u64, op: Op) -> Result<Mapping, Error> {
        let inode = self.file.inode().number();
        let mapping = self.file.begin(pos, 1, op.difference(Op::WRITE.union(Op::ZERO)))?;
        match mapping.kind {
            MappingKind::Mapped => (),
            MappingKind::Unwritten => return Err(Error::Unwritten { inode, pos }),
            _ => return Err(Error::Hole { inode, pos }),
        }
        if mapping != self.sound {
            let superblock = self.file.filesystem().superblock();
            let start = superblock.block_at(mapping.addr);
            let count = superblock.block_at(mapping.length);
            if let Some(area) = self.system_zone.overlap(start, count) {
                let problem = Problem::Overlap { start, count, area };
                return Err(Structure::BlockMap { inode }.corrupt(problem));
            }
            self.sound = mapping;
        }
        Ok(mapping)
    }

    /// Refuses a range that cannot be overwritten as a whole: before the first of its commands, so
    /// that a write that is refused has changed nothing. Gives the mapping of its first byte.
    pub(crate) fn begin_write(&mut self, pos: u64, length: u64, op: Op) -> Result<Mapping, Error> {
        let (inode, size) = (self.file.inode().number(), self.file.size());
        if !self.opened.is_same(self.file.inode_shared()) {
            return Err(Error::Protected { inode, why: Protected::NotOpened });
        }
        let end = pos.saturating_add(length);
        // No block of a device is larger than one of the filesystem.
        let block = u64::from(self.file.block_size());
        let limit = if self.with_tail { size.next_multiple_of(block) } else { size };
        if end > limit {
            return Err(Error::PastEnd { inode, end, size });
        }
        let mapping = self.overwritable(pos, op)?;
        // The maps of open files do not change.
        let checked = self.checked.start <= pos && end <= self.checked.end;
        if mapping.end() < end && !checked {
            let mut next = mapping.end();
            // Each mapping ends behind the position it is of, or there is an error.
            while next < end {
                next = self.overwritable(next, op)?.end();
            }
            self.checked = pos..end;
        }
        Ok(mapping)
    }
}

/// Reads are mapped as [`File`] does. A range that is to be written is looked at as a whole by the
/// first [`begin`](Mapper::begin): all of it must be written blocks inside the file.
impl Mapper for WritableFile {
    type OpenFile = OpenInode;

    #[inline]
    fn open_file(&self) -> &FileRef<OpenInode> {
        self.file.inode_shared()
    }

    #[inline]
    fn size(&self) -> u64 {
        self.file.size()
    }

    #[inline]
    fn page_end(&self) -> u64 {
        self.file.page_end()
    }

    #[inline]
    fn block_size(&self) -> u32 {
        self.file.block_size()
    }

    #[inline]
    fn is_plain(&self) -> bool {
        self.file.is_plain()
    }

    /// # Errors
    /// As that of [`File`]. To write: [`Error::Hole`], [`Error::Unwritten`], [`Error::PastEnd`];
    /// [`Error::Corrupt`] if a block is where the filesystem has metadata.
    #[inline]
    fn begin(&mut self, pos: u64, length: u64, op: Op) -> Result<Mapping, Error> {
        match op.intersects(Op::WRITE.union(Op::ZERO)) {
            false => self.file.begin(pos, length, op),
            true => self.begin_write(pos, length, op),
        }
    }

    fn read_inline(&mut self, mapping: &Mapping, pos: u64, out: &mut [u8]) -> Result<(), Error> {
        self.file.read_inline(mapping, pos, out)
    }
}
