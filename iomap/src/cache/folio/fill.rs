//! Reads of the device into a folio.

use std::ops::Range;

use nvio_driver::{DmaBuf, SplitBuffer};

use super::{Folio, Memory, Piece, Place, State};
use crate::error::BioError;

impl Folio {
    /// Begins to fill a folio that has no content: returns a piece for each command, at most
    /// `most(addr)` bytes long. Zeroes the blocks that have no address. Returns `None` if the folio
    /// is in use or has content, or `is_current` is false.
    pub(in super::super) fn begin_fill(
        &self,
        places: &[Place],
        most: impl Fn(u64) -> usize,
        is_current: impl FnOnce() -> bool,
    ) -> Option<Vec<Piece<DmaBuf>>> {
        let mut state = self.state.write();
        state.end_write();
        let State { memory, uptodate, patching, .. } = &mut *state;
        if !uptodate.is_empty() || *patching {
            return None;
        }
        let buf = match std::mem::replace(memory, Memory::Gone) {
            Memory::Idle(buf) if is_current() => buf,
            other => {
                *memory = other;
                return None;
            }
        };
        let mut buffer = SplitBuffer::new(buf);
        let mut pieces = Vec::new();
        for place in places {
            let mut blocks = place.blocks.clone();
            let Some(mut addr) = place.addr else {
                let bytes = self.bytes_of(&blocks).len();
                if let Some(mut piece) = buffer.cut(bytes) {
                    piece.fill(0);
                    uptodate.insert(blocks);
                    // A piece of this buffer.
                    let _ = buffer.put(piece);
                }
                continue;
            };
            while !blocks.is_empty() {
                let room = u32::try_from(most(addr) >> self.block_shift).unwrap_or(u32::MAX).max(1);
                let end = blocks.end.min(blocks.start.saturating_add(room));
                let part = blocks.start..end;
                let bytes = self.bytes_of(&part).len();
                let Some(memory) = buffer.cut(bytes) else { break };
                pieces.push(Piece { blocks: part, addr, memory, ending: None });
                (addr, blocks.start) = (addr + bytes as u64, end);
            }
        }
        let commands = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
        *memory = Memory::Filling { buffer, commands };
        if commands == 0 {
            state.end_fill();
        }
        Some(pieces)
    }

    /// Ends a command of a fill. Returns false if the folio lost its memory.
    pub(in super::super) fn filled(
        &self,
        blocks: Range<u32>,
        piece: DmaBuf,
        result: Result<(), BioError>,
    ) -> bool {
        let mut state = self.state.write();
        let State { memory, uptodate, failed, .. } = &mut *state;
        let Memory::Filling { buffer, commands } = memory else { return true };
        let whole = piece.len() == self.bytes_of(&blocks).len();
        let put = buffer.put(piece);
        match result {
            Ok(()) if whole && put.is_ok() => _ = uptodate.insert(blocks),
            Ok(()) => *failed = Some(BioError::Unprotected),
            Err(error) => *failed = Some(error),
        }
        *commands = commands.saturating_sub(1);
        *commands > 0 || state.end_fill()
    }

    /// Begins to read the first missing blocks into other memory. Returns the blocks, or `None` if
    /// the folio is in use or complete.
    pub(in super::super) fn begin_patch(&self, from: u64) -> Option<Range<u32>> {
        let mut state = self.state.write();
        state.end_write();
        if !matches!(state.memory, Memory::Idle(_)) || state.patching {
            return None;
        }
        let first = self.blocks_of(&(from..from + 1)).start;
        let run = state.uptodate.run(first, false)?;
        state.patching = true;
        Some(run)
    }

    /// Ends a patch: copies the blocks that were not written meanwhile.
    pub(in super::super) fn patched(&self, blocks: Range<u32>, data: Result<&[u8], BioError>) {
        let mut state = self.state.write();
        let State { memory, uptodate, patching, failed, .. } = &mut *state;
        *patching = false;
        let (Memory::Idle(buf), Ok(data)) = (memory, data) else {
            *failed = data.err().or(*failed);
            return;
        };
        let start = self.bytes_of(&blocks).start;
        let mut at = blocks.start;
        while let Some(run) = uptodate.run(at, false).filter(|run| run.start < blocks.end) {
            let run = run.start..run.end.min(blocks.end);
            let bytes = self.bytes_of(&run);
            let Some(data) = data.get(bytes.start - start..bytes.end - start) else { break };
            buf[bytes].copy_from_slice(data);
            uptodate.insert(run.clone());
            at = run.end;
        }
    }
}

impl State {
    /// Ends a fill, whose commands have all ended. Returns false if memory is missing.
    fn end_fill(&mut self) -> bool {
        if let Memory::Filling { buffer, .. } = std::mem::replace(&mut self.memory, Memory::Gone)
            && let Ok(buf) = buffer.finish()
        {
            self.memory = Memory::Idle(buf);
        }
        !matches!(self.memory, Memory::Gone)
    }
}
