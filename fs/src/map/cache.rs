//! What an open file remembers of its map.

use std::sync::Arc;

use nvio_iomap::Mapping;

use crate::map::run::MapRun;

/// Most mappings of runs that were joined: what is forgotten at once.
const JOIN_MAX: usize = 8192;

/// Runs of a file's map, bounded in mappings. Holes are in them like anything else.
///
/// Runs that follow each other are joined, so that the map of most files is one.
pub(crate) struct MapCache {
    /// The run that a mapping was found in last, or one of nothing.
    recent: Arc<MapRun>,
    /// In order, without overlap.
    runs: Vec<Arc<MapRun>>,
    /// Mappings in `runs`.
    mappings: usize,
    /// Mappings that may be kept.
    limit: usize,
    /// MapRun that goes next when there are too many.
    hand: usize,
}

impl MapCache {
    pub(crate) fn new(limit: usize) -> Self {
        let recent = Arc::new(MapRun::empty());
        Self { recent, runs: Vec::new(), mappings: 0, limit, hand: 0 }
    }

    /// The mapping that `pos` is in, if the run that was used last gives it at first sight.
    #[inline(always)]
    pub(crate) fn find_head(&self, pos: u64) -> Option<&Mapping> {
        self.recent.find_head(pos)
    }

    /// The mapping that `pos` is in, if the run that was used last knows it.
    pub(crate) fn find_selected(&self, pos: u64) -> Option<&Mapping> {
        self.recent.find(pos)
    }

    /// Makes the run that `pos` is in the recent one; false if there is none.
    pub(crate) fn select(&mut self, pos: u64) -> bool {
        if self.recent.covers(pos) {
            return true;
        }
        let after = self.runs.partition_point(|run| run.start() <= pos);
        let run = after.checked_sub(1).and_then(|at| self.runs.get(at));
        match run.filter(|run| run.covers(pos)) {
            Some(run) => {
                self.recent = Arc::clone(run);
                true
            }
            None => false,
        }
    }

    /// Keeps a run; another goes if there are too many mappings. A run that is kept already is
    /// not kept twice.
    pub(crate) fn insert(&mut self, run: MapRun) {
        let mut at = self.runs.partition_point(|other| other.start() < run.start());
        let overlaps = |other: Option<&Arc<MapRun>>| {
            other.is_some_and(|other| other.start() < run.end() && run.start() < other.end())
        };
        if overlaps(self.runs.get(at)) || overlaps(self.runs.get(at.wrapping_sub(1))) {
            return;
        }
        while !self.runs.is_empty()
            && self.mappings.saturating_add(run.mappings().len()) > self.limit
        {
            if self.hand >= self.runs.len() {
                self.hand = 0;
            }
            let old = self.runs.remove(self.hand);
            self.mappings = self.mappings.saturating_sub(old.mappings().len());
            if self.hand < at {
                at = at.saturating_sub(1);
            }
            // The next one stands in the same place now.
        }
        self.mappings = self.mappings.saturating_add(run.mappings().len());
        self.runs.insert(at, Arc::new(run));
        if at <= self.hand {
            self.hand = self.hand.saturating_add(1);
        }
        // With the one behind first: the other leaves `at` pointing at nothing.
        self.join(at);
        if let Some(before) = at.checked_sub(1) {
            self.join(before);
        }
    }

    /// Joins a run with the one behind it, if they belong together and are not too large.
    fn join(&mut self, at: usize) {
        let next = at.saturating_add(1);
        let (Some(run), Some(behind)) = (self.runs.get(at), self.runs.get(next)) else {
            return;
        };
        let count = run.mappings().len().saturating_add(behind.mappings().len());
        // An eighth, so that not everything is forgotten at once.
        let most = JOIN_MAX.min(self.limit.wrapping_shr(3));
        if run.end() != behind.start() || count > most {
            return;
        }
        let joined = Arc::new(run.join(behind));
        self.runs.remove(next);
        if let Some(run) = self.runs.get_mut(at) {
            *run = joined;
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

    fn run(index: u64) -> MapRun {
        let start = index * 100;
        let mappings = (0..10).map(|at| hole(start + at * 10, 10)).collect();
        MapRun::new(start..start + 100, mappings)
    }

    #[test]
    fn finds_what_it_keeps() {
        // Without joining, with, and with room for everything.
        for limit in [40, 160, 400] {
            finds_with(limit);
        }
    }

    /// What the cache knows, as a file asks for it.
    fn find(cache: &mut MapCache, pos: u64) -> Option<Mapping> {
        if let Some(mapping) = cache.find_head(pos) {
            return Some(*mapping);
        }
        cache.select(pos).then(|| *cache.find_selected(pos).unwrap())
    }

    fn finds_with(limit: usize) {
        let mut cache = MapCache::new(limit);
        assert!(find(&mut cache, 0).is_none());
        let mut random = 7u64;
        for _ in 0..10_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let pos = (random >> 33) % 2000;
            match find(&mut cache, pos) {
                Some(mapping) => assert_eq!((mapping.offset, mapping.length), (pos - pos % 10, 10)),
                None => cache.insert(run(pos / 100)),
            }
            let kept: usize = cache.runs.iter().map(|run| run.mappings().len()).sum();
            assert!(kept == cache.mappings && kept <= limit);
            assert!(cache.runs.windows(2).all(|pair| pair[0].end() <= pair[1].start()));
        }
    }

    #[test]
    fn one_run_is_always_kept() {
        let mut cache = MapCache::new(0);
        cache.insert(run(1));
        cache.insert(run(2));
        assert!(find(&mut cache, 100).is_none() && find(&mut cache, 200).is_some());
    }

    #[test]
    fn a_run_is_kept_once() {
        let mut cache = MapCache::new(100);
        cache.insert(run(1));
        cache.insert(run(1));
        assert_eq!((cache.runs.len(), cache.mappings), (1, 10));
    }
}
