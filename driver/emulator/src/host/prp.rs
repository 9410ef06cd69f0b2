//! Physical region pages: the pages of a transfer, and lists of them (Base 4.1.1).

use nvio_spec::{Status, status};
use zerocopy::little_endian::U64;

use crate::host::segments::Walk;

/// Bytes of an entry of a PRP list.
const ENTRY_BYTES: u64 = 8;

impl Walk<'_> {
    /// Resolves two PRP entries with pages of `page` bytes.
    ///
    /// # Errors
    /// PRP Offset Invalid for an entry with an offset that is not allowed.
    pub(crate) fn prp(&mut self, prp1: u64, prp2: u64, page: u64) -> Result<(), Status> {
        // Bits 1:0 of an offset are zero.
        if !prp1.is_multiple_of(4) {
            return Err(status::PRP_OFFSET_INVALID);
        }
        let offset = prp1 & (page - 1);
        self.push(prp1, self.rest.min(page - offset))?;
        match self.rest {
            0 => Ok(()),
            rest if rest <= page => self.push_page(prp2, page),
            _ => self.prp_list(prp2, page),
        }
    }

    /// Walks a PRP list. The last entry of each of its pages points to the next page, unless it is
    /// the last entry of the transfer.
    fn prp_list(&mut self, mut list: u64, page: u64) -> Result<(), Status> {
        if !list.is_multiple_of(ENTRY_BYTES) {
            return Err(status::PRP_OFFSET_INVALID);
        }
        while self.rest > 0 {
            let slots = (page - (list & (page - 1))) / ENTRY_BYTES;
            let entries = self.rest.div_ceil(page);
            self.entries(list, entries.min(slots), |walk, entry: U64, left| {
                if left > 0 || entries <= slots {
                    return walk.push_page(entry.get(), page);
                }
                list = entry.get();
                require_no_offset(list, page)
            })?;
        }
        Ok(())
    }

    /// Adds a page after the first.
    fn push_page(&mut self, iova: u64, page: u64) -> Result<(), Status> {
        require_no_offset(iova, page)?;
        self.push(iova, page.min(self.rest))
    }
}

/// Refuses an offset in a page, which only the first entry of a command may have.
fn require_no_offset(entry: u64, page: u64) -> Result<(), Status> {
    if entry & (page - 1) == 0 { Ok(()) } else { Err(status::PRP_OFFSET_INVALID) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::access::Access;
    use crate::host::memory::HostMemory;
    use crate::host::segments::{DataPointer, Segments};
    use std::sync::Arc;
    use vm_memory::mmap::MmapRegion;

    /// 64 pages from 0x10000, and two that touch: 0x100000 and 0x101000.
    fn memory() -> HostMemory {
        let region = |pages: usize| Arc::new(MmapRegion::new(pages * 4096).unwrap());
        let mut memory = HostMemory::new();
        memory.map_region(0x10000, region(64), Access::READ_WRITE).unwrap();
        memory.map_region(0x100000, region(1), Access::READ_WRITE).unwrap();
        memory.map_region(0x101000, region(1), Access::READ_WRITE).unwrap();
        memory
    }

    fn resolve(memory: &HostMemory, prp1: u64, prp2: u64, len: u64) -> Result<Vec<u64>, Status> {
        let mut segments = Segments::default();
        let pointer = DataPointer::Prp { prp1, prp2, page_shift: 12 };
        segments.resolve(memory, pointer, len, Access::WRITE)?;
        assert_eq!(segments.iter().map(|s| s.len).sum::<u64>(), len);
        Ok(segments.iter().map(|s| s.len).collect())
    }

    fn write_list(memory: &HostMemory, at: u64, entries: impl IntoIterator<Item = u64>) {
        for (i, entry) in entries.into_iter().enumerate() {
            memory.write(at + 8 * i as u64, &entry.to_le_bytes()).unwrap();
        }
    }

    #[test]
    fn one_and_two_pages_need_no_list() {
        let memory = memory();
        assert_eq!(resolve(&memory, 0x10000, 0xdead, 4096), Ok(vec![4096]));
        assert_eq!(resolve(&memory, 0x10f00, 0, 256), Ok(vec![256]));
        assert_eq!(resolve(&memory, 0x10f00, 0x20000, 512), Ok(vec![256, 256]));
        assert_eq!(resolve(&memory, 0x10000, 0x11000, 8192), Ok(vec![8192]));
    }

    #[test]
    fn offsets_that_are_not_allowed_are_refused() {
        let memory = memory();
        let invalid = Err(status::PRP_OFFSET_INVALID);
        assert_eq!(resolve(&memory, 0x10002, 0, 16), invalid);
        assert_eq!(resolve(&memory, 0x10000, 0x20004, 8192), invalid);
        // The list may start anywhere in a page, at a multiple of 8.
        assert_eq!(resolve(&memory, 0x10000, 0x20004, 4096 * 3), invalid);
        write_list(&memory, 0x20008, [0x30000, 0x32000]);
        assert_eq!(resolve(&memory, 0x10000, 0x20008, 4096 * 3), Ok(vec![4096; 3]));
        write_list(&memory, 0x20008, [0x30000, 0x32008]);
        assert_eq!(resolve(&memory, 0x10000, 0x20008, 4096 * 3), invalid);
    }

    #[test]
    fn the_last_entry_of_a_list_page_is_a_pointer_only_when_more_follows() {
        let memory = memory();
        // Three slots are left in the page: three entries fit.
        let list = 0x20000 + 4096 - 24;
        write_list(&memory, list, [0x30000, 0x32000, 0x34000]);
        assert_eq!(resolve(&memory, 0x10000, list, 4 * 4096), Ok(vec![4096; 4]));
        // Four entries do not fit: the third slot points to the next page.
        write_list(&memory, list, [0x30000, 0x32000, 0x22000]);
        write_list(&memory, 0x22000, [0x34000, 0x36000]);
        assert_eq!(resolve(&memory, 0x10000, list, 5 * 4096), Ok(vec![4096; 5]));
        // One slot: it is a pointer and nothing else.
        let list = 0x20000 + 4096 - 8;
        write_list(&memory, list, [0x22000]);
        assert_eq!(resolve(&memory, 0x10000, list, 3 * 4096), Ok(vec![4096; 3]));
        write_list(&memory, list, [0x22008]);
        assert_eq!(resolve(&memory, 0x10000, list, 3 * 4096), Err(status::PRP_OFFSET_INVALID));
    }

    #[test]
    fn long_lists_are_read_in_chunks_and_joined() {
        let memory = memory();
        write_list(&memory, 0x20000, (0..40).map(|i| 0x11000 + i * 0x1000));
        // The list lies inside the data; only addresses matter here.
        assert_eq!(resolve(&memory, 0x10000, 0x20000, 41 * 4096), Ok(vec![41 * 4096]));
        write_list(&memory, 0x20000, (0..200).map(|i| 0x10000 + (i % 7) * 0x2000));
        assert_eq!(resolve(&memory, 0x10000, 0x20000, 201 * 4096).unwrap().len(), 201);
    }

    #[test]
    fn memory_that_is_not_mapped_is_a_transfer_error() {
        let memory = memory();
        let error = Err(status::DATA_TRANSFER_ERROR);
        assert_eq!(resolve(&memory, 0x50000, 0, 512), error);
        assert_eq!(resolve(&memory, 0x10000, 0x50000, 8192), error);
        assert_eq!(resolve(&memory, 0x10000, 0x50000, 4096 * 3), error);
        assert_eq!(resolve(&memory, u64::MAX - 3, 0, 4), error);
        assert_eq!(resolve(&memory, 0x10000, u64::MAX - 7, 3 * 4096), error);
        // Two adjacent mappings hold a page each.
        assert_eq!(resolve(&memory, 0x100000, 0x101000, 8192), Ok(vec![4096, 4096]));
        // A host page of 8 KiB across them is in neither.
        let mut segments = Segments::default();
        let pointer = DataPointer::Prp { prp1: 0x100000, prp2: 0, page_shift: 13 };
        assert_eq!(
            segments.resolve(&memory, pointer, 8192, Access::WRITE),
            Err(status::DATA_TRANSFER_ERROR)
        );
    }
}
