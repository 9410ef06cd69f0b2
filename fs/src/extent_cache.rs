//! What an open file remembers of its map.

use nvio_iomap::Mapping;

use crate::map::{Leaf, hole};

/// Leaves of a file's map, bounded in mappings. Holes are in them like anything else.
pub(crate) struct ExtentCache {
    /// The mapping that was asked for last; nothing is inside it at first.
    last: Mapping,
    /// In order, without overlap.
    leaves: Vec<Leaf>,
    /// Mappings in `leaves`.
    mappings: usize,
    /// Mappings that may be kept.
    limit: usize,
    /// Leaf that goes next when there are too many.
    hand: usize,
}

impl ExtentCache {
    pub(crate) fn new(limit: usize) -> Self {
        Self { last: hole(0, 0), leaves: Vec::new(), mappings: 0, limit, hand: 0 }
    }

    /// The mapping that `pos` is in, if it was the last one.
    #[inline]
    pub(crate) fn last(&self, pos: u64) -> Option<Mapping> {
        (pos.wrapping_sub(self.last.offset) < self.last.length).then_some(self.last)
    }

    /// The mapping that `pos` is in, if it is known.
    #[inline]
    pub(crate) fn find(&mut self, pos: u64) -> Option<Mapping> {
        let after = self.leaves.partition_point(|leaf| leaf.start <= pos);
        let mapping = *self.leaves.get(after.wrapping_sub(1))?.find(pos)?;
        self.last = mapping;
        Some(mapping)
    }

    /// Keeps a leaf; another goes if there are too many mappings. A leaf that is kept already is
    /// not kept twice.
    pub(crate) fn insert(&mut self, leaf: Leaf) {
        let mut at = self.leaves.partition_point(|other| other.start < leaf.start);
        let overlaps = |other: Option<&Leaf>| {
            other.is_some_and(|other| other.start < leaf.end && leaf.start < other.end)
        };
        if overlaps(self.leaves.get(at)) || overlaps(self.leaves.get(at.wrapping_sub(1))) {
            return;
        }
        while !self.leaves.is_empty()
            && self.mappings.saturating_add(leaf.mappings.len()) > self.limit
        {
            if self.hand >= self.leaves.len() {
                self.hand = 0;
            }
            let old = self.leaves.remove(self.hand);
            self.mappings = self.mappings.saturating_sub(old.mappings.len());
            if self.hand < at {
                at = at.saturating_sub(1);
            }
            // The next one stands in the same place now.
        }
        self.mappings = self.mappings.saturating_add(leaf.mappings.len());
        self.leaves.insert(at, leaf);
        if at <= self.hand {
            self.hand = self.hand.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(index: u64) -> Leaf {
        let start = index * 100;
        let mappings = (0..10).map(|at| hole(start + at * 10, 10)).collect();
        Leaf { start, end: start + 100, mappings }
    }

    #[test]
    fn finds_what_it_keeps() {
        let mut cache = ExtentCache::new(40);
        assert_eq!((cache.last(0), cache.find(0)), (None, None));
        let mut random = 7u64;
        for _ in 0..10_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let pos = (random >> 33) % 2000;
            match cache.find(pos) {
                Some(mapping) => {
                    assert_eq!((mapping.offset, mapping.length), (pos - pos % 10, 10));
                    assert_eq!(cache.last(pos), Some(mapping));
                    assert_eq!(cache.last(mapping.end()), None);
                }
                None => cache.insert(leaf(pos / 100)),
            }
            let kept: usize = cache.leaves.iter().map(|leaf| leaf.mappings.len()).sum();
            assert!(kept == cache.mappings && kept <= 40);
            assert!(cache.leaves.windows(2).all(|pair| pair[0].end <= pair[1].start));
        }
    }

    #[test]
    fn one_leaf_is_always_kept() {
        let mut cache = ExtentCache::new(0);
        cache.insert(leaf(1));
        cache.insert(leaf(2));
        assert!(cache.find(100).is_none() && cache.find(200).is_some());
    }

    #[test]
    fn a_leaf_is_kept_once() {
        let mut cache = ExtentCache::new(100);
        cache.insert(leaf(1));
        cache.insert(leaf(1));
        assert_eq!((cache.leaves.len(), cache.mappings), (1, 10));
    }
}
