//! The host's memory as a device accesses it, and the data pointers of commands (Base 4.1).

use std::os::fd::{AsFd, AsRawFd};

use nvio_driver::spec::sgl::{Descriptor, PSDT_MASK, PSDT_PRP, PSDT_SGL};
use nvio_driver::spec::{Cqe, Sqe};
use nvio_driver::{Arena, Mmio};
use zerocopy::{FromBytes, IntoBytes};

/// An address and a length in bytes.
pub type Range = (u64, usize);

/// A second mapping of the arena.
pub struct Memory {
    arena: Arena,
    map: Mmio,
}

impl Memory {
    pub fn new(arena: &Arena) -> Self {
        let map =
            Mmio::map(arena.as_fd(), arena.file_offset(), arena.iova(), arena.size()).unwrap();
        Self { arena: arena.clone(), map }
    }

    /// Checks that a range is allocated, as every range in a pointer must be.
    pub fn check(&self, (iova, bytes): Range, what: &str) {
        assert!(self.arena.is_allocated(iova, bytes), "{what}: {bytes} at {iova:#x} is not lent");
    }

    /// Returns true if no page is allocated.
    pub fn is_free(&self) -> bool {
        let pages = (self.arena.size() / 4096) as u64;
        (0..pages).all(|page| !self.arena.is_allocated(self.arena.iova() + page * 4096, 1))
    }

    /// Returns to the system the pages that the driver does not use again.
    pub fn discard(&self) {
        let how = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        let [offset, bytes] = [self.arena.file_offset(), self.arena.size() as u64];
        let file = self.arena.as_fd().as_raw_fd();
        // SAFETY: the arguments are numbers, and the content of the pages is not used again.
        let result = unsafe { libc::fallocate(file, how, offset as i64, bytes as i64) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }

    pub fn read32(&self, iova: u64) -> u32 {
        self.map.read32(iova).unwrap()
    }

    pub fn write32(&self, iova: u64, value: u32) {
        self.map.write32(iova, value).unwrap();
    }

    fn read64(&self, iova: u64) -> u64 {
        u64::from(self.read32(iova + 4)) << 32 | u64::from(self.read32(iova))
    }

    pub fn sqe(&self, ring: u64, index: u32) -> Sqe {
        let at = ring + 64 * u64::from(index);
        self.check((at, 64), "a submission queue entry");
        let words: [u32; 16] = std::array::from_fn(|i| self.read32(at + 4 * i as u64).to_le());
        Sqe::read_from_bytes(words.as_bytes()).unwrap()
    }

    pub fn cqe(&self, ring: u64, index: u32) -> Cqe {
        let at = ring + 16 * u64::from(index);
        let words: [u32; 4] = std::array::from_fn(|i| self.read32(at + 4 * i as u64).to_le());
        Cqe::read_from_bytes(words.as_bytes()).unwrap()
    }

    pub fn post(&self, ring: u64, index: u32, cqe: &Cqe) {
        let at = ring + 16 * u64::from(index);
        for (word, to) in cqe.as_bytes().chunks(4).zip((at..).step_by(4)) {
            self.write32(to, u32::from_le_bytes(word.try_into().unwrap()));
        }
    }

    /// Writes the data of a command.
    pub fn fill(&self, ranges: &[Range], data: &[u8]) {
        let mut words = data.chunks_exact(4);
        for &(iova, bytes) in ranges {
            assert_eq!((iova % 4, bytes % 4), (0, 0), "data that is not whole dwords");
            for (to, word) in (iova..iova + bytes as u64).step_by(4).zip(&mut words) {
                self.write32(to, u32::from_le_bytes(word.try_into().unwrap()));
            }
        }
    }

    /// Returns the ranges of the `bytes` of data of a command. Adjacent ranges are joined.
    pub fn data(&self, sqe: &Sqe, bytes: usize, page_shift: u32) -> Vec<Range> {
        let mut ranges = match sqe.flags & PSDT_MASK {
            PSDT_PRP => self.prps(sqe, bytes, 1 << page_shift),
            PSDT_SGL => self.sgl(sqe),
            other => panic!("PSDT {other:#x}"),
        };
        join(&mut ranges);
        let described: usize = ranges.iter().map(|range| range.1).sum();
        assert_eq!(described, bytes, "the data pointer is of another length: {sqe:?}");
        ranges.iter().for_each(|&range| self.check(range, "data"));
        ranges
    }

    fn prps(&self, sqe: &Sqe, bytes: usize, page: usize) -> Vec<Range> {
        if bytes == 0 {
            return vec![];
        }
        let first = sqe.prp1.get();
        assert_eq!(first % 4, 0, "PRP1");
        let mut left = bytes;
        let mut ranges = vec![];
        let mut add = |iova: u64, most: usize| {
            let now = left.min(most);
            left -= now;
            ranges.push((iova, now));
            left
        };
        let left = add(first, page - first as usize % page);
        let mut at = sqe.prp2.get();
        if left == 0 {
            return ranges;
        }
        if left <= page {
            assert_eq!(at as usize % page, 0, "PRP2 of two pages");
            add(at, page);
            return ranges;
        }
        assert_eq!(at % 8, 0, "the address of a PRP list");
        let mut left = left;
        while left > 0 {
            self.check((at, 8), "a PRP list");
            let entry = self.read64(at);
            if (at as usize + 8).is_multiple_of(page) && left > page {
                assert_eq!(entry % 8, 0, "the address of a further PRP list");
                at = entry;
                continue;
            }
            assert_eq!(entry as usize % page, 0, "a PRP entry of a list");
            left = add(entry, page);
            at += 8;
        }
        ranges
    }

    fn sgl(&self, sqe: &Sqe) -> Vec<Range> {
        let descriptor = sqe.sgl();
        let block = |it: &Descriptor| {
            assert_eq!(it.identifier, Descriptor::DATA_BLOCK);
            (it.address.get(), it.length.get() as usize)
        };
        if !descriptor.is_segment() {
            return vec![block(&descriptor)];
        }
        assert_eq!(descriptor.identifier, Descriptor::LAST_SEGMENT);
        let (at, bytes) = (descriptor.address.get(), u64::from(descriptor.length.get()));
        self.check((at, bytes as usize), "an SGL segment");
        let entries = (at..at + bytes).step_by(16);
        let read = |at| [self.read64(at), self.read64(at + 8)].map(u64::to_le);
        entries
            .map(|at| block(&Descriptor::read_from_bytes(read(at).as_bytes()).unwrap()))
            .collect()
    }
}

/// Joins adjacent ranges, and removes empty ones.
pub fn join(ranges: &mut Vec<Range>) {
    ranges.retain(|range| range.1 != 0);
    ranges.dedup_by(|next, range| {
        let follows = range.0 + range.1 as u64 == next.0;
        range.1 += if follows { next.1 } else { 0 };
        follows
    });
}
