//! Hashes of names: by which function, and of what state they start from.

use super::{half_md4, legacy, tea};

/// What stands for "after the last hash"; no name has it.
const END: u32 = 0xffff_fffe;
/// The state without a seed.
const START: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

/// Whether bytes of names are taken as signed. It is noted in the superblock, because it was once
/// as the processor has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chars {
    Signed,
    Unsigned,
}

impl Chars {
    /// A byte as a number of 32 bits.
    pub(crate) fn value(self, byte: u8) -> u32 {
        match self {
            Self::Signed => i32::from(byte.cast_signed()).cast_unsigned(),
            Self::Unsigned => u32::from(byte),
        }
    }
}

/// The function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    /// Without a seed, and weak.
    Legacy,
    HalfMd4,
    Tea,
    /// Of decrypted names, under a key; entries carry their hash with them.
    SipHash,
}

impl Function {
    /// Out of the byte that the superblock and roots of trees have for it. Those that stand for the
    /// unsigned functions are never on disk.
    pub(crate) fn from_raw(raw: u8) -> Option<Self> {
        match raw {
            0 => Some(Self::Legacy),
            1 => Some(Self::HalfMd4),
            2 => Some(Self::Tea),
            6 => Some(Self::SipHash),
            _ => None,
        }
    }
}

/// The hash of a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hash {
    /// By which trees are ordered. The lowest bit is 0.
    pub major: u32,
    /// Orders what has the same `major` when a directory is listed.
    pub minor: u32,
}

/// How the superblock says that names are hashed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HashParameters {
    pub seed: [u32; 4],
    /// `None` if nobody has noted it yet.
    pub chars: Option<Chars>,
    /// The function for directories without a tree of their own, as it is on disk.
    pub default_function: u8,
}

impl HashParameters {
    /// Out of the fields of the superblock.
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

    /// The hash of `name`. [`Function::SipHash`] needs a key, which nobody has here: it gives
    /// `None`.
    pub(crate) fn hash(&self, function: Function, chars: Chars, name: &[u8]) -> Option<Hash> {
        let mut state = if self.seed == [0; 4] { START } else { self.seed };
        let (major, minor) = match function {
            Function::Legacy => (legacy::hash(name, chars), 0),
            Function::HalfMd4 => {
                pieces(name, chars, |text| half_md4::step(&mut state, text));
                let [_, major, minor, _] = state;
                (major, minor)
            }
            Function::Tea => {
                pieces(name, chars, |text| tea::step(&mut state, text));
                let [major, minor, ..] = state;
                (major, minor)
            }
            Function::SipHash => return None,
        };
        let major = match major & !1 {
            END => END.wrapping_sub(2),
            major => major,
        };
        Some(Hash { major, minor })
    }
}

/// Calls `step` for one piece of the name after another. What the last one lacks is filled with
/// its length.
fn pieces<const WORDS: usize>(name: &[u8], chars: Chars, mut step: impl FnMut([u32; WORDS])) {
    for piece in name.chunks(WORDS.saturating_mul(4).max(1)) {
        let length = u32::try_from(piece.len()).unwrap_or(0);
        let fill = length.wrapping_mul(0x0101_0101);
        let mut text = [fill; WORDS];
        for (word, bytes) in text.iter_mut().zip(piece.chunks(4)) {
            let push = |word: u32, &byte: &u8| (word << 8).wrapping_add(chars.value(byte));
            *word = bytes.iter().fold(fill, push);
        }
        step(text);
    }
}

#[cfg(test)]
pub(crate) mod tests;
