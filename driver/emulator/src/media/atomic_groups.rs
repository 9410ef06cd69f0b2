//! Groups of blocks that a power cut stores or loses together.

use std::collections::{BTreeMap, BTreeSet};

/// Disjoint sets of blocks. A block without a set is alone.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    /// Group of each block that has one.
    of: BTreeMap<u64, u64>,
    members: BTreeMap<u64, BTreeSet<u64>>,
    count: u64,
}

impl Groups {
    /// Returns the group of a block.
    pub(crate) fn of(&self, block: u64) -> Option<u64> {
        self.of.get(&block).copied()
    }

    /// Returns a block and the other blocks of its group, ascending.
    pub(crate) fn members(&self, block: u64) -> Vec<u64> {
        let group = self.of(block).and_then(|group| self.members.get(&group));
        group.map_or_else(|| vec![block], |members| members.iter().copied().collect())
    }

    /// Joins blocks, and the groups that they are in, to one group.
    pub(crate) fn bind(&mut self, blocks: impl Iterator<Item = u64>) {
        let mut joined: BTreeSet<u64> = blocks.collect();
        if joined.len() < 2 {
            return;
        }
        let groups: BTreeSet<u64> = joined.iter().filter_map(|&block| self.of(block)).collect();
        // The largest group keeps its number, so that few blocks are renumbered.
        let size = |group: &u64| self.members.get(group).map_or(0, BTreeSet::len);
        let stays = groups.iter().copied().max_by_key(size);
        let group = stays.unwrap_or_else(|| {
            self.count += 1;
            self.count
        });
        for other in groups.into_iter().filter(|&other| other != group) {
            joined.extend(self.members.remove(&other).unwrap_or_default());
        }
        self.of.extend(joined.iter().map(|&block| (block, group)));
        self.members.entry(group).or_default().extend(joined);
    }

    /// Removes a block from its group.
    pub(crate) fn leave(&mut self, block: u64) {
        let Some(group) = self.of.remove(&block) else { return };
        if let Some(members) = self.members.get_mut(&group) {
            members.remove(&block);
            if members.is_empty() {
                self.members.remove(&group);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_touch_become_one() {
        let mut groups = Groups::default();
        groups.bind(7..8);
        assert_eq!((groups.of(7), groups.members(7)), (None, vec![7]));
        groups.bind(0..4);
        groups.bind(10..12);
        assert_eq!(groups.members(2), [0, 1, 2, 3]);
        assert_ne!(groups.of(2), groups.of(10));
        groups.bind(3..11);
        assert_eq!(groups.members(11), (0..12).collect::<Vec<_>>());
        assert_eq!(groups.members.len(), 1);
        for block in 0..12 {
            groups.leave(block);
            groups.leave(block);
        }
        assert!(groups.of.is_empty() && groups.members.is_empty());
    }
}
