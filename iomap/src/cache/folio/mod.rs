//! Folios: aligned ranges of a file in DMA memory.
//!
//! A folio is idle, or the device reads or writes its memory. The lock of a folio is held while
//! bytes are copied, never while a command is submitted or waited for.

mod fill;
mod write_back;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use nvio_driver::{DmaBuf, FrozenBuf, SplitBuffer};

use super::bits::BlockSet;
use super::dirty::{Dirty, DirtyList, Listed};
use super::sync::{AtomicBool, RwLock, RwLockReadGuard};
use crate::contract::bytes::to_usize;
use crate::error::BioError;
use crate::memory::borrowed::Source;

/// `bytes` bytes of a file from byte `pos` on, which is a multiple of `bytes`.
pub(super) struct Folio {
    pub(super) pos: u64,
    pub(super) bytes: u32,
    block_shift: u32,
    /// The folio was used since eviction looked at it.
    used: AtomicBool,
    /// The place of the folio in the list of dirty folios.
    listed: Listed,
    state: RwLock<State>,
}

struct State {
    memory: Memory,
    /// Blocks whose memory is the content of the file.
    uptodate: BlockSet,
    /// Blocks that the device does not have yet. All are up to date.
    dirty: BlockSet,
    /// Blocks that the filesystem has let a writer overwrite, while `sequence` was the number of changes
    /// of the file's mappings.
    known: BlockSet,
    sequence: u64,
    /// Blocks that a command reads into other memory.
    patching: bool,
    /// Number of writes of which the filesystem does not know the end. Until then it may take the
    /// blocks for unwritten.
    endings: u32,
    /// Error of the last read of the device, until a reader has returned it.
    failed: Option<BioError>,
}

/// The memory of a folio.
enum Memory {
    /// Only the holder of the lock uses it.
    Idle(DmaBuf),
    /// Commands read into it.
    Filling { buffer: SplitBuffer, commands: u32 },
    /// Commands write it to the device. It must not change.
    Writing { frozen: FrozenBuf, commands: u32 },
    /// The folio was evicted, or the device kept its memory.
    Gone,
}

/// The result of an access to a folio.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Number of bytes that were copied, at least one.
    Copied(usize),
    /// The first block is not up to date.
    Missing,
    /// Commands use the memory: wait for them.
    Busy,
    /// The folio is no longer part of the cache: look for another.
    Gone,
    /// The device failed to read a block.
    Failed(BioError),
    /// The caller's memory could not be accessed.
    Fault,
}

/// The way of data to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Dirty,
    /// Some blocks of the folio are being written, or the filesystem does not know the end of it.
    Writing,
    Clean,
}

/// Part of a folio, for one command.
pub(super) struct Piece<B> {
    /// Blocks of the folio.
    pub(super) blocks: Range<u32>,
    /// Byte address on the device.
    pub(super) addr: u64,
    pub(super) memory: B,
    pub(super) ending: Option<Ending>,
}

/// The place of blocks of a folio on the device. Blocks without an address are zeroes.
pub(super) struct Place {
    pub(super) blocks: Range<u32>,
    pub(super) addr: Option<u64>,
    pub(super) ending: Option<Ending>,
}

/// The work of the filesystem after a write: convert blocks, or move the end of the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    /// The blocks are unwritten.
    pub(super) unwritten: bool,
    /// End of the file's bytes among them, when the write began.
    pub(super) end: u64,
    /// The data is durable when the command has ended.
    pub(super) durable: bool,
    /// Value of the filesystem for the mapping.
    pub(super) private: u64,
}

/// The answer of the filesystem to a write.
pub(super) struct Allowed {
    /// The blocks have no content on the device.
    pub(super) is_new: bool,
    /// A range that may be overwritten, and the number of changes of mappings before it was asked for.
    pub(super) known: Option<(Range<u64>, u64)>,
}

/// The change of the number of dirty blocks by a write, and the bytes that it copied.
pub(super) struct Written {
    pub(super) access: Access,
    pub(super) new_dirty: u32,
}

/// The folios of a file that have dirty blocks.
pub(super) type DirtyFolios = DirtyList<Folio>;

impl Dirty for Folio {
    #[inline]
    fn listed(&self) -> &Listed {
        &self.listed
    }

    fn pos(&self) -> u64 {
        self.pos
    }
}

impl Folio {
    /// Creates a folio without content.
    pub(super) fn new(pos: u64, memory: DmaBuf, block_shift: u32) -> Self {
        let bytes = u32::try_from(memory.len()).unwrap_or(0);
        let empty = BlockSet::new(bytes >> block_shift);
        let state = State {
            memory: Memory::Idle(memory),
            uptodate: empty.clone(),
            dirty: empty.clone(),
            known: empty,
            sequence: 0,
            patching: false,
            endings: 0,
            failed: None,
        };
        let (used, state) = (AtomicBool::new(true), RwLock::new(state));
        Self { pos, bytes, block_shift, used, listed: Listed::no(), state }
    }

    /// Returns the position in the file of the byte after the last.
    pub(super) fn end(&self) -> u64 {
        self.pos + u64::from(self.bytes)
    }

    pub(super) fn blocks(&self) -> Range<u32> {
        0..self.bytes >> self.block_shift
    }

    /// Returns the blocks of `[start, end)`, positions in the file inside the folio, rounded out.
    fn blocks_of(&self, range: &Range<u64>) -> Range<u32> {
        let block = |pos: u64| u32::try_from(pos >> self.block_shift).unwrap_or(u32::MAX);
        let (start, end) = (range.start - self.pos, range.end - self.pos);
        block(start)..block(end + (1 << self.block_shift) - 1)
    }

    /// Returns the bytes of the folio that blocks have.
    fn bytes_of(&self, blocks: &Range<u32>) -> Range<usize> {
        (blocks.start as usize) << self.block_shift..(blocks.end as usize) << self.block_shift
    }

    /// Returns true if the folio was used since the last call.
    pub(super) fn take_used(&self) -> bool {
        self.used.swap(false, Relaxed)
    }

    /// Returns true if the folio has `len` bytes from `pos` of the file on.
    #[inline]
    pub(super) fn has(&self, pos: u64, len: usize) -> bool {
        let before = pos.wrapping_sub(self.pos);
        let bytes = u64::from(self.bytes);
        before < bytes && len as u64 <= bytes - before
    }

    /// Copies all of `out` from `pos` of the file on, if the whole folio is up to date.
    #[inline(always)]
    pub(super) fn read_all(&self, pos: u64, out: &mut [u8]) -> bool {
        let state = self.state.read();
        let bytes = match &state.memory {
            Memory::Idle(buf) if state.uptodate.is_full() => &buf[..],
            Memory::Writing { frozen, .. } if state.uptodate.is_full() => &frozen[..],
            _ => return false,
        };
        let at = to_usize(pos.wrapping_sub(self.pos));
        let Some(bytes) = bytes.get(at..).and_then(|bytes| bytes.get(..out.len())) else {
            return false;
        };
        out.copy_from_slice(bytes);
        self.used.store(true, Relaxed);
        true
    }

    /// Copies `source` to `pos` of the file on, if no command uses the memory, and the blocks are dirty,
    /// or may become so: they are up to date and known, and `may_be_dirty` of the number of changes of
    /// mappings when they became known. Returns the number of bytes, which is 0 if not, and fewer than
    /// the source has if it cannot be read; and the number of blocks that became dirty.
    #[inline(always)]
    pub(super) fn write_again(
        self: &Arc<Self>,
        pos: u64,
        source: &mut impl Source,
        may_be_dirty: impl FnOnce(u64) -> bool,
        list: &DirtyFolios,
    ) -> (usize, u32) {
        let mut state = self.state.write();
        let State { memory: Memory::Idle(buf), dirty, uptodate, known, sequence, .. } = &mut *state
        else {
            return (0, 0);
        };
        let (at, len) = (to_usize(pos.wrapping_sub(self.pos)), source.len());
        let blocks = self.blocks_of(&(pos..pos + len as u64));
        let Some(bytes) = buf.get_mut(at..at + len) else { return (0, 0) };
        if dirty.contains(blocks.clone()) {
            self.used.store(true, Relaxed);
            return (source.copy_out(0, bytes, false), 0);
        }
        let is_known = known.contains(blocks.clone()) && uptodate.contains(blocks.clone());
        if !is_known || !may_be_dirty(*sequence) {
            return (0, 0);
        }
        let copied = source.copy_out(0, bytes, false);
        // Also if part of the source could not be read.
        let new_dirty = dirty.insert(blocks);
        if !self.listed.is_listed() {
            list.add(self);
        }
        self.used.store(true, Relaxed);
        (copied, new_dirty)
    }

    /// Notes that blocks of `range` of the file may be overwritten.
    fn know(&self, state: &mut State, range: &Range<u64>, sequence: u64) {
        if state.sequence != sequence {
            state.known.remove(self.blocks());
            state.sequence = sequence;
        }
        let part = range.start.max(self.pos)..range.end.min(self.end());
        state.known.insert(self.blocks_of(&part));
    }

    /// Adds the folio to the list of dirty folios, or removes it, after its blocks have changed.
    #[inline]
    fn list(self: &Arc<Self>, state: &State, list: &DirtyFolios) {
        match (state.dirty.is_empty(), self.listed.is_listed()) {
            (false, false) => list.add(self),
            (true, true) => list.remove(self),
            _ => {}
        }
    }

    /// Copies bytes from `pos` of the file on into `out`, as far as they are up to date.
    #[inline]
    pub(super) fn read(&self, pos: u64, out: &mut [u8]) -> Access {
        let state = self.state.read();
        let at = to_usize(pos - self.pos);
        let bytes = match &state.memory {
            Memory::Idle(buf) => &buf[..],
            Memory::Writing { frozen, .. } => &frozen[..],
            Memory::Filling { .. } => return Access::Busy,
            Memory::Gone => return Access::Gone,
        };
        let most = out.len().min(bytes.len() - at);
        let blocks = self.blocks_of(&(pos..pos + most as u64));
        let n = match state.uptodate.contains(blocks.clone()) {
            true => most,
            false => match self.uptodate_prefix(&state, &blocks, pos) {
                0 => return self.unreadable(state),
                n => n.min(most),
            },
        };
        out[..n].copy_from_slice(&bytes[at..at + n]);
        self.used.store(true, Relaxed);
        Access::Copied(n)
    }

    /// Returns the number of bytes from `pos` on that are up to date.
    fn uptodate_prefix(&self, state: &State, blocks: &Range<u32>, pos: u64) -> usize {
        let run = state.uptodate.run(blocks.start, true).filter(|run| run.start == blocks.start);
        run.map_or(0, |run| self.bytes_of(&run).end - to_usize(pos - self.pos))
    }

    #[cold]
    fn unreadable(&self, state: RwLockReadGuard<'_, State>) -> Access {
        if state.patching {
            return Access::Busy;
        }
        drop(state);
        self.state.write().failed.take().map_or(Access::Missing, Access::Failed)
    }

    /// Copies `range` of the file from `copy`, which fills a part of memory and returns the number of
    /// bytes. A block that is written in part must be up to date, unless it `is_new`: the rest of it
    /// is then zeroed. Calls `grow` with the end of what was copied, before the folio can be written
    /// to the device.
    pub(super) fn write(
        self: &Arc<Self>,
        list: &DirtyFolios,
        range: Range<u64>,
        Allowed { is_new, known }: Allowed,
        is_current: impl FnOnce() -> bool,
        copy: impl FnOnce(&mut [u8]) -> usize,
        grow: impl FnOnce(u64),
    ) -> Written {
        let none = |access| Written { access, new_dirty: 0 };
        let mut state = self.state.write();
        state.end_write();
        let State { memory, uptodate, dirty, patching, .. } = &mut *state;
        let buf = match memory {
            Memory::Idle(_) if !is_current() => return none(Access::Gone),
            Memory::Idle(buf) => buf,
            Memory::Gone => return none(Access::Gone),
            _ => return none(Access::Busy),
        };
        let blocks = self.blocks_of(&range);
        let whole = self.bytes_of(&blocks);
        let (start, end) = (to_usize(range.start - self.pos), to_usize(range.end - self.pos));
        let (first, last) = (blocks.start..blocks.start + 1, blocks.end - 1..blocks.end);
        let missing = (whole.start < start && !uptodate.contains(first.clone()))
            || (end < whole.end && !uptodate.contains(last));
        if missing && !is_new {
            return none(if *patching { Access::Busy } else { Access::Missing });
        }
        let copied = copy(&mut buf[start..end]);
        let until = start + copied;
        let torn = u32::try_from(until >> self.block_shift).unwrap_or(0);
        // A short copy leaves half of a block, which counts only if the rest is there.
        let done = match until < end && !uptodate.contains(torn..torn + 1) {
            true => (torn as usize) << self.block_shift,
            false => until,
        };
        let Some(n) = done.checked_sub(start).filter(|&n| n > 0) else {
            return none(Access::Fault);
        };
        let written = self.blocks_of(&(range.start..range.start + n as u64));
        if whole.start < start && !uptodate.contains(first) {
            buf[whole.start..start].fill(0);
        }
        let covered = self.bytes_of(&written);
        if done < covered.end && !uptodate.contains(written.end - 1..written.end) {
            buf[done..covered.end].fill(0);
        }
        uptodate.insert(written.clone());
        self.used.store(true, Relaxed);
        grow(range.start + n as u64);
        let new_dirty = dirty.insert(written);
        if let Some((range, sequence)) = known {
            self.know(&mut state, &range, sequence);
        }
        self.list(&state, list);
        Written { access: Access::Copied(n), new_dirty }
    }

    /// Returns the runs of dirty blocks that have bytes of `range` of the file.
    pub(super) fn dirty_runs(&self, range: &Range<u64>) -> Vec<Range<u32>> {
        let part = range.start.max(self.pos)..range.end.min(self.end());
        if part.is_empty() {
            return Vec::new();
        }
        let Range { start: mut from, end } = self.blocks_of(&part);
        let (state, mut runs) = (self.state.read(), Vec::new());
        while let Some(run) = state.dirty.run(from, true).filter(|run| run.start < end) {
            from = run.end;
            runs.push(run.start..run.end.min(end));
        }
        runs
    }

    /// Drops the content of the blocks that have bytes of `range` of the file. Returns the number of
    /// blocks that were dirty, or `None` if commands use the memory.
    pub(super) fn cut(self: &Arc<Self>, list: &DirtyFolios, range: &Range<u64>) -> Option<u32> {
        let mut state = self.state.write();
        state.end_write();
        let is_used = match state.memory {
            Memory::Idle(_) | Memory::Gone => state.patching,
            // The device has kept the memory if there is no command.
            Memory::Writing { commands, .. } => commands > 0,
            Memory::Filling { .. } => true,
        };
        if is_used {
            return None;
        }
        let blocks = self.blocks_of(&(range.start.max(self.pos)..range.end.min(self.end())));
        state.uptodate.remove(blocks.clone());
        let cut = state.dirty.remove(blocks);
        self.list(&state, list);
        Some(cut)
    }

    /// Takes the memory of a folio that is idle and clean.
    pub(super) fn evict(&self) -> Option<DmaBuf> {
        let mut state = self.state.try_write()?;
        state.end_write();
        if !state.dirty.is_empty() || state.patching || state.endings > 0 {
            return None;
        }
        match std::mem::replace(&mut state.memory, Memory::Gone) {
            Memory::Idle(buf) => Some(buf),
            other => {
                state.memory = other;
                None
            }
        }
    }

    /// Makes the blocks missing that have bytes of `range` of the file, also in memory that the device
    /// has kept: a reader of them gets an error, and no old data. Returns false if one is dirty, and
    /// `None` if the folio is in use.
    pub(super) fn discard(&self, range: &Range<u64>) -> Option<bool> {
        let blocks = self.blocks_of(&(range.start.max(self.pos)..range.end.min(self.end())));
        let mut state = self.state.write();
        state.end_write();
        let State { memory, uptodate, dirty, patching, endings, .. } = &mut *state;
        let is_in_use = !matches!(memory, Memory::Idle(_) | Memory::Writing { commands: 0, .. });
        if is_in_use || *patching || *endings > 0 {
            return None;
        }
        if dirty.run(blocks.start, true).is_some_and(|run| run.start < blocks.end) {
            return Some(false);
        }
        uptodate.remove(blocks);
        Some(true)
    }

    /// Returns true if the folio is part of the cache.
    pub(super) fn is_there(&self) -> bool {
        !matches!(self.state.read().memory, Memory::Gone)
    }

    /// Returns the way to the device of data of `range` of the file.
    pub(super) fn progress(&self, range: &Range<u64>) -> Progress {
        let blocks = self.blocks_of(range);
        let state = self.state.read();
        match state.dirty.run(blocks.start, true) {
            Some(run) if run.start < blocks.end => Progress::Dirty,
            _ if matches!(state.memory, Memory::Writing { .. }) => Progress::Writing,
            _ if state.endings > 0 => Progress::Writing,
            _ => Progress::Clean,
        }
    }

    /// Returns true if the device has kept the memory of a write that has ended.
    pub(super) fn is_lost(&self) -> bool {
        let mut state = self.state.write();
        state.end_write();
        matches!(state.memory, Memory::Writing { commands: 0, .. })
    }

    /// Returns true if commands use the memory.
    pub(super) fn is_busy(&self) -> bool {
        let mut state = self.state.write();
        state.end_write();
        state.patching || matches!(state.memory, Memory::Filling { .. } | Memory::Writing { .. })
    }
}
