//! Hashes of names: the functions and their parameters.

use crate::dir::htree::{half_md4, legacy, tea};
use crate::format::dir_hash::{Chars, Function, Hash, HashParameters};

/// The value reserved for "after the last hash", which no name may have.
const END: u32 = 0xffff_fffe;
/// The initial state if the superblock has no seed.
const START: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

impl HashParameters {
    /// Returns the hash of `name`, or `None` for [`Function::SipHash`], which needs a key.
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

/// Calls `step` for each block of the name. The last block is padded with the length of the rest.
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
