//! A set of blocks of a file, as ranges.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of blocks of a file.
///
/// The range that was extended last is apart from the others, so that a file that grows by a block at a
/// time does not search for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ranges {
    /// The end of each range, by its start. Adjacent ranges are joined.
    ranges: BTreeMap<u64, u64>,
    /// The range that is apart. No other one overlaps it, or begins before `next`.
    recent: Range<u64>,
    /// The begin of the first of the others after it.
    next: u64,
    count: u64,
}

impl Ranges {
    /// Returns the number of blocks.
    #[inline]
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Returns true if nothing but `recent` has blocks of `range`.
    #[inline]
    fn is_near(&self, range: &Range<u64>) -> bool {
        self.count == 0 || range.start >= self.recent.start && range.end <= self.next
    }

    /// Returns a range that contains block `at`.
    #[inline]
    pub(crate) fn find(&self, at: u64) -> Option<Range<u64>> {
        if self.is_near(&(at..at)) && at < self.next || self.count == 0 {
            return Some(self.recent.clone()).filter(|recent| recent.contains(&at));
        }
        let (&start, &end) = self.ranges.range(..=at).next_back()?;
        (at < end).then_some(start..end)
    }

    /// Returns the first block in `range`.
    #[inline]
    pub(crate) fn first_in(&self, range: Range<u64>) -> Option<u64> {
        if range.is_empty() || self.is_near(&range) {
            return Some(range.start).filter(|&at| at < self.recent.end && !range.is_empty());
        }
        if self.find(range.start).is_some() {
            return Some(range.start);
        }
        let other = self.ranges.range(range.clone()).next().map(|(&start, _)| start);
        let recent = Some(self.recent.start).filter(|at| range.contains(at));
        let recent = recent.filter(|_| !self.recent.is_empty());
        other.into_iter().chain(recent).min()
    }

    /// Returns the number of blocks of `range` that are not in the set.
    #[inline]
    pub(crate) fn missing_in(&self, range: &Range<u64>) -> u64 {
        if self.is_near(range) {
            return range.end.saturating_sub(range.start.max(self.recent.end));
        }
        self.missing_in_others(range)
    }

    fn missing_in_others(&self, range: &Range<u64>) -> u64 {
        let before = self.ranges.range(..range.start).next_back();
        let inside = self.ranges.range(range.start..range.end.max(range.start));
        let others = before.into_iter().chain(inside).map(|(&start, &end)| start..end);
        let there = others
            .chain([self.recent.clone()])
            .map(|other| other.end.min(range.end).saturating_sub(other.start.max(range.start)));
        range.end.saturating_sub(range.start).saturating_sub(there.sum())
    }

    /// Adds the blocks of a range.
    #[inline]
    pub(crate) fn insert(&mut self, range: Range<u64>) {
        let extends = range.start <= self.recent.end && self.is_near(&range) && self.count > 0;
        if extends {
            let more = range.end.saturating_sub(self.recent.end);
            self.recent.end = self.recent.end.saturating_add(more);
            self.count = self.count.saturating_add(more);
        } else if !range.is_empty() {
            self.insert_other(range);
        }
    }

    /// Adds the blocks of a range, which is then the one that is apart.
    fn insert_other(&mut self, range: Range<u64>) {
        self.put_recent_back();
        let (mut start, mut end) = (range.start, range.end);
        // Ranges that overlap or touch this one become part of it.
        while let Some((&before, &before_end)) = self.ranges.range(..=end).next_back()
            && before_end >= start
        {
            self.ranges.remove(&before);
            self.count = self.count.saturating_sub(before_end.saturating_sub(before));
            (start, end) = (start.min(before), end.max(before_end));
        }
        self.count = self.count.saturating_add(end.saturating_sub(start));
        self.next = self.ranges.range(end..).next().map_or(u64::MAX, |(&next, _)| next);
        self.recent = start..end;
    }

    /// Adds the range that is apart to the others.
    fn put_recent_back(&mut self) {
        let Range { start, mut end } = std::mem::take(&mut self.recent);
        self.next = 0;
        if start >= end {
            return;
        }
        // The range may have grown up to the next one.
        if let Some(next_end) = self.ranges.remove(&end) {
            end = next_end;
        }
        self.ranges.insert(start, end);
    }

    /// Removes the blocks of a range.
    pub(crate) fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() || self.count == 0 {
            return;
        }
        self.put_recent_back();
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
                assert!(found.contains(&at));
            }
        }
    }
}
