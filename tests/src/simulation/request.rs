//! Requests: their random choice, and the state of those in flight.

use std::time::Duration;

use nvio_driver::DmaBuf;

use super::mix::{Mix, chance};
use crate::simulator::lend::{Lent, Span};
use crate::simulator::model::Moment;
use nvio_testkit::random::Rng;

/// The kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Read.
    Read,
    /// Write.
    Write,
    /// Flush.
    Flush,
    /// Write Zeroes, with Deallocate or without.
    Zeroes {
        /// The blocks may be deallocated.
        deallocate: bool,
    },
    /// Compare.
    Compare,
    /// Verify.
    Verify,
    /// Dataset Management, Deallocate.
    Deallocate,
}

impl Kind {
    /// Returns true if the request changes blocks.
    pub fn changes(self) -> bool {
        matches!(self, Self::Write | Self::Zeroes { .. } | Self::Deallocate)
    }

    /// Returns true if the driver may repeat the request after an error.
    pub fn is_repeatable(self) -> bool {
        matches!(self, Self::Read | Self::Write | Self::Zeroes { .. } | Self::Verify)
    }

    /// Returns the access of the controller to its buffers; `None` if it has no buffers.
    pub fn lends(self) -> Option<Lent> {
        match self {
            Self::Read => Some(Lent::In),
            Self::Write | Self::Compare | Self::Deallocate => Some(Lent::Out),
            Self::Flush | Self::Zeroes { .. } | Self::Verify => None,
        }
    }
}

/// A request to submit.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Kind of the request.
    pub kind: Kind,
    /// Index of the namespace, from 0.
    pub space: usize,
    /// Ranges of blocks: exactly one, except for Flush and Deallocate.
    pub ranges: Vec<(u64, u32)>,
    /// Force Unit Access.
    pub fua: bool,
    /// Buffers: offset in the first page, and length.
    pub pieces: Vec<(usize, usize)>,
    /// Submitted as a `ScatterList`.
    pub parts: bool,
}

/// A request in flight.
#[derive(Debug)]
pub struct Request {
    /// The submitted request.
    pub draft: Draft,
    /// Moment of the submission.
    pub begun: Moment,
    /// Time of the submission.
    pub at: Duration,
    /// Time for which its queue pair had been neglected before.
    pub excused: Duration,
    /// Addresses of its buffers.
    pub spans: Vec<Span>,
    /// The guards around its buffers.
    pub guards: Vec<DmaBuf>,
    /// Values that Compare expects.
    pub values: Vec<u64>,
}

/// The limits of requests to a namespace.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Block size, bytes.
    pub block_size: usize,
    /// Number of blocks.
    pub blocks: u64,
    /// Maximum number of blocks in a command with data.
    pub most: u64,
    /// SGLs are supported.
    pub sgl: bool,
}

impl Draft {
    /// Draws a request for the namespace `space`.
    pub fn draw(rng: &mut Rng, mix: &Mix, space: usize, limits: &Limits) -> Self {
        let kind = match rng.range(0, 100) {
            0..38 => Kind::Read,
            38..76 => Kind::Write,
            76..83 => Kind::Flush,
            83..88 => Kind::Zeroes { deallocate: chance(rng, 30) },
            88..95 => Kind::Compare,
            95..97 => Kind::Verify,
            _ => Kind::Deallocate,
        };
        let ranges = match kind {
            Kind::Flush => Vec::new(),
            Kind::Deallocate => deallocated(rng, limits),
            _ => vec![range(rng, mix, limits)],
        };
        let fua = matches!(kind, Kind::Read | Kind::Write | Kind::Zeroes { .. }) && chance(rng, 8);
        let blocks: usize = ranges.iter().map(|&(_, blocks)| blocks as usize).sum();
        let bytes = match kind {
            Kind::Deallocate => 16 * ranges.len(),
            kind if kind.lends().is_some() => blocks * limits.block_size,
            _ => 0,
        };
        let parts = bytes > 0
            && kind != Kind::Deallocate
            && (fua || kind == Kind::Compare || chance(rng, 25));
        let pieces = match bytes {
            0 => Vec::new(),
            _ if parts && chance(rng, 70) => scattered(rng, bytes, limits.sgl),
            _ => vec![(offset(rng), bytes)],
        };
        Self { kind, space, ranges, fua, pieces, parts }
    }

    /// Returns all blocks of the request.
    pub fn blocks(&self) -> impl Iterator<Item = u64> + '_ {
        self.ranges.iter().flat_map(|&(lba, blocks)| lba..lba + u64::from(blocks))
    }
}

/// Draws a range of blocks for one command. Most ranges are small.
fn range(rng: &mut Rng, mix: &Mix, limits: &Limits) -> (u64, u32) {
    let most = limits.most.min(limits.blocks);
    let most = match rng.range(0, 10) {
        0..5 => 1,
        5..8 => most.min(8),
        _ => most.min(65_536 / limits.block_size as u64),
    };
    let blocks = rng.range(1, most.max(1) + 1);
    let last = limits.blocks - blocks;
    let last = if chance(rng, 60) { last.min(mix.hot) } else { last };
    (rng.range(0, last + 1), u32::try_from(blocks).unwrap_or(1))
}

/// Draws one to four ranges that do not overlap.
fn deallocated(rng: &mut Rng, limits: &Limits) -> Vec<(u64, u32)> {
    let count = rng.range(1, 5);
    let share = limits.blocks / count;
    let part = |index: u64| {
        let blocks = rng.range(1, share.min(24) + 1);
        let lba = index * share + rng.range(0, share - blocks + 1);
        (lba, u32::try_from(blocks).unwrap_or(1))
    };
    (0..count).map(part).collect()
}

/// Draws the offset of a buffer in its first page.
fn offset(rng: &mut Rng) -> usize {
    let offset = match rng.range(0, 4) {
        0 => rng.range(0, 1024) * 4,
        1 => rng.range(0, 8) * 512,
        _ => 0,
    };
    usize::try_from(offset).unwrap_or(0)
}

/// Draws several pieces. With SGLs (and sometimes without, for a rejection) they are arbitrary;
/// otherwise only the first may begin, and only the last may end, inside a page.
fn scattered(rng: &mut Rng, bytes: usize, sgl: bool) -> Vec<(usize, usize)> {
    let any = sgl && chance(rng, 70) || chance(rng, 5);
    let unit = if any { 4 } else { 4096 };
    let mut pieces = Vec::new();
    let mut left = bytes;
    while left > 0 && pieces.len() < 7 {
        let units = (left / unit) as u64;
        let len = match units {
            0 => left,
            _ => usize::try_from(rng.range(1, units + 1)).unwrap_or(1) * unit,
        };
        // The first piece may begin inside a page and end with it.
        let len = match pieces.is_empty() && !any && left > 512 {
            true => (usize::try_from(rng.range(1, 8)).unwrap_or(1) * 512).min(left),
            false => len,
        };
        let pad = match (any, pieces.is_empty()) {
            (true, _) => offset(rng),
            (false, true) if len < left => (4096 - len % 4096) % 4096,
            _ => 0,
        };
        pieces.push((pad, len));
        left -= len;
    }
    if left > 0 {
        pieces.push((0, left));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drafts_are_within_the_limits_and_their_pieces_add_up() {
        let mix = Mix::new(1);
        let mut rng = Rng::new(1);
        for sgl in [false, true] {
            let limits = Limits { block_size: 512, blocks: 100, most: 64, sgl };
            for _ in 0..10_000 {
                let draft = Draft::draw(&mut rng, &mix, 0, &limits);
                assert!(draft.blocks().all(|lba| lba < limits.blocks), "{draft:?}");
                let bytes: usize = draft.pieces.iter().map(|&(_, len)| len).sum();
                let expected = match draft.kind {
                    Kind::Deallocate => 16 * draft.ranges.len(),
                    kind if kind.lends().is_some() => 512 * draft.blocks().count(),
                    _ => 0,
                };
                assert_eq!(bytes, expected, "{draft:?}");
                assert!(draft.pieces.iter().all(|&(pad, len)| pad % 4 == 0 && len > 0));
            }
        }
    }
}
