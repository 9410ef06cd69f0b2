//! Directory hashes as the superblock, directories and hash trees store them.

/// Signedness of the bytes of names. The superblock records it, because early kernels used the
/// processor's `char`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chars {
    Signed,
    Unsigned,
}

impl Chars {
    /// Extends a byte to 32 bits.
    pub(crate) fn value(self, byte: u8) -> u32 {
        match self {
            Self::Signed => i32::from(byte.cast_signed()).cast_unsigned(),
            Self::Unsigned => u32::from(byte),
        }
    }
}

/// A hash function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    /// The original function, which is weak and takes no seed.
    Legacy,
    HalfMd4,
    Tea,
    /// Keyed hash of decrypted names. Entries store the hash, because it cannot be computed without
    /// the key.
    SipHash,
}

impl Function {
    /// Decodes the value in the superblock or in the root of a tree. The values of the unsigned
    /// variants are never stored on disk.
    pub(crate) fn from_raw(raw: u8) -> Option<Self> {
        match raw {
            0 => Some(Self::Legacy),
            1 => Some(Self::HalfMd4),
            2 => Some(Self::Tea),
            6 => Some(Self::SipHash),
            _ => None,
        }
    }

    /// Encodes the function as in the root of a hash tree.
    pub(crate) fn to_raw(self) -> u8 {
        match self {
            Self::Legacy => 0,
            Self::HalfMd4 => 1,
            Self::Tea => 2,
            Self::SipHash => 6,
        }
    }
}

/// The hash of a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hash {
    /// The order of names in the tree. The lowest bit is 0.
    pub major: u32,
    /// The order of names with the same `major` in a listing.
    pub minor: u32,
}

/// The parameters of hashes in the superblock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HashParameters {
    pub seed: [u32; 4],
    /// Signedness of bytes; `None` if it is not recorded.
    pub chars: Option<Chars>,
    /// The on-disk value of the function for directories that have no tree yet.
    pub default_function: u8,
}

impl HashParameters {
    /// Decodes the fields of the superblock.
    pub(crate) fn new(seed: [u32; 4], flags: u32, default_function: u8) -> Self {
        const SIGNED: u32 = 0x1;
        const UNSIGNED: u32 = 0x2;
        let chars = match flags {
            flags if flags & UNSIGNED != 0 => Some(Chars::Unsigned),
            flags if flags & SIGNED != 0 => Some(Chars::Signed),
            _ => None,
        };
        Self { seed, chars, default_function }
    }
}
