//! A part of a file's map in memory, made for finding a position in few instructions.

use std::ops::Range;

use nvio_iomap::Mapping;

/// A part of a file's map that is in one piece. The mappings are in order, and cover the range
/// without a gap.
///
/// The range up to the last mapping is divided into buckets of equal size, twice as many as there
/// are mappings at least, and for each bucket it is noted where in the mappings it begins. As long
/// as mappings are of similar sizes, a search looks at one or two of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Leaf {
    start: u64,
    end: u64,
    length: u64,
    mappings: Box<[Mapping]>,
    /// For each bucket, the mapping that its first byte is in.
    buckets: Box<[u32]>,
    /// The same mappings themselves: a copy costs memory, and saves a search in two places.
    quick: Box<[Mapping]>,
    /// Binary logarithm of a bucket's size in bytes.
    shift: u32,
}

impl Leaf {
    /// A leaf of nothing.
    pub(crate) fn empty() -> Self {
        let (mappings, buckets, quick) = (Box::default(), Box::default(), Box::default());
        Self { start: 0, end: 0, length: 0, mappings, buckets, quick, shift: 0 }
    }

    /// A leaf for `range` in bytes of the file. There is at least one mapping, and the range is
    /// not empty.
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
        let quick = buckets.iter().filter_map(mapping).collect();
        let length = end.saturating_sub(start);
        Self { start, end, length, mappings, buckets, quick, shift }
    }

    /// Both leaves as one; `next` begins where this one ends.
    pub(crate) fn join(&self, next: &Self) -> Self {
        let mappings = self.mappings.iter().chain(&next.mappings).copied().collect();
        Self::new(self.start..next.end, mappings)
    }

    /// First byte of the file that is covered.
    #[inline]
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// First byte that is not; more than `start`.
    #[inline]
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    pub(crate) fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    /// Whether byte `pos` is in the range.
    #[inline(always)]
    pub(crate) fn covers(&self, pos: u64) -> bool {
        pos.wrapping_sub(self.start) < self.length
    }

    /// The mapping that byte `pos` is in, if it is the first of its bucket: four in five are, when
    /// mappings are of similar sizes.
    #[inline(always)]
    pub(crate) fn find_quickly(&self, pos: u64) -> Option<&Mapping> {
        self.quick.get(self.bucket(pos)).filter(|mapping| covers(mapping, pos))
    }

    /// The mapping that byte `pos` is in; `None` if it is not in the range.
    pub(crate) fn find(&self, pos: u64) -> Option<&Mapping> {
        match self.bucket(pos) {
            bucket if bucket < self.buckets.len() => self.search(bucket, pos),
            // Only the last mapping goes on past the buckets.
            _ => self.mappings.last().filter(|mapping| covers(mapping, pos)),
        }
    }

    #[inline(always)]
    fn bucket(&self, pos: u64) -> usize {
        // What is before the start wraps, and is in no bucket.
        let bucket = pos.wrapping_sub(self.start).wrapping_shr(self.shift);
        usize::try_from(bucket).unwrap_or(usize::MAX)
    }

    /// Among the mappings of a bucket.
    fn search(&self, bucket: usize, pos: u64) -> Option<&Mapping> {
        let first = usize::try_from(*self.buckets.get(bucket)?).ok()?;
        let last = self.buckets.get(bucket.saturating_add(1));
        let last = last.and_then(|&last| usize::try_from(last).ok()).unwrap_or(usize::MAX);
        let last = last.min(self.mappings.len().saturating_sub(1));
        let mappings = self.mappings.get(first..=last)?;
        // As a rule there are two, and it is the second.
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

    /// A leaf with mappings of these lengths.
    fn leaf(start: u64, lengths: &[u64]) -> Leaf {
        let mut end = start;
        let mappings = lengths
            .iter()
            .map(|&length| {
                end += length;
                hole(end - length, length)
            })
            .collect();
        Leaf::new(start..end, mappings)
    }

    fn check(leaf: &Leaf) {
        for mapping in leaf.mappings() {
            for pos in [mapping.offset, mapping.offset + mapping.length / 2, mapping.end() - 1] {
                assert!(leaf.covers(pos));
                assert_eq!(leaf.find(pos), Some(mapping), "{pos}");
                let quickly = leaf.find_quickly(pos);
                assert!(quickly.is_none_or(|found| found == mapping), "{pos}");
            }
        }
        for pos in [leaf.start().wrapping_sub(1), leaf.end(), 0, u64::MAX] {
            if !leaf.covers(pos) {
                assert_eq!(leaf.find(pos), None, "{pos}");
                assert_eq!(leaf.find_quickly(pos), None, "{pos}");
            }
        }
    }

    #[test]
    fn every_position_is_found() {
        check(&leaf(0, &[1]));
        check(&leaf(4096, &[4096]));
        check(&leaf(1 << 47, &[4096, 1 << 47]));
        check(&leaf(0, &[u64::MAX]));
        check(&leaf(u64::MAX - 10, &[10]));
        check(&leaf(8192, &[4096; 680]));
        check(&leaf(0, &[65_536; 16_384]));
    }

    #[test]
    fn sizes_that_are_not_alike() {
        // All but one in a corner: one bucket has nearly everything.
        let mut lengths = vec![1; 700];
        lengths.push(1 << 48);
        lengths.extend([1; 300]);
        check(&leaf(12_345, &lengths));
        lengths.rotate_left(350);
        check(&leaf(0, &lengths));
        let doubling: Vec<u64> = (0..40).map(|power| 1 << power).collect();
        check(&leaf(77, &doubling));
        let halving: Vec<u64> = (0..40).rev().map(|power| 1 << power).collect();
        check(&leaf(77, &halving));
    }

    #[test]
    fn joined_leaves_find_what_both_have() {
        let joined = leaf(0, &[10, 20, 5]).join(&leaf(35, &[1, 1000, 7]));
        assert_eq!((joined.start(), joined.end(), joined.mappings().len()), (0, 1043, 6));
        check(&joined);
    }
}
