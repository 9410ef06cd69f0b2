//! A set of blocks of a file, as ranges.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of blocks of a file. Adjacent ranges are joined.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ranges {
    /// The end of each range, by its start.
    ranges: BTreeMap<u64, u64>,
    count: u64,
}

impl Ranges {
    /// Returns the number of blocks.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Returns the range that contains block `at`.
    pub(crate) fn find(&self, at: u64) -> Option<Range<u64>> {
        let (&start, &end) = self.ranges.range(..=at).next_back()?;
        (at < end).then_some(start..end)
    }

    /// Returns the first block in `range`.
    pub(crate) fn first_in(&self, range: Range<u64>) -> Option<u64> {
        if range.is_empty() {
            return None;
        }
        match self.find(range.start) {
            Some(_) => Some(range.start),
            None => self.ranges.range(range).next().map(|(&start, _)| start),
        }
    }

    /// Returns the number of blocks of `range` that are not in the set.
    pub(crate) fn missing_in(&self, range: &Range<u64>) -> u64 {
        let before = self.ranges.range(..range.start).next_back();
        let inside = self.ranges.range(range.start..range.end.max(range.start));
        let there = before
            .into_iter()
            .chain(inside)
            .map(|(&start, &end)| end.min(range.end).saturating_sub(start.max(range.start)));
        range.end.saturating_sub(range.start).saturating_sub(there.sum())
    }

    /// Adds the blocks of a range.
    pub(crate) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        // Ranges that overlap or touch this one become part of it.
        while let Some((&before, &before_end)) = self.ranges.range(..=end).next_back()
            && before_end >= start
        {
            self.ranges.remove(&before);
            self.count = self.count.saturating_sub(before_end.saturating_sub(before));
            (start, end) = (start.min(before), end.max(before_end));
        }
        self.ranges.insert(start, end);
        self.count = self.count.saturating_add(end.saturating_sub(start));
    }

    /// Removes the blocks of a range.
    pub(crate) fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        while let Some((&start, &end)) = self.ranges.range(..range.end).next_back()
            && end > range.start
        {
            self.ranges.remove(&start);
            self.count = self.count.saturating_sub(end.saturating_sub(start));
            let rests = [start..range.start, range.end..end];
            for rest in rests.into_iter().filter(|rest| !rest.is_empty()) {
                self.count = self.count.saturating_add(rest.end.saturating_sub(rest.start));
                self.ranges.insert(rest.start, rest.end);
            }
            if start < range.start {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nvio_testkit::random::Rng;

    #[test]
    fn random_changes_are_those_of_a_list_of_bits() {
        let (mut set, mut model, mut random) = (Ranges::default(), [false; 100], Rng::new(1));
        for step in 0..5000 {
            let start = random.below(100);
            let range = start..start + random.below(101 - start);
            let bits = &mut model[range.start as usize..range.end as usize];
            let missing = bits.iter().filter(|&&bit| !bit).count() as u64;
            assert_eq!(set.missing_in(&range), missing, "step {step}");
            let first = (range.start..).zip(&*bits).find(|(_, bit)| **bit).map(|(at, _)| at);
            assert_eq!(set.first_in(range.clone()), first, "step {step}");
            let insert = random.below(2) == 0;
            bits.fill(insert);
            if insert {
                set.insert(range)
            } else {
                set.remove(range)
            }
            assert_eq!(set.count(), model.iter().filter(|&&bit| bit).count() as u64);
            let at = random.below(100);
            let found = set.find(at);
            assert_eq!(found.is_some(), model[at as usize]);
            if let Some(found) = found {
                assert!(model[found.start as usize..found.end as usize].iter().all(|&bit| bit));
                assert!(found.start == 0 || !model[found.start as usize - 1], "joined");
            }
        }
    }
}
