//! The blocks of a directory.

use std::collections::VecDeque;
use std::vec;

use crate::block_cache::Block;
use crate::corrupt::{Problem, Structure};
use crate::map::Extents;
use crate::metadata::READ_MAX;
use crate::{Error, Filesystem, Inode, Superblock, dir_checksum, dir_inline};

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
    /// What the extents end with, if it is not their end.
    failed: Option<Error>,
    /// Extents that have been looked at: their first blocks in the file and on the device, and
    /// their lengths.
    runs: VecDeque<(u64, u64, u64)>,
    /// The parts of a directory that is inside of its inode, which are much like blocks.
    inline: Option<vec::IntoIter<Block>>,
    /// Index of the next block to give.
    index: u64,
    /// Blocks before this one have been read ahead.
    ahead: u64,
    /// Blocks that the directory has.
    count: u64,
    /// Bytes of the next read.
    piece: u32,
}

impl Blocks {
    /// Refuses a directory with a size that none can have.
    pub(crate) fn new(fs: &Filesystem, inode: &Inode) -> Result<Self, Error> {
        let (inline, count) = if inode.has_inline_data() {
            let parts = dir_inline::parts(fs, inode)?;
            let count = u64::try_from(parts.len()).unwrap_or(u64::MAX);
            (Some(parts.into_iter()), count)
        } else {
            (None, count(fs.superblock(), inode)?)
        };
        Ok(Self {
            fs: fs.clone(),
            inode: inode.clone(),
            extents: fs.extents(inode)?,
            failed: None,
            runs: VecDeque::new(),
            inline,
            index: 0,
            count,
            ahead: 0,
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
        let structure = Structure::DirectoryBlock { inode: self.inode.number(), index };
        let block = if let Some(parts) = &mut self.inline {
            // What is inside of the inode is covered by the inode's own checksum.
            let missing = || structure.corrupt(Problem::Missing { logical: index });
            parts.next().ok_or_else(missing)?
        } else {
            if index >= self.ahead {
                self.read_ahead(index);
            }
            let number = self.find(index)?;
            let block = self.fs.block(number)?;
            dir_checksum::verify(self.fs.superblock(), &self.inode, index, &block)
                .map_err(|problem| structure.corrupt(problem))?;
            block
        };
        self.index = index.saturating_add(1);
        Ok(Some((index, block)))
    }

    /// Reads a piece that starts with block `index`, whatever extents it is in. With each piece, more
    /// at a time: who has read some of a directory as a rule reads on.
    fn read_ahead(&mut self, index: u64) {
        let superblock = self.fs.superblock();
        let piece = superblock.block_at(u64::from(self.piece).min(self.fs.read_ahead())).max(1);
        self.piece = self.piece.saturating_mul(4).min(READ_MAX);
        self.ahead = index.saturating_add(piece).min(self.count);
        while self
            .runs
            .back()
            .is_none_or(|&(start, _, length)| start.saturating_add(length) < self.ahead)
        {
            match self.extents.next() {
                Some(Ok(extent)) if !extent.unwritten => self.runs.push_back((
                    superblock.block_at(extent.logical),
                    superblock.block_at(extent.physical),
                    superblock.block_at(extent.length),
                )),
                Some(Err(error)) => {
                    self.failed = Some(error);
                    break;
                }
                _ => break,
            }
        }
        let ahead = self.ahead;
        self.fs.prefetch(self.runs.iter().map(|&(start, physical, length)| {
            let skip = index.saturating_sub(start).min(length);
            let end = ahead.saturating_sub(start).min(length);
            physical.saturating_add(skip)..physical.saturating_add(end)
        }));
    }

    /// Where on the device block `index` is. Directories have no holes: each extent goes on where the
    /// one before it ended.
    fn find(&mut self, index: u64) -> Result<u64, Error> {
        while let Some(&(start, physical, length)) = self.runs.front() {
            match index.checked_sub(start) {
                Some(skip) if skip < length => return Ok(physical.saturating_add(skip)),
                Some(_) => drop(self.runs.pop_front()),
                None => break,
            }
        }
        let missing = Structure::Directory(self.inode.number());
        let missing = missing.corrupt(Problem::Missing { logical: index });
        Err(self.failed.take().unwrap_or(missing))
    }
}
