//! The cached part of an open file's map.

use std::sync::Arc;

use nvio_iomap::Mapping;

use crate::map::run::MapRun;

/// Maximum number of mappings in a joined run, which is evicted as a whole.
const JOIN_MAX: usize = 8192;

/// A cache of runs of a file's map, holes included. Its size is limited in mappings.
///
/// Adjacent runs are joined, so that most files need only one run.
pub(crate) struct MapCache {
    /// The last used run, which may be empty.
    recent: Arc<MapRun>,
    /// Sorted runs, without overlap.
    runs: Vec<Arc<MapRun>>,
    /// Number of mappings in `runs`.
    mappings: usize,
    /// Maximum number of mappings.
    limit: usize,
    /// Index of the next run to evict.
    hand: usize,
}

impl MapCache {
    pub(crate) fn new(limit: usize) -> Self {
        let recent = Arc::new(MapRun::empty());
        Self { recent, runs: Vec::new(), mappings: 0, limit, hand: 0 }
    }

    /// Returns the mapping that contains `pos`, if it is the first of its bucket in the last used
    /// run.
    #[inline(always)]
    pub(crate) fn find_head(&self, pos: u64) -> Option<&Mapping> {
        self.recent.find_head(pos)
    }

    /// Returns the mapping that contains `pos`, if it is in the last used run.
    pub(crate) fn find_selected(&self, pos: u64) -> Option<&Mapping> {
        self.recent.find(pos)
    }

    /// Makes the run that contains `pos` the last used one. Returns false if none contains it.
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

    /// Inserts a run, unless it overlaps a cached one, and evicts others while there are too many
    /// mappings.
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
            // `hand` now refers to the run after the evicted one.
        }
        self.mappings = self.mappings.saturating_add(run.mappings().len());
        self.runs.insert(at, Arc::new(run));
        if at <= self.hand {
            self.hand = self.hand.saturating_add(1);
        }
        // Join with the next run first, because the other join moves this run to another index.
        self.join(at);
        if let Some(before) = at.checked_sub(1) {
            self.join(before);
        }
    }

    /// Joins a run with the next one, if they are adjacent and not too large.
    fn join(&mut self, at: usize) {
        let next = at.saturating_add(1);
        let (Some(run), Some(behind)) = (self.runs.get(at), self.runs.get(next)) else {
            return;
        };
        let count = run.mappings().len().saturating_add(behind.mappings().len());
        // A joined run may use an eighth of the limit, so that an eviction loses only that part.
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
        // With a limit that prevents joining, one that allows it, and one that avoids eviction.
        for limit in [40, 160, 400] {
            finds_with(limit);
        }
    }

    /// Looks up a position in the cache as a file does.
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
