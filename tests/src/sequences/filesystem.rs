//! The filesystem of a run: one file, whose mappings are as odd as the contract allows, and at
//! times odder. It notes what it is asked, and accuses who breaks the contract.

use std::sync::Mutex;

use nvio_iomap::{
    EndIo, Error, FileError, FileRef, Mapper, Mapping, MappingFlags, MappingKind, Op, OpenFile,
    Report,
};

use super::layout::{Block, Kind, Layout};
use super::strategy::Mischief;
use crate::simulation::lock;

/// What fails.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// A mapping cannot be had.
    #[error("begin")]
    Begin,
    /// A mapping cannot be had for now: the filesystem's own "again".
    #[error("again")]
    Again,
    /// The end of a mapping.
    #[error("end")]
    End,
    /// The hook of a command.
    #[error("submit hook")]
    SubmitHook,
    /// The hook of the end.
    #[error("end hook")]
    EndHook,
    /// Writing back.
    #[error("write back")]
    WriteBack,
    /// Inline data is not that long.
    #[error("inline")]
    Inline,
    /// The layer below.
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

/// A mapping that was given.
#[derive(Clone, Copy, Debug)]
pub struct Visit {
    /// The mapping.
    pub mapping: Mapping,
    /// What it was asked for.
    pub pos: u64,
    /// How long.
    pub length: u64,
    /// What for.
    pub op: Op,
    /// Bytes that were processed; `None` until its end.
    pub processed: Option<u64>,
}

/// How to behave towards the request at hand.
#[derive(Clone, Copy, Debug)]
pub struct Mood {
    /// What goes wrong.
    pub mischief: Mischief,
    /// Blocks of a mapping from the position on, 0 for all.
    pub trim: u8,
    /// Whether mappings begin at the position.
    pub late: bool,
}

/// What is known of a file.
#[derive(Debug)]
pub struct State {
    /// Where its blocks are.
    pub layout: Layout,
    /// Its data, if it is inline.
    pub inline: Vec<u8>,
    /// How to behave.
    pub mood: Mood,
    /// Mappings given for the request at hand.
    pub visits: Vec<Visit>,
    /// Calls of the request at hand that failed on purpose, which is its error.
    pub fired: u32,
    /// Commands that the hook has seen of the request at hand.
    pub hooked: u32,
    /// Whether the hook of the end fails.
    pub fail_end_hook: bool,
    /// Whether there is dirty cached data.
    pub dirty: bool,
    /// Ends of requests with hooks that nobody has asked about yet.
    pub ended: Vec<EndIo>,
    /// Ends that were taken for those of requests that need not have any.
    pub unsure: Vec<EndIo>,
    /// Failures of the device that were reported.
    pub reported: u64,
    /// The first thing that was wrong.
    pub wrong: Option<String>,
}

impl State {
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

    /// The mapping of a position, as it is.
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

/// What is shared with requests in flight.
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
    /// A file that is laid out like that.
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
            ended: Vec::new(),
            unsure: Vec::new(),
            reported: 0,
            wrong: None,
        };
        Self { inode: FileRef::new(FsInode(Mutex::new(state))), size, block }
    }

    /// Looks at what is known of the file, or changes it.
    pub fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut lock(&self.inode.state().0))
    }

    /// Requests in flight.
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

    fn begin(&mut self, pos: u64, length: u64, op: Op) -> Result<Mapping, FsError> {
        let in_flight = self.in_flight();
        self.with(|state| {
            let open = state.visits.last().is_some_and(|visit| visit.processed.is_none());
            if open || in_flight == 0 || length == 0 || !op.contains(Op::DIRECT) {
                let wrong = format!("begin of {pos}, {length}, {op:?}: {open}, {in_flight}");
                state.accuse(wrong);
            }
            if state.dirty && !op.contains(Op::WRITE) {
                state.accuse("mapped to be read before it was written back".into());
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
                // It counts only where nothing was done.
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
