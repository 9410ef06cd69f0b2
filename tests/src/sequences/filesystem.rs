//! The filesystem of a run: one file, with mappings as unusual as the contract allows, and invalid
//! ones on request. It records the calls, and reports violations of the contract.

use std::sync::Mutex;

use nvio_iomap::{
    EndIo, Error, FileError, FileRef, Mapper, Mapping, MappingFlags, MappingKind, Op, OpenFile,
    Report,
};

use super::layout::{Block, Layout};
use super::strategy::Kind;
use super::strategy::Mischief;
use crate::simulator::lock;

/// The errors of the filesystem.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// `begin` failed.
    #[error("begin")]
    Begin,
    /// `begin` failed temporarily: the filesystem's own EAGAIN.
    #[error("again")]
    Again,
    /// `end` failed.
    #[error("end")]
    End,
    /// The submit hook failed.
    #[error("submit hook")]
    SubmitHook,
    /// The end hook failed.
    #[error("end hook")]
    EndHook,
    /// The write-back of cached data failed.
    #[error("write back")]
    WriteBack,
    /// An access past the end of the inline data.
    #[error("inline")]
    Inline,
    /// An error of the layer below.
    #[error(transparent)]
    Iomap(#[from] Error),
}

impl FileError for FsError {
    fn is_again(&self) -> bool {
        matches!(self, Self::Again) || matches!(self, Self::Iomap(error) if error.is_again())
    }

    fn is_busy(&self) -> bool {
        matches!(self, Self::Iomap(error) if error.is_busy())
    }

    fn is_fall_back(&self) -> bool {
        matches!(self, Self::Iomap(error) if error.is_fall_back())
    }
}

/// A mapping that `begin` returned.
#[derive(Clone, Copy, Debug)]
pub struct Visit {
    /// The mapping.
    pub mapping: Mapping,
    /// Requested position.
    pub pos: u64,
    /// Requested length.
    pub length: u64,
    /// Requested operation.
    pub op: Op,
    /// Bytes processed; `None` before its `end`.
    pub processed: Option<u64>,
}

/// The behaviour during the current request.
#[derive(Clone, Copy, Debug)]
pub struct Mood {
    /// The fault to inject.
    pub mischief: Mischief,
    /// Maximum number of blocks in a mapping after the position; 0 for no limit.
    pub trim: u8,
    /// Mappings begin at the position.
    pub late: bool,
}

/// The state of the file.
#[derive(Debug)]
pub struct State {
    /// Layout of the file.
    pub layout: Layout,
    /// Inline data of the file, if any.
    pub inline: Vec<u8>,
    /// Behaviour during the current request.
    pub mood: Mood,
    /// Mappings of the current request.
    pub visits: Vec<Visit>,
    /// Number of injected failures that decide the result of the current request.
    pub fired: u32,
    /// Number of calls of the submit hook for the current request.
    pub hooked: u32,
    /// The end hook fails.
    pub fail_end_hook: bool,
    /// The file has dirty cached data.
    pub dirty: bool,
    /// [`is_cached`](Self::is_cached) when the request was made.
    pub was_cached: bool,
    /// Calls of the end hook that were not checked yet.
    pub ended: Vec<EndIo>,
    /// Calls of the end hook that were attributed to requests that may have one.
    pub unsure: Vec<EndIo>,
    /// Number of reported failures of the device.
    pub reported: u64,
    /// The first violation.
    pub wrong: Option<String>,
}

impl State {
    /// Returns true if a read must ask for cached data first.
    pub fn is_cached(&self) -> bool {
        self.dirty || self.mood.mischief == Mischief::WriteBack
    }

    fn accuse(&mut self, wrong: String) {
        self.wrong.get_or_insert(wrong);
    }

    fn convert(&mut self, pos: u64, bytes: u64) {
        let block = self.layout.block;
        let end = (pos + bytes).div_ceil(block);
        for index in pos / block..end {
            let index = usize::try_from(index).unwrap_or(usize::MAX);
            if let Some(found) = self.layout.blocks.get_mut(index)
                && found.kind == Kind::Unwritten
            {
                found.kind = Kind::Mapped;
            }
        }
    }

    /// Returns the mapping at a position, without faults.
    fn map(&self, pos: u64) -> Mapping {
        let Layout { block, ref blocks, inline, .. } = self.layout;
        if inline && pos < block {
            let length = block;
            return Mapping { kind: MappingKind::Inline, ..Mapping::hole(0, length) };
        }
        let index = usize::try_from(pos / block).unwrap_or(usize::MAX);
        let Some(&first) = blocks.get(index) else {
            let end = self.layout.span();
            return Mapping::hole(end, (1 << 40) - end);
        };
        let continues = |before: &Block, next: &Block| {
            before.kind == next.kind
                && before.flags == next.flags
                && (!before.is_allocated() || before.addr + block == next.addr)
        };
        let mut start = index;
        while !self.mood.late && start > 0 && continues(&blocks[start - 1], &blocks[start]) {
            start -= 1;
        }
        let mut end = index + 1;
        let most = if self.mood.trim == 0 { usize::MAX } else { self.mood.trim.into() };
        while end < blocks.len() && end - index < most && continues(&blocks[end - 1], &blocks[end])
        {
            end += 1;
        }
        let kind = match first.kind {
            Kind::Mapped => MappingKind::Mapped,
            Kind::Unwritten => MappingKind::Unwritten,
            Kind::Hole => MappingKind::Hole,
            Kind::Delalloc => MappingKind::Delalloc,
        };
        Mapping {
            offset: start as u64 * block,
            length: (end - start) as u64 * block,
            addr: blocks[start].addr,
            kind,
            flags: first.flags,
        }
    }
}

/// The state shared with requests in flight.
#[derive(Debug)]
pub struct FsInode(pub Mutex<State>);

impl OpenFile for FsInode {
    type Error = FsError;

    fn write_back(&self, _pos: u64, _length: u64, nowait: bool) -> Result<(), FsError> {
        let mut state = lock(&self.0);
        if state.mood.mischief == Mischief::WriteBack {
            state.fired += 1;
            return Err(FsError::WriteBack);
        }
        if state.dirty && nowait {
            return Err(FsError::Again);
        }
        state.dirty = false;
        Ok(())
    }

    fn invalidate(&self, _pos: u64, _length: u64) -> bool {
        let mut state = lock(&self.0);
        state.dirty = false;
        state.mood.mischief != Mischief::Pinned
    }

    fn submit_io(&self, pos: u64, addr: u64, bytes: usize) -> Result<(), FsError> {
        let mut state = lock(&self.0);
        let block = state.layout.device_block;
        let expected = state.layout.lba(pos).map(|lba| lba * block);
        if expected != Some(addr - addr % block) || bytes == 0 {
            state.accuse(format!("hook: position {pos} is not at {addr}, for {bytes} bytes"));
        }
        state.hooked += 1;
        if state.mood.mischief == Mischief::Submit(u8::try_from(state.hooked - 1).unwrap_or(255)) {
            state.fired += 1;
            return Err(FsError::SubmitHook);
        }
        Ok(())
    }

    fn end_io(&self, end: &EndIo) -> Result<(), FsError> {
        let mut state = lock(&self.0);
        state.ended.push(*end);
        if end.failed {
            return Ok(());
        }
        if state.fail_end_hook {
            return Err(FsError::EndHook);
        }
        if end.write && end.unwritten {
            state.convert(end.pos, end.bytes);
        }
        Ok(())
    }

    fn report(&self, report: &Report<'_, FsError>) {
        let mut state = lock(&self.0);
        if report.error.is_again() || report.error.is_fall_back() {
            state.accuse(format!("reported: {}", report.error));
        }
        if matches!(report.error, FsError::Iomap(Error::Bio { .. } | Error::Flush { .. })) {
            state.reported += 1;
        }
    }
}

/// The open file.
pub struct Fs {
    inode: FileRef<FsInode>,
    size: u64,
    block: u32,
}

impl Fs {
    /// Creates a file with this layout.
    pub fn new(layout: Layout, inline: Vec<u8>) -> Self {
        let (size, block) = (layout.size, u32::try_from(layout.block).unwrap_or(4096));
        let mood = Mood { mischief: Mischief::None, trim: 0, late: false };
        let state = State {
            layout,
            inline,
            mood,
            visits: Vec::new(),
            fired: 0,
            hooked: 0,
            fail_end_hook: false,
            dirty: false,
            was_cached: false,
            ended: Vec::new(),
            unsure: Vec::new(),
            reported: 0,
            wrong: None,
        };
        Self { inode: FileRef::new(FsInode(Mutex::new(state))), size, block }
    }

    /// Calls `act` with the state of the file.
    pub fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut lock(&self.inode.state().0))
    }

    /// Returns the number of requests in flight.
    pub fn in_flight(&self) -> usize {
        self.inode.in_flight()
    }

    fn inline_range(&self, pos: u64, len: usize) -> Result<std::ops::Range<usize>, FsError> {
        let start = usize::try_from(pos).map_err(|_| FsError::Inline)?;
        let range = start..start + len;
        let fits = self.with(|state| range.end <= state.inline.len());
        if fits { Ok(range) } else { Err(FsError::Inline) }
    }
}

impl Mapper for Fs {
    type OpenFile = FsInode;

    fn open_file(&self) -> &FileRef<FsInode> {
        &self.inode
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn block_size(&self) -> u32 {
        self.block
    }

    fn is_plain(&self, _: &FsInode) -> bool {
        self.with(|state| !state.is_cached())
    }

    fn begin(&mut self, pos: u64, length: u64, op: Op) -> Result<Mapping, FsError> {
        let in_flight = self.in_flight();
        self.with(|state| {
            let open = state.visits.last().is_some_and(|visit| visit.processed.is_none());
            if open || in_flight == 0 || length == 0 || !op.contains(Op::DIRECT) {
                let wrong = format!("begin of {pos}, {length}, {op:?}: {open}, {in_flight}");
                state.accuse(wrong);
            }
            if state.dirty && !op.contains(Op::WRITE) {
                state.accuse("mapped for a read before the write-back of cached data".into());
            }
            let nth = u8::try_from(state.visits.len()).unwrap_or(u8::MAX);
            let mut mapping = state.map(pos);
            match state.mood.mischief {
                Mischief::Begin(at, again) if at == nth => {
                    state.fired += 1;
                    return Err(if again { FsError::Again } else { FsError::Begin });
                }
                Mischief::Bad(at, how) if at == nth => {
                    state.fired += 1;
                    match how {
                        0 => mapping.length = 0,
                        1 => mapping.offset = pos + 1,
                        2 => (mapping.offset, mapping.length) = (pos - pos.min(7), pos.min(7)),
                        _ => mapping.flags |= MappingFlags::STALE,
                    }
                }
                _ => {}
            }
            state.visits.push(Visit { mapping, pos, length, op, processed: None });
            Ok(mapping)
        })
    }

    fn end(
        &mut self,
        mapping: &Mapping,
        pos: u64,
        length: u64,
        processed: u64,
        op: Op,
    ) -> Result<(), FsError> {
        self.with(|state| {
            let nth = u8::try_from(state.visits.len()).unwrap_or(u8::MAX).wrapping_sub(1);
            let expected = state.visits.last_mut().filter(|visit| {
                visit.processed.is_none()
                    && (visit.mapping, visit.pos, visit.length, visit.op)
                        == (*mapping, pos, length, op)
                    && processed <= length.min(mapping.end().saturating_sub(pos))
            });
            match expected {
                Some(visit) => visit.processed = Some(processed),
                None => state.accuse(format!("end of {mapping:?}, {pos}, {length}, {processed}")),
            }
            if state.mood.mischief == Mischief::End(nth) {
                // This failure decides the result only if no byte was processed.
                state.fired += u32::from(processed == 0);
                return Err(FsError::End);
            }
            Ok(())
        })
    }

    fn read_inline(&mut self, _: &Mapping, pos: u64, out: &mut [u8]) -> Result<(), FsError> {
        let range = self.inline_range(pos, out.len())?;
        self.with(|state| out.copy_from_slice(&state.inline[range]));
        Ok(())
    }

    fn write_inline(&mut self, _: &Mapping, pos: u64, data: &[u8]) -> Result<(), FsError> {
        let range = self.inline_range(pos, data.len())?;
        self.with(|state| state.inline[range].copy_from_slice(data));
        Ok(())
    }
}
