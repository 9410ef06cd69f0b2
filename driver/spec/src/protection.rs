//! End-to-end data protection with the 16-bit guard (NVM 5.2).
//!
//! Each block of a protected namespace has eight bytes of protection information in its metadata:
//! a guard, which is a CRC of the data, an application tag, which the host defines, and a reference
//! tag, which identifies the block's place.
//!
//! # Examples
//! ```
//! use nvio_spec::protection::{
//!     Expected, ProtectionInfo, ProtectionType, guard, guard_after, prinfo,
//! };
//! use nvio_spec::status;
//!
//! let data = [0x5a; 512];
//! let stored = ProtectionInfo::new(guard(&data), 7, 1000);
//! let expected =
//!     Expected { guard: guard(&data), app_tag: 7, app_mask: 0xffff, ref_tag: 1000 };
//! assert!(stored.check(ProtectionType::ONE, prinfo::PRCHK, &expected).is_ok());
//! let moved = Expected { ref_tag: 1001, ..expected };
//! let error = stored.check(ProtectionType::ONE, prinfo::PRCHK, &moved).unwrap_err();
//! assert_eq!(error.status(), status::REFERENCE_TAG_CHECK_ERROR);
//!
//! // A guard of data in two pieces.
//! assert_eq!(guard_after(guard(&data[..100]), &data[100..]), guard(&data));
//!
//! // Tags that switch checks off, and guards that no check needs.
//! let kind = ProtectionType::new(1).ok_or("no such type")?;
//! assert_eq!((kind.number(), kind.ref_tag(1000, 2)), (1, 1002));
//! assert!(kind.allows_initial_ref_tag(1000, 1000), "the low bits of the LBA");
//! assert!(ProtectionInfo::new(0, 0xffff, 0).is_unchecked(kind));
//! assert!(!stored.needs_guard(kind, prinfo::PRCHK_REF_TAG));
//! # Ok::<(), &str>(())
//! ```

use crc_fast::{CrcAlgorithm, Digest, checksum};
use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Sqe, Status, status};

/// The Protection Information field: bits of CDW12 of Read, Write and other commands with
/// protection information (NVM 3.1, figure 9). Copy has the field twice: these bits apply to the
/// blocks it writes.
///
/// See the [example](crate::protection#examples).
pub mod prinfo {
    /// Protection Information Action: insert when writing, strip when reading.
    pub const PRACT: u32 = 1 << 29;
    /// Check the guard.
    pub const PRCHK_GUARD: u32 = 1 << 28;
    /// Check the application tag, where its mask has ones.
    pub const PRCHK_APP_TAG: u32 = 1 << 27;
    /// Check the reference tag; not with type 3.
    pub const PRCHK_REF_TAG: u32 = 1 << 26;
    /// Every check.
    pub const PRCHK: u32 = PRCHK_GUARD | PRCHK_APP_TAG | PRCHK_REF_TAG;
    /// The whole field.
    pub const MASK: u32 = PRACT | PRCHK;
    /// Bits by which the field is further right in CDW12 of Copy, for the blocks it reads
    /// (PRINFOR).
    pub const COPY_READ_SHIFT: u32 = 14;
}

/// Metadata Capabilities: bits of MC in Identify Namespace (NVM 4.1.5.1, figure 97).
///
/// See the [example](crate::IdentifyNamespace#examples).
pub mod mc {
    /// Metadata can be transferred at the end of each block.
    pub const EXTENDED: u8 = 1;
    /// Metadata can be transferred in a buffer of its own.
    pub const SEPARATE: u8 = 1 << 1;
}

/// Data Protection Capabilities: bits of DPC in Identify Namespace (NVM 4.1.5.1, figure 97).
///
/// See the [example](crate::protection#examples).
pub mod dpc {
    /// Types 1, 2 and 3 are supported, a bit each from bit 0.
    pub const TYPES: u8 = 0b111;
    /// The information can be the first bytes of the metadata.
    pub const FIRST: u8 = 1 << 3;
    /// The information can be the last bytes of the metadata.
    pub const LAST: u8 = 1 << 4;
}

/// Data Protection Type Settings: bits of DPS in Identify Namespace (NVM 4.1.5.1, figure 97).
///
/// See the [example](crate::protection#examples).
pub mod dps {
    /// The type, 0 for none.
    pub const TYPE: u8 = 0b111;
    /// The information is the first bytes of the metadata, not the last.
    pub const FIRST: u8 = 1 << 3;
}

/// Application tag of a block that is not checked; with type 3, if the reference tag is
/// [`UNCHECKED_REF_TAG`] too.
pub const UNCHECKED_APP_TAG: u16 = 0xffff;
/// Reference tag that goes with [`UNCHECKED_APP_TAG`].
pub const UNCHECKED_REF_TAG: u32 = 0xffff_ffff;

/// A type of protection, 1 to 3 (NVM 5.2). Zero is no protection; other values are reserved.
///
/// See the [example](crate::protection#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProtectionType(u8);

impl ProtectionType {
    /// The reference tag is the low 32 bits of the LBA.
    ///
    /// See the [example](crate::protection#examples).
    pub const ONE: Self = Self(1);
    /// The host chooses the reference tag of the first block, and the tag counts up from there.
    ///
    /// See the [example](crate::protection#examples).
    pub const TWO: Self = Self(2);
    /// The host defines the reference tag, which is not checked.
    ///
    /// See the [example](crate::protection#examples).
    pub const THREE: Self = Self(3);

    /// Returns the type with this number; `None` for 0 and for reserved numbers.
    ///
    /// See the [example](crate::protection#examples).
    pub const fn new(number: u8) -> Option<Self> {
        if matches!(number, 1..=3) { Some(Self(number)) } else { None }
    }

    /// Returns the number of the type, 1 to 3.
    ///
    /// See the [example](crate::protection#examples).
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Returns the reference tag of the block `index` blocks into a command whose first block has
    /// the tag `initial`. With type 3 all blocks have the initial tag, because the host defines its
    /// meaning.
    ///
    /// See the [example](crate::protection#examples).
    #[inline]
    pub const fn ref_tag(self, initial: u32, index: u32) -> u32 {
        if self.0 == 3 { initial } else { initial.wrapping_add(index) }
    }

    /// Returns true if a command that starts at `slba` may have the initial reference tag
    /// `initial`: with type 1 it has to be the low 32 bits of `slba` (NVM 5.2.3).
    ///
    /// See the [example](crate::protection#examples).
    #[inline]
    pub const fn allows_initial_ref_tag(self, initial: u32, slba: u64) -> bool {
        self.0 != 1 || initial as u64 == slba & 0xffff_ffff
    }
}

/// Protection information with a 16-bit guard, 8 bytes, big-endian (NVM 5.2.1.1, figure 114).
///
/// See the [example](crate::protection#examples).
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct ProtectionInfo {
    /// CRC of the data, and of the metadata before this when there is any.
    pub guard: U16,
    /// Application tag.
    pub app_tag: U16,
    /// Reference tag.
    pub ref_tag: U32,
}

const _: () = assert!(size_of::<ProtectionInfo>() == ProtectionInfo::SIZE);

/// The values that protection information is compared with.
///
/// See the [example](crate::protection#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Guard of the data that was read.
    pub guard: u16,
    /// Application tag, LBAT or ELBAT.
    pub app_tag: u16,
    /// Mask of the bits of the application tag that are compared, LBATM or ELBATM.
    pub app_mask: u16,
    /// Reference tag of this block; see [`ProtectionType::ref_tag`].
    pub ref_tag: u32,
}

/// A check that failed, with the values that differ.
///
/// See the [example](crate::protection#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// The guard does not match the data.
    #[error("guard {found:#x} in the metadata, {expected:#x} of the data")]
    Guard {
        /// CRC of the data.
        expected: u64,
        /// Guard in the protection information.
        found: u64,
    },
    /// The application tag differs.
    #[error("application tag {found:#06x} instead of {expected:#06x}, by mask {mask:#06x}")]
    AppTag {
        /// The expected tag.
        expected: u16,
        /// Tag in the protection information.
        found: u16,
        /// Mask of the bits that were compared.
        mask: u16,
    },
    /// The reference tag differs: the block belongs to another place.
    #[error("reference tag {found:#x} instead of {expected:#x}")]
    RefTag {
        /// The expected tag.
        expected: u64,
        /// Tag in the protection information.
        found: u64,
    },
}

impl CheckError {
    /// Returns the status with which a controller completes the command (NVM 3.1.2, Base figure
    /// 101).
    ///
    /// See the [example](crate::protection#examples).
    pub const fn status(&self) -> Status {
        match self {
            Self::Guard { .. } => status::GUARD_CHECK_ERROR,
            Self::AppTag { .. } => status::APPLICATION_TAG_CHECK_ERROR,
            Self::RefTag { .. } => status::REFERENCE_TAG_CHECK_ERROR,
        }
    }
}

impl ProtectionInfo {
    /// Size of the structure in bytes.
    ///
    /// See the [example](crate::protection#examples).
    pub const SIZE: usize = 8;

    /// Information of a block that was never written: every check passes (NVM 3.2.3.2.1).
    ///
    /// See the [example](crate::protection#examples).
    pub const UNWRITTEN: Self =
        Self { guard: U16::MAX_VALUE, app_tag: U16::MAX_VALUE, ref_tag: U32::MAX_VALUE };

    /// Creates protection information from its values.
    ///
    /// See the [example](crate::protection#examples).
    #[inline]
    pub fn new(guard: u16, app_tag: u16, ref_tag: u32) -> Self {
        Self { guard: U16::new(guard), app_tag: U16::new(app_tag), ref_tag: U32::new(ref_tag) }
    }

    /// Returns true if the tags disable all checks of the block (NVM 5.2.3).
    ///
    /// See the [example](crate::protection#examples).
    #[inline]
    pub fn is_unchecked(&self, kind: ProtectionType) -> bool {
        self.app_tag.get() == UNCHECKED_APP_TAG
            && (kind != ProtectionType::THREE || self.ref_tag.get() == UNCHECKED_REF_TAG)
    }

    /// Performs the checks of `checks`, bits of [`prinfo::PRCHK`], in the order guard, application
    /// tag, reference tag. The reference tag of type 3 is not checked.
    ///
    /// `expected.guard` is used only if [`Self::needs_guard`] returns true.
    ///
    /// See the [example](crate::protection#examples).
    ///
    /// # Errors
    /// The first check that fails.
    #[inline]
    pub fn check(
        &self,
        kind: ProtectionType,
        checks: u32,
        expected: &Expected,
    ) -> Result<(), CheckError> {
        if checks & prinfo::PRCHK == 0 || self.is_unchecked(kind) {
            return Ok(());
        }
        let Expected { guard, app_tag, app_mask: mask, ref_tag } = *expected;
        let found = self.guard.get();
        if checks & prinfo::PRCHK_GUARD != 0 && found != guard {
            return Err(CheckError::Guard { expected: guard.into(), found: found.into() });
        }
        let found = self.app_tag.get();
        if checks & prinfo::PRCHK_APP_TAG != 0 && (found ^ app_tag) & mask != 0 {
            return Err(CheckError::AppTag { expected: app_tag, found, mask });
        }
        let found = self.ref_tag.get();
        let has_ref_tag = kind != ProtectionType::THREE;
        if checks & prinfo::PRCHK_REF_TAG != 0 && has_ref_tag && found != ref_tag {
            return Err(CheckError::RefTag { expected: ref_tag.into(), found: found.into() });
        }
        Ok(())
    }

    /// Returns true if [`Self::check`] compares the guard. Otherwise it need not be computed.
    ///
    /// See the [example](crate::protection#examples).
    #[inline]
    pub fn needs_guard(&self, kind: ProtectionType, checks: u32) -> bool {
        checks & prinfo::PRCHK_GUARD != 0 && !self.is_unchecked(kind)
    }
}

/// Returns the guard of `bytes`: CRC-16/T10-DIF (polynomial 8BB7h, from 0, not reflected; SBC-3).
///
/// See the [example](crate::protection#examples).
#[inline]
pub fn guard(bytes: &[u8]) -> u16 {
    low_half(checksum(CrcAlgorithm::Crc16T10Dif, bytes))
}

/// Continues a guard: `before` is the guard of the bytes that precede `bytes`, 0 for none.
///
/// If the protection information is the last bytes of the metadata, the guard covers the data and
/// then the metadata before the information (NVM 5.2.1).
///
/// See the [example](crate::protection#examples).
#[inline]
pub fn guard_after(before: u16, bytes: &[u8]) -> u16 {
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc16T10Dif, u64::from(before));
    digest.update(bytes);
    low_half(digest.finalize())
}

/// Returns the low 16 bits, because the CRC library returns every CRC in 64 bits.
#[inline]
fn low_half(crc: u64) -> u16 {
    (crc & 0xffff) as u16
}

impl Sqe {
    /// Replaces the bits of [`prinfo`].
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn with_prinfo(mut self, prinfo: u32) -> Self {
        let rest = self.cdw12.get() & !prinfo::MASK;
        self.cdw12.set(rest | prinfo & prinfo::MASK);
        self
    }

    /// Sets the tags: the reference tag of the first block (ILBRT or EILBRT,
    /// CDW14), and the application tag with its mask (LBAT and LBATM, or ELBAT and ELBATM, CDW15).
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn with_tags(mut self, ref_tag: u32, app_tag: u16, app_mask: u16) -> Self {
        self.cdw14.set(ref_tag);
        self.cdw15.set(u32::from(app_mask) << 16 | u32::from(app_tag));
        self
    }

    /// Returns the bits of [`prinfo`]: of Read, Write and others, and of the blocks that Copy
    /// writes.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn prinfo(&self) -> u32 {
        self.cdw12.get() & prinfo::MASK
    }

    /// Returns the reference tag of the first block (ILBRT or EILBRT).
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn initial_ref_tag(&self) -> u32 {
        self.cdw14.get()
    }

    /// Returns the application tag (LBAT or ELBAT).
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn app_tag(&self) -> u16 {
        (self.cdw15.get() & 0xffff) as u16
    }

    /// Returns the mask of the application tag (LBATM or ELBATM).
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn app_mask(&self) -> u16 {
        (self.cdw15.get() >> 16) as u16
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)]
mod tests {
    use super::*;

    /// Computes the CRC bit by bit, as SBC-3 defines it.
    fn by_definition(bytes: &[u8]) -> u16 {
        let mut crc = 0u16;
        for &byte in bytes {
            crc ^= u16::from(byte) << 8;
            for _ in 0..8 {
                crc = if crc >> 15 != 0 { crc << 1 ^ 0x8bb7 } else { crc << 1 };
            }
        }
        crc
    }

    #[test]
    fn guards_are_those_of_the_definition_however_they_are_cut() {
        // The check value of the catalogue of CRCs, then the 32-byte examples of SBC-3.
        assert_eq!(guard(b"123456789"), 0xd0db);
        assert_eq!(guard(&[0; 32]), 0);
        assert_eq!(guard(&[0xff; 32]), 0xa293);
        assert_eq!(guard(&std::array::from_fn::<u8, 32, _>(|i| i as u8)), 0x0224);
        assert_eq!(
            guard(&std::array::from_fn::<u8, 32, _>(|i| if i < 2 { 0xff } else { 0 })),
            0x21b8
        );
        assert_eq!(guard(&std::array::from_fn::<u8, 32, _>(|i| 0xff - i as u8)), 0xa0b7);
        let bytes: Vec<u8> = (0..5000u32).map(|i| (i * 7 / 4) as u8).collect();
        for len in (0..600).chain([4096, 4104, 4160, 5000]) {
            let bytes = &bytes[..len];
            assert_eq!(guard(bytes), by_definition(bytes), "{len} bytes");
            let (first, second) = bytes.split_at(len / 3);
            assert_eq!(guard_after(guard(first), second), guard(bytes), "{len} bytes");
        }
        assert_eq!(guard_after(0x1234, &[]), 0x1234);
    }

    #[test]
    fn fields_are_big_endian() {
        let info = ProtectionInfo::new(0x1122, 0x3344, 0x5566_7788);
        assert_eq!(info.as_bytes(), [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88]);
        assert_eq!(ProtectionInfo::UNWRITTEN.as_bytes(), [0xff; 8]);
    }

    #[test]
    fn each_check_is_made_only_when_asked_for_and_names_what_it_found() {
        let info = ProtectionInfo::new(1, 0x00f7, 3);
        let good = Expected { guard: 1, app_tag: 0xff07, app_mask: 0x000f, ref_tag: 3 };
        let check = |checks, expected: &Expected| info.check(ProtectionType::TWO, checks, expected);
        assert_eq!(check(prinfo::PRCHK, &good), Ok(()));
        let wrong = Expected { guard: 9, app_tag: 0, app_mask: 1, ref_tag: 4 };
        assert_eq!(check(0, &wrong), Ok(()));
        let guard = CheckError::Guard { expected: 9, found: 1 };
        let app_tag = CheckError::AppTag { expected: 0, found: 0x00f7, mask: 1 };
        let ref_tag = CheckError::RefTag { expected: 4, found: 3 };
        assert_eq!(check(prinfo::PRCHK, &wrong), Err(guard));
        assert_eq!(check(prinfo::PRCHK_GUARD, &wrong), Err(guard));
        assert_eq!(check(prinfo::PRCHK_APP_TAG, &wrong), Err(app_tag));
        assert_eq!(check(prinfo::PRCHK_APP_TAG | prinfo::PRCHK_REF_TAG, &wrong), Err(app_tag));
        assert_eq!(check(prinfo::PRCHK_REF_TAG, &wrong), Err(ref_tag));
        assert_eq!(check(prinfo::PRACT, &wrong), Ok(()));
        let third = info.check(ProtectionType::THREE, prinfo::PRCHK_REF_TAG, &wrong);
        assert_eq!(third, Ok(()));
        assert_eq!(guard.status(), status::GUARD_CHECK_ERROR);
        assert_eq!(app_tag.status(), status::APPLICATION_TAG_CHECK_ERROR);
        assert_eq!(ref_tag.status(), status::REFERENCE_TAG_CHECK_ERROR);
        assert_eq!(ref_tag.to_string(), "reference tag 0x3 instead of 0x4");
    }

    #[test]
    fn tags_of_all_ones_switch_the_checks_off() {
        let wrong = Expected { guard: 9, app_tag: 0, app_mask: 0xffff, ref_tag: 4 };
        let by_app_tag = ProtectionInfo::new(1, 0xffff, 3);
        for (info, kind, unchecked) in [
            (by_app_tag, ProtectionType::ONE, true),
            (by_app_tag, ProtectionType::TWO, true),
            (by_app_tag, ProtectionType::THREE, false),
            (ProtectionInfo::new(1, 0xffff, u32::MAX), ProtectionType::THREE, true),
            (ProtectionInfo::new(1, 0xfffe, u32::MAX), ProtectionType::ONE, false),
        ] {
            assert_eq!(info.is_unchecked(kind), unchecked, "{info:?} {kind:?}");
            assert_eq!(info.check(kind, prinfo::PRCHK, &wrong).is_ok(), unchecked);
            assert_eq!(info.needs_guard(kind, prinfo::PRCHK), !unchecked);
            assert!(!info.needs_guard(kind, prinfo::PRCHK_APP_TAG));
        }
    }

    #[test]
    fn reference_tags_count_up_and_wrap_and_begin_where_type_1_says() {
        assert_eq!(ProtectionType::ONE.ref_tag(u32::MAX, 2), 1);
        assert_eq!(ProtectionType::TWO.ref_tag(7, 2), 9);
        assert_eq!(ProtectionType::THREE.ref_tag(7, 2), 7);
        assert!(ProtectionType::ONE.allows_initial_ref_tag(5, 0x1_0000_0005));
        assert!(!ProtectionType::ONE.allows_initial_ref_tag(6, 5));
        assert!(ProtectionType::TWO.allows_initial_ref_tag(6, 5));
        assert_eq!(ProtectionType::new(0), None);
        assert_eq!(ProtectionType::new(4), None);
        assert_eq!(ProtectionType::new(3), Some(ProtectionType::THREE));
    }

    #[test]
    fn commands_carry_tags_and_checks() {
        let sqe = Sqe::read(1, 5, 8).with_prinfo(prinfo::PRACT | prinfo::PRCHK_GUARD).with_tags(
            0x0102_0304,
            0xaabb,
            0xccdd,
        );
        assert_eq!(sqe.cdw12.get(), 0x3000_0007);
        assert_eq!((sqe.cdw14.get(), sqe.cdw15.get()), (0x0102_0304, 0xccdd_aabb));
        assert_eq!(
            (sqe.initial_ref_tag(), sqe.app_tag(), sqe.app_mask()),
            (0x0102_0304, 0xaabb, 0xccdd)
        );
        assert_eq!(sqe.with_prinfo(prinfo::PRCHK_REF_TAG).prinfo(), 1 << 26);
    }
}
