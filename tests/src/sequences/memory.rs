//! The memory of a request: its creation, and the checks after its return.

use std::sync::{Arc, Mutex};

use nvio_driver::{Controller, DmaBuf};
use nvio_iomap::{Memory, Sink, Source};

use super::strategy::Shape;
use super::watch::Seen;
use crate::simulator::buffers::span;
use crate::simulator::content::POISON;
use crate::simulator::lend::{Lent, Span, Table};
use crate::simulator::{Checked, Wrong, ensure, lock};

/// The initial state of a request's memory, for comparison after its return.
#[derive(Debug, Default)]
pub struct Lease {
    /// Addresses and lengths of its buffers. Ordinary memory is one buffer at address 0.
    spans: Vec<Span>,
    /// Guards before and after the buffers in the same pages.
    guards: Vec<DmaBuf>,
}

impl Lease {
    /// Describes ordinary memory.
    pub fn of_bytes(len: usize) -> Self {
        Self { spans: vec![Span { iova: 0, len: len as u64 }], guards: Vec::new() }
    }
}

/// Creates memory and checks it after its return.
pub struct Workshop {
    /// The table of lent memory.
    pub table: Arc<Mutex<Table>>,
    /// The record of the test's buffers.
    pub seen: Arc<Mutex<Seen>>,
}

impl Workshop {
    /// Creates memory of `len` bytes; `None` if the arena is full.
    pub fn make(
        &self,
        controller: &Controller,
        shape: &Shape,
        len: usize,
        block: usize,
    ) -> Option<(Memory, Lease)> {
        let mut lease = Lease::default();
        let lengths = match shape {
            Shape::Bytes => {
                lease.spans.push(Span { iova: 0, len: len as u64 });
                return Some((Memory::Bytes(vec![POISON; len]), lease));
            }
            Shape::Dma(pad) => vec![(usize::from(*pad), len)],
            Shape::Vectored(cuts, pad) => {
                let mut left = len;
                let mut lengths: Vec<(usize, usize)> = Vec::new();
                for cut in cuts {
                    let now = left.min(usize::from(*cut) * block);
                    lengths.push((0, now));
                    left -= now;
                }
                lengths.push((0, left));
                lengths[0].0 = usize::from(*pad);
                lengths
            }
            Shape::Odd => {
                let first = len.min(block / 2 + 4);
                vec![(0, first), (0, len - first)]
            }
        };
        let mut bufs = Vec::new();
        for (pad, len) in lengths {
            match controller.alloc(pad + len + 4) {
                Ok(mut rest) => {
                    let before = rest.split_to(pad)?;
                    let data = rest.split_to(len)?;
                    for mut guard in [before, rest] {
                        guard.fill(POISON);
                        if !guard.is_empty() {
                            self.own(&guard);
                            lease.guards.push(guard);
                        }
                    }
                    bufs.push(data);
                }
                Err(_) => {
                    lease.guards.drain(..).for_each(|guard| self.disown(guard));
                    return None;
                }
            }
        }
        for buf in &mut bufs {
            buf.fill(POISON);
            if !buf.is_empty() {
                self.own(buf);
            }
            lease.spans.push(span(buf));
        }
        let memory = match (shape, bufs.pop()) {
            (Shape::Dma(_), Some(buf)) => Memory::Dma(buf),
            (_, last) => {
                bufs.extend(last);
                Memory::Vectored(bufs)
            }
        };
        Some((memory, lease))
    }

    fn own(&self, buf: &DmaBuf) {
        lock(&self.table).set(span(buf), Lent::Held);
        lock(&self.seen).user.push(span(buf));
    }

    fn disown(&self, buf: DmaBuf) {
        if buf.is_empty() {
            return;
        }
        let at = span(&buf);
        lock(&self.table).forget_within(at);
        lock(&self.seen).user.retain(|own| *own != at);
        drop(buf);
    }

    /// Checks that the returned memory is the same, and returns its contents.
    pub fn take_back(&self, memory: Memory, mut lease: Lease) -> Checked<Vec<u8>> {
        let bytes = contents(&memory);
        let (spans, bufs) = match memory {
            Memory::Dma(buf) => (vec![span(&buf)], vec![buf]),
            Memory::Vectored(bufs) => (bufs.iter().map(span).collect(), bufs),
            Memory::Bytes(bytes) => (vec![Span { iova: 0, len: bytes.len() as u64 }], vec![]),
            other => return Err(Wrong(format!("memory of another kind: {other:?}"))),
        };
        let went = &lease.spans;
        ensure!(spans == *went, "memory {went:x?} was returned as {spans:x?}");
        bufs.into_iter().for_each(|buf| self.disown(buf));
        for guard in lease.guards.drain(..) {
            let clean = guard.iter().all(|&byte| byte == POISON);
            ensure!(clean, "bytes next to the memory were overwritten: {went:x?}");
            self.disown(guard);
        }
        Ok(bytes)
    }
}

/// Copies data into memory.
pub fn fill(memory: &mut Memory, data: &[u8]) {
    match memory {
        Memory::Dma(buf) => buf.copy_from_slice(data),
        Memory::Bytes(bytes) => bytes.copy_from_slice(data),
        Memory::Vectored(bufs) => {
            let mut rest = data;
            for buf in bufs {
                let (now, later) = rest.split_at(buf.len());
                buf.copy_from_slice(now);
                rest = later;
            }
        }
        _ => {}
    }
}

fn contents(memory: &Memory) -> Vec<u8> {
    match memory {
        Memory::Dma(buf) => buf.to_vec(),
        Memory::Bytes(bytes) => bytes.clone(),
        Memory::Vectored(bufs) => bufs.iter().flat_map(|buf| buf.iter().copied()).collect(),
        _ => Vec::new(),
    }
}

/// Memory for a cursor that is inaccessible from some byte on.
#[derive(Debug)]
pub struct Frail {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// First inaccessible byte.
    pub fault: usize,
    /// The memory is accessible if page faults are allowed.
    pub soft: bool,
    /// The `nofault` flag of the last access.
    pub nofault: Option<bool>,
    /// The flag was not the same in all accesses.
    pub mixed: bool,
}

impl Frail {
    fn reach(&mut self, nofault: bool) -> usize {
        self.mixed |= self.nofault.is_some_and(|before| before != nofault);
        self.nofault = Some(nofault);
        if self.soft && !nofault { self.bytes.len() } else { self.fault.min(self.bytes.len()) }
    }
}

impl Source for &mut Frail {
    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn copy_out(&mut self, at: usize, out: &mut [u8], nofault: bool) -> usize {
        let end = self.reach(nofault);
        let data = self.bytes.get(at..end).unwrap_or(&[]);
        let n = data.len().min(out.len());
        out[..n].copy_from_slice(&data[..n]);
        n
    }
}

impl Sink for &mut Frail {
    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn copy_in(&mut self, at: usize, data: &[u8], nofault: bool) -> usize {
        let end = self.reach(nofault);
        let out = self.bytes.get_mut(at..end).unwrap_or(&mut []);
        let n = out.len().min(data.len());
        out[..n].copy_from_slice(&data[..n]);
        n
    }
}
