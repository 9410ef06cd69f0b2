//! The test's DMA buffers, and the table of them that the controller's accesses are checked by.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use nvio_driver::{Controller, DmaBuf};

use super::lend::{Lent, Span, Table};
use super::lock;

/// Buffers that came back and are kept for a while: nobody is to write to them.
const KEPT: usize = 24;

/// Where a buffer is.
pub fn span(buf: &DmaBuf) -> Span {
    Span { iova: buf.iova(), len: buf.len() as u64 }
}

/// Memory for one transfer: its pieces, and what is held beside them.
#[derive(Debug, Default)]
pub struct Pieces {
    /// What is transferred.
    pub data: Vec<DmaBuf>,
    /// What lies before and after it, in the same pages.
    pub guards: Vec<DmaBuf>,
}

/// All buffers that the test holds outside of requests.
pub struct Buffers {
    table: Arc<Mutex<Table>>,
    kept: VecDeque<DmaBuf>,
}

impl Buffers {
    /// None yet.
    pub fn new(table: &Arc<Mutex<Table>>) -> Self {
        Self { table: Arc::clone(table), kept: VecDeque::new() }
    }

    /// Pieces of these lengths, each so many bytes after the start of a page, followed by a few
    /// bytes; `None` when the arena is full.
    pub fn take(&mut self, controller: &Controller, pieces: &[(usize, usize)]) -> Option<Pieces> {
        let mut taken = Pieces::default();
        for &(pad, len) in pieces {
            // A guard of its own behind what does not end with a page.
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

    /// Notes whose a buffer is.
    pub fn mark(&self, buf: &DmaBuf, lent: Lent) {
        lock(&self.table).set(span(buf), lent);
    }

    /// Takes a buffer back: it is the test's from now on.
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

    /// A buffer is gone.
    pub fn forget(&self, span: Span) {
        lock(&self.table).forget(span);
    }

    /// Gives a buffer back to the arena.
    pub fn drop(&self, buf: DmaBuf) {
        lock(&self.table).forget(span(&buf));
        drop(buf);
    }

    /// Gives back everything that is kept.
    pub fn clear(&mut self) {
        while let Some(buf) = self.kept.pop_front() {
            self.drop(buf);
        }
    }
}
