//! The free pages of an arena.

/// Granularity of allocation, bytes. It is the memory page size of queues, unless a controller
/// does not support it.
///
/// See the [example](crate::DmaBuf#examples).
pub const PAGE_SIZE: usize = 4096;

pub(super) const HUGE_PAGE_SIZE: usize = 2 << 20;

/// A bitmap of used pages with a first-fit search. Not on the I/O path.
pub(crate) struct PageMap {
    used: Vec<u64>,
    pages: usize,
    /// No page before this one is free.
    lowest: usize,
}

impl PageMap {
    /// Creates a map of `pages` free pages.
    pub(crate) fn new(pages: usize) -> Self {
        Self { used: vec![0; pages.div_ceil(64)], pages, lowest: 0 }
    }

    pub(super) fn is_used(&self, page: usize) -> bool {
        self.used[page / 64] >> (page % 64) & 1 != 0
    }

    /// Allocates `count` consecutive pages from a multiple of `align` on, and returns the first.
    pub(crate) fn allocate(&mut self, count: usize, align: usize) -> Option<usize> {
        self.lowest = self.next_free(self.lowest);
        let mut first = self.lowest.next_multiple_of(align);
        while first.checked_add(count)? <= self.pages {
            match (first..first + count).rev().find(|&page| self.is_used(page)) {
                Some(used) => first = self.next_free(used + 1).next_multiple_of(align),
                None => {
                    self.mark(first, count);
                    return Some(first);
                }
            }
        }
        None
    }

    /// Returns the first free page from `page` on, or the number of pages.
    fn next_free(&self, page: usize) -> usize {
        let mut page = page;
        while page < self.pages {
            // The free pages of a word, from this one on.
            let free = !self.used[page / 64] >> (page % 64);
            match free {
                0 => page = (page / 64 + 1) * 64,
                free => return (page + free.trailing_zeros() as usize).min(self.pages),
            }
        }
        self.pages
    }

    /// Allocates the given pages, which exist. Returns false if one of them is used.
    pub(super) fn claim(&mut self, first: usize, count: usize) -> bool {
        let free = (first..first + count).all(|page| !self.is_used(page));
        if free {
            self.mark(first, count);
        }
        free
    }

    fn mark(&mut self, first: usize, count: usize) {
        (first..first + count).for_each(|page| self.used[page / 64] |= 1 << (page % 64));
    }

    /// Marks `count` pages from page `first` on as free.
    pub(crate) fn free(&mut self, first: usize, count: usize) {
        (first..first + count).for_each(|page| self.used[page / 64] &= !(1 << (page % 64)));
        self.lowest = self.lowest.min(first);
    }
}
