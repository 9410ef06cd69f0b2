//! Writes of a folio to the device.

use std::ops::Range;
use std::sync::Arc;

use nvio_driver::FrozenBuf;

use super::{DirtyFolios, Folio, Memory, Piece, Place, State};
use crate::contract::bytes::to_usize;

impl Folio {
    /// Begins to write blocks to the device: returns a piece for each command. The bytes from `eof` of
    /// the file on are zeroed. Returns `None` if the folio is in use, `is_current` is false, or a block
    /// of `places` is not dirty any longer: its memory may be older than the device.
    pub(in super::super) fn begin_write(
        self: &Arc<Self>,
        list: &DirtyFolios,
        places: &[Place],
        eof: u64,
        most: impl Fn(u64) -> usize,
        is_current: impl FnOnce() -> bool,
    ) -> Option<(Vec<Piece<FrozenBuf>>, u32)> {
        let mut state = self.state.write();
        state.end_write();
        let State { memory, dirty, .. } = &mut *state;
        let are_dirty = places.iter().all(|place| dirty.contains(place.blocks.clone()));
        let mut buf = match std::mem::replace(memory, Memory::Gone) {
            Memory::Idle(buf) if is_current() && are_dirty => buf,
            other => {
                *memory = other;
                return None;
            }
        };
        if let Some(tail) = buf.get_mut(to_usize(eof.saturating_sub(self.pos))..) {
            tail.fill(0);
        }
        let frozen = buf.freeze();
        let (mut pieces, mut cleaned) = (Vec::new(), 0);
        for place in places {
            let mut blocks = place.blocks.clone();
            let Some(mut addr) = place.addr else { continue };
            cleaned += dirty.remove(blocks.clone());
            while !blocks.is_empty() {
                let room = u32::try_from(most(addr) >> self.block_shift).unwrap_or(u32::MAX).max(1);
                let end = blocks.end.min(blocks.start.saturating_add(room));
                let bytes = self.bytes_of(&(blocks.start..end));
                let Some(memory) = frozen.slice(bytes.clone()) else { break };
                let (blocks_of_piece, ending) = (blocks.start..end, place.ending);
                pieces.push(Piece { blocks: blocks_of_piece, addr, memory, ending });
                (addr, blocks.start) = (addr + bytes.len() as u64, end);
            }
        }
        let commands = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
        *memory = Memory::Writing { frozen, commands };
        state.end_write();
        self.list(&state, list);
        Some((pieces, cleaned))
    }

    /// Ends a command of a write. With `ending`, the filesystem has to know the end; see
    /// [`ended`](Self::ended). Blocks that it failed to write are dirty again: returns their number.
    pub(in super::super) fn written(
        self: &Arc<Self>,
        list: &DirtyFolios,
        blocks: Range<u32>,
        ending: bool,
        failed: bool,
    ) -> u32 {
        let mut state = self.state.write();
        state.endings += u32::from(ending);
        let again = if failed { state.dirty.insert(blocks) } else { 0 };
        if let Memory::Writing { commands, .. } = &mut state.memory {
            *commands = commands.saturating_sub(1);
        }
        state.end_write();
        self.list(&state, list);
        again
    }

    /// Notes that the filesystem knows the end of a write. Makes the blocks dirty if it `failed`:
    /// returns the number of those that were not.
    pub(in super::super) fn ended(
        self: &Arc<Self>,
        list: &DirtyFolios,
        blocks: Range<u32>,
        failed: bool,
    ) -> u32 {
        let mut state = self.state.write();
        state.endings = state.endings.saturating_sub(1);
        let again = if failed { state.dirty.insert(blocks) } else { 0 };
        self.list(&state, list);
        again
    }
}

impl State {
    /// Ends a write if its commands have all ended. Memory that the device may still read stays
    /// frozen.
    #[inline]
    pub(super) fn end_write(&mut self) {
        if matches!(self.memory, Memory::Writing { commands: 0, .. }) {
            self.thaw();
        }
    }

    #[cold]
    fn thaw(&mut self) {
        self.memory = match std::mem::replace(&mut self.memory, Memory::Gone) {
            Memory::Writing { frozen, commands: 0 } => match frozen.thaw() {
                Ok(buf) => Memory::Idle(buf),
                Err(frozen) => Memory::Writing { frozen, commands: 0 },
            },
            other => other,
        };
    }
}
