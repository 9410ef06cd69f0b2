//! The test's DMA buffers, and their entries in the table that checks the controller's accesses.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use nvio_driver::{Controller, DmaBuf};

use super::lend::{Lent, Span, Table};
use super::lock;

/// Number of returned buffers that are kept for a while, to detect late writes to them.
const KEPT: usize = 24;

/// Returns the address range of a buffer.
pub fn span(buf: &DmaBuf) -> Span {
    Span { iova: buf.iova(), len: buf.len() as u64 }
}

/// The memory of one transfer.
#[derive(Debug, Default)]
pub struct Pieces {
    /// The pieces of the data.
    pub data: Vec<DmaBuf>,
    /// Guards: the memory before and after each piece in the same pages.
    pub guards: Vec<DmaBuf>,
}

/// All buffers that the test holds outside of requests.
pub struct Buffers {
    table: Arc<Mutex<Table>>,
    kept: VecDeque<DmaBuf>,
}

impl Buffers {
    /// Creates an empty set.
    pub fn new(table: &Arc<Mutex<Table>>) -> Self {
        Self { table: Arc::clone(table), kept: VecDeque::new() }
    }

    /// Allocates pieces with these offsets in their first page and these lengths, each followed by
    /// a few guard bytes. Returns `None` if the arena is full.
    pub fn take(&mut self, controller: &Controller, pieces: &[(usize, usize)]) -> Option<Pieces> {
        let mut taken = Pieces::default();
        for &(pad, len) in pieces {
            // A piece that does not end with a page has a guard after it.
            let tail = if (pad + len).is_multiple_of(4096) { 0 } else { 4 };
            let Ok(mut rest) = controller.alloc(pad + len + tail) else {
                taken.data.drain(..).for_each(|buf| self.drop(buf));
                taken.guards.drain(..).for_each(|buf| self.drop(buf));
                return None;
            };
            let before = rest.split_to(pad)?;
            let data = rest.split_to(len)?;
            for guard in [before, rest].into_iter().filter(|guard| !guard.is_empty()) {
                self.mark(&guard, Lent::Held);
                taken.guards.push(guard);
            }
            self.mark(&data, Lent::Held);
            taken.data.push(data);
        }
        Some(taken)
    }

    /// Records the use of a buffer.
    pub fn mark(&self, buf: &DmaBuf, lent: Lent) {
        lock(&self.table).set(span(buf), lent);
    }

    /// Keeps a returned buffer, which the controller must no longer access.
    pub fn keep(&mut self, buf: DmaBuf) {
        if buf.is_empty() {
            return;
        }
        self.mark(&buf, Lent::Held);
        self.kept.push_back(buf);
        if self.kept.len() > KEPT
            && let Some(oldest) = self.kept.pop_front()
        {
            self.drop(oldest);
        }
    }

    /// Removes a buffer from the table.
    pub fn forget(&self, span: Span) {
        lock(&self.table).forget(span);
    }

    /// Returns a buffer to the arena.
    pub fn drop(&self, buf: DmaBuf) {
        lock(&self.table).forget(span(&buf));
        drop(buf);
    }

    /// Returns all kept buffers to the arena.
    pub fn clear(&mut self) {
        while let Some(buf) = self.kept.pop_front() {
            self.drop(buf);
        }
    }
}
