//! Protection information of every format: guards of 16, 32 and 64 bits, with storage tags (NVM
//! 5.2.1).

use crc_fast::{CrcAlgorithm, Digest, checksum};

use crate::protection::{CheckError, ProtectionType, UNCHECKED_APP_TAG, prinfo};
use crate::{GuardFormat, Sqe};

/// The format of protection information: the width of the guard, and the number of high bits of the
/// reference tag that are a storage tag.
///
/// # Examples
/// ```
/// use nvio_spec::protection::{ProtectionType, prinfo};
/// use nvio_spec::{ExpectedTags, GuardFormat, Information, InformationFormat, Sqe};
///
/// let format = InformationFormat::new(GuardFormat::Bits64, 0).ok_or("a reserved format")?;
/// assert_eq!((format.size(), format.ref_tag_bits()), (16, 48));
/// assert_eq!((format.guard().bits(), format.storage_tag_bits()), (64, 0));
/// assert!(InformationFormat::new(GuardFormat::Bits32, 0).is_none(), "at least 16 bits");
///
/// // The information of a block of zeroes without other metadata, at LBA 5.
/// let guard = format.guard_of(&[0; 4096], &[]);
/// assert_eq!(guard, 0x6482_d367_eb22_b64e);
/// let mut bytes = [0; 16];
/// let written = format.write(&Information { guard, app_tag: 7, storage_tag: 0, ref_tag: 5 }, &mut bytes);
/// let stored = format.read(&bytes).filter(|_| written).ok_or("too short")?;
/// let expected = ExpectedTags { guard, app_tag: 7, app_mask: 0xffff, ref_tag: 5 };
/// format.check(&stored, ProtectionType::ONE, prinfo::PRCHK, &expected)?;
/// assert!(format.needs_guard(&stored, ProtectionType::ONE, prinfo::PRCHK));
/// assert!(!format.is_unchecked(&stored, ProtectionType::ONE));
///
/// // Tags count up within their width, and are spread over three dwords of a command.
/// assert_eq!(format.ref_tag(ProtectionType::ONE, (1 << 48) - 1, 1), 0);
/// assert!(format.allows_initial_ref_tag(ProtectionType::ONE, 5, 1 << 48 | 5));
/// let sqe = format.with_tags(Sqe::read(1, 5, 8), (0, 0x1234_0000_0005), 7, 0xffff);
/// assert_eq!((sqe.cdw3.get(), sqe.cdw14.get()), (0x1234, 5));
/// assert_eq!(format.tags_of(&sqe), (0, 0x1234_0000_0005));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InformationFormat {
    guard: GuardFormat,
    storage_tag_bits: u8,
}

/// The protection information of a block.
///
/// See the [example](InformationFormat#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Information {
    /// CRC of the data, and of the metadata before the information when there is any.
    pub guard: u64,
    /// Application tag.
    pub app_tag: u16,
    /// Storage tag.
    pub storage_tag: u64,
    /// Reference tag.
    pub ref_tag: u64,
}

/// The values that protection information is compared with.
///
/// See the [example](InformationFormat#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectedTags {
    /// Guard of the data that was read.
    pub guard: u64,
    /// Application tag, LBAT or ELBAT.
    pub app_tag: u16,
    /// Mask of the bits of the application tag that are compared, LBATM or ELBATM.
    pub app_mask: u16,
    /// Reference tag of this block.
    pub ref_tag: u64,
}

impl Default for InformationFormat {
    /// Returns [`InformationFormat::USUAL`].
    fn default() -> Self {
        Self::USUAL
    }
}

impl InformationFormat {
    /// A 16-bit guard without a storage tag, the only format before NVMe 2.0.
    ///
    /// See the [example](Self#examples).
    pub const USUAL: Self = Self { guard: GuardFormat::Bits16, storage_tag_bits: 0 };

    /// Creates a format. `None` for a number of bits of the storage tag that the guard cannot have
    /// (NVM 4.1.5.3, STS).
    ///
    /// See the [example](Self#examples).
    pub const fn new(guard: GuardFormat, storage_tag_bits: u8) -> Option<Self> {
        let good = match guard {
            GuardFormat::Bits16 => storage_tag_bits <= 32,
            GuardFormat::Bits32 => storage_tag_bits >= 16 && storage_tag_bits <= 64,
            GuardFormat::Bits64 => storage_tag_bits <= 48,
        };
        if good { Some(Self { guard, storage_tag_bits }) } else { None }
    }

    /// Returns the width of the guard.
    ///
    /// See the [example](Self#examples).
    pub const fn guard(self) -> GuardFormat {
        self.guard
    }

    /// Returns the bits of the storage tag.
    ///
    /// See the [example](Self#examples).
    pub const fn storage_tag_bits(self) -> u8 {
        self.storage_tag_bits
    }

    /// Returns the size of the information in bytes.
    ///
    /// See the [example](Self#examples).
    pub const fn size(self) -> usize {
        self.guard.information_size()
    }

    /// Returns the bits of storage tag and reference tag together.
    const fn tag_bits(self) -> u8 {
        match self.guard {
            GuardFormat::Bits16 => 32,
            GuardFormat::Bits32 => 80,
            GuardFormat::Bits64 => 48,
        }
    }

    /// Returns the bits of the reference tag, 0 to 64.
    ///
    /// See the [example](Self#examples).
    pub const fn ref_tag_bits(self) -> u8 {
        self.tag_bits() - self.storage_tag_bits
    }

    const fn ref_tag_mask(self) -> u64 {
        match self.ref_tag_bits() {
            64 => u64::MAX,
            bits => (1 << bits) - 1,
        }
    }

    const fn algorithm(self) -> CrcAlgorithm {
        match self.guard {
            GuardFormat::Bits16 => CrcAlgorithm::Crc16T10Dif,
            GuardFormat::Bits32 => CrcAlgorithm::Crc32Iscsi,
            GuardFormat::Bits64 => CrcAlgorithm::Crc64Nvme,
        }
    }

    /// Returns the guard of a block: of its data, and of the metadata before the information.
    ///
    /// See the [example](Self#examples).
    pub fn guard_of(self, data: &[u8], before: &[u8]) -> u64 {
        if before.is_empty() {
            return checksum(self.algorithm(), data);
        }
        let mut digest = Digest::new(self.algorithm());
        digest.update(data);
        digest.update(before);
        digest.finalize()
    }

    /// Joins storage tag and reference tag.
    fn join(self, (storage, reference): (u64, u64)) -> u128 {
        let all = u128::from(storage) << self.ref_tag_bits();
        (all | u128::from(reference & self.ref_tag_mask())) & ((1 << self.tag_bits()) - 1)
    }

    /// Splits joined tags, whose higher bits are ignored.
    fn split(self, tags: u128) -> (u64, u64) {
        let low = |value: u128| u64::try_from(value & u128::from(u64::MAX)).unwrap_or(0);
        let tags = tags & ((1 << self.tag_bits()) - 1);
        (low(tags >> self.ref_tag_bits()), low(tags) & self.ref_tag_mask())
    }

    /// Decodes the information at the start of `bytes`, big-endian (NVM 5.2.1). `None` if they are
    /// too short.
    ///
    /// See the [example](Self#examples).
    pub fn read(self, bytes: &[u8]) -> Option<Information> {
        let bytes = bytes.get(..self.size())?;
        let number = |bytes: &[u8]| bytes.iter().fold(0, |all, &byte| all << 8 | u128::from(byte));
        let (guard, rest) = bytes.split_at(usize::from(self.guard.bits() / 8));
        let (app_tag, tags) = rest.split_at(2);
        let (storage_tag, ref_tag) = self.split(number(tags));
        let (guard, app_tag) = (number(guard).try_into().ok()?, number(app_tag).try_into().ok()?);
        Some(Information { guard, app_tag, storage_tag, ref_tag })
    }

    /// Encodes the information at the start of `bytes`. Returns false if they are too short.
    ///
    /// See the [example](Self#examples).
    pub fn write(self, information: &Information, bytes: &mut [u8]) -> bool {
        let Some(bytes) = bytes.get_mut(..self.size()) else { return false };
        let (guard, rest) = bytes.split_at_mut(usize::from(self.guard.bits() / 8));
        let (app_tag, tags) = rest.split_at_mut(2);
        let Information { storage_tag, ref_tag, .. } = *information;
        for (place, value) in [
            (guard, u128::from(information.guard)),
            (app_tag, u128::from(information.app_tag)),
            (tags, self.join((storage_tag, ref_tag))),
        ] {
            let bytes = value.to_be_bytes();
            place.copy_from_slice(&bytes[bytes.len() - place.len()..]);
        }
        true
    }

    /// Returns the reference tag of the block `index` blocks into a command whose first block has
    /// the tag `initial`. With type 3 all blocks have the initial tag.
    ///
    /// See the [example](Self#examples).
    pub const fn ref_tag(self, kind: ProtectionType, initial: u64, index: u32) -> u64 {
        let offset = if kind.number() == 3 { 0 } else { index as u64 };
        initial.wrapping_add(offset) & self.ref_tag_mask()
    }

    /// Returns true if a command that starts at `slba` may have the initial reference tag
    /// `initial`: with type 1 it has to be the low bits of `slba` (NVM 5.2.3).
    ///
    /// See the [example](Self#examples).
    pub const fn allows_initial_ref_tag(
        self,
        kind: ProtectionType,
        initial: u64,
        slba: u64,
    ) -> bool {
        kind.number() != 1 || initial == slba & self.ref_tag_mask()
    }

    /// Returns true if the tags disable all checks of the block (NVM 5.2.3).
    ///
    /// See the [example](Self#examples).
    pub fn is_unchecked(self, information: &Information, kind: ProtectionType) -> bool {
        information.app_tag == UNCHECKED_APP_TAG
            && (kind != ProtectionType::THREE || information.ref_tag == self.ref_tag_mask())
    }

    /// Returns true if [`check`](Self::check) compares the guard. Otherwise it need not be computed.
    ///
    /// See the [example](Self#examples).
    pub fn needs_guard(self, information: &Information, kind: ProtectionType, checks: u32) -> bool {
        checks & prinfo::PRCHK_GUARD != 0 && !self.is_unchecked(information, kind)
    }

    /// Performs the checks of `checks`, bits of [`prinfo::PRCHK`], in the order guard, application
    /// tag, reference tag. The reference tag of type 3 is not checked.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// The first check that fails.
    pub fn check(
        self,
        information: &Information,
        kind: ProtectionType,
        checks: u32,
        expected: &ExpectedTags,
    ) -> Result<(), CheckError> {
        if checks & prinfo::PRCHK == 0 || self.is_unchecked(information, kind) {
            return Ok(());
        }
        let ExpectedTags { guard, app_tag, app_mask: mask, ref_tag } = *expected;
        let found = information.guard;
        if checks & prinfo::PRCHK_GUARD != 0 && found != guard {
            return Err(CheckError::Guard { expected: guard, found });
        }
        let found = information.app_tag;
        if checks & prinfo::PRCHK_APP_TAG != 0 && (found ^ app_tag) & mask != 0 {
            return Err(CheckError::AppTag { expected: app_tag, found, mask });
        }
        let found = information.ref_tag;
        let has_ref_tag = kind != ProtectionType::THREE;
        if checks & prinfo::PRCHK_REF_TAG != 0 && has_ref_tag && found != ref_tag {
            return Err(CheckError::RefTag { expected: ref_tag, found });
        }
        Ok(())
    }

    /// Sets the tags of a command: storage tag and reference tag of the first block (CDW2, CDW3 and
    /// CDW14), and the application tag with its mask (CDW15).
    ///
    /// See the [example](Self#examples).
    pub fn with_tags(self, mut sqe: Sqe, tags: (u64, u64), app_tag: u16, app_mask: u16) -> Sqe {
        let tags = self.join(tags);
        let dword = |shift: u32| (tags >> shift & 0xffff_ffff) as u32;
        // Before NVMe 2.0 CDW2 and CDW3 are reserved; a tag of 32 bits leaves them 0.
        (sqe.cdw2, sqe.cdw3) = (dword(64).into(), dword(32).into());
        sqe.with_tags(dword(0), app_tag, app_mask)
    }

    /// Returns storage tag and reference tag of the first block of a command.
    ///
    /// See the [example](Self#examples).
    pub fn tags_of(self, sqe: &Sqe) -> (u64, u64) {
        let words = [sqe.cdw14, sqe.cdw3, sqe.cdw2].into_iter().zip([0, 32, 64]);
        self.split(words.fold(0, |tags, (word, shift)| tags | u128::from(word.get()) << shift))
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use crate::protection::ProtectionInfo;
    use zerocopy::IntoBytes;

    fn format(guard: GuardFormat, storage_tag_bits: u8) -> InformationFormat {
        InformationFormat::new(guard, storage_tag_bits).unwrap()
    }

    #[test]
    fn guards_have_the_check_values_of_the_specification() {
        // NVM 5.2.1.3, 64b CRC test cases: 4,096 bytes of zeroes, of ones, counting up.
        let guard = |data: &[u8]| format(GuardFormat::Bits64, 0).guard_of(data, &[]);
        assert_eq!(guard(&[0; 4096]), 0x6482_d367_eb22_b64e);
        assert_eq!(guard(&[0xff; 4096]), 0xc0dd_ba73_02ec_a3ac);
        let up: Vec<u8> = (0..4096).map(|i| i as u8).collect();
        assert_eq!(guard(&up), 0x3e72_9f5f_6750_449c);
        // Bit by bit, as the polynomial says.
        let by_definition = |bytes: &[u8]| {
            let step =
                |crc: u64, _| crc >> 1 ^ if crc & 1 != 0 { 0x9a6c_9329_ac4b_c9b5 } else { 0 };
            !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u64::from(byte), step))
        };
        for len in [0, 1, 7, 8, 255, 4095] {
            assert_eq!(guard(&up[..len]), by_definition(&up[..len]), "{len} bytes");
        }
        // The check value of CRC-32C in RFC 3720 and in the catalogue of CRCs.
        let guard = |data: &[u8]| format(GuardFormat::Bits32, 16).guard_of(data, &[]);
        assert_eq!(guard(&[0; 32]), 0x8a91_36aa);
        assert_eq!(guard(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn metadata_before_the_information_is_guarded_too() {
        for format in [
            InformationFormat::USUAL,
            format(GuardFormat::Bits32, 16),
            format(GuardFormat::Bits64, 0),
        ] {
            let all: Vec<u8> = (0..600u32).map(|i| (i * 7) as u8).collect();
            for cut in [512, 513, 592] {
                let (data, before) = all.split_at(cut);
                assert_eq!(format.guard_of(data, before), format.guard_of(&all, &[]));
            }
        }
    }

    #[test]
    fn the_usual_format_is_that_of_the_structure() {
        let usual = InformationFormat::USUAL;
        let info = ProtectionInfo::new(0x1122, 0x3344, 0x5566_7788);
        let read = usual.read(info.as_bytes()).unwrap();
        let values = (read.guard, read.app_tag, read.storage_tag, read.ref_tag);
        assert_eq!(values, (0x1122, 0x3344, 0, 0x5566_7788));
        let sqe = Sqe::read(1, 5, 8);
        assert_eq!(
            usual.with_tags(sqe, (0, 9), 7, 3).as_bytes(),
            sqe.with_tags(9, 7, 3).as_bytes()
        );
    }

    #[test]
    fn fields_are_where_the_specification_has_them() {
        let info = Information {
            guard: 0x1122_3344,
            app_tag: 0x5566,
            storage_tag: 0x7788,
            ref_tag: 0x0102_0304_0506_0708,
        };
        let wide = format(GuardFormat::Bits32, 16);
        let mut bytes = [0; 20];
        assert!(wide.write(&info, &mut bytes) && !wide.write(&info, &mut bytes[..15]));
        let expected = [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(bytes[..16], expected);
        assert_eq!((wide.read(&bytes), wide.read(&bytes[..15])), (Some(info), None));
        let long = format(GuardFormat::Bits64, 8);
        let info =
            Information { guard: u64::MAX - 1, storage_tag: 0x99, ref_tag: 0x01_0203_0405, ..info };
        assert!(long.write(&info, &mut bytes));
        let tail = [0xff, 0xfe, 0x55, 0x66, 0x99, 1, 2, 3, 4, 5];
        assert_eq!((&bytes[..6], &bytes[6..16]), (&[0xff; 6][..], &tail[..]));
        assert_eq!(long.read(&bytes), Some(info));
        let sqe = wide.with_tags(Sqe::read(1, 0, 1), (0x7788, 0x0102_0304_0506_0708), 0, 0);
        let words = (sqe.cdw2.get(), sqe.cdw3.get(), sqe.cdw14.get());
        assert_eq!(words, (0x7788, 0x0102_0304, 0x0506_0708));
        assert_eq!(wide.tags_of(&sqe), (0x7788, 0x0102_0304_0506_0708));
    }

    #[test]
    fn tags_of_any_width_are_checked() {
        for (guard, bits) in [(GuardFormat::Bits16, 0), (GuardFormat::Bits16, 32)]
            .into_iter()
            .chain([16, 40, 64].map(|bits| (GuardFormat::Bits32, bits)))
            .chain([0, 7, 48].map(|bits| (GuardFormat::Bits64, bits)))
        {
            let format = format(guard, bits);
            let last = format.ref_tag_mask();
            let info = Information { guard: 1, app_tag: 2, storage_tag: 0, ref_tag: last };
            let good = ExpectedTags { guard: 1, app_tag: 2, app_mask: 0xffff, ref_tag: last };
            let check =
                |info, expected| format.check(&info, ProtectionType::TWO, prinfo::PRCHK, &expected);
            assert_eq!(check(info, good), Ok(()));
            let wrong = ExpectedTags { guard: 3, ..good };
            assert_eq!(check(info, wrong), Err(CheckError::Guard { expected: 3, found: 1 }));
            assert_eq!(check(Information { app_tag: 0xffff, ..info }, wrong), Ok(()));
            assert_eq!(format.ref_tag(ProtectionType::TWO, last, 1), 0);
            assert_eq!(format.ref_tag(ProtectionType::THREE, last, 1), last);
            if last > 0 {
                let moved = ExpectedTags { ref_tag: 0, ..good };
                let error = CheckError::RefTag { expected: 0, found: last };
                assert_eq!(check(info, moved), Err(error));
            }
        }
        for (guard, bits) in
            [(GuardFormat::Bits16, 33), (GuardFormat::Bits32, 15), (GuardFormat::Bits32, 65)]
        {
            assert_eq!(InformationFormat::new(guard, bits), None);
        }
        assert_eq!(InformationFormat::new(GuardFormat::Bits64, 49), None);
    }
}
