//! Random sequences of calls, drawn from a seed.

use std::ops::Range;

use nvio_testkit::random::Rng;

use super::double::{BLOCK, Block};
use super::history::CELL;
use super::stepped::Faults;

/// Cells of a block.
pub(super) const CELLS: usize = (BLOCK / CELL) as usize;

/// A call of a thread. Ranges are in cells.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Read(Range<usize>),
    /// A write, of which the caller's memory has only the cells before `readable`.
    Write {
        cells: Range<usize>,
        how: How,
        readable: usize,
    },
    Zero(Range<usize>),
    Invalidate(Range<usize>),
    WriteBack {
        cells: Range<usize>,
        nowait: bool,
    },
    Sync,
    /// The filesystem moves a block, if it is not being written.
    Move(usize),
    Evict,
    /// The thread uses another handle.
    Reopen,
    ReadDirect(Range<usize>),
    WriteDirect(Range<usize>),
    /// Sets the size of the file, in cells.
    Truncate(usize),
    /// Requests that are in flight at a time: reads, writes and syncs.
    Batch(Vec<Call>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Cached,
    Through,
    Durable,
    DurableThrough,
}

/// The rule by which the scheduler chooses a thread.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule {
    /// Any, at each switch.
    Any,
    /// Another one at one switch of so many.
    Seldom(u64),
    /// The one of highest priority, and so many changes of priorities (PCT).
    Priorities(u64),
}

/// A sequence, and the device and the file that it is played on.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    /// Bytes of the cache.
    pub(super) limit: usize,
    pub(super) blocks: Vec<Block>,
    /// Size of the file in cells.
    pub(super) size: usize,
    pub(super) depth: usize,
    /// Bytes of a command.
    pub(super) most: usize,
    pub(super) faults: Faults,
    /// Chance that a call of the filesystem fails, in thousandths.
    pub(super) filesystem: u64,
    pub(super) rule: Rule,
    pub(super) threads: Vec<Vec<Call>>,
}

impl Plan {
    /// Draws the sequence of a seed.
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let count = *rng.pick(&[8, 24, 48, 96]);
        let direct = rng.below(3) == 0;
        let threads = rng.range(2, 5) as usize;
        let grows = rng.below(2) == 0;
        let mut blocks = blocks(&mut rng, count);
        let cut = if rng.below(2) == 0 { rng.below(3 * CELLS as u64 + 1) } else { 0 };
        let size = count * CELLS - cut as usize;
        // Written blocks are inside of the file.
        for block in &mut blocks[size.div_ceil(CELLS)..] {
            if let Block::Mapped(addr) = *block {
                *block = Block::Unwritten(addr);
            }
        }
        let limit = *rng.pick(&[16 << 10, 32 << 10, 64 << 10, 256 << 10]);
        let (depth, most) = (*rng.pick(&[1, 2, 4, 16]), *rng.pick(&[1024, 2048, 8192, 1 << 20]));
        let (faults, filesystem) = faults(&mut rng);
        let rule = match rng.below(3) {
            0 => Rule::Any,
            1 => Rule::Seldom(rng.range(2, 30)),
            _ => Rule::Priorities(rng.range(2, 12)),
        };
        let most_calls = if threads == 2 { 16 } else { 10 };
        let mut draw = Draw { rng, size, grows, direct, threads, blocks: &blocks };
        let threads = (0..threads).map(|thread| draw.calls(thread, most_calls)).collect();
        Self { seed, limit, blocks, size, depth, most, faults, filesystem, rule, threads }
    }
}

impl Plan {
    pub(super) fn has_faults(&self) -> bool {
        let Faults { read, write, flush, reject, lost, memory } = self.faults;
        read + write + flush + reject + lost + memory + self.filesystem > 0
    }
}

/// Draws the blocks of a file. The device's first half is for them.
fn blocks(rng: &mut Rng, count: usize) -> Vec<Block> {
    let mixed = rng.below(2) == 0;
    let mut addr = 0;
    let mut kind = 0;
    (0..count)
        .map(|_| {
            addr += if rng.below(6) == 0 { rng.range(1, 3) } else { 1 } * BLOCK;
            if rng.below(4) == 0 {
                kind = if mixed { rng.below(4) } else { 0 };
            }
            match kind {
                0 | 1 => Block::Mapped(addr),
                2 => Block::Unwritten(addr),
                _ => Block::Hole,
            }
        })
        .collect()
}

fn faults(rng: &mut Rng) -> (Faults, u64) {
    let mut chance = |most: u64| if rng.below(2) == 0 { rng.below(most) } else { 0 };
    let faults = Faults {
        read: chance(150),
        write: chance(200),
        flush: chance(200),
        reject: chance(80),
        lost: chance(150),
        memory: chance(60),
    };
    let filesystem = chance(60);
    if rng.below(5) < 2 { (Faults::default(), 0) } else { (faults, filesystem) }
}

/// The settings that the calls of a sequence share.
struct Draw<'a> {
    rng: Rng,
    size: usize,
    grows: bool,
    /// Some blocks are written past the cache.
    direct: bool,
    threads: usize,
    blocks: &'a [Block],
}

impl Draw<'_> {
    fn calls(&mut self, thread: usize, most: u64) -> Vec<Call> {
        let count = self.rng.range(3, most);
        (0..count).map(|_| self.call(thread)).collect()
    }

    fn call(&mut self, thread: usize) -> Call {
        match self.rng.below(if self.direct { 29 } else { 25 }) {
            0..5 => Call::Read(self.cells()),
            5..12 => {
                let cells = self.written_cells(thread);
                let how =
                    [How::Cached, How::Cached, How::Through, How::Durable, How::DurableThrough];
                let is_torn = self.rng.below(12) == 0;
                let readable = if is_torn { self.rng.below(cells.len() as u64 + 1) } else { 999 };
                Call::Write { cells, how: *self.rng.pick(&how), readable: readable as usize }
            }
            12 | 13 => Call::Zero(self.written_cells(thread)),
            14 => Call::Invalidate(self.cells()),
            15 => Call::WriteBack { cells: self.cells(), nowait: self.rng.below(4) == 0 },
            16 | 17 => Call::Sync,
            // Not a block that is written past the cache.
            18 => Call::Move(self.rng.below(self.blocks.len() as u64) as usize / 4 * 4),
            19 | 20 => Call::Evict,
            21 => Call::Reopen,
            22 | 23 => {
                let count = self.rng.range(2, 5);
                Call::Batch((0..count).map(|_| self.request(thread)).collect())
            }
            24 if self.direct => Call::Sync,
            // Blocks that are written past the cache stay.
            24 => Call::Truncate(self.cells().end),
            25 | 26 => {
                let cells = self.cells();
                let (first, end) = (cells.start / CELLS, cells.end.div_ceil(CELLS));
                Call::ReadDirect(first * CELLS..end * CELLS)
            }
            _ => match self.own_blocks(thread) {
                Some(blocks) => Call::WriteDirect(blocks.start * CELLS..blocks.end * CELLS),
                None => Call::Sync,
            },
        }
    }

    fn request(&mut self, thread: usize) -> Call {
        match self.rng.below(7) {
            0 | 1 => Call::Read(self.cells()),
            2 => Call::Sync,
            _ => {
                let how =
                    [How::Cached, How::Cached, How::Through, How::Durable, How::DurableThrough];
                let (cells, how) = (self.written_cells(thread), *self.rng.pick(&how));
                Call::Write { cells, how, readable: 999 }
            }
        }
    }

    /// Draws a range of cells, often a short one of a few that are used often.
    fn cells(&mut self) -> Range<usize> {
        let end = (self.size + if self.grows { 40 } else { 0 }) as u64;
        let start = match self.rng.below(4) {
            0 => self.rng.below(end),
            1 => (self.size as u64).saturating_sub(self.rng.below(12)),
            _ => self.rng.below(end.min(24)),
        };
        let start = start.min(end - 1);
        let most = *self.rng.pick(&[2, 6, 20, 80]);
        let length = self.rng.range(1, most + 1).min(end - start);
        start as usize..(start + length) as usize
    }

    /// Returns the thread that writes block `block` past the cache, if one does.
    fn owner(&self, block: usize) -> Option<usize> {
        let is_mapped = matches!(self.blocks.get(block), Some(Block::Mapped(_)));
        let is_inside = (block + 1) * CELLS <= self.size;
        let is_direct = self.direct && block % 4 == 3 && is_mapped && is_inside;
        is_direct.then_some(block / 4 % self.threads)
    }

    /// Draws a range for a write through the cache: it leaves the blocks out that other threads
    /// write past it, because such writes have no defined order.
    fn written_cells(&mut self, thread: usize) -> Range<usize> {
        let Range { start, end } = self.cells();
        let foreign = |cell: &usize| self.owner(cell / CELLS).is_some_and(|owner| owner != thread);
        let first = (start..end).find(|cell| !foreign(cell)).unwrap_or(0);
        let last = (first..end).find(foreign).unwrap_or(end.max(first + 1));
        first..last
    }

    /// Draws a block that the thread writes past the cache.
    fn own_blocks(&mut self, thread: usize) -> Option<Range<usize>> {
        let own = |block: &usize| self.owner(*block) == Some(thread);
        let blocks: Vec<_> = (0..self.blocks.len()).filter(own).collect();
        if blocks.is_empty() {
            return None;
        }
        let block = blocks[self.rng.below(blocks.len() as u64) as usize];
        Some(block..block + 1)
    }
}
