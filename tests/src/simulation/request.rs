//! Requests: what can be asked for, drawn by seed, and what is remembered of one in flight.

use std::time::Duration;

use nvio_driver::DmaBuf;

use super::lend::{Lent, Span};
use super::mix::{Mix, chance};
use super::model::Moment;
use nvio_testkit::random::Rng;

/// What a request is.
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
    /// Whether blocks have other values afterwards.
    pub fn changes(self) -> bool {
        matches!(self, Self::Write | Self::Zeroes { .. } | Self::Deallocate)
    }

    /// How its buffers are lent; `None` without any.
    pub fn lends(self) -> Option<Lent> {
        match self {
            Self::Read => Some(Lent::In),
            Self::Write | Self::Compare | Self::Deallocate => Some(Lent::Out),
            Self::Flush | Self::Zeroes { .. } | Self::Verify => None,
        }
    }
}

/// A request that is to be made.
#[derive(Clone, Debug)]
pub struct Draft {
    /// What it is.
    pub kind: Kind,
    /// Which namespace, from 0.
    pub space: usize,
    /// Its ranges of blocks: one, but for Flush and Deallocate.
    pub ranges: Vec<(u64, u32)>,
    /// Force Unit Access.
    pub fua: bool,
    /// Its buffers, each so many bytes after the start of a page, and its length.
    pub pieces: Vec<(usize, usize)>,
    /// Whether it is given as `ScatterList`.
    pub parts: bool,
}

/// A request in flight.
#[derive(Debug)]
pub struct Request {
    /// What was asked for.
    pub draft: Draft,
    /// When, among submissions and ends.
    pub begun: Moment,
    /// When, by the clock.
    pub at: Duration,
    /// What the run had neglected its queue pair by then.
    pub excused: Duration,
    /// Where its buffers are.
    pub spans: Vec<Span>,
    /// What is held beside them.
    pub guards: Vec<DmaBuf>,
    /// Of Compare: what each block was compared with.
    pub values: Vec<u64>,
}

/// What limits the requests of a namespace.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a block.
    pub block_size: usize,
    /// Blocks.
    pub blocks: u64,
    /// Most blocks of a command with data.
    pub most: u64,
    /// Whether SGLs can be used.
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

    /// Every block that it is about.
    pub fn blocks(&self) -> impl Iterator<Item = u64> + '_ {
        self.ranges.iter().flat_map(|&(lba, blocks)| lba..lba + u64::from(blocks))
    }
}

/// A range of blocks that one command can transfer; small ones are most.
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

/// One to four ranges that do not overlap.
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

/// Where in a page a buffer begins.
fn offset(rng: &mut Rng) -> usize {
    let offset = match rng.range(0, 4) {
        0 => rng.range(0, 1024) * 4,
        1 => rng.range(0, 8) * 512,
        _ => 0,
    };
    usize::try_from(offset).unwrap_or(0)
}

/// Several pieces: of any kind with SGLs (and sometimes without, to be refused), else such that
/// only the first begins, and only the last ends, inside a page.
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
        // The first may be shorter than its pages, at their end.
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
