//! A set of blocks, as runs.

use std::collections::BTreeMap;

use crate::number::{BlockRun, PhysicalBlock};

/// Blocks that must not be allocated although their bits are clear.
#[derive(Default)]
pub(crate) struct RunSet {
    /// The end of each run, by its start. Runs do not overlap.
    runs: BTreeMap<PhysicalBlock, PhysicalBlock>,
    blocks: u64,
}

impl RunSet {
    /// Returns the number of blocks.
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Adds a run, none of whose blocks is in the set.
    pub(crate) fn insert(&mut self, run: BlockRun) {
        if run.count() > 0 {
            self.runs.insert(run.start(), run.end());
            self.blocks = self.blocks.saturating_add(run.count());
        }
    }

    /// Removes a run that was inserted.
    pub(crate) fn remove(&mut self, run: BlockRun) {
        if self.runs.remove(&run.start()).is_some() {
            self.blocks = self.blocks.saturating_sub(run.count());
        }
    }

    /// Returns the parts of `run` that are in the set.
    pub(crate) fn overlaps(&self, run: BlockRun) -> impl Iterator<Item = BlockRun> {
        let before = self.runs.range(..run.start()).next_back();
        let inside = self.runs.range(run.start()..run.end());
        before.into_iter().chain(inside).filter_map(move |(&start, &end)| {
            let (start, end) = (start.max(run.start()), end.min(run.end()));
            let count = end.get().checked_sub(start.get())?;
            BlockRun::new(start, count).filter(|run| run.count() > 0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(start: u64, count: u64) -> BlockRun {
        BlockRun::new(start.into(), count).unwrap()
    }

    #[test]
    fn parts_at_every_edge() {
        let mut set = RunSet::default();
        for (start, count) in [(10, 5), (20, 1), (30, 10), (50, 0)] {
            set.insert(run(start, count));
        }
        let overlaps = |start, count| set.overlaps(run(start, count)).collect::<Vec<_>>();
        assert_eq!(overlaps(0, 100), [run(10, 5), run(20, 1), run(30, 10)]);
        assert_eq!(overlaps(12, 20), [run(12, 3), run(20, 1), run(30, 2)]);
        assert!(overlaps(15, 5).is_empty() && overlaps(40, 50).is_empty());
        assert_eq!(overlaps(39, 1), [run(39, 1)]);
        set.remove(run(20, 1));
        assert!(set.overlaps(run(15, 15)).next().is_none());
    }
}
