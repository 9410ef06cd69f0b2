//! Data pointers: the addresses of a command's data (Base 4.1).
//!
//! PRPs describe pages: only the first may begin, and only the last may end, inside a page. SGLs
//! describe any ranges. If the controller supports SGLs, they replace lists of PRPs.

use std::ptr::NonNull;

use nvio_spec::sgl::PSDT_SGL;

use crate::dma::Shared;

/// Bytes of a page of lists. A longer list is chained.
pub(crate) const LIST_BYTES: usize = 4096;
/// PRP entries in a page of lists. The last entry of a page that is continued is the link.
const LIST_ENTRIES: usize = LIST_BYTES / 8;
/// SGL descriptors in a page of lists.
const SGL_ENTRIES: usize = LIST_BYTES / 16;

/// SGL descriptor types, in bits 7:4 of the last byte (Base 4.1.2, figure 113).
const SGL_DATA_BLOCK: u64 = 0x0 << 60;
const SGL_LAST_SEGMENT: u64 = 0x3 << 60;

/// A contiguous range of I/O virtual addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) iova: u64,
    pub(super) len: usize,
}

/// A command's data pointer: DPTR, and PSDT of its flags (Base 3.3.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DataPointer {
    pub(super) first: u64,
    pub(super) second: u64,
    pub(super) psdt: u8,
}

/// The error of ranges that neither PRPs nor SGLs describe: the controller supports no SGLs, or
/// there are too many ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scattered;

/// The PRP and SGL lists of a queue pair: a number of pages for each slot.
pub(super) struct Lists {
    base: NonNull<u64>,
    iova: u64,
    /// log2 of the bytes of a memory page.
    page_shift: u32,
    /// Entries of PRP lists for each slot, including links.
    entries: usize,
    sgl: bool,
    _memory: Shared,
}

// SAFETY: the lists own their memory and share it only with the device.
unsafe impl Send for Lists {}

/// Returns the number of list pages for a transfer of `bytes` that begins anywhere in a page; at
/// least 1.
pub(crate) fn list_pages(bytes: usize, page_shift: u32) -> usize {
    // PRP1 describes the first page; a transfer that begins inside a page needs one page more.
    let entries = bytes.div_ceil(1 << page_shift);
    // All pages except the last have an entry for the link.
    entries.saturating_sub(1).div_ceil(LIST_ENTRIES - 1).max(1)
}

impl Lists {
    /// Lists in `memory`, which has `pages` of [`LIST_BYTES`] for each slot, for memory pages of
    /// `1 << page_shift`.
    pub(super) fn new(memory: Shared, pages: usize, page_shift: u32, sgl: bool) -> Self {
        let (base, iova) = (memory.ptr().cast(), memory.iova());
        let entries = pages * LIST_ENTRIES;
        Self { base, iova, page_shift, entries, sgl, _memory: memory }
    }

    /// Returns the data pointer to one range, with the lists of `slot`.
    ///
    /// # Errors
    /// [`Scattered`] for a range that exceeds the lists.
    pub(super) fn contiguous(&mut self, slot: u16, range: Range) -> Result<DataPointer, Scattered> {
        let page = 1u64 << self.page_shift;
        let lead = range.iova & (page - 1);
        let span = lead + range.len as u64;
        let next = range.iova - lead + page;
        let (second, psdt) = if span <= page {
            (0, 0)
        } else if span <= 2 * page {
            (next, 0)
        } else if self.sgl {
            (data_block(range.len), PSDT_SGL)
        } else {
            let shift = self.page_shift;
            let rest = (0..(span - 1) >> shift).map(move |i| next + (i << shift));
            (self.write_prps(slot, rest).ok_or(Scattered)?, 0)
        };
        Ok(DataPointer { first: range.iova, second, psdt })
    }

    /// Returns the data pointer to ranges in the order of the transfer. No range is empty.
    pub(super) fn scattered(
        &mut self,
        slot: u16,
        ranges: impl Iterator<Item = Range> + Clone,
    ) -> Result<DataPointer, Scattered> {
        let mut rest = ranges.clone();
        let Some(first) = rest.next() else { return Ok(DataPointer::default()) };
        if rest.clone().next().is_none() {
            return self.contiguous(slot, first);
        }
        if self.fits_pages(ranges.clone()) {
            let mask = (1u64 << self.page_shift) - 1;
            let shift = self.page_shift;
            let mut pages = ranges.flat_map(move |range| {
                let start = range.iova & !mask;
                let count = (range.iova - start + range.len as u64 + mask) >> shift;
                (0..count).map(move |i| start + (i << shift))
            });
            pages.next();
            let mut peek = pages.clone();
            let (second, more) = (peek.next().unwrap_or(0), peek.next().is_some());
            let second = if more { self.write_prps(slot, pages).ok_or(Scattered)? } else { second };
            return Ok(DataPointer { first: first.iova, second, psdt: 0 });
        }
        if self.sgl { self.write_sgl(slot, ranges) } else { Err(Scattered) }
    }

    /// Returns true if only the first range begins, and only the last ends, inside a page.
    fn fits_pages(&self, ranges: impl Iterator<Item = Range>) -> bool {
        let mask = (1u64 << self.page_shift) - 1;
        let mut end = 0;
        let mut first = true;
        for range in ranges {
            if !first && (range.iova | end) & mask != 0 {
                return false;
            }
            end = range.iova + range.len as u64;
            first = false;
        }
        true
    }

    /// Writes a list of pages and returns its address. The last entry of a memory page is a link,
    /// because a controller expects links only there (Base 4.1.1).
    fn write_prps(&mut self, slot: u16, pages: impl Iterator<Item = u64>) -> Option<u64> {
        let mut pages = pages.peekable();
        let mut at = 0;
        while let Some(page) = pages.next() {
            let next = self.address(slot, at + 1);
            let last_of_page = next & ((1u64 << self.page_shift) - 1) == 0;
            if last_of_page && pages.peek().is_some() {
                self.write(slot, at, next)?;
                at += 1;
            }
            self.write(slot, at, page)?;
            at += 1;
        }
        Some(self.address(slot, 0))
    }

    /// Writes one segment of descriptors, and returns the descriptor of the segment.
    fn write_sgl(
        &mut self,
        slot: u16,
        ranges: impl Iterator<Item = Range>,
    ) -> Result<DataPointer, Scattered> {
        let mut count = 0;
        for range in ranges {
            if count == SGL_ENTRIES {
                return Err(Scattered);
            }
            self.write(slot, 2 * count, range.iova).ok_or(Scattered)?;
            self.write(slot, 2 * count + 1, data_block(range.len)).ok_or(Scattered)?;
            count += 1;
        }
        let second = SGL_LAST_SEGMENT | (count * 16) as u64;
        Ok(DataPointer { first: self.address(slot, 0), second, psdt: PSDT_SGL })
    }

    fn address(&self, slot: u16, at: usize) -> u64 {
        self.iova + ((usize::from(slot) * self.entries + at) * 8) as u64
    }

    fn write(&mut self, slot: u16, at: usize, value: u64) -> Option<()> {
        if at >= self.entries {
            return None;
        }
        let at = usize::from(slot) * self.entries + at;
        // SAFETY: the memory has `entries` entries for each slot. The device reads the lists of a
        // slot only while a command of the slot is in flight, and none is yet.
        unsafe { self.base.add(at).write_volatile(value.to_le()) };
        Some(())
    }

    #[cfg(test)]
    fn entry(&self, slot: usize, at: usize) -> u64 {
        // SAFETY: tests access entries inside the memory.
        unsafe { self.base.add(slot * self.entries + at).read_volatile() }
    }
}

/// Returns the second half of a Data Block descriptor (Base 4.1.2, figure 115).
fn data_block(len: usize) -> u64 {
    // A buffer has fewer than 4 GiB.
    SGL_DATA_BLOCK | (len as u64 & 0xffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Arena;

    fn lists(page_shift: u32, pages: usize, sgl: bool) -> Lists {
        let memory = Arena::detached(1).unwrap().share(3 * pages * LIST_BYTES, 4096).unwrap();
        Lists::new(memory, pages, page_shift, sgl)
    }

    fn describe(lists: &mut Lists, slot: u16, iova: u64, len: usize) -> (u64, u64) {
        let pointer = lists.contiguous(slot, Range { iova, len }).unwrap();
        (pointer.first, pointer.second)
    }

    #[test]
    fn one_and_two_pages_need_no_list() {
        let mut lists = lists(12, 1, true);
        assert_eq!(describe(&mut lists, 0, 0x1000, 4096), (0x1000, 0));
        assert_eq!(describe(&mut lists, 0, 0x1e00, 512), (0x1e00, 0));
        assert_eq!(describe(&mut lists, 0, 0x1e00, 513), (0x1e00, 0x2000));
        assert_eq!(describe(&mut lists, 0, 0x1000, 8192), (0x1000, 0x2000));
        assert_eq!(describe(&mut lists, 0, 0x1e00, 512 + 4096), (0x1e00, 0x2000));
    }

    #[test]
    fn three_pages_need_a_list_of_two() {
        let mut lists = lists(12, 1, false);
        let list = lists.iova + LIST_BYTES as u64;
        assert_eq!(describe(&mut lists, 1, 0x1e00, 512 + 4097), (0x1e00, list));
        assert_eq!([lists.entry(1, 0), lists.entry(1, 1), lists.entry(1, 2)], [0x2000, 0x3000, 0]);
        assert_eq!(lists.entry(0, 0), 0, "other slots keep theirs");
    }

    #[test]
    fn long_lists_are_chained_and_short_ones_are_not() {
        for (entries, pages) in [(511, 1), (512, 1), (513, 2), (1022, 2), (1023, 2), (1024, 3)] {
            let bytes = entries << 12;
            assert_eq!(list_pages(bytes, 12), pages, "{entries}");
            let mut lists = lists(12, pages, false);
            // The worst offset needs one entry for each page, and PRP1 for one page more.
            let (_, list) = describe(&mut lists, 1, 0x10_0ffc, bytes);
            let mut at = ((list - lists.iova) / 8) as usize;
            for i in 0..entries {
                let last = at % LIST_ENTRIES == LIST_ENTRIES - 1;
                if last && i + 1 < entries {
                    at = ((lists.entry(0, at) - lists.iova) / 8) as usize;
                }
                assert_eq!(lists.entry(0, at), 0x10_1000 + ((i as u64) << 12), "{entries}: {i}");
                at += 1;
            }
        }
    }

    #[test]
    fn transfer_too_long_for_its_lists_has_no_pointer() {
        let mut lists = lists(12, 1, false);
        let range = |pages: usize| Range { iova: 0x10_0000, len: pages << 12 };
        assert!(lists.contiguous(0, range(513)).is_ok());
        assert_eq!(lists.contiguous(0, range(514)), Err(Scattered));
    }

    #[test]
    fn lists_are_chained_where_a_memory_page_of_any_size_ends() {
        let entries = 2000;
        for page_shift in [12, 13, 16] {
            let bytes = entries << page_shift;
            let mut lists = lists(page_shift, list_pages(bytes, page_shift), false);
            for slot in [0, 1] {
                let first = (1 << 40) - 512;
                let (_, mut at) = describe(&mut lists, slot, first, bytes);
                let links = (0..entries).filter(|i| {
                    let linked = (at + 8).is_multiple_of(1 << page_shift) && i + 1 < entries;
                    if linked {
                        at = lists.entry(0, ((at - lists.iova) / 8) as usize);
                    }
                    let page = lists.entry(0, ((at - lists.iova) / 8) as usize);
                    assert_eq!(page, (1 << 40) + ((*i as u64) << page_shift), "{page_shift}: {i}");
                    at += 8;
                    linked
                });
                assert!(links.count() <= 4);
            }
        }
    }

    #[test]
    fn pages_are_those_of_the_controller() {
        let mut lists = lists(16, 1, false);
        assert_eq!(describe(&mut lists, 0, 0x1_f000, 8192), (0x1_f000, 0x2_0000));
    }

    #[test]
    fn ranges_that_are_whole_pages_in_between_are_prps() {
        let mut lists = lists(12, 1, true);
        let range = |iova, len| Range { iova, len };
        let two = [range(0x1e00, 512), range(0x9000, 100)];
        let pointer = lists.scattered(0, two.into_iter()).unwrap();
        assert_eq!(pointer, DataPointer { first: 0x1e00, second: 0x9000, psdt: 0 });
        let three = [range(0x1e00, 512), range(0x9000, 4096), range(0x4000, 1)];
        let pointer = lists.scattered(0, three.into_iter()).unwrap();
        assert_eq!((pointer.first, pointer.second, pointer.psdt), (0x1e00, lists.iova, 0));
        assert_eq!([lists.entry(0, 0), lists.entry(0, 1)], [0x9000, 0x4000]);
    }

    #[test]
    fn other_ranges_need_sgls() {
        let ranges = [Range { iova: 0x1e00, len: 100 }, Range { iova: 0x9004, len: 8 }];
        assert_eq!(lists(12, 1, false).scattered(0, ranges.into_iter()), Err(Scattered));
        let mut lists = lists(12, 1, true);
        let pointer = lists.scattered(1, ranges.into_iter()).unwrap();
        let list = lists.iova + LIST_BYTES as u64;
        assert_eq!((pointer.first, pointer.second), (list, 0x3 << 60 | 32));
        let entries = [0, 1, 2, 3].map(|at| lists.entry(1, at));
        assert_eq!(entries, [0x1e00, 100, 0x9004, 8]);
        let many = std::iter::repeat_n(ranges[1], SGL_ENTRIES + 1);
        assert_eq!(lists.scattered(0, many), Err(Scattered));
    }

    #[test]
    fn large_transfers_are_one_sgl_descriptor() {
        let mut lists = lists(12, 1, true);
        let pointer = lists.contiguous(0, Range { iova: 0x1004, len: 1 << 20 }).unwrap();
        assert_eq!(pointer, DataPointer { first: 0x1004, second: 1 << 20, psdt: PSDT_SGL });
    }
}
