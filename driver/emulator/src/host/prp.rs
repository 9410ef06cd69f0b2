//! Data pointers and physical region pages: from a command's data pointer to ranges of host memory
//! (Base 4.1.1). SGLs are in [`crate::sgl`].

use std::ops::Range;

use nvio_spec::sgl::Descriptor;
use nvio_spec::{Status, status};

use crate::host::access::Access;
use crate::host::memory::{HostMemory, Place};

/// Bytes of an entry of a PRP list.
const ENTRY: u64 = 8;
/// List entries that are read at a time.
const CHUNK: usize = 64;

/// A contiguous range of host memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) place: Place,
    pub(crate) len: u64,
}

/// The data pointer of a command.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DataPointer {
    /// Two PRP entries.
    Prp {
        prp1: u64,
        prp2: u64,
        /// Host page size as a power of two (CC.MPS).
        page_shift: u32,
    },
    /// The first descriptor of an SGL.
    Sgl(Descriptor),
}

/// The ranges of one transfer, in order. The list is reused by every command, so that commands do
/// not allocate.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    list: Vec<Segment>,
    /// The addresses of the Controller Memory Buffer, which is for submission queues only.
    controller_memory: Range<u64>,
}

impl Segments {
    pub(crate) fn iter(&self) -> impl Iterator<Item = Segment> + '_ {
        self.list.iter().copied()
    }

    pub(crate) fn clear(&mut self) {
        self.list.clear();
    }

    pub(crate) fn set_controller_memory(&mut self, addresses: Range<u64>) {
        self.controller_memory = addresses;
    }

    /// Returns the status for an address that is not in host memory.
    #[cold]
    pub(crate) fn not_mapped(&self, iova: u64) -> Status {
        if self.controller_memory.contains(&iova) {
            status::INVALID_USE_OF_CMB
        } else {
            status::DATA_TRANSFER_ERROR
        }
    }

    /// Resolves a transfer of `len` bytes that needs `access` to host memory. Every range is
    /// checked before a byte is transferred.
    ///
    /// # Errors
    /// For PRPs: PRP Offset Invalid for an entry with an offset that is not allowed, and Data
    /// Transfer Error for a page or a list that the host has not mapped, or not for this access.
    /// For SGLs as [`Self::resolve_sgl`]. Invalid Use of Controller Memory Buffer for addresses in
    /// that buffer.
    #[inline]
    pub(crate) fn resolve(
        &mut self,
        memory: &HostMemory,
        pointer: DataPointer,
        len: u64,
        access: Access,
    ) -> Result<(), Status> {
        match pointer {
            DataPointer::Prp { prp1, prp2, page_shift } => {
                self.resolve_prp(memory, (prp1, prp2), 1 << page_shift, len, access)
            }
            DataPointer::Sgl(first) => self.resolve_sgl(memory, first, len, access),
        }
    }

    fn resolve_prp(
        &mut self,
        memory: &HostMemory,
        (prp1, prp2): (u64, u64),
        page: u64,
        len: u64,
        access: Access,
    ) -> Result<(), Status> {
        self.list.clear();
        let offset = prp1 & (page - 1);
        // Bits 1:0 of an offset are zero.
        if !prp1.is_multiple_of(4) {
            return Err(status::PRP_OFFSET_INVALID);
        }
        let first = len.min(page - offset);
        self.push(memory, prp1, first, access)?;
        match len - first {
            0 => Ok(()),
            rest if rest <= page => {
                require_no_offset(prp2, page)?;
                self.push(memory, prp2, rest, access)
            }
            rest => self.resolve_list(memory, prp2, page, rest, access),
        }
    }

    /// Walks a PRP list. The last entry of each of its pages points to the next page, unless it is
    /// the last entry of the transfer.
    fn resolve_list(
        &mut self,
        memory: &HostMemory,
        mut list: u64,
        page: u64,
        mut rest: u64,
        access: Access,
    ) -> Result<(), Status> {
        if !list.is_multiple_of(ENTRY) {
            return Err(status::PRP_OFFSET_INVALID);
        }
        while rest > 0 {
            let slots = (page - (list & (page - 1))) / ENTRY;
            let entries = rest.div_ceil(page);
            let chained = entries > slots;
            let data = if chained { slots - 1 } else { entries };
            self.resolve_entries(memory, list, data, page, &mut rest, access)?;
            if chained {
                list = self.read_entry(memory, list + (slots - 1) * ENTRY)?;
                require_no_offset(list, page)?;
            }
        }
        Ok(())
    }

    fn read_entry(&self, memory: &HostMemory, iova: u64) -> Result<u64, Status> {
        let mut bytes = [0; size_of::<u64>()];
        memory.read(iova, &mut bytes).ok_or_else(|| self.not_mapped(iova))?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn resolve_entries(
        &mut self,
        memory: &HostMemory,
        mut list: u64,
        mut count: u64,
        page: u64,
        rest: &mut u64,
        access: Access,
    ) -> Result<(), Status> {
        let mut bytes = [0; CHUNK * size_of::<u64>()];
        while count > 0 {
            let now = count.min(CHUNK as u64);
            let wanted = usize::try_from(now * ENTRY).unwrap_or(bytes.len());
            memory.read(list, &mut bytes[..wanted]).ok_or_else(|| self.not_mapped(list))?;
            for entry in bytes[..wanted].as_chunks().0 {
                let entry = u64::from_le_bytes(*entry);
                require_no_offset(entry, page)?;
                let len = page.min(*rest);
                self.push(memory, entry, len, access)?;
                *rest -= len;
            }
            count -= now;
            // The list stays within one page, so this wraps only at the end of memory.
            list = list.wrapping_add(now * ENTRY);
        }
        Ok(())
    }

    /// Adds a range. It joins the range before it if it continues that in the same mapping.
    #[inline]
    pub(crate) fn push(
        &mut self,
        memory: &HostMemory,
        iova: u64,
        len: u64,
        access: Access,
    ) -> Result<(), Status> {
        let place = memory.find(iova, len, access).ok_or_else(|| self.not_mapped(iova))?;
        if let Some(last) = self.list.last_mut()
            && last.place.mapping == place.mapping
            && last.place.offset + last.len == place.offset
        {
            last.len += len;
        } else {
            self.list.push(Segment { place, len });
        }
        Ok(())
    }

    /// Adds a range of scratch memory.
    pub(crate) fn push_scratch(&mut self, memory: &HostMemory, len: u64) -> Result<(), Status> {
        let place = memory.scratch().map_err(|_| status::INTERNAL_ERROR)?;
        self.list.push(Segment { place, len });
        Ok(())
    }
}

/// Refuses an offset in a page, which only the first entry of a command may have.
fn require_no_offset(entry: u64, page: u64) -> Result<(), Status> {
    if entry & (page - 1) == 0 { Ok(()) } else { Err(status::PRP_OFFSET_INVALID) }
}

#[cfg(test)]
mod tests {
    use super::*;
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
