//! Physical Region Pages: where the data of a command is (Base 4.1.1).

use std::ptr::NonNull;

use crate::dma::Shared;

/// Bytes of one slot's PRP list.
pub(crate) const LIST_BYTES: usize = 4096;
const LIST_ENTRIES: usize = LIST_BYTES / 8;

/// One PRP list for each slot. A list is at most [`LIST_ENTRIES`] long, so it never chains.
pub(super) struct PrpLists {
    base: NonNull<u64>,
    iova: u64,
    /// Bytes of a memory page less one.
    page_mask: u64,
    page_shift: u32,
    _memory: Shared,
}

// SAFETY: the lists' memory is their own, and shared with nobody but the device.
unsafe impl Send for PrpLists {}

/// Most bytes that a PRP entry and one list describe, wherever in a page the buffer begins.
pub(crate) const fn max_bytes(page_shift: u32) -> usize {
    LIST_ENTRIES << page_shift
}

impl PrpLists {
    /// Lists in `memory`, which has [`LIST_BYTES`] for each slot, for pages of `1 << page_shift`.
    pub(super) fn new(memory: Shared, page_shift: u32) -> Self {
        let page_mask = (1 << page_shift) - 1;
        let (base, iova) = (memory.ptr().cast(), memory.iova());
        Self { base, iova, page_mask, page_shift, _memory: memory }
    }

    /// Whether PRP1 alone, with PRP2 0, describes `len` bytes at `iova`.
    #[inline]
    pub(super) fn is_one_page(&self, iova: u64, len: usize) -> bool {
        (iova & self.page_mask) + len as u64 <= self.page_mask + 1
    }

    /// PRP1 and PRP2 for `len` bytes at `iova`, at most [`max_bytes`], in the name of `slot`.
    pub(super) fn describe(&mut self, slot: u16, iova: u64, len: usize) -> (u64, u64) {
        // Bytes of the first page that the buffer does not use.
        let lead = iova & self.page_mask;
        let span = lead + len as u64;
        let page = self.page_mask + 1;
        if span <= page {
            (iova, 0)
        } else if span <= 2 * page {
            (iova, iova - lead + page)
        } else {
            (iova, self.write_list(slot, iova - lead + page, span - page))
        }
    }

    /// Writes the list of the pages that cover `bytes` from `first`, and gives its address.
    fn write_list(&mut self, slot: u16, first: u64, bytes: u64) -> u64 {
        let at = usize::from(slot) * LIST_ENTRIES;
        let pages = (bytes + self.page_mask) >> self.page_shift;
        debug_assert!(pages <= LIST_ENTRIES as u64);
        for (i, page) in (0..pages).enumerate().take(LIST_ENTRIES) {
            let entry = first + (page << self.page_shift);
            // SAFETY: each slot has a list of `LIST_ENTRIES`, and `i` is below that. The device
            // reads the list only while a command of this slot is in flight, and none is yet.
            unsafe { self.base.add(at + i).write_volatile(entry.to_le()) };
        }
        self.iova + (usize::from(slot) * LIST_BYTES) as u64
    }

    #[cfg(test)]
    fn entry(&self, slot: usize, i: usize) -> u64 {
        // SAFETY: tests stay inside the memory.
        unsafe { self.base.add(slot * LIST_ENTRIES + i).read_volatile() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Arena;

    fn lists(page_shift: u32) -> PrpLists {
        let memory = Arena::new(1, 0).unwrap().share(3 * LIST_BYTES, 4096).unwrap();
        PrpLists::new(memory, page_shift)
    }

    #[test]
    fn one_and_two_pages_need_no_list() {
        let mut lists = lists(12);
        assert_eq!(lists.describe(0, 0x1000, 4096), (0x1000, 0));
        assert_eq!(lists.describe(0, 0x1e00, 512), (0x1e00, 0));
        assert_eq!(lists.describe(0, 0x1e00, 513), (0x1e00, 0x2000));
        assert_eq!(lists.describe(0, 0x1000, 8192), (0x1000, 0x2000));
        assert_eq!(lists.describe(0, 0x1e00, 512 + 4096), (0x1e00, 0x2000));
    }

    #[test]
    fn three_pages_need_a_list_of_two() {
        let mut lists = lists(12);
        assert_eq!(lists.describe(1, 0x1e00, 512 + 4097), (0x1e00, LIST_BYTES as u64));
        assert_eq!([lists.entry(1, 0), lists.entry(1, 1), lists.entry(1, 2)], [0x2000, 0x3000, 0]);
        assert_eq!(lists.entry(0, 0), 0, "other slots keep theirs");
    }

    #[test]
    fn the_largest_transfer_fits_its_list_at_any_offset() {
        let mut lists = lists(12);
        let (_, list) = lists.describe(2, 0x10_0ffc, max_bytes(12));
        assert_eq!(list, 2 * LIST_BYTES as u64);
        assert_eq!(lists.entry(2, LIST_ENTRIES - 1), 0x10_1000 + 511 * 4096);
    }

    #[test]
    fn pages_are_those_of_the_controller() {
        let mut lists = lists(16);
        assert_eq!(lists.describe(0, 0x1_f000, 8192), (0x1_f000, 0x2_0000));
    }
}
