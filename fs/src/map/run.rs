//! A contiguous part of a file's map in memory, with an index that finds a position in few
//! instructions.

use std::ops::Range;

use crate::number::as_usize;
use nvio_iomap::Mapping;

/// A contiguous part of a file's map. The mappings are sorted and cover the range without gaps.
///
/// The range up to the last mapping is divided into buckets of equal size, at least twice as many
/// as mappings, and each bucket stores the mapping that contains its first byte. If mappings are of
/// similar sizes, a lookup inspects one or two of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MapRun {
    start: u64,
    end: u64,
    length: u64,
    mappings: Box<[Mapping]>,
    /// Index of the mapping that contains the first byte of each bucket.
    buckets: Box<[u32]>,
    /// Copies of those mappings, which save a second cache miss in lookups.
    bucket_heads: Box<[Mapping]>,
    /// Base-2 logarithm of the bucket size in bytes.
    shift: u32,
}

impl MapRun {
    /// Creates an empty run.
    pub(crate) fn empty() -> Self {
        let (mappings, buckets, bucket_heads) = (Box::default(), Box::default(), Box::default());
        Self { start: 0, end: 0, length: 0, mappings, buckets, bucket_heads, shift: 0 }
    }

    /// Creates a run for `range`, in bytes of the file. The range and the mappings must not be
    /// empty.
    pub(crate) fn new(range: Range<u64>, mappings: Box<[Mapping]>) -> Self {
        let (start, end) = (range.start, range.end);
        let count = mappings.len().next_power_of_two().saturating_mul(2);
        let last = mappings.last().map_or(start, |last| last.offset);
        let significant = u64::BITS.saturating_sub(last.saturating_sub(start).leading_zeros());
        let shift = significant.saturating_sub(count.trailing_zeros());
        let mut at = 0usize;
        let mut pos = start;
        let size = 1u64.wrapping_shl(shift);
        let buckets: Box<[u32]> = (0..count)
            .map(|_| {
                let next = |at: usize| mappings.get(at.saturating_add(1));
                while next(at).is_some_and(|next| next.offset <= pos) {
                    at = at.saturating_add(1);
                }
                pos = pos.saturating_add(size);
                u32::try_from(at).unwrap_or(u32::MAX)
            })
            .collect();
        let mapping = |&at: &u32| mappings.get(usize::try_from(at).ok()?).copied();
        let bucket_heads = buckets.iter().filter_map(mapping).collect();
        let length = end.saturating_sub(start);
        Self { start, end, length, mappings, buckets, bucket_heads, shift }
    }

    /// Joins this run with `next`, which begins at its end.
    pub(crate) fn join(&self, next: &Self) -> Self {
        let mappings = self.mappings.iter().chain(&next.mappings).copied().collect();
        Self::new(self.start..next.end, mappings)
    }

    /// Returns the first byte of the range.
    #[inline]
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Returns the first byte after the range, which is larger than `start`.
    #[inline]
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    pub(crate) fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    /// Returns true if byte `pos` is in the range.
    #[inline(always)]
    pub(crate) fn covers(&self, pos: u64) -> bool {
        pos.wrapping_sub(self.start) < self.length
    }

    /// Returns the mapping that contains byte `pos`, if it is the first of its bucket. This
    /// succeeds in four of five lookups if mappings are of similar sizes.
    #[inline(always)]
    pub(crate) fn find_head(&self, pos: u64) -> Option<&Mapping> {
        self.bucket_heads.get(self.bucket(pos)).filter(|mapping| covers(mapping, pos))
    }

    /// Returns the mapping that contains byte `pos`; `None` if it is outside the range.
    pub(crate) fn find(&self, pos: u64) -> Option<&Mapping> {
        match self.bucket(pos) {
            bucket if bucket < self.buckets.len() => self.search(bucket, pos),
            // Only the last mapping extends past the buckets.
            _ => self.mappings.last().filter(|mapping| covers(mapping, pos)),
        }
    }

    #[inline(always)]
    fn bucket(&self, pos: u64) -> usize {
        // Positions before the start wrap around, and are past the last bucket.
        let bucket = pos.wrapping_sub(self.start).wrapping_shr(self.shift);
        as_usize(bucket)
    }

    /// Searches the mappings of a bucket.
    fn search(&self, bucket: usize, pos: u64) -> Option<&Mapping> {
        let first = usize::try_from(*self.buckets.get(bucket)?).ok()?;
        let last = self.buckets.get(bucket.saturating_add(1));
        let last = last.and_then(|&last| usize::try_from(last).ok()).unwrap_or(usize::MAX);
        let last = last.min(self.mappings.len().saturating_sub(1));
        let mappings = self.mappings.get(first..=last)?;
        // Most buckets have two mappings, and the first was checked by `find_head`.
        match mappings.get(1) {
            Some(mapping) if covers(mapping, pos) => return Some(mapping),
            _ => {}
        }
        let after = mappings.partition_point(|mapping| mapping.offset <= pos);
        mappings.get(after.wrapping_sub(1)).filter(|mapping| covers(mapping, pos))
    }
}

#[inline(always)]
fn covers(mapping: &Mapping, pos: u64) -> bool {
    pos.wrapping_sub(mapping.offset) < mapping.length
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::hole;

    /// Builds a run of mappings with these lengths.
    fn run(start: u64, lengths: &[u64]) -> MapRun {
        let mut end = start;
        let mappings = lengths
            .iter()
            .map(|&length| {
                end += length;
                hole(end - length, length)
            })
            .collect();
        MapRun::new(start..end, mappings)
    }

    fn check(run: &MapRun) {
        for mapping in run.mappings() {
            for pos in [mapping.offset, mapping.offset + mapping.length / 2, mapping.end() - 1] {
                assert!(run.covers(pos));
                assert_eq!(run.find(pos), Some(mapping), "{pos}");
                let head = run.find_head(pos);
                assert!(head.is_none_or(|found| found == mapping), "{pos}");
            }
        }
        for pos in [run.start().wrapping_sub(1), run.end(), 0, u64::MAX] {
            if !run.covers(pos) {
                assert_eq!(run.find(pos), None, "{pos}");
                assert_eq!(run.find_head(pos), None, "{pos}");
            }
        }
    }

    #[test]
    fn every_position_is_found() {
        check(&run(0, &[1]));
        check(&run(4096, &[4096]));
        check(&run(1 << 47, &[4096, 1 << 47]));
        check(&run(0, &[u64::MAX]));
        check(&run(u64::MAX - 10, &[10]));
        check(&run(8192, &[4096; 680]));
        check(&run(0, &[65_536; 16_384]));
    }

    #[test]
    fn sizes_that_are_not_alike() {
        // One mapping is much longer than the others, so one bucket contains most of them.
        let mut lengths = vec![1; 700];
        lengths.push(1 << 48);
        lengths.extend([1; 300]);
        check(&run(12_345, &lengths));
        lengths.rotate_left(350);
        check(&run(0, &lengths));
        let doubling: Vec<u64> = (0..40).map(|power| 1 << power).collect();
        check(&run(77, &doubling));
        let halving: Vec<u64> = (0..40).rev().map(|power| 1 << power).collect();
        check(&run(77, &halving));
    }

    #[test]
    fn joined_runs_find_what_both_have() {
        let joined = run(0, &[10, 20, 5]).join(&run(35, &[1, 1000, 7]));
        assert_eq!((joined.start(), joined.end(), joined.mappings().len()), (0, 1043, 6));
        check(&joined);
    }
}
