//! Scatter gather lists: from a command's descriptor to ranges of host memory (Base 4.1.2).

use nvio_spec::sgl::{self, DESCRIPTOR_SIZE, Descriptor};
use nvio_spec::{Sqe, Status, status};
use zerocopy::FromBytes;

use crate::host::access::Access;
use crate::host::memory::{HostMemory, SCRATCH};
use crate::host::prp::Segments;

/// Bytes of a descriptor.
const UNIT: u32 = 16;
const _: () = assert!(UNIT as usize == DESCRIPTOR_SIZE);
/// Descriptors that are read at a time.
const CHUNK: u32 = 32;
/// Largest number of descriptors of one transfer, in all its segments together. It also ends a list
/// that is a cycle.
const MAX_DESCRIPTORS: u32 = 65_536;

/// Value of SGLS in Identify if SGLs are offered. Lists longer than the transfer and addresses that
/// are offsets are not supported.
pub(crate) const SUPPORT: u32 = sgl::support::BYTE_ALIGNED
    | sgl::support::BIT_BUCKET
    | sgl::support::METADATA_BYTE_ALIGNED
    | sgl::support::METADATA_SGL;

/// Checks the flags of an I/O command: PRPs, or SGLs if they are `offered`.
///
/// # Errors
/// Invalid Field in Command for a fused command, a reserved bit, and a kind of data pointer that is
/// reserved or not offered (Base 3.3.3.1).
#[inline]
pub(crate) fn check(flags: u8, offered: bool) -> Result<(), Status> {
    match flags {
        sgl::PSDT_PRP => Ok(()),
        sgl::PSDT_SGL | sgl::PSDT_SGL_MPTR_SGL if offered => Ok(()),
        _ => Err(status::INVALID_FIELD),
    }
}

/// The state of a walk through one list.
struct Walk<'a> {
    memory: &'a HostMemory,
    access: Access,
    /// Bytes of the transfer that no descriptor has described yet.
    rest: u64,
    /// Number of descriptors that may follow.
    left: u32,
    /// Status for a list that is too short or too long.
    wrong_length: Status,
}

impl Segments {
    /// Resolves a transfer of `len` bytes that needs `access`. `first` is the descriptor of the
    /// command. Every range is checked before a byte is transferred.
    ///
    /// # Errors
    /// SGL Descriptor Type Invalid, Invalid SGL Segment Descriptor and Invalid Number of SGL
    /// Descriptors (Base figure 94), the last also for cyclic lists; Data SGL Length Invalid for a
    /// list that does not describe exactly `len` bytes; Data Transfer Error for memory that the
    /// host has not mapped, or not for this access.
    pub(crate) fn resolve_sgl(
        &mut self,
        memory: &HostMemory,
        first: Descriptor,
        len: u64,
        access: Access,
    ) -> Result<(), Status> {
        self.walk(memory, first, len, access, status::DATA_SGL_LENGTH_INVALID)
    }

    /// Resolves `len` bytes of metadata in a separate buffer by MPTR, which is an address, or the
    /// address of one descriptor (Base 3.3.3.1, PSDT).
    ///
    /// # Errors
    /// Invalid Field in Command for an address that is not aligned; for a descriptor as
    /// [`Self::resolve_sgl`], with Metadata SGL Length Invalid.
    pub(crate) fn resolve_metadata(
        &mut self,
        memory: &HostMemory,
        sqe: &Sqe,
        len: u64,
        access: Access,
    ) -> Result<(), Status> {
        let mptr = sqe.mptr.get();
        let (alignment, is_list) = match sqe.flags & sgl::PSDT_MASK {
            sgl::PSDT_PRP => (4, false),
            sgl::PSDT_SGL => (1, false),
            _ => (8, true),
        };
        if !mptr.is_multiple_of(alignment) {
            return Err(status::INVALID_FIELD);
        }
        if !is_list {
            self.clear();
            return self.push(memory, mptr, len, access);
        }
        let mut bytes = [0; DESCRIPTOR_SIZE];
        memory.read(mptr, &mut bytes).ok_or_else(|| self.not_mapped(mptr))?;
        let first = Descriptor::read_from_bytes(&bytes).unwrap_or_default();
        self.walk(memory, first, len, access, status::METADATA_SGL_LENGTH_INVALID)
    }

    fn walk(
        &mut self,
        memory: &HostMemory,
        first: Descriptor,
        len: u64,
        access: Access,
        wrong_length: Status,
    ) -> Result<(), Status> {
        self.clear();
        let left = MAX_DESCRIPTORS;
        let mut walk = Walk { memory, access, rest: len, left, wrong_length };
        let mut next = Some(first).filter(Descriptor::is_segment);
        if next.is_none() {
            self.describe(&mut walk, &first)?;
        }
        while let Some(segment) = next {
            next = self.segment(&mut walk, &segment)?;
        }
        if walk.rest == 0 { Ok(()) } else { Err(wrong_length) }
    }

    /// Reads one segment and returns the descriptor of the next.
    fn segment(
        &mut self,
        walk: &mut Walk<'_>,
        segment: &Descriptor,
    ) -> Result<Option<Descriptor>, Status> {
        let is_last = segment.identifier == Descriptor::LAST_SEGMENT;
        let (mut at, size) = (segment.address.get(), segment.length.get());
        if size == 0 || !size.is_multiple_of(UNIT) || !at.is_multiple_of(8) {
            return Err(status::INVALID_SGL_SEGMENT_DESCRIPTOR);
        }
        let mut count = size / UNIT;
        walk.left = walk.left.checked_sub(count).ok_or(status::INVALID_SGL_DESCRIPTOR_COUNT)?;
        let mut bytes = [0; CHUNK as usize * DESCRIPTOR_SIZE];
        while count > 0 {
            let now = count.min(CHUNK);
            let part = &mut bytes[..now as usize * DESCRIPTOR_SIZE];
            walk.memory.read(at, part).ok_or_else(|| self.not_mapped(at))?;
            count -= now;
            for (index, entry) in (1..=now).zip(part.as_chunks::<DESCRIPTOR_SIZE>().0) {
                let descriptor = Descriptor::read_from_bytes(entry).unwrap_or_default();
                let ends = count == 0 && index == now;
                match (descriptor.is_segment(), is_last, ends) {
                    (true, false, true) => return Ok(Some(descriptor)),
                    (true, false, false) => return Err(status::INVALID_SGL_DESCRIPTOR_COUNT),
                    // A segment follows the last one, or a segment that is not the last has no
                    // next.
                    (true, true, _) | (false, false, true) => {
                        return Err(status::INVALID_SGL_SEGMENT_DESCRIPTOR);
                    }
                    (false, ..) => self.describe(walk, &descriptor)?,
                }
            }
            // If this wraps, the address is not mapped.
            at = at.wrapping_add(u64::from(now * UNIT));
        }
        Ok(None)
    }

    /// Adds the bytes of a data descriptor.
    fn describe(&mut self, walk: &mut Walk<'_>, descriptor: &Descriptor) -> Result<(), Status> {
        let len = u64::from(descriptor.length.get());
        let is_bucket = match descriptor.identifier {
            Descriptor::DATA_BLOCK => false,
            Descriptor::BIT_BUCKET => true,
            _ => return Err(status::SGL_DESCRIPTOR_TYPE_INVALID),
        };
        // Data from the host has no bytes to discard.
        if len == 0 || is_bucket && walk.access == Access::READ {
            return Ok(());
        }
        walk.rest = walk.rest.checked_sub(len).ok_or(walk.wrong_length)?;
        if is_bucket {
            return self.discard(walk.memory, len);
        }
        self.push_any(walk.memory, descriptor.address.get(), len, walk.access)
    }

    /// Adds a range that may continue in the next mapping.
    fn push_any(
        &mut self,
        memory: &HostMemory,
        mut iova: u64,
        mut len: u64,
        access: Access,
    ) -> Result<(), Status> {
        while len > 0 {
            let now = memory.reach(iova, len).ok_or_else(|| self.not_mapped(iova))?;
            self.push(memory, iova, now, access)?;
            len -= now;
            // The end of a mapping is not beyond the end of the address space.
            iova = iova.wrapping_add(now);
        }
        Ok(())
    }

    /// Adds bytes that are discarded.
    fn discard(&mut self, memory: &HostMemory, mut len: u64) -> Result<(), Status> {
        while len > 0 {
            let now = len.min(SCRATCH as u64);
            self.push_scratch(memory, now)?;
            len -= now;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use vm_memory::mmap::MmapRegion;
    use zerocopy::IntoBytes;

    #[test]
    fn metadata_is_at_an_address_or_described_by_one_descriptor() {
        let mut memory = HostMemory::new();
        let region = Arc::new(MmapRegion::new(4096).unwrap());
        memory.map_region(0x1000, region, Access::READ_WRITE).unwrap();
        let mut segments = Segments::default();
        let mut resolve = |flags, mptr: u64| {
            let sqe = Sqe { flags, mptr: mptr.into(), ..Sqe::default() };
            segments.resolve_metadata(&memory, &sqe, 64, Access::WRITE)?;
            Ok(segments.iter().map(|segment| (segment.place.offset, segment.len)).collect())
        };
        let (prp, sgl, list) = (sgl::PSDT_PRP, sgl::PSDT_SGL, sgl::PSDT_SGL_MPTR_SGL);
        assert_eq!(resolve(prp, 0x1004), Ok(vec![(4, 64)]));
        assert_eq!(resolve(prp, 0x1006), Err(status::INVALID_FIELD));
        assert_eq!(resolve(sgl, 0x1005), Ok(vec![(5, 64)]));
        assert_eq!(resolve(sgl, 0x1fff), Err(status::DATA_TRANSFER_ERROR));
        let put = |at, descriptor: Descriptor| memory.write(at, descriptor.as_bytes()).unwrap();
        put(0x1008, Descriptor::data_block(0x1101, 64));
        assert_eq!(resolve(list, 0x1008), Ok(vec![(0x101, 64)]));
        assert_eq!(resolve(list, 0x1004), Err(status::INVALID_FIELD));
        assert_eq!(resolve(list, 0x2000), Err(status::DATA_TRANSFER_ERROR));
        put(0x1008, Descriptor::data_block(0x1101, 63));
        assert_eq!(resolve(list, 0x1008), Err(status::METADATA_SGL_LENGTH_INVALID));
        put(0x1008, Descriptor::last_segment(0x1200, 2));
        put(0x1200, Descriptor::data_block(0x1300, 60));
        put(0x1210, Descriptor::data_block(0x1400, 4));
        assert_eq!(resolve(list, 0x1008), Ok(vec![(0x300, 60), (0x400, 4)]));
    }
}
