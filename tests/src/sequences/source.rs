//! The possible results of a read, derived from its mappings and from the possible contents of
//! blocks.

use nvio_iomap::MappingKind;

use super::filesystem::{State, Visit};
use super::request::Request;
use crate::simulator::content::{self, POISON};
use crate::simulator::model::{Model, Moment};
use crate::simulator::{Checked, Wrong, ensure};

/// The origin of bytes in a read.
#[derive(Clone, Debug)]
enum From {
    Zeroes,
    /// Byte address on the device.
    Device(u64),
    Inline(Vec<u8>),
}

/// The origin of all bytes of a read, in order.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Offset in the request, length, and origin.
    parts: Vec<(u64, u64, From)>,
    block: u64,
}

/// The progress of a read.
#[derive(Clone, Copy, Debug)]
pub enum Came {
    /// This number of bytes must be right.
    To(u64),
    /// Bytes that were written to the memory must be right, but any part may be missing.
    Failed,
}

impl Sources {
    /// Derives the sources from the mappings of the request.
    pub fn new(request: &Request, state: &State) -> Self {
        let mut parts = Vec::new();
        for visit in &state.visits {
            let Visit { mapping, pos, .. } = *visit;
            let end = mapping.end().min(request.end());
            let next = parts.last().map_or(0, |&(at, n, _)| at + n);
            let at = pos - request.pos;
            // A range that was mapped again was mapped to the same place.
            if at != next || pos >= end || mapping.offset > pos {
                continue;
            }
            let from = match mapping.kind {
                MappingKind::Mapped => From::Device(mapping.addr + (pos - mapping.offset)),
                MappingKind::Inline => {
                    let small = |pos: u64| usize::try_from(pos).unwrap_or(usize::MAX);
                    From::Inline(state.inline[small(pos)..small(end)].to_vec())
                }
                _ => From::Zeroes,
            };
            parts.push((at, end - pos, from));
        }
        Self { parts, block: state.layout.device_block }
    }

    /// Checks the memory of a read.
    pub fn check(
        &self,
        request: &Request,
        bytes: &[u8],
        came: Came,
        model: &mut Model,
        begun: Moment,
    ) -> Checked {
        let upto = match came {
            Came::To(bytes) => bytes,
            Came::Failed => request.count.min(request.faults_at().unwrap_or(u64::MAX)),
        };
        let mut checked = 0;
        for (start, n, from) in &self.parts {
            let end = (start + n).min(upto);
            let mut at = *start;
            while at < end {
                // Compare by blocks of the device, after the rest of the first block.
                let pos = request.pos + at;
                let next = ((pos / self.block + 1) * self.block - request.pos).min(end);
                let portion = slice(bytes, at, next);
                let untouched = portion.iter().all(|&byte| byte == POISON);
                if !(matches!(came, Came::Failed) && untouched) {
                    let settled = matches!(came, Came::To(_));
                    self.portion(from, (at - start, pos), portion, model, (begun, settled))?;
                }
                at = next;
            }
            checked = end.max(checked);
        }
        if matches!(came, Came::To(_)) {
            ensure!(checked >= upto, "{upto} bytes, of which {checked} were mapped");
        }
        self.check_rest(request, bytes, upto)
    }

    /// Checks the memory after the data. In DMA memory, the rest of the block may be zeroed.
    fn check_rest(&self, request: &Request, bytes: &[u8], upto: u64) -> Checked {
        let all = bytes.len() as u64;
        let to = match request.is_bounced() {
            true => upto,
            false => upto.next_multiple_of(self.block).min(all),
        };
        let block = slice(bytes, upto, to);
        let clean = block.iter().all(|&byte| byte == 0) || block.iter().all(|&byte| byte == POISON);
        ensure!(clean, "behind byte {upto} something shows: {:x?}", head(block));
        let rest = slice(bytes, to, all);
        let clean = rest.iter().all(|&byte| byte == POISON);
        ensure!(clean, "memory after byte {to} was overwritten: {:x?}", head(rest));
        Ok(())
    }

    fn portion(
        &self,
        from: &From,
        (at, pos): (u64, u64),
        portion: &[u8],
        model: &mut Model,
        (begun, settled): (Moment, bool),
    ) -> Checked {
        let wrong = |expected: &str| {
            Wrong(format!("position {pos} reads {:x?}, not {expected}", head(portion)))
        };
        match from {
            From::Zeroes => {
                portion.iter().all(|&byte| byte == 0).then_some(()).ok_or_else(|| wrong("zeroes"))
            }
            From::Inline(data) => {
                let same = slice(data, at, at + portion.len() as u64) == portion;
                same.then_some(()).ok_or_else(|| wrong("the inline data"))
            }
            From::Device(addr) => {
                let addr = addr + at;
                let lba = addr / self.block;
                let whole = portion.len() as u64 == self.block;
                let place = content::place(1, lba);
                let candidates = model.candidates(0, lba, begun);
                let found = match whole {
                    true => {
                        content::identify(portion, place).filter(|value| candidates.contains(value))
                    }
                    false => {
                        let from = usize::try_from(addr % self.block).unwrap_or(0);
                        let mut block = vec![0; usize::try_from(self.block).unwrap_or(512)];
                        candidates.iter().copied().find(|&value| {
                            content::fill(&mut block, value, place);
                            block[from..from + portion.len()] == *portion
                        })
                    }
                };
                let Some(value) = found else {
                    let holds = content::identify(portion, place);
                    return Err(wrong(&format!(
                        "what writes {candidates:?} put into block {lba}; a write: {holds:?}"
                    )));
                };
                if settled && whole {
                    let read = model.read_ends(0, lba, value, begun);
                    return read.map_err(|error| wrong(&format!("{error:?}")));
                }
                Ok(())
            }
        }
    }
}

fn slice(bytes: &[u8], from: u64, to: u64) -> &[u8] {
    let small = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    bytes.get(small(from)..small(to)).unwrap_or(&[])
}

fn head(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(16)]
}
