//! Read-ahead: the range to read before it is asked for.

use std::ops::Range;

use crate::contract::bytes::round_up;

/// Bytes of the first and of the largest window.
const WINDOW_MIN: u64 = 128 << 10;
const WINDOW_MAX: u64 = 2 << 20;

/// The history of a handle's reads.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReadAhead {
    /// Position after the last read.
    next: u64,
    /// Bytes to be read before they are asked for; 0 after a read elsewhere.
    window: u64,
    /// Position up to which they were read.
    until: u64,
}

impl ReadAhead {
    /// Notes a read of `len` bytes at `pos`. Returns the range to begin to read now, if the reader is
    /// sequential and has used half of what was read ahead.
    #[inline]
    pub(super) fn note(&mut self, pos: u64, len: u64) -> Option<Range<u64>> {
        let sequential = pos == self.next;
        self.next = pos.saturating_add(len);
        if !sequential {
            (self.window, self.until) = (0, 0);
            return None;
        }
        let is_enough = self.next.saturating_add(self.window / 2) <= self.until;
        if is_enough { None } else { Some(self.advance(pos)) }
    }

    #[cold]
    fn advance(&mut self, pos: u64) -> Range<u64> {
        self.window = (self.window * 2).clamp(WINDOW_MIN, WINDOW_MAX);
        let start = self.until.max(pos);
        // Folios that begin at a multiple of the window can be as large as it.
        self.until = round_up(self.next.saturating_add(self.window), self.window);
        start..self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequential_reader_is_ahead_by_a_growing_window() {
        let mut ahead = ReadAhead::default();
        let (mut until, mut largest, mut calls) = (0, 0, 0);
        for pos in (0..64 << 20).step_by(4096) {
            if let Some(range) = ahead.note(pos, 4096) {
                assert_eq!(range.start, until.max(pos));
                (until, calls) = (range.end, calls + 1);
            }
            assert!(until >= pos + 4096 + ahead.window / 2, "{pos}: {ahead:?}");
            largest = largest.max(until - pos);
        }
        assert!(largest <= 2 * WINDOW_MAX && calls <= 4 + (64 << 20) / (WINDOW_MAX / 2));
    }

    #[test]
    fn a_random_reader_reads_nothing_ahead() {
        let mut ahead = ReadAhead::default();
        for pos in [1 << 20, 5 << 20, 0, 3 << 20] {
            assert_eq!(ahead.note(pos, 4096), None);
        }
        assert!(ahead.note((3 << 20) + 4096, 4096).is_some(), "two in a row");
    }
}
