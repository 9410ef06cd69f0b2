//! One bit for each block of a folio.

use std::ops::Range;

const BITS: u32 = u64::BITS;

/// A set of the blocks of a folio.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BlockSet {
    words: Box<[u64]>,
    blocks: u32,
    /// Number of members.
    members: u32,
}

impl BlockSet {
    /// Creates the empty set of a folio of `blocks` blocks.
    pub(super) fn new(blocks: u32) -> Self {
        Self {
            words: vec![0; blocks.div_ceil(BITS) as usize].into_boxed_slice(),
            blocks,
            members: 0,
        }
    }

    /// Adds blocks, and returns the number of those that were not in the set.
    #[inline]
    pub(super) fn insert(&mut self, range: Range<u32>) -> u32 {
        // Most writes are of one block.
        if range.start.wrapping_add(1) != range.end || range.end > self.blocks {
            return self.insert_many(range);
        }
        let Some(word) = self.words.get_mut((range.start / BITS) as usize) else { return 0 };
        let new = u32::from(*word >> (range.start % BITS) & 1 == 0);
        *word |= 1 << (range.start % BITS);
        self.members += new;
        new
    }

    fn insert_many(&mut self, range: Range<u32>) -> u32 {
        let new = self.change(range, |word, mask| {
            let new = mask & !*word;
            *word |= mask;
            new.count_ones()
        });
        self.members += new;
        new
    }

    /// Removes blocks, and returns the number of those that were in the set.
    pub(super) fn remove(&mut self, range: Range<u32>) -> u32 {
        let old = self.change(range, |word, mask| {
            let old = mask & *word;
            *word &= !mask;
            old.count_ones()
        });
        self.members -= old;
        old
    }

    /// Calls `change` for each word with the mask of the range's bits, and returns the sum.
    fn change(&mut self, range: Range<u32>, change: impl Fn(&mut u64, u64) -> u32) -> u32 {
        let range = range.start..range.end.min(self.blocks);
        // Most ranges are in one word.
        if let Some((index, mask)) = one_mask(&range) {
            return self.words.get_mut(index).map_or(0, |word| change(word, mask));
        }
        let words = masks(range);
        words
            .map(|(index, mask)| self.words.get_mut(index).map_or(0, |word| change(word, mask)))
            .sum()
    }

    /// Returns true if all blocks of the range are in the set.
    #[inline]
    pub(super) fn contains(&self, range: Range<u32>) -> bool {
        self.members == self.blocks && range.end <= self.blocks || self.has_all(range)
    }

    #[inline]
    fn has_all(&self, range: Range<u32>) -> bool {
        if let Some((index, mask)) = one_mask(&range) {
            return self.words.get(index).is_some_and(|word| word & mask == mask);
        }
        masks(range)
            .all(|(index, mask)| self.words.get(index).is_some_and(|word| word & mask == mask))
    }

    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.members == self.blocks
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members == 0
    }

    /// Returns the first run of blocks, from `from` on, that are in the set, or that are not.
    pub(super) fn run(&self, from: u32, member: bool) -> Option<Range<u32>> {
        let start = self.find(from, member)?;
        Some(start..self.find(start, !member).unwrap_or(self.blocks))
    }

    /// Returns the first block from `from` on that is in the set, or that is not.
    fn find(&self, from: u32, member: bool) -> Option<u32> {
        let mut at = from;
        while at < self.blocks {
            let word = self.words.get((at / BITS) as usize)?;
            let wanted = if member { *word } else { !word } >> (at % BITS);
            if wanted != 0 {
                return Some(at + wanted.trailing_zeros()).filter(|&found| found < self.blocks);
            }
            at = (at / BITS + 1) * BITS;
        }
        None
    }
}

/// Returns the word of a range of bits that one word has, with the mask of its bits.
#[inline]
fn one_mask(range: &Range<u32>) -> Option<(usize, u64)> {
    let last = range.end.wrapping_sub(1);
    let mask = (u64::MAX << (range.start % BITS)) & (u64::MAX >> (BITS - 1 - last % BITS));
    (range.start / BITS == last / BITS).then_some(((range.start / BITS) as usize, mask))
}

/// Returns the words of a range of bits, each with the mask of its bits.
#[inline]
fn masks(range: Range<u32>) -> impl Iterator<Item = (usize, u64)> {
    let Range { start, end } = range;
    let words = if start < end { start / BITS..(end - 1) / BITS + 1 } else { 0..0 };
    words.map(move |index| {
        let first = start.saturating_sub(index * BITS);
        let last = (end - index * BITS).min(BITS);
        (index as usize, (u64::MAX << first) & (u64::MAX >> (BITS - last)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_those_of_a_list_of_flags() {
        for blocks in [1, 2, 63, 64, 65, 128, 200] {
            let mut rng = nvio_testkit::random::Rng::new(u64::from(blocks));
            let (mut set, mut flags) = (BlockSet::new(blocks), vec![false; blocks as usize]);
            for _ in 0..200 {
                let start = rng.range(0, u64::from(blocks)) as u32;
                let end = rng.range(u64::from(start), u64::from(blocks) + 1) as u32;
                let (all, add) = (start as usize..end as usize, rng.range(0, 2) == 1);
                let differ = flags[all.clone()].iter().filter(|&&flag| flag != add).count();
                let changed = if add { set.insert(start..end) } else { set.remove(start..end) };
                assert_eq!(changed as usize, differ);
                flags[all.clone()].fill(add);
                assert_eq!(set.is_empty(), !flags.contains(&true));
                assert_eq!(set.contains(start..end), flags[all].iter().all(|&flag| flag));
                let (mut at, mut listed) = (0, vec![false; blocks as usize]);
                while let Some(run) = set.run(at, true) {
                    assert!(run.start >= at && !run.is_empty());
                    listed[run.start as usize..run.end as usize].fill(true);
                    at = run.end;
                }
                assert_eq!(listed, flags);
            }
        }
    }
}
