//! Random reads of one size: the workload of headlines, in a few instructions.

use std::ops::Range;

use crate::random::Random;
use crate::target::Request;
use crate::workload::{Issue, Workload};

/// Reads of one size at random positions, all equally likely.
#[derive(Clone, Debug)]
pub struct UniformReads {
    random: Random,
    start: u64,
    /// Number of positions.
    count: u64,
    bytes: u64,
    length: usize,
}

impl UniformReads {
    /// Creates reads of `bytes` bytes at multiples of it in `range`, which has room for one.
    pub fn new(range: Range<u64>, bytes: usize, random: Random) -> Self {
        let size = bytes as u64;
        let count = ((range.end - range.start) / size.max(1)).max(1);
        Self { random, start: range.start, count, bytes: size, length: bytes }
    }
}

impl Workload for UniformReads {
    const PLAIN_READS: bool = true;

    #[inline(always)]
    fn next(&mut self, _now: u64) -> Option<Issue> {
        let pos = self.start + self.random.below(self.count) * self.bytes;
        Some(Issue { request: Request { pos, bytes: self.length, write: false }, due: None })
    }
}
