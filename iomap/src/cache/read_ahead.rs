//! Read-ahead: the range to read before it is asked for.

use std::ops::Range;

use crate::contract::bytes::round_up;

/// Bytes of the first and of the largest window.
const WINDOW_MIN: u64 = 128 << 10;
const WINDOW_MAX: u64 = 2 << 20;
/// The share of the cache that a window may have is one in this number.
const SHARE: u64 = 8;

/// The history of a handle's reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadAhead {
    /// Bytes of the largest window in this cache, a power of two.
    window_max: u64,
    /// Position after the last read.
    next: u64,
    /// Bytes to be read before they are asked for; 0 after a read elsewhere.
    window: u64,
    /// Position up to which they were read.
    until: u64,
}

impl ReadAhead {
    /// Creates the history of a reader in a cache of `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        let share = 1 << (limit as u64 / SHARE).max(1).ilog2();
        Self { window_max: WINDOW_MAX.min(share), next: 0, window: 0, until: 0 }
    }

    /// Notes a read of `len` bytes at `pos`. Returns the range to begin to read now, if the reader is
    /// sequential and less than a window is ahead. A second window is then read with the first: the
    /// device has a whole one to do while the reader waits for the other.
    #[inline]
    pub(super) fn note(&mut self, pos: u64, len: u64) -> Option<Range<u64>> {
        let sequential = pos == self.next;
        self.next = pos.saturating_add(len);
        if !sequential {
            (self.window, self.until) = (0, 0);
            return None;
        }
        let is_enough = self.next.saturating_add(self.window) <= self.until;
        if is_enough { None } else { Some(self.advance(pos)) }
    }

    #[cold]
    fn advance(&mut self, pos: u64) -> Range<u64> {
        // The reader may want no more than the begin of the file.
        let windows = if self.window == 0 { 1 } else { 2 };
        self.window = (self.window * 2).clamp(WINDOW_MIN.min(self.window_max), self.window_max);
        let start = self.until.max(pos);
        // Folios that begin at a multiple of the window can be as large as it.
        self.until = round_up(self.next.saturating_add(windows * self.window), self.window);
        start..self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequential_reader_is_ahead_by_a_growing_window() {
        let mut ahead = ReadAhead::new(64 << 20);
        let (mut until, mut largest, mut calls) = (0, 0, 0);
        for pos in (0..64 << 20).step_by(4096) {
            if let Some(range) = ahead.note(pos, 4096) {
                assert_eq!(range.start, until.max(pos));
                (until, calls) = (range.end, calls + 1);
            }
            assert!(until >= pos + 4096 + ahead.window, "{pos}: {ahead:?}");
            largest = largest.max(until - pos);
        }
        assert!(largest <= 3 * WINDOW_MAX && calls <= 4 + (64 << 20) / (WINDOW_MAX / 2));
    }

    #[test]
    fn windows_are_a_share_of_a_small_cache() {
        let mut ahead = ReadAhead::new(100 << 10);
        for pos in (0..1 << 20).step_by(4096) {
            let range = ahead.note(pos, 4096).unwrap_or_default();
            assert!(range.end.saturating_sub(pos) <= 3 * (8 << 10), "{pos}: {range:?}");
        }
    }

    #[test]
    fn a_random_reader_reads_nothing_ahead() {
        let mut ahead = ReadAhead::new(64 << 20);
        for pos in [1 << 20, 5 << 20, 0, 3 << 20] {
            assert_eq!(ahead.note(pos, 4096), None);
        }
        assert!(ahead.note((3 << 20) + 4096, 4096).is_some(), "two in a row");
    }
}
