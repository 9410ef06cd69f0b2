//! Lists of block ranges, the data of Dataset Management and Copy.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Sqe;
use crate::opcode::nvm;
use crate::protection::prinfo;

/// Most ranges of one Dataset Management or Copy command.
///
/// See the [example](crate::Sqe#examples).
pub const MAX_RANGES: usize = 256;

/// A range of Dataset Management, 16 bytes (NVM 3.2.3, figure 41).
///
/// See the [example](crate::Sqe#examples).
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct DsmRange {
    /// Context attributes: hints (NVM 3.2.3.2).
    pub attributes: U32,
    /// Length in blocks; not 0's based.
    pub blocks: U32,
    /// First block.
    pub slba: U64,
}

const _: () = assert!(size_of::<DsmRange>() == 16);

impl DsmRange {
    /// Creates a range of `blocks` blocks from `slba`, with these context attributes.
    ///
    /// See the [example](crate::Sqe#examples).
    pub fn new(attributes: u32, blocks: u32, slba: u64) -> Self {
        Self { attributes: U32::new(attributes), blocks: U32::new(blocks), slba: U64::new(slba) }
    }
}

/// A source range entry of Copy, descriptor format 0, 32 bytes (NVM 3.2.2, figure 34).
///
/// See the [example](crate::Sqe#examples).
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct CopyRange {
    /// Reserved.
    pub reserved_0: U64,
    /// First block.
    pub slba: U64,
    /// Number of blocks, 0's based.
    pub nlb: U16,
    /// Reserved.
    pub reserved_18: [u8; 6],
    /// Expected reference tag of the first block (EILBRT).
    pub ref_tag: U32,
    /// Expected application tag (ELBAT).
    pub app_tag: U16,
    /// Mask of the application tag (ELBATM).
    pub app_mask: U16,
}

const _: () = assert!(size_of::<CopyRange>() == 32);
const _: () = assert!(std::mem::offset_of!(CopyRange, nlb) == 16);
const _: () = assert!(std::mem::offset_of!(CopyRange, ref_tag) == 24);

impl CopyRange {
    /// Creates a range of `blocks` blocks from `slba`, 1 to 65,536. The expected reference tag is
    /// the one of type 1.
    ///
    /// See the [example](crate::Sqe#examples).
    pub fn new(slba: u64, blocks: u32) -> Self {
        Self {
            slba: U64::new(slba),
            nlb: U16::new((blocks.wrapping_sub(1) & 0xffff) as u16),
            ref_tag: U32::new((slba & 0xffff_ffff) as u32),
            ..Self::default()
        }
    }

    /// Returns the number of blocks, 1 to 65,536.
    ///
    /// See the [example](crate::Sqe#examples).
    pub fn blocks(&self) -> u32 {
        u32::from(self.nlb.get()) + 1
    }
}

impl Sqe {
    /// CDW11 bit 2 of Dataset Management: deallocate the ranges (NVM 3.2.3, figure 40).
    pub const DSM_DEALLOCATE: u32 = 1 << 2;

    /// Creates a Dataset Management command (NVM 3.2.3) that deallocates `ranges` [`DsmRange`]s, 1
    /// to 256.
    ///
    /// See the [example](Self#examples).
    pub fn deallocate(nsid: u32, ranges: u32) -> Self {
        Self {
            cdw10: U32::new(ranges.wrapping_sub(1) & 0xff),
            cdw11: U32::new(Self::DSM_DEALLOCATE),
            ..Self::new(nvm::DATASET_MANAGEMENT, nsid)
        }
    }

    /// Creates a Copy command (NVM 3.2.2) of `ranges` [`CopyRange`]s, 1 to 256, to the blocks from
    /// `destination`.
    ///
    /// See the [example](Self#examples).
    pub fn copy(nsid: u32, destination: u64, ranges: u32) -> Self {
        // SDLBA has the place of SLBA.
        Self {
            opcode: nvm::COPY,
            cdw12: U32::new(ranges.wrapping_sub(1) & 0xff),
            ..Self::write(nsid, destination, 1)
        }
    }

    /// Replaces the bits of [`prinfo`] for the blocks that Copy reads (PRINFOR, CDW12 bits 15:12).
    ///
    /// See the [example](Self#examples).
    pub fn with_copy_read_prinfo(mut self, prinfo: u32) -> Self {
        let mask = prinfo::MASK >> prinfo::COPY_READ_SHIFT;
        let rest = self.cdw12.get() & !mask;
        self.cdw12.set(rest | prinfo >> prinfo::COPY_READ_SHIFT & mask);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_the_specification_has_them() {
        let range = DsmRange::new(0x0102_0304, 5, 0x1122_3344_5566_7788);
        let bytes = range.as_bytes();
        assert_eq!((bytes[0], bytes[4], bytes[8], bytes[15]), (4, 5, 0x88, 0x11));
        let mut range = CopyRange::new(0x1_0000_0009, 65_536);
        range.app_tag = U16::new(0x1234);
        range.app_mask = U16::new(0x5678);
        let bytes = range.as_bytes();
        assert_eq!(bytes[8..18], [9, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff]);
        assert_eq!(bytes[24..], [9, 0, 0, 0, 0x34, 0x12, 0x78, 0x56]);
        assert_eq!(range.blocks(), 65_536);
    }

    #[test]
    fn commands_count_their_ranges_from_zero() {
        let sqe = Sqe::deallocate(3, 256);
        assert_eq!((sqe.opcode, sqe.cdw10.get(), sqe.cdw11.get()), (0x09, 255, 4));
        let sqe = Sqe::copy(3, 0x1_0000_0002, 1);
        assert_eq!((sqe.opcode, sqe.slba(), sqe.cdw12.get()), (0x19, 0x1_0000_0002, 0));
        let sqe = sqe.with_copy_read_prinfo(prinfo::PRACT).with_prinfo(prinfo::PRCHK_REF_TAG);
        assert_eq!(sqe.cdw12.get(), 1 << 15 | 1 << 26);
    }
}
