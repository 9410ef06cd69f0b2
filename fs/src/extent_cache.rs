//! What an open file remembers of its map.

use nvio_iomap::Mapping;

use crate::leaf::Leaf;
use crate::map::hole;

/// Leaves of a file's map, bounded in mappings. Holes are in them like anything else.
pub(crate) struct ExtentCache {
    /// The mapping that was asked for last; nothing is inside it at first.
    last: Mapping,
    /// In order, without overlap.
    leaves: Vec<Leaf>,
    /// The leaf that a mapping was found in last.
    recent: usize,
    /// Mappings in `leaves`.
    mappings: usize,
    /// Mappings that may be kept.
    limit: usize,
    /// Leaf that goes next when there are too many.
    hand: usize,
}

impl ExtentCache {
    pub(crate) fn new(limit: usize) -> Self {
        Self { last: hole(0, 0), leaves: Vec::new(), recent: 0, mappings: 0, limit, hand: 0 }
    }

    /// The mapping that was found last.
    #[inline]
    pub(crate) fn last(&self) -> &Mapping {
        &self.last
    }

    /// Makes the mapping that `pos` is in the last one, if it is known.
    #[inline]
    pub(crate) fn find(&mut self, pos: u64) -> bool {
        pos.wrapping_sub(self.last.offset) < self.last.length || self.search(pos).is_some()
    }

    #[inline]
    fn search(&mut self, pos: u64) -> Option<()> {
        let recent = self.leaves.get(self.recent).filter(|leaf| leaf.covers(pos));
        let leaf = match recent {
            Some(leaf) => leaf,
            None => {
                let after = self.leaves.partition_point(|leaf| leaf.start() <= pos);
                self.recent = after.wrapping_sub(1);
                self.leaves.get(self.recent)?
            }
        };
        self.last = *leaf.find(pos)?;
        Some(())
    }

    /// Keeps a leaf; another goes if there are too many mappings. A leaf that is kept already is
    /// not kept twice.
    pub(crate) fn insert(&mut self, leaf: Leaf) {
        let mut at = self.leaves.partition_point(|other| other.start() < leaf.start());
        let overlaps = |other: Option<&Leaf>| {
            other.is_some_and(|other| other.start() < leaf.end() && leaf.start() < other.end())
        };
        if overlaps(self.leaves.get(at)) || overlaps(self.leaves.get(at.wrapping_sub(1))) {
            return;
        }
        while !self.leaves.is_empty()
            && self.mappings.saturating_add(leaf.mappings().len()) > self.limit
        {
            if self.hand >= self.leaves.len() {
                self.hand = 0;
            }
            let old = self.leaves.remove(self.hand);
            self.mappings = self.mappings.saturating_sub(old.mappings().len());
            if self.hand < at {
                at = at.saturating_sub(1);
            }
            // The next one stands in the same place now.
        }
        self.mappings = self.mappings.saturating_add(leaf.mappings().len());
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
        Leaf::new(start..start + 100, mappings)
    }

    #[test]
    fn finds_what_it_keeps() {
        let mut cache = ExtentCache::new(40);
        assert!(!cache.find(0));
        let mut random = 7u64;
        for _ in 0..10_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let pos = (random >> 33) % 2000;
            if cache.find(pos) {
                let &Mapping { offset, length, .. } = cache.last();
                assert_eq!((offset, length), (pos - pos % 10, 10));
            } else {
                cache.insert(leaf(pos / 100));
            }
            let kept: usize = cache.leaves.iter().map(|leaf| leaf.mappings().len()).sum();
            assert!(kept == cache.mappings && kept <= 40);
            assert!(cache.leaves.windows(2).all(|pair| pair[0].end() <= pair[1].start()));
        }
    }

    #[test]
    fn one_leaf_is_always_kept() {
        let mut cache = ExtentCache::new(0);
        cache.insert(leaf(1));
        cache.insert(leaf(2));
        assert!(!cache.find(100) && cache.find(200));
    }

    #[test]
    fn a_leaf_is_kept_once() {
        let mut cache = ExtentCache::new(100);
        cache.insert(leaf(1));
        cache.insert(leaf(1));
        assert_eq!((cache.leaves.len(), cache.mappings), (1, 10));
    }
}
