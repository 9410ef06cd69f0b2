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
use crate::number::{BlockRun, PhysicalBlock, as_u64};

/// Maximum number of reads that fail one after the other. The device may be gone then.
const FAILURES_MAX: u32 = 8;
/// Maximum number of attempts to read a block, or to find a name, while directories are changed. A change
/// takes longer than a read of what is cached.
pub(crate) const ATTEMPTS_MAX: u32 = 1000;
/// Size of the first read-ahead in a directory, bytes. Later ones are larger.
const READ_FIRST: u32 = 16 << 10;

/// Returns the number of blocks of the directory `inode`, or an error if its size is invalid.
pub(crate) fn count(superblock: &Superblock, inode: &Inode) -> Result<u64, Error> {
    let (structure, size) = (Structure::Directory(inode.number()), inode.size());
    let is_good = size != 0 && size.is_multiple_of(superblock.block_size().into());
    structure.ensure(is_good, "size", size, "must be a multiple of the block size, and not 0")?;
    Problem::verify_max("size", size, superblock.size())
        .map_err(|problem| structure.corrupt(problem))?;
    Ok(superblock.whole_blocks(size))
}

/// An iterator over the blocks of a directory, with read-ahead and verified checksums.
pub(crate) struct Blocks {
    fs: Filesystem,
    inode: Inode,
    extents: Extents,
    /// The error of the part of the map after `runs`.
    failed: Option<Error>,
    /// The error of the part of the map at `index` was returned.
    is_gap: bool,
    /// Number of reads that failed one after the other.
    failures: u32,
    /// Extents found so far: first logical block, first physical block, and length in blocks.
    runs: VecDeque<(u64, BlockRun)>,
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
    /// Number of changes of directories that the inode is of; `None` if the filesystem does not change, or
    /// the inode is the caller's.
    version: Option<u64>,
}

impl Blocks {
    /// Returns an error if the directory's size is invalid.
    pub(crate) fn new(fs: &Filesystem, inode: &Inode) -> Result<Self, Error> {
        let (inline, count) = if inode.has_inline_data() {
            let parts = inline::parts(fs.superblock(), inode, &fs.inline_data(inode)?)?;
            let count = as_u64(parts.len());
            (Some(parts.into_iter()), count)
        } else {
            (None, count(fs.superblock(), inode)?)
        };
        Ok(Self {
            fs: fs.clone(),
            inode: inode.clone(),
            extents: fs.extents(inode)?,
            failed: None,
            is_gap: false,
            failures: 0,
            runs: VecDeque::new(),
            inline,
            index: 0,
            count,
            ahead: 0,
            piece: READ_FIRST,
            version: None,
        })
    }

    /// Returns the number of blocks of the directory.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn superblock(&self) -> &Superblock {
        self.fs.superblock()
    }

    /// Returns the next block and its index. After an error, the next call continues after the part
    /// of the directory that cannot be read.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, Block)>, Error> {
        let block = match &mut self.inline {
            // Parts inside the inode are covered by the inode's checksum.
            Some(parts) => parts.next(),
            None if self.fs.metadata().can_change() => self.read_changing()?,
            None => self.read()?,
        };
        let index = self.index;
        self.index = index.saturating_add(1);
        Ok(block.map(|block| (index, block)))
    }

    /// Returns the next mapped block of a directory that others may change. Names only move to blocks that
    /// are added at the end, so that none is missed.
    fn read_changing(&mut self) -> Result<Option<Block>, Error> {
        let index = self.index;
        for _ in 0..ATTEMPTS_MAX {
            if !self.renew()? {
                return Ok(None);
            }
            let block = self.read();
            if matches!(block, Ok(Some(_))) || self.is_current() {
                return block;
            }
            // The end, or the error, may be that of blocks that do not go together.
            (self.index, self.failures) = (index, 0);
        }
        self.read()
    }

    /// Returns true if no directory was changed since the inode was read.
    fn is_current(&self) -> bool {
        self.version == Some(self.fs.metadata().names_version())
    }

    /// Reads the inode and the map again, if they were changed. Returns false if the directory is gone.
    fn renew(&mut self) -> Result<bool, Error> {
        if self.is_current() {
            return Ok(true);
        }
        let version = self.fs.metadata().names_version();
        let number = self.inode.number();
        let inode = match self.fs.inode(number) {
            Ok(inode) => inode,
            Err(Error::InodeNotInUse { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        let is_same = inode.is_dir() && inode.generation() == self.inode.generation();
        self.version = Some(version);
        let (size, flags) = (inode.size(), inode.flags());
        if is_same && (size, flags) != (self.inode.size(), self.inode.flags()) {
            self.count = count(self.fs.superblock(), &inode)?;
            self.extents = self.fs.extents(&inode)?;
            self.runs.clear();
            (self.failed, self.is_gap, self.ahead) = (None, false, self.index);
            self.inode = inode;
        }
        Ok(is_same)
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
            self.is_gap = false;
            let block = match self.fs.block(number) {
                Ok(block) => block,
                Err(error) => {
                    self.failures = self.failures.saturating_add(1);
                    let is_gone = self.failures >= FAILURES_MAX;
                    self.index = if is_gone { self.count } else { index.saturating_add(1) };
                    return Err(error);
                }
            };
            self.failures = 0;
            let structure = Structure::DirectoryBlock { inode: self.inode.number(), index };
            return match checksum::verify(self.fs.superblock(), &self.inode, index, &block) {
                Ok(()) => Ok(Some(block)),
                Err(problem) => {
                    self.index = index.saturating_add(1);
                    Err(structure.corrupt(problem))
                }
            };
        }
    }

    /// Reads ahead from block `index`, across extents. Each read-ahead is four times as large as
    /// the one before, because a caller that has read several blocks is likely to read on.
    fn read_ahead(&mut self, index: u64) {
        let superblock = self.fs.superblock();
        let piece = u64::from(self.piece).min(self.fs.read_ahead());
        let piece = superblock.whole_blocks(piece).max(1);
        self.piece = self.piece.saturating_mul(4).min(READ_MAX);
        self.ahead = index.saturating_add(piece).min(self.count);
        let ahead = self.ahead;
        let ends_before =
            |&(start, run): &(u64, BlockRun)| start.saturating_add(run.count()) < ahead;
        while self.failed.is_none() && self.runs.back().is_none_or(ends_before) {
            match self.extents.next() {
                Some(Ok(extent)) if !extent.unwritten => self.runs.push_back((
                    superblock.whole_blocks(extent.logical),
                    superblock.blocks_at(extent.physical, extent.length),
                )),
                Some(Ok(extent)) => {
                    self.failed = Some(self.missing(superblock.whole_blocks(extent.logical)));
                    break;
                }
                Some(Err(error)) => {
                    self.failed = Some(error);
                    break;
                }
                None => break,
            }
        }
        self.fs.prefetch(self.runs.iter().flat_map(|&(start, run)| {
            let skip = index.saturating_sub(start);
            run.part(skip, ahead.saturating_sub(start.max(index))).blocks()
        }));
    }

    /// Returns the physical block of block `index`. In a hole, advances past it and returns `None`.
    fn find(&mut self, index: u64) -> Result<Option<PhysicalBlock>, Error> {
        while let Some(&(start, run)) = self.runs.front() {
            let Some(skip) = index.checked_sub(start) else {
                return self.skip(start.min(self.count));
            };
            if let Some(block) = run.get(skip) {
                return Ok(Some(block));
            }
            self.runs.pop_front();
        }
        match self.failed.take() {
            Some(error) => {
                // Continue with the next part of the map.
                (self.is_gap, self.ahead) = (true, index);
                Err(error)
            }
            None => self.skip(self.count),
        }
    }

    /// Skips a hole that ends before block `end`. The kernel also skips holes in directories
    /// without a hash tree, except in block 0.
    fn skip(&mut self, end: u64) -> Result<Option<PhysicalBlock>, Error> {
        let index = self.index;
        self.index = end;
        if std::mem::take(&mut self.is_gap) {
            return Ok(None);
        }
        if index == 0 || self.inode.flags().contains(InodeFlags::INDEX) {
            return Err(self.missing(index));
        }
        log::debug!("directory, inode {}: a hole from block {index} to {end}", self.inode.number());
        Ok(None)
    }

    fn missing(&self, logical: u64) -> Error {
        Structure::Directory(self.inode.number()).corrupt(Problem::Missing { logical })
    }
}
