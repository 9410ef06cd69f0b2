//! Locating and reading the blocks of a log.

use std::ops::Range;
use std::sync::Arc;

use nvio_iomap::{Mapper, MappingKind, Op};

use crate::blocks::source::{BlockSource, ReadRange};
use crate::error::Error;
use crate::file::File;
use crate::format::corrupt::{Problem, Structure};
use crate::number::as_usize;
use crate::recovery::journal::superblock::JournalSuperblock;

/// Maximum length of one read-ahead in a log, bytes. Its pieces are read in parallel.
const WINDOW: u32 = 1 << 20;
/// Length of a piece, bytes.
const PIECE: usize = 128 << 10;

/// An opened journal.
pub(crate) struct Journal {
    pub log: Log,
    pub superblock: JournalSuperblock,
}

/// A log: its blocks, by number in the log.
pub(crate) struct Log {
    place: Place,
    /// The device that holds the log.
    source: Arc<dyn BlockSource>,
    block_size: u32,
    /// Number of blocks, the superblock included.
    blocks: u32,
    /// Number of the first block in `window`.
    first: u32,
    window: Vec<u8>,
}

/// The place of a log.
enum Place {
    /// A file in the filesystem.
    File(Box<File>),
    /// A device of its own, with the same block numbers.
    Device,
}

impl Log {
    /// Opens a log in a file of the filesystem on `source`.
    pub(crate) fn in_file(file: File, source: Arc<dyn BlockSource>) -> Self {
        let superblock = file.filesystem().superblock();
        let block_size = superblock.block_size();
        let blocks = superblock.whole_blocks(file.size()).min(superblock.blocks_count);
        let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
        let place = Place::File(Box::new(file));
        Self { place, source, block_size, blocks, first: 0, window: Vec::new() }
    }

    /// Opens a log of `blocks` blocks on a device of its own.
    pub(crate) fn on_device(source: Arc<dyn BlockSource>, block_size: u32, blocks: u32) -> Self {
        let place = Place::Device;
        Self { place, source, block_size, blocks, first: 0, window: Vec::new() }
    }

    /// Returns the maximum number of blocks of the log.
    pub(crate) fn blocks(&self) -> u32 {
        self.blocks
    }

    /// Returns the device that the results of [`place_of`](Self::place_of) refer to.
    pub(crate) fn source(&self) -> Arc<dyn BlockSource> {
        Arc::clone(&self.source)
    }

    /// Returns the block on the device that holds block `number`, and the number of log blocks that
    /// are contiguous from there.
    pub(crate) fn place_of(&mut self, number: u32) -> Result<(u64, u64), Error> {
        let number = u64::from(number);
        let file = match &mut self.place {
            Place::Device => return Ok((number, u64::from(self.blocks).saturating_sub(number))),
            Place::File(file) => file,
        };
        let size = u64::from(self.block_size);
        let pos = number.saturating_mul(size);
        let mapping = file.begin(pos, 1, Op::empty())?;
        if mapping.kind != MappingKind::Mapped {
            let structure = Structure::BlockMap { inode: file.inode().number() };
            return Err(structure.corrupt(Problem::Missing { logical: number }));
        }
        let inside = pos.saturating_sub(mapping.offset);
        let place = mapping.addr.saturating_add(inside).checked_div(size).unwrap_or(0);
        let run = mapping.length.saturating_sub(inside).checked_div(size).unwrap_or(0);
        Ok((place, run))
    }

    /// Returns block `number`.
    pub(crate) fn block(&mut self, number: u32) -> Result<&[u8], Error> {
        if number >= self.blocks {
            let (value, max) = (number.into(), self.blocks.into());
            let problem = Problem::TooLarge { field: "block", value, max };
            return Err(Structure::Journal.corrupt(problem));
        }
        let size = as_usize(self.block_size);
        let start = |first: u32| {
            let index = usize::try_from(number.checked_sub(first)?).ok()?;
            index.checked_mul(size)
        };
        let is_there = |start: Option<usize>, length: usize| {
            start.is_some_and(|start| start.saturating_add(size) <= length)
        };
        if !is_there(start(self.first), self.window.len()) {
            self.fill(number)?;
        }
        let bytes = start(self.first).and_then(|start| self.window.get(start..)?.get(..size));
        let missing = Problem::Missing { logical: number.into() };
        bytes.ok_or_else(|| Structure::Journal.corrupt(missing))
    }

    /// Reads block `number` and the blocks after it into the window.
    fn fill(&mut self, number: u32) -> Result<(), Error> {
        let (place, run) = self.place_of(number)?;
        let left = u64::from(self.blocks.saturating_sub(number));
        let most = u64::from(WINDOW.checked_div(self.block_size).unwrap_or(1).max(1));
        let bytes = run.min(left).min(most).saturating_mul(self.block_size.into());
        self.window.clear();
        self.window.resize(as_usize(bytes), 0);
        self.first = number;
        let start = place.saturating_mul(self.block_size.into());
        let offsets = (start..).step_by(PIECE);
        let mut ranges: Vec<ReadRange<'_>> = offsets
            .zip(self.window.chunks_mut(PIECE))
            .map(|(offset, piece)| ReadRange::new(offset, piece))
            .collect();
        self.source.read_many(&mut ranges);
        let failed = ranges.into_iter().find_map(|range| {
            let (offset, length) = (range.offset, range.buf.len());
            Some(Error::Source { offset, length, error: range.result.err()? })
        });
        match failed {
            None => Ok(()),
            Some(error) => {
                self.window.clear();
                Err(error)
            }
        }
    }
}

/// An iteration over the transactions of a log, from the oldest.
pub(crate) struct Walk<'a> {
    pub log: &'a mut Log,
    range: Range<u32>,
    /// Number of the next block.
    at: u32,
    /// Number of blocks that may still be passed. Each block is passed at most once.
    left: u32,
}

impl<'a> Walk<'a> {
    /// Starts at block `start`.
    pub(crate) fn new(log: &'a mut Log, superblock: &JournalSuperblock, start: u32) -> Self {
        let (range, left) = (superblock.log.clone(), superblock.length());
        Self { log, range, at: start, left }
    }

    /// Returns the number of the next block.
    pub(crate) fn at(&self) -> u32 {
        self.at
    }

    /// Returns the number of the next block.
    pub(crate) fn block(&mut self) -> Result<&[u8], Error> {
        self.log.block(self.at)
    }

    /// Advances by `blocks` blocks. Returns an error if the transactions have more blocks than the
    /// log: the kernel never fills a log completely, and a cyclic one would never end.
    pub(crate) fn pass(&mut self, blocks: u32) -> Result<(), Error> {
        let length = self.range.end.saturating_sub(self.range.start);
        let Some(left) = self.left.checked_sub(blocks) else {
            return Err(Structure::Journal.corrupt(Problem::EndlessLog { blocks: length }));
        };
        self.left = left;
        // `blocks` is at most the length of the log, so the position wraps at most once.
        self.at = match u64::from(self.at).saturating_add(u64::from(blocks)) {
            at if at >= u64::from(self.range.end) => {
                u32::try_from(at.saturating_sub(u64::from(length))).unwrap_or(self.range.start)
            }
            at => u32::try_from(at).unwrap_or(self.range.start),
        };
        Ok(())
    }
}
