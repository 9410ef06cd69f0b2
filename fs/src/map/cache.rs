//! What an open file remembers of its map.

use std::sync::Arc;

use nvio_iomap::Mapping;

use crate::map::run::Leaf;

/// Most mappings of leaves that were joined: what is forgotten at once.
const JOIN_MAX: usize = 8192;

/// Leaves of a file's map, bounded in mappings. Holes are in them like anything else.
///
/// Leaves that follow each other are joined, so that the map of most files is one.
pub(crate) struct ExtentCache {
    /// The leaf that a mapping was found in last, or one of nothing.
    recent: Arc<Leaf>,
    /// In order, without overlap.
    leaves: Vec<Arc<Leaf>>,
    /// Mappings in `leaves`.
    mappings: usize,
    /// Mappings that may be kept.
    limit: usize,
    /// Leaf that goes next when there are too many.
    hand: usize,
}

impl ExtentCache {
    pub(crate) fn new(limit: usize) -> Self {
        let recent = Arc::new(Leaf::empty());
        Self { recent, leaves: Vec::new(), mappings: 0, limit, hand: 0 }
    }

    /// The mapping that `pos` is in, if the leaf that was used last gives it at first sight.
    #[inline(always)]
    pub(crate) fn find_quickly(&self, pos: u64) -> Option<&Mapping> {
        self.recent.find_quickly(pos)
    }

    /// The mapping that `pos` is in, if the leaf that was used last knows it.
    pub(crate) fn find_recent(&self, pos: u64) -> Option<&Mapping> {
        self.recent.find(pos)
    }

    /// Makes the leaf that `pos` is in the recent one; false if there is none.
    pub(crate) fn turn_to(&mut self, pos: u64) -> bool {
        if self.recent.covers(pos) {
            return true;
        }
        let after = self.leaves.partition_point(|leaf| leaf.start() <= pos);
        let leaf = after.checked_sub(1).and_then(|at| self.leaves.get(at));
        match leaf.filter(|leaf| leaf.covers(pos)) {
            Some(leaf) => {
                self.recent = Arc::clone(leaf);
                true
            }
            None => false,
        }
    }

    /// Keeps a leaf; another goes if there are too many mappings. A leaf that is kept already is
    /// not kept twice.
    pub(crate) fn insert(&mut self, leaf: Leaf) {
        let mut at = self.leaves.partition_point(|other| other.start() < leaf.start());
        let overlaps = |other: Option<&Arc<Leaf>>| {
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
        self.leaves.insert(at, Arc::new(leaf));
        if at <= self.hand {
            self.hand = self.hand.saturating_add(1);
        }
        // With the one behind first: the other leaves `at` pointing at nothing.
        self.join(at);
        if let Some(before) = at.checked_sub(1) {
            self.join(before);
        }
    }

    /// Joins a leaf with the one behind it, if they belong together and are not too large.
    fn join(&mut self, at: usize) {
        let next = at.saturating_add(1);
        let (Some(leaf), Some(behind)) = (self.leaves.get(at), self.leaves.get(next)) else {
            return;
        };
        let count = leaf.mappings().len().saturating_add(behind.mappings().len());
        // An eighth, so that not everything is forgotten at once.
        let most = JOIN_MAX.min(self.limit.wrapping_shr(3));
        if leaf.end() != behind.start() || count > most {
            return;
        }
        let joined = Arc::new(leaf.join(behind));
        self.leaves.remove(next);
        if let Some(leaf) = self.leaves.get_mut(at) {
            *leaf = joined;
        }
        if self.hand > at {
            self.hand = self.hand.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::hole;

    fn leaf(index: u64) -> Leaf {
        let start = index * 100;
        let mappings = (0..10).map(|at| hole(start + at * 10, 10)).collect();
        Leaf::new(start..start + 100, mappings)
    }

    #[test]
    fn finds_what_it_keeps() {
        // Without joining, with, and with room for everything.
        for limit in [40, 160, 400] {
            finds_with(limit);
        }
    }

    /// What the cache knows, as a file asks for it.
    fn find(cache: &mut ExtentCache, pos: u64) -> Option<Mapping> {
        if let Some(quickly) = cache.find_quickly(pos) {
            return Some(*quickly);
        }
        cache.turn_to(pos).then(|| *cache.find_recent(pos).unwrap())
    }

    fn finds_with(limit: usize) {
        let mut cache = ExtentCache::new(limit);
        assert!(find(&mut cache, 0).is_none());
        let mut random = 7u64;
        for _ in 0..10_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let pos = (random >> 33) % 2000;
            match find(&mut cache, pos) {
                Some(mapping) => assert_eq!((mapping.offset, mapping.length), (pos - pos % 10, 10)),
                None => cache.insert(leaf(pos / 100)),
            }
            let kept: usize = cache.leaves.iter().map(|leaf| leaf.mappings().len()).sum();
            assert!(kept == cache.mappings && kept <= limit);
            assert!(cache.leaves.windows(2).all(|pair| pair[0].end() <= pair[1].start()));
        }
    }

    #[test]
    fn one_leaf_is_always_kept() {
        let mut cache = ExtentCache::new(0);
        cache.insert(leaf(1));
        cache.insert(leaf(2));
        assert!(find(&mut cache, 100).is_none() && find(&mut cache, 200).is_some());
    }

    #[test]
    fn a_leaf_is_kept_once() {
        let mut cache = ExtentCache::new(100);
        cache.insert(leaf(1));
        cache.insert(leaf(1));
        assert_eq!((cache.leaves.len(), cache.mappings), (1, 10));
    }
}
