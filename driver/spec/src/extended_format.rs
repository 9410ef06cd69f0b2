//! Formats of protection information: the NVM command set's part of Identify Namespace (NVM
//! 4.1.5.3).

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{IDENTIFY_SIZE, IdentifyController};

/// The NVM command set's own Identify Namespace, 4096 bytes (CNS 05h, CSI 00h; NVM 4.1.5.3).
///
/// See the [example](crate::ExtendedFormat#examples).
#[repr(C)]
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IdentifyNvmNamespace {
    /// Bits of the storage tag that are checked.
    pub lbstm: U64,
    /// Protection information capabilities.
    pub pic: u8,
    /// Reserved.
    pub reserved_9: [u8; 3],
    /// Protection information formats, in the order of the formats of
    /// [`crate::IdentifyNamespace`].
    pub elbaf: [ExtendedFormat; 64],
    /// Reserved.
    pub reserved_268: [u8; 3828],
}

const _: () = assert!(size_of::<IdentifyNvmNamespace>() == IDENTIFY_SIZE);

/// The protection information of an LBA format, 4 bytes (NVM 4.1.5.3). Zero, which a controller
/// without extended formats reports, is a 16-bit guard without a storage tag.
#[repr(transparent)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
/// # Examples
/// ```
/// use nvio_spec::{ExtendedFormat, GuardFormat};
///
/// // What a controller without extended formats reports.
/// let format = ExtendedFormat::default();
/// assert_eq!((format.storage_tag_bits(), format.pif()), (0, 0));
/// let guard = format.guard().ok_or("a reserved format")?;
/// assert_eq!((guard, guard.bits(), guard.information_size()), (GuardFormat::Bits16, 16, 8));
///
/// let format = ExtendedFormat::new(GuardFormat::Bits32, 16);
/// assert_eq!((format.storage_tag_bits(), format.guard()), (16, Some(GuardFormat::Bits32)));
/// # Ok::<(), &str>(())
/// ```
pub struct ExtendedFormat(pub U32);

/// Width of a guard: Protection Information Format (NVM 4.1.5.3).
///
/// See the [example](crate::ExtendedFormat#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GuardFormat {
    /// 16 bits, in information of 8 bytes.
    Bits16,
    /// 32 bits, in information of 16 bytes.
    Bits32,
    /// 64 bits, in information of 16 bytes.
    Bits64,
}

impl GuardFormat {
    /// Returns the bits of a guard.
    ///
    /// See the [example](crate::ExtendedFormat#examples).
    pub const fn bits(self) -> u8 {
        match self {
            Self::Bits16 => 16,
            Self::Bits32 => 32,
            Self::Bits64 => 64,
        }
    }

    /// Returns the bytes of protection information (NVM 5.2.1).
    ///
    /// See the [example](crate::ExtendedFormat#examples).
    pub const fn information_size(self) -> usize {
        match self {
            Self::Bits16 => 8,
            Self::Bits32 | Self::Bits64 => 16,
        }
    }
}

impl ExtendedFormat {
    /// Creates the format of a guard, and of a storage tag of up to 64 bits.
    ///
    /// See the [example](Self#examples).
    pub const fn new(guard: GuardFormat, storage_tag_bits: u8) -> Self {
        let pif = match guard {
            GuardFormat::Bits16 => 0,
            GuardFormat::Bits32 => 1,
            GuardFormat::Bits64 => 2,
        };
        Self(U32::new(pif << 7 | (storage_tag_bits & 0x7f) as u32))
    }

    /// Returns the number of high bits of the reference tag that are a storage tag (STS, bits 6:0).
    ///
    /// See the [example](Self#examples).
    pub fn storage_tag_bits(self) -> u8 {
        let [low, ..] = self.0.to_bytes();
        low & 0x7f
    }

    /// Returns PIF, bits 8:7.
    ///
    /// See the [example](Self#examples).
    pub fn pif(self) -> u8 {
        let [low, high, ..] = self.0.to_bytes();
        low >> 7 | (high & 1) << 1
    }

    /// Returns the width of the guard; `None` for the reserved value.
    ///
    /// See the [example](Self#examples).
    pub fn guard(self) -> Option<GuardFormat> {
        match self.pif() {
            0 => Some(GuardFormat::Bits16),
            1 => Some(GuardFormat::Bits32),
            2 => Some(GuardFormat::Bits64),
            _ => None,
        }
    }
}

impl IdentifyController {
    /// Returns true if formats may be extended; [`IdentifyNvmNamespace`] then describes them
    /// (CTRATT bit 15, ELBAS; Base figure 275).
    ///
    /// See the [example](Self#examples).
    pub fn has_extended_formats(&self) -> bool {
        self.ctratt.get() & 1 << 15 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    #[test]
    fn fields_are_where_the_specification_has_them() {
        let mut bytes = [0; IDENTIFY_SIZE];
        bytes[8] = 0b101;
        bytes[12 + 4 * 63..][..4].copy_from_slice(&[0x90, 0x01, 0, 0]);
        let identify = IdentifyNvmNamespace::read_from_bytes(&bytes).unwrap();
        assert_eq!(identify.pic, 0b101);
        let format = identify.elbaf[63];
        assert_eq!((format.storage_tag_bits(), format.pif(), format.guard()), (16, 3, None));
        assert_eq!(identify.elbaf[0], ExtendedFormat::default());
    }

    #[test]
    fn each_format_has_its_guard_and_size() {
        for (pif, bits, size) in [(0, 16, 8), (1, 32, 16), (2, 64, 16)] {
            let guard = ExtendedFormat(U32::new(pif << 7)).guard().unwrap();
            assert_eq!((guard.bits(), guard.information_size()), (bits, size));
        }
        assert_eq!(ExtendedFormat(U32::new(0xffff_fe7f)).guard(), Some(GuardFormat::Bits16));
    }

    #[test]
    fn controllers_say_whether_they_have_such_formats() {
        let mut identify = IdentifyController::new_zeroed();
        assert!(!identify.has_extended_formats());
        identify.ctratt = U32::new(1 << 15);
        assert!(identify.has_extended_formats());
    }
}
