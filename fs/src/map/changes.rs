//! The changes of fast commits to a file's map.

use std::collections::BTreeMap;
use std::ops::Range;

use nvio_iomap::MappingKind;

use crate::format::superblock::Superblock;
use crate::map::builder::RunBuilder;
use crate::map::run::MapRun;
use crate::number::{BlockRun, LogicalBlock};

/// The change of a range of logical blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    end: LogicalBlock,
    /// [`Mapped`](MappingKind::Mapped), [`Unwritten`](MappingKind::Unwritten) or
    /// [`Hole`](MappingKind::Hole).
    kind: MappingKind,
    /// The blocks; none for a hole.
    physical: BlockRun,
}

/// The ranges of logical blocks that differ from the file's extent tree.
#[derive(Clone, Debug, Default)]
pub(crate) struct MapChanges {
    /// Changes by their first logical block, without overlap.
    changes: BTreeMap<LogicalBlock, Change>,
}

impl MapChanges {
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Maps the range to the blocks from `physical` on.
    pub(crate) fn map(&mut self, range: Range<LogicalBlock>, physical: BlockRun, unwritten: bool) {
        let kind = if unwritten { MappingKind::Unwritten } else { MappingKind::Mapped };
        self.insert(range, kind, physical);
    }

    /// Unmaps the range.
    pub(crate) fn remove(&mut self, range: Range<LogicalBlock>) {
        self.insert(range, MappingKind::Hole, BlockRun::default());
    }

    fn insert(&mut self, range: Range<LogicalBlock>, kind: MappingKind, physical: BlockRun) {
        if range.is_empty() {
            return;
        }
        // A change that begins before the range is split, and continues after it.
        if let Some((&start, &before)) = self.changes.range(..range.start).next_back()
            && before.end > range.start
        {
            self.changes.insert(start, Change { end: range.start, ..before });
            self.insert_rest(start, before, range.end);
        }
        while let Some((&start, &inside)) = self.changes.range(range.clone()).next() {
            self.changes.remove(&start);
            self.insert_rest(start, inside, range.end);
        }
        self.changes.insert(range.start, Change { end: range.end, kind, physical });
    }

    /// Inserts the part after `end` of a change that starts at `start`.
    fn insert_rest(&mut self, start: LogicalBlock, change: Change, end: LogicalBlock) {
        if change.end > end {
            self.changes.insert(end, change.from(start, end));
        }
    }

    /// Returns the changed ranges in order, each with its blocks and whether they are unwritten; `None`
    /// for a hole.
    pub(crate) fn ranges(
        &self,
    ) -> impl Iterator<Item = (Range<LogicalBlock>, Option<(BlockRun, bool)>)> {
        self.changes.iter().map(|(&start, change)| {
            // The run of a change that was cut by a later one may be longer.
            let run = change.physical.part(0, change.end.since(start).into());
            let blocks = (run, change.kind == MappingKind::Unwritten);
            (start..change.end, (change.kind != MappingKind::Hole).then_some(blocks))
        })
    }

    /// Applies the changes to a run of the stored map.
    pub(crate) fn apply(&self, superblock: &Superblock, leaf: MapRun) -> MapRun {
        let (start, end) = (superblock.logical_at(leaf.start()), superblock.logical_at(leaf.end()));
        // A change may begin before the run.
        let first = self.changes.range(..=start).next_back().map_or(start, |(&first, _)| first);
        let mut changes = self.changes.range(first..end.max(first)).peekable();
        if changes.peek().is_none() {
            return leaf;
        }
        let mut built = RunBuilder::new(superblock, start, leaf.mappings().len());
        let mut next = start;
        for (&first, &change) in changes {
            if change.end <= start {
                continue;
            }
            let from = first.max(start);
            push_stored(&mut built, superblock, &leaf, next..from);
            if change.kind != MappingKind::Hole {
                let physical = change.from(first, from).physical.start();
                built.push_joined(from..change.end.min(end), physical, change.kind);
            }
            next = change.end.min(end);
        }
        push_stored(&mut built, superblock, &leaf, next..end);
        built.finish(end)
    }
}

impl Change {
    /// Returns the part from block `at` on of a change that starts at `start`.
    fn from(self, start: LogicalBlock, at: LogicalBlock) -> Self {
        Self { physical: self.physical.part(at.since(start).into(), u64::MAX), ..self }
    }
}

/// Appends the stored mappings of a range.
fn push_stored(
    built: &mut RunBuilder<'_>,
    superblock: &Superblock,
    leaf: &MapRun,
    range: Range<LogicalBlock>,
) {
    if range.is_empty() {
        return;
    }
    let [start, end] = [range.start, range.end].map(|block| superblock.position(block));
    let from = leaf.mappings().partition_point(|mapping| mapping.end() <= start);
    let mappings = leaf.mappings().get(from..).unwrap_or_default();
    for mapping in mappings.iter().take_while(|mapping| mapping.offset < end) {
        let (first, last) = (mapping.offset.max(start), mapping.end().min(end));
        if mapping.kind != MappingKind::Hole
            && let Some(address) = mapping.device_address(first)
        {
            let blocks = superblock.logical_at(first)..superblock.logical_at(last);
            built.push_joined(blocks, superblock.physical_at(address), mapping.kind);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::superblock::tests::sample;

    const BLOCK: u64 = 4096;

    /// The expected state of 64 blocks: physical block, and whether it is unwritten.
    type Model = Vec<Option<(u64, bool)>>;

    fn logical(blocks: &Range<u64>) -> Range<LogicalBlock> {
        LogicalBlock::or_end(blocks.start)..LogicalBlock::or_end(blocks.end)
    }

    fn leaf(superblock: &Superblock, model: &Model, blocks: Range<u64>) -> MapRun {
        let mut built = RunBuilder::new(superblock, LogicalBlock::or_end(blocks.start), 0);
        for block in blocks.clone() {
            if let Some((physical, unwritten)) = model[block as usize] {
                let kind = if unwritten { MappingKind::Unwritten } else { MappingKind::Mapped };
                built.push_joined(logical(&(block..block + 1)), physical.into(), kind);
            }
        }
        built.finish(LogicalBlock::or_end(blocks.end))
    }

    fn check(leaf: &MapRun, model: &Model, blocks: Range<u64>) {
        assert_eq!((leaf.start(), leaf.end()), (blocks.start * BLOCK, blocks.end * BLOCK));
        assert!(leaf.mappings().iter().all(|mapping| mapping.length > 0), "an empty mapping");
        for block in blocks {
            let found = leaf.find(block * BLOCK).unwrap();
            let at = (found.addr + block * BLOCK - found.offset) / BLOCK;
            let found = match found.kind {
                MappingKind::Mapped => Some((at, false)),
                MappingKind::Unwritten => Some((at, true)),
                _ => None,
            };
            assert_eq!(found, model[block as usize], "block {block}");
        }
    }

    #[test]
    fn changes_are_the_last_word() {
        let superblock = Superblock::parse(&sample()).unwrap();
        let mut random = 1u64;
        let mut below = |limit: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % limit
        };
        for _ in 0..300 {
            let stored: Model = (0..64)
                .map(|_| (below(3) > 0).then(|| (1000 + below(3) * 2, below(2) == 0)))
                .collect();
            let (mut ranges, mut model) = (MapChanges::default(), stored.clone());
            for _ in 0..below(8) {
                let start = below(64);
                let end = (start + 1 + below(20)).min(64);
                let (physical, unwritten) = (2000 + below(100), below(2) == 0);
                if below(3) == 0 {
                    ranges.remove(logical(&(start..end)));
                    model[start as usize..end as usize].fill(None);
                } else {
                    let run = BlockRun::new(physical.into(), end - start).unwrap();
                    ranges.map(logical(&(start..end)), run, unwritten);
                    for block in start..end {
                        model[block as usize] = Some((physical + block - start, unwritten));
                    }
                }
                let list: Vec<_> = ranges.changes.iter().collect();
                assert!(list.iter().all(|(start, change)| **start < change.end));
                assert!(list.windows(2).all(|pair| pair[0].1.end <= *pair[1].0));
            }
            let mut applied = stored.clone();
            for (range, with) in ranges.ranges() {
                let count = u64::from(range.end.since(range.start));
                assert!(with.is_none_or(|(run, _)| run.count() == count), "{range:?} {with:?}");
                for at in 0..count {
                    let block = with.map(|(run, unwritten)| (run.start().get() + at, unwritten));
                    applied[(u64::from(range.start) + at) as usize] = block;
                }
            }
            assert_eq!(applied, model);
            let cut = 1 + below(63);
            for blocks in [0..64, 0..cut, cut..64] {
                let leaf = leaf(&superblock, &stored, blocks.clone());
                check(&ranges.apply(&superblock, leaf), &model, blocks);
            }
        }
    }
}
