//! Sequential access to the blocks of a directory.

use std::collections::VecDeque;
use std::vec;

use crate::blocks::block_cache::Block;
use crate::blocks::read::READ_MAX;
use crate::dir::{checksum, inline};
use crate::error::Error;
use crate::filesystem::Filesystem;
use crate::format::corrupt::{Problem, Structure};
use crate::format::inode::Inode;
use crate::format::inode_flags::InodeFlags;
use crate::format::superblock::Superblock;
use crate::map::extents::Extents;

/// Size of the first read-ahead in a directory, bytes. Later ones are larger.
const READ_FIRST: u32 = 16 << 10;

/// Returns the number of blocks of the directory `inode`, or an error if its size is invalid.
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

/// An iterator over the blocks of a directory, with read-ahead and verified checksums.
pub(crate) struct Blocks {
    fs: Filesystem,
    inode: Inode,
    extents: Extents,
    /// The error that ended `extents`.
    failed: Option<Error>,
    /// Extents found so far: first logical block, first physical block, and length in blocks.
    runs: VecDeque<(u64, u64, u64)>,
    /// The parts of a directory that is stored inside its inode. They are formatted like blocks.
    inline: Option<vec::IntoIter<Block>>,
    /// Index of the next block to return.
    index: u64,
    /// First block that was not read ahead.
    ahead: u64,
    /// Number of blocks of the directory.
    count: u64,
    /// Size of the next read-ahead, bytes.
    piece: u32,
}

impl Blocks {
    /// Returns an error if the directory's size is invalid.
    pub(crate) fn new(fs: &Filesystem, inode: &Inode) -> Result<Self, Error> {
        let (inline, count) = if inode.has_inline_data() {
            let parts = inline::parts(fs.superblock(), inode, &fs.inline_data(inode)?)?;
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

    /// Returns the number of blocks of the directory.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn superblock(&self) -> &Superblock {
        self.fs.superblock()
    }

    /// Returns the next block and its index.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, Block)>, Error> {
        let block = match &mut self.inline {
            // Parts inside the inode are covered by the inode's checksum.
            Some(parts) => parts.next(),
            None => self.read()?,
        };
        let index = self.index;
        self.index = index.saturating_add(1);
        Ok(block.map(|block| (index, block)))
    }

    /// Returns the next mapped block, whose index is then `self.index`.
    fn read(&mut self) -> Result<Option<Block>, Error> {
        loop {
            let index = self.index;
            if index >= self.count {
                return Ok(None);
            }
            if index >= self.ahead {
                self.read_ahead(index);
            }
            let Some(number) = self.find(index)? else { continue };
            let block = self.fs.block(number)?;
            let structure = Structure::DirectoryBlock { inode: self.inode.number(), index };
            checksum::verify(self.fs.superblock(), &self.inode, index, &block)
                .map_err(|problem| structure.corrupt(problem))?;
            return Ok(Some(block));
        }
    }

    /// Reads ahead from block `index`, across extents. Each read-ahead is four times as large as
    /// the one before, because a caller that has read several blocks is likely to read on.
    fn read_ahead(&mut self, index: u64) {
        let superblock = self.fs.superblock();
        let piece = superblock.block_at(u64::from(self.piece).min(self.fs.read_ahead())).max(1);
        self.piece = self.piece.saturating_mul(4).min(READ_MAX);
        self.ahead = index.saturating_add(piece).min(self.count);
        let ends_before = |run: &(u64, u64, u64), block| run.0.saturating_add(run.2) < block;
        while self.failed.is_none()
            && self.runs.back().is_none_or(|run| ends_before(run, self.ahead))
        {
            match self.extents.next() {
                Some(Ok(extent)) if !extent.unwritten => self.runs.push_back((
                    superblock.block_at(extent.logical),
                    superblock.block_at(extent.physical),
                    superblock.block_at(extent.length),
                )),
                Some(Ok(extent)) => {
                    self.failed = Some(self.missing(superblock.block_at(extent.logical)));
                    break;
                }
                Some(Err(error)) => {
                    self.failed = Some(error);
                    break;
                }
                None => break,
            }
        }
        let ahead = self.ahead;
        self.fs.prefetch(self.runs.iter().map(|&(start, physical, length)| {
            let skip = index.saturating_sub(start).min(length);
            let end = ahead.saturating_sub(start).min(length);
            physical.saturating_add(skip)..physical.saturating_add(end)
        }));
    }

    /// Returns the physical block of block `index`. In a hole, advances past it and returns `None`.
    fn find(&mut self, index: u64) -> Result<Option<u64>, Error> {
        while let Some(&(start, physical, length)) = self.runs.front() {
            match index.checked_sub(start) {
                Some(skip) if skip < length => return Ok(Some(physical.saturating_add(skip))),
                Some(_) => drop(self.runs.pop_front()),
                None => return self.skip(start.min(self.count)),
            }
        }
        match self.failed.take() {
            Some(error) => Err(error),
            None => self.skip(self.count),
        }
    }

    /// Skips a hole that ends before block `end`. The kernel also skips holes in directories
    /// without a hash tree, except in block 0.
    fn skip(&mut self, end: u64) -> Result<Option<u64>, Error> {
        let index = self.index;
        if index == 0 || self.inode.flags().contains(InodeFlags::INDEX) {
            return Err(self.missing(index));
        }
        log::debug!("directory, inode {}: a hole from block {index} to {end}", self.inode.number());
        self.index = end;
        Ok(None)
    }

    fn missing(&self, logical: u64) -> Error {
        Structure::Directory(self.inode.number()).corrupt(Problem::Missing { logical })
    }
}
