//! The effect of a write on the device: the blocks that it may change, and their possible values.

use std::ops::Range;

use nvio_iomap::{IoFlags, MappingFlags, MappingKind};

use super::filesystem::Visit;
use super::layout::Layout;
use super::request::Request;
use super::watch::Command;
use crate::simulator::model::{Ending, Model, Moment};

/// Bit of a write's token that marks zeroes in place of its data.
const INSTEAD: u64 = 1 << 62;

/// The possible contents of a block after a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// The data of the request.
    Data,
    /// Zeroes next to the data.
    Pad,
    /// Zeroes in place of data that was not written.
    Instead,
}

/// A block of the device that a write may change.
#[derive(Clone, Copy, Debug)]
struct Touched {
    lba: u64,
    /// Position in the file.
    pos: u64,
    what: What,
    /// The block was unwritten before, so the space around the data is zeroed.
    fresh: bool,
}

/// All blocks that a write may change.
#[derive(Debug, Default)]
pub struct Effect {
    touched: Vec<Touched>,
    block: u64,
    fs_block: u64,
    size: u64,
    begun: Moment,
    token: u64,
}

impl Effect {
    /// Derives the effect from the mappings of the request.
    pub fn new(request: &Request, layout: &Layout, visits: &[Visit], token: u64) -> Self {
        let (block, fs_block, size) = (layout.device_block, layout.block, layout.size);
        let mut touched = Vec::new();
        let mut behind = false;
        for visit in visits {
            let mapping = &visit.mapping;
            // If a mapping was not used completely, a fault follows, and later mappings are not
            // used.
            if behind {
                break;
            }
            let here = mapping.end().min(request.end()).saturating_sub(visit.pos);
            behind = visit.processed.is_some_and(|processed| (1..here).contains(&processed));
            if !matches!(mapping.kind, MappingKind::Mapped | MappingKind::Unwritten)
                || mapping.flags.contains(MappingFlags::STALE)
                || mapping.offset > visit.pos
            {
                continue;
            }
            let start = visit.pos;
            let end = mapping.end().min(request.end());
            let unwritten = mapping.kind == MappingKind::Unwritten;
            let fresh = unwritten || mapping.flags.contains(MappingFlags::NEW);
            let mut add = |range: Range<u64>, what| {
                for pos in range.step_by(usize::try_from(block).unwrap_or(512)) {
                    let lba = (mapping.addr + (pos - mapping.offset)) / block;
                    touched.push(Touched { lba, pos, what, fresh });
                }
            };
            if start >= end || !(start | end).is_multiple_of(block) {
                continue;
            }
            add(start..end, What::Data);
            let tail = end.next_multiple_of(fs_block);
            if fresh {
                add(start - start % fs_block..start, What::Pad);
                add(start..end, What::Instead);
            } else {
                add(start.max(size.next_multiple_of(block)).min(end)..end, What::Instead);
            }
            if fresh || end >= size {
                add(end..tail, What::Pad);
            }
        }
        Self { touched, block, fs_block, size, begun: 0, token }
    }

    /// Returns true if the write cannot change any block.
    pub fn is_empty(&self) -> bool {
        self.touched.is_empty()
    }

    /// Returns true if the command writes only blocks that the request may change.
    pub fn allows(&self, command: &Command) -> bool {
        let lbas = command.addr / self.block..(command.addr + command.len) / self.block;
        let mut lbas = lbas.into_iter();
        lbas.all(|lba| self.touched.iter().any(|touched| touched.lba == lba))
    }

    fn token_of(&self, what: What) -> (u64, u64) {
        match what {
            What::Data => (self.token, self.token),
            What::Pad => (self.token, 0),
            What::Instead => (self.token | INSTEAD, 0),
        }
    }

    /// Records that the device may execute the write from `begun` on.
    pub fn begin(&mut self, model: &mut Model, begun: Moment) {
        self.begun = begun;
        for touched in &self.touched {
            let (token, value) = self.token_of(touched.what);
            model.write_begins(0, touched.lba, token, value);
        }
    }

    /// Records that `bytes` were written successfully: the whole request, or the part before a
    /// fault.
    pub fn succeeded(&self, model: &mut Model, request: &Request, bytes: u64, certain: bool) {
        let end = request.pos + bytes;
        let tail = end..end.next_multiple_of(self.fs_block);
        let whole = bytes == request.count;
        let durable = request.has(IoFlags::DSYNC);
        for touched in &self.touched {
            let (token, _) = self.token_of(touched.what);
            let padded = tail.contains(&touched.pos) && (touched.fresh || end >= self.size);
            let done = match touched.what {
                What::Data => touched.pos < end,
                What::Pad => touched.pos < request.pos || whole || padded,
                What::Instead => !whole && padded,
            };
            match (done, certain) {
                (false, _) => model.withdraw(0, touched.lba, token),
                (true, true) => {
                    model.write_ends(0, touched.lba, token, self.begun, Ending::Done { durable });
                }
                (true, false) => {
                    model.write_ends(0, touched.lba, token, self.begun, Ending::Unknown);
                }
            }
        }
    }

    /// Records that the write failed. The data from byte `fault` on was not submitted.
    pub fn failed(&self, model: &mut Model, request: &Request, fault: Option<u64>) {
        let stop = fault.map(|at| request.pos + at / self.block * self.block);
        for touched in &self.touched {
            let (token, _) = self.token_of(touched.what);
            let never = touched.what == What::Data && stop.is_some_and(|stop| touched.pos >= stop);
            match never {
                true => model.withdraw(0, touched.lba, token),
                false => model.write_ends(0, touched.lba, token, self.begun, Ending::Unknown),
            }
        }
    }
}
