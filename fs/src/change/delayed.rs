//! Blocks that are promised to data in the cache, before they are allocated.
//!
//! A buffered write to a hole reserves its blocks, and blocks for the nodes of the tree that its
//! extents may need. They are allocated when the data is written back, which then cannot fail for lack of
//! space, and the reservation of the nodes is kept until the data is reachable.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::format::extent::{DEPTH_MAX, ENTRY_SIZE};
use crate::format::superblock::Superblock;
use crate::map::ranges::Ranges;
use crate::number::as_u64;

/// Sum of the reserved blocks of all files.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reserved(Arc<AtomicU64>);

impl Reserved {
    pub(crate) fn blocks(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Adds blocks. The caller has the lock under which blocks are allocated, and knows that so many
    /// are free.
    fn add(&self, blocks: u64) {
        self.0.fetch_add(blocks, Ordering::AcqRel);
    }

    fn remove(&self, blocks: u64) {
        self.0.fetch_sub(blocks, Ordering::AcqRel);
    }
}

/// The blocks of a file that have data in the cache only.
#[derive(Debug)]
pub(crate) struct Delayed {
    /// Blocks that are not allocated.
    holes: Ranges,
    /// Blocks that are allocated, and unwritten until their data is on the device.
    unwritten: Ranges,
    /// Blocks after the last hole that are reserved ahead, for the next writes of a file that grows.
    ahead: Range<u64>,
    /// Number of the map in which those are a hole.
    ahead_map: u64,
    /// Blocks of the filesystem that are reserved for all of them.
    reserved: u64,
    all: Reserved,
}

impl Drop for Delayed {
    fn drop(&mut self) {
        self.all.remove(self.reserved);
    }
}

impl Delayed {
    pub(crate) fn new(all: Reserved) -> Self {
        let (holes, unwritten) = (Ranges::default(), Ranges::default());
        Self { holes, unwritten, ahead: 0..0, ahead_map: 0, reserved: 0, all }
    }

    /// Returns the range of blocks around block `at` that are reserved.
    pub(crate) fn hole_at(&self, at: u64) -> Option<Range<u64>> {
        self.holes.find(at)
    }

    /// Returns the first reserved block in a range.
    pub(crate) fn next_hole(&self, range: Range<u64>) -> Option<u64> {
        self.holes.first_in(range)
    }

    /// Returns true if data of a block from `at` on is not yet reachable.
    pub(crate) fn has_blocks_after(&self, at: u64) -> bool {
        let after = at..u64::MAX;
        self.holes.first_in(after.clone()).or(self.unwritten.first_in(after)).is_some()
    }

    /// Reserves the blocks of a range: `hole` if they are to be allocated. Returns false, and changes
    /// nothing, if more blocks are needed than are `available`. The caller has the lock of [`Reserved::add`].
    pub(crate) fn reserve(
        &mut self,
        superblock: &Superblock,
        range: Range<u64>,
        hole: bool,
        available: u64,
    ) -> bool {
        let blocks = if hole { self.holes.missing_in(&range) } else { 0 };
        let new = self.unwritten.missing_in(&range).max(blocks);
        let needed = self.needed(superblock, blocks, new);
        let more = needed.saturating_sub(self.reserved);
        if more > available {
            return false;
        }
        if self.ahead.end > range.start && self.ahead.start < range.end {
            self.ahead = 0..0;
        }
        let list = if hole { &mut self.holes } else { &mut self.unwritten };
        list.insert(range);
        self.all.add(more);
        self.reserved = self.reserved.saturating_add(more);
        true
    }

    /// Reserves blocks ahead, in a hole of map `map_number`: a small part of those that are `available`. The
    /// caller has the lock of [`Reserved::add`].
    pub(crate) fn reserve_ahead(
        &mut self,
        superblock: &Superblock,
        range: Range<u64>,
        map_number: u64,
        available: u64,
    ) {
        let most = range.start.saturating_add(available >> 4);
        let end = self.next_hole(range.clone()).unwrap_or(range.end).min(most);
        (self.ahead, self.ahead_map) = (range.start..end, map_number);
        let more = self.needed(superblock, 0, 0).saturating_sub(self.reserved);
        if more > available >> 3 {
            self.ahead = 0..0;
            return self.settle(superblock);
        }
        self.all.add(more);
        self.reserved = self.reserved.saturating_add(more);
    }

    /// Uses blocks that were reserved ahead. Returns false if the range was not, or if it may have blocks
    /// since.
    #[inline]
    pub(crate) fn use_ahead(&mut self, range: &Range<u64>, map_number: u64) -> bool {
        let is_ahead = range.start == self.ahead.start && range.end <= self.ahead.end;
        if !is_ahead || self.ahead_map != map_number {
            return false;
        }
        self.ahead.start = range.end;
        self.holes.insert(range.clone());
        true
    }

    /// Gives back what was reserved ahead. Returns false if nothing was.
    pub(crate) fn release_ahead(&mut self, superblock: &Superblock) -> bool {
        let had_some = !self.ahead.is_empty();
        self.ahead = 0..0;
        self.settle(superblock);
        had_some
    }

    /// Notes that blocks were allocated: their data is yet to be written.
    pub(crate) fn allocated(&mut self, superblock: &Superblock, range: Range<u64>) {
        self.holes.remove(range.clone());
        self.unwritten.insert(range);
        self.settle(superblock);
    }

    /// Gives back what was reserved for a range: its data is on the device, or is gone.
    pub(crate) fn release(&mut self, superblock: &Superblock, range: Range<u64>) {
        self.holes.remove(range.clone());
        self.unwritten.remove(range);
        self.settle(superblock);
    }

    /// Gives back blocks that are no longer needed.
    fn settle(&mut self, superblock: &Superblock) {
        if self.holes.count() == 0 {
            self.ahead = 0..0;
        }
        let needed = self.needed(superblock, 0, 0).min(self.reserved);
        self.all.remove(self.reserved.saturating_sub(needed));
        self.reserved = needed;
    }

    /// Returns the blocks of the filesystem that are needed at most, with so many more blocks to be
    /// allocated and blocks to be converted.
    #[inline]
    fn needed(&self, superblock: &Superblock, holes: u64, unwritten: u64) -> u64 {
        let ahead = self.ahead.end.saturating_sub(self.ahead.start);
        let data = self.holes.count().saturating_add(holes).saturating_add(ahead);
        let blocks = self.unwritten.count().saturating_add(data).saturating_add(unwritten);
        if blocks == 0 {
            return 0;
        }
        // Each block may be an extent between two others, and nodes may be half full.
        let entries = u64::from(superblock.block_size()).checked_div(as_u64(ENTRY_SIZE));
        let nodes = blocks.saturating_mul(4).div_ceil(entries.unwrap_or(1).max(1));
        data.saturating_add(nodes).saturating_add(DEPTH_MAX.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Image;

    #[test]
    fn what_was_reserved_is_given_back() {
        let fs = Image::new().open();
        let (superblock, all) = (fs.superblock(), Reserved::default());
        let mut delayed = Delayed::new(all.clone());
        assert!(!delayed.reserve(superblock, 0..100, true, 100), "none is left for nodes");
        assert_eq!((all.blocks(), delayed.hole_at(0)), (0, None));
        assert!(delayed.reserve(superblock, 0..100, true, 1000));
        let first = all.blocks();
        assert!(first > 100 && delayed.hole_at(99) == Some(0..100));
        assert!(delayed.reserve(superblock, 50..100, true, 0), "they are reserved");
        assert!(delayed.reserve(superblock, 200..300, false, 1000));
        assert!(all.blocks() - first < 20, "only nodes");
        delayed.allocated(superblock, 0..60);
        assert_eq!(delayed.next_hole(0..100), Some(60));
        assert!(delayed.has_blocks_after(299) && !delayed.has_blocks_after(300));
        delayed.release(superblock, 0..100);
        delayed.release(superblock, 200..250);
        assert!(all.blocks() > 0);
        delayed.release(superblock, 0..1000);
        assert_eq!(all.blocks(), 0);
        assert!(delayed.reserve(superblock, 7..8, true, 1000));
        let before = all.blocks();
        delayed.reserve_ahead(superblock, 8..1000, 5, 1600);
        assert_eq!(delayed.hole_at(8), None, "only a promise");
        assert!(all.blocks() >= before + 100 && all.blocks() <= before + 120);
        assert!(!delayed.use_ahead(&(9..10), 5) && !delayed.use_ahead(&(8..9), 6));
        assert!(delayed.use_ahead(&(8..10), 5) && delayed.use_ahead(&(10..11), 5));
        assert_eq!(delayed.hole_at(10), Some(7..11));
        assert!(delayed.release_ahead(superblock) && !delayed.release_ahead(superblock));
        assert!(all.blocks() < before + 10 && !delayed.use_ahead(&(11..12), 5));
        delayed.reserve_ahead(superblock, 11..1000, 5, 20);
        assert!(all.blocks() < before + 10, "none is left for the tree");
        delayed.reserve_ahead(superblock, 11..1000, 5, 1600);
        assert!(delayed.reserve(superblock, 40..41, true, 1000));
        assert!(!delayed.use_ahead(&(11..12), 5), "another write is in the range");
        delayed.reserve_ahead(superblock, 11..1000, 5, 1600);
        assert!(!delayed.use_ahead(&(11..41), 5) && delayed.use_ahead(&(11..40), 5));
        delayed.release(superblock, 7..41);
        assert_eq!(all.blocks(), 0, "no data is delayed");
        assert!(delayed.reserve(superblock, 7..8, true, 1000));
        drop(delayed);
        assert_eq!(all.blocks(), 0);
    }
}
