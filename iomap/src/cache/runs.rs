//! Runs: pieces of one or more folios that one command writes.

use nvio_driver::FrozenBuf;

use super::folio::{Ending, Piece};
use super::ticket::Target;
use crate::contract::mapper::PAGE;

/// Memory that continues on the device from byte `addr` on.
#[derive(Default)]
pub(super) struct Run {
    pub(super) addr: u64,
    bytes: usize,
    pub(super) parts: Vec<(Target, Option<Ending>)>,
    pub(super) memory: Vec<FrozenBuf>,
}

impl Run {
    /// Adds a piece, or returns it if it does not continue the run, or if the command would have more
    /// than `most` bytes.
    pub(super) fn add(
        &mut self,
        target: &Target,
        piece: Piece<FrozenBuf>,
        most: usize,
    ) -> Result<(), Piece<FrozenBuf>> {
        if self.parts.is_empty() {
            self.addr = piece.addr;
        }
        let continues = self.addr + self.bytes as u64 == piece.addr
            && self.bytes + piece.memory.len() <= most
            && self.memory.last().is_none_or(|last| is_page_end(last, &piece.memory));
        if !continues && !self.parts.is_empty() {
            return Err(piece);
        }
        let Piece { blocks, memory, ending, .. } = piece;
        self.bytes += memory.len();
        self.parts.push((Target { blocks, ..target.clone() }, ending));
        self.memory.push(memory);
        Ok(())
    }
}

/// Returns true if one command can transfer `last` and then `next`: they meet at ends of pages.
fn is_page_end(last: &FrozenBuf, next: &FrozenBuf) -> bool {
    let page = u64::from(PAGE);
    (last.iova() + last.len() as u64).is_multiple_of(page) && next.iova().is_multiple_of(page)
}
