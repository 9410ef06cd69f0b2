//! Scatter gather lists (Base 4.1.2).
//!
//! # Examples
//! ```
//! use nvio_spec::Sqe;
//! use nvio_spec::sgl::Descriptor;
//!
//! let list = [
//!     Descriptor::data_block(0x10000, 4096),
//!     Descriptor::bit_bucket(512),
//!     Descriptor::segment(0x20000, 16),
//! ];
//! assert!(list[2].is_segment() && !list[0].is_segment());
//! let mut read = Sqe::read(1, 0, 16);
//! read.set_sgl(Descriptor::last_segment(0x30000, 3));
//! assert_eq!(read.sgl().address.get(), 0x30000);
//! ```

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::Sqe;

/// PRPs are used for this transfer: the value of the PSDT field, bits 7:6 of a command's flags
/// byte (Base 3.3.3.1, figure 87).
pub const PSDT_PRP: u8 = 0b00 << 6;
/// SGLs are used; MPTR is the address of a contiguous buffer.
pub const PSDT_SGL: u8 = 0b01 << 6;
/// SGLs are used; MPTR is the address of an SGL segment of one descriptor.
pub const PSDT_SGL_MPTR_SGL: u8 = 0b10 << 6;
/// The bits of the flags byte that hold PSDT.
pub const PSDT_MASK: u8 = 0b11 << 6;
/// The bits of the flags byte that hold FUSE.
pub const FUSE_MASK: u8 = 0b11;

/// Bytes of a descriptor.
pub const DESCRIPTOR_SIZE: usize = size_of::<Descriptor>();

/// SGL Support: bits of SGLS in Identify Controller (Base 5.17.2.1, figure 275).
///
/// See the [example](crate::sgl#examples).
pub mod support {
    /// SGLs can be used; data blocks may begin and end at any byte. Value of bits 1:0.
    pub const BYTE_ALIGNED: u32 = 1;
    /// SGLs can be used; data blocks begin and end at dwords. Value of bits 1:0.
    pub const DWORD_ALIGNED: u32 = 2;
    /// Bits 1:0: whether SGLs can be used.
    pub const MASK: u32 = 3;
    /// Bit Bucket descriptors can be used.
    pub const BIT_BUCKET: u32 = 1 << 16;
    /// With SGLs, MPTR may be the address of any byte.
    pub const METADATA_BYTE_ALIGNED: u32 = 1 << 17;
    /// A list may describe more bytes than are transferred.
    pub const LONGER: u32 = 1 << 18;
    /// [`PSDT_SGL_MPTR_SGL`](super::PSDT_SGL_MPTR_SGL) can be used.
    pub const METADATA_SGL: u32 = 1 << 19;
    /// Addresses may be offsets.
    pub const OFFSET: u32 = 1 << 20;
}

/// An SGL descriptor, 16 bytes (Base 4.1.2.1, figure 115).
///
/// See the [example](crate::sgl#examples).
#[derive(derive_more::Debug)]
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[debug("Descriptor({identifier:#04x}, {length} at {address:#x})")]
pub struct Descriptor {
    /// Address of the data or of the next segment; reserved in a Bit Bucket.
    pub address: U64,
    /// Bytes.
    pub length: U32,
    /// Reserved.
    pub reserved_12: [u8; 3],
    /// Type in bits 7:4, sub type in bits 3:0.
    pub identifier: u8,
}

const _: () = assert!(size_of::<Descriptor>() == 16);

impl Descriptor {
    /// Identifier of a Data Block, sub type address (Base 4.1.2.1, figure 118).
    ///
    /// See the [example](crate::sgl#examples).
    pub const DATA_BLOCK: u8 = 0x00;
    /// Identifier of a Bit Bucket: bytes of a read that are discarded.
    ///
    /// See the [example](crate::sgl#examples).
    pub const BIT_BUCKET: u8 = 0x10;
    /// Identifier of a Segment: the next segment, whose last descriptor is another Segment or a
    /// Last Segment.
    ///
    /// See the [example](crate::sgl#examples).
    pub const SEGMENT: u8 = 0x20;
    /// Identifier of a Last Segment: the next segment is the last.
    ///
    /// See the [example](crate::sgl#examples).
    pub const LAST_SEGMENT: u8 = 0x30;

    /// Creates a Data Block of `length` bytes at `address`.
    ///
    /// See the [example](crate::sgl#examples).
    #[inline]
    pub fn data_block(address: u64, length: u32) -> Self {
        Self::new(Self::DATA_BLOCK, address, length)
    }

    /// Creates a Bit Bucket: a read discards `length` bytes.
    ///
    /// See the [example](crate::sgl#examples).
    pub fn bit_bucket(length: u32) -> Self {
        Self::new(Self::BIT_BUCKET, 0, length)
    }

    /// Creates a Segment: `descriptors` descriptors at `address`, a multiple of 8. The last one is
    /// a segment.
    ///
    /// See the [example](crate::sgl#examples).
    pub fn segment(address: u64, descriptors: u32) -> Self {
        Self::new(Self::SEGMENT, address, descriptors.saturating_mul(16))
    }

    /// Creates a Last Segment: `descriptors` descriptors at `address`, a multiple of 8. None is a
    /// segment.
    ///
    /// See the [example](crate::sgl#examples).
    pub fn last_segment(address: u64, descriptors: u32) -> Self {
        Self::new(Self::LAST_SEGMENT, address, descriptors.saturating_mul(16))
    }

    #[inline]
    fn new(identifier: u8, address: u64, length: u32) -> Self {
        Self {
            address: U64::new(address),
            length: U32::new(length),
            reserved_12: [0; 3],
            identifier,
        }
    }

    /// Returns true for a Segment and a Last Segment.
    ///
    /// See the [example](crate::sgl#examples).
    #[inline]
    pub fn is_segment(&self) -> bool {
        matches!(self.identifier, Self::SEGMENT | Self::LAST_SEGMENT)
    }
}

impl Sqe {
    /// Returns the descriptor in the place of the PRP entries (SGL1).
    ///
    /// See the [example](crate::Sqe#examples).
    #[inline]
    pub fn sgl(&self) -> Descriptor {
        let mut descriptor = Descriptor::new_zeroed();
        let bytes = descriptor.as_mut_bytes();
        bytes[..8].copy_from_slice(self.prp1.as_bytes());
        bytes[8..].copy_from_slice(self.prp2.as_bytes());
        descriptor
    }

    /// Stores a descriptor in the place of the PRP entries, and sets PSDT. MPTR stays an address.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn set_sgl(&mut self, descriptor: Descriptor) {
        let (first, second) = descriptor.as_bytes().split_at(8);
        self.prp1.as_mut_bytes().copy_from_slice(first);
        self.prp2.as_mut_bytes().copy_from_slice(second);
        self.flags = self.flags & !PSDT_MASK | PSDT_SGL;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_takes_the_place_of_the_prp_entries() {
        let mut sqe = Sqe::read(1, 2, 3);
        sqe.flags = PSDT_SGL_MPTR_SGL | 1;
        sqe.set_sgl(Descriptor::last_segment(0x1122_3344_5566_7788, 5));
        let bytes = sqe.as_bytes();
        assert_eq!(bytes[1], 0x41);
        assert_eq!(bytes[24..32], 0x1122_3344_5566_7788u64.to_le_bytes());
        assert_eq!(bytes[32..40], [80, 0, 0, 0, 0, 0, 0, 0x30]);
        assert_eq!(sqe.sgl(), Descriptor::last_segment(0x1122_3344_5566_7788, 5));
        assert!(sqe.sgl().is_segment() && !Descriptor::bit_bucket(1).is_segment());
    }
}
