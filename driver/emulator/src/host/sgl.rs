//! Scatter gather lists: from a command's descriptor to ranges of host memory (Base 4.1.2).

use nvio_spec::sgl::{self, DESCRIPTOR_SIZE, Descriptor};
use nvio_spec::{Sqe, Status, status};

use crate::host::access::Access;
use crate::host::segments::Walk;

/// Bytes of a descriptor.
const DESCRIPTOR_BYTES: u32 = 16;
const _: () = assert!(DESCRIPTOR_BYTES as usize == DESCRIPTOR_SIZE);
/// Largest number of descriptors of one transfer, in all its segments together. It also ends a list
/// that is a cycle.
const DESCRIPTORS_MAX: u32 = 65_536;

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

impl Walk<'_> {
    /// Resolves a scatter gather list. `first` is the descriptor of the command.
    ///
    /// # Errors
    /// SGL Descriptor Type Invalid, Invalid SGL Segment Descriptor and Invalid Number of SGL
    /// Descriptors (Base figure 94), the last also for cyclic lists; `wrong_length` for a list that
    /// does not describe exactly the transferred bytes.
    pub(crate) fn sgl(&mut self, first: Descriptor, wrong_length: Status) -> Result<(), Status> {
        let mut next = Some(first).filter(Descriptor::is_segment);
        if next.is_none() {
            self.describe(&first, wrong_length)?;
        }
        let mut left = DESCRIPTORS_MAX;
        while let Some(segment) = next {
            next = self.segment(&segment, &mut left, wrong_length)?;
        }
        if self.rest == 0 { Ok(()) } else { Err(wrong_length) }
    }

    /// Resolves metadata by MPTR, which is an address, or the address of one descriptor (Base
    /// 3.3.3.1, PSDT).
    ///
    /// # Errors
    /// Invalid Field in Command for an address that is not aligned; for a descriptor as
    /// [`Self::sgl`], with Metadata SGL Length Invalid.
    pub(crate) fn mptr(&mut self, sqe: &Sqe) -> Result<(), Status> {
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
            return self.push(mptr, self.rest);
        }
        self.entries(mptr, 1, |walk, first: Descriptor, _| {
            walk.sgl(first, status::METADATA_SGL_LENGTH_INVALID)
        })
    }

    /// Reads one segment and returns the descriptor of the next.
    fn segment(
        &mut self,
        segment: &Descriptor,
        descriptors_left: &mut u32,
        wrong_length: Status,
    ) -> Result<Option<Descriptor>, Status> {
        let is_last = segment.identifier == Descriptor::LAST_SEGMENT;
        let (at, size) = (segment.address.get(), segment.length.get());
        if size == 0 || !size.is_multiple_of(DESCRIPTOR_BYTES) || !at.is_multiple_of(8) {
            return Err(status::INVALID_SGL_SEGMENT_DESCRIPTOR);
        }
        let count = size / DESCRIPTOR_BYTES;
        let left = descriptors_left.checked_sub(count);
        *descriptors_left = left.ok_or(status::INVALID_SGL_DESCRIPTOR_COUNT)?;
        let mut next = None;
        self.entries(at, count.into(), |walk, descriptor: Descriptor, left| {
            match (descriptor.is_segment(), is_last, left) {
                (true, false, 0) => next = Some(descriptor),
                (true, false, _) => return Err(status::INVALID_SGL_DESCRIPTOR_COUNT),
                // A segment follows the last one, or a segment that is not the last has no next.
                (true, true, _) | (false, false, 0) => {
                    return Err(status::INVALID_SGL_SEGMENT_DESCRIPTOR);
                }
                (false, ..) => walk.describe(&descriptor, wrong_length)?,
            }
            Ok(())
        })?;
        Ok(next)
    }

    /// Adds the bytes of a data descriptor.
    fn describe(&mut self, descriptor: &Descriptor, wrong_length: Status) -> Result<(), Status> {
        let len = u64::from(descriptor.length.get());
        let is_bucket = match descriptor.identifier {
            Descriptor::DATA_BLOCK => false,
            Descriptor::BIT_BUCKET => true,
            _ => return Err(status::SGL_DESCRIPTOR_TYPE_INVALID),
        };
        // Data from the host has no bytes to discard.
        if len == 0 || is_bucket && self.access == Access::READ {
            return Ok(());
        }
        if len > self.rest {
            return Err(wrong_length);
        }
        if is_bucket {
            self.discard(len);
            return Ok(());
        }
        self.push_any(descriptor.address.get(), len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::memory::HostMemory;
    use crate::host::segments::Segments;
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
            Ok(segments
                .iter()
                .map(|segment| (segment.place.unwrap().offset, segment.len))
                .collect())
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
