//! The "legacy" hash of names, the oldest function.

use std::num::Wrapping;

use crate::format::dir_hash::Chars;

/// Returns the hash of a name. This function uses no seed and returns no minor hash.
pub(crate) fn hash(name: &[u8], chars: Chars) -> u32 {
    let (mut last, mut before) = (Wrapping(0x12a3_fe2d_u32), Wrapping(0x37ab_e8f9_u32));
    for &byte in name {
        let mut next = before + (last ^ (Wrapping(chars.value(byte)) * Wrapping(7_152_373)));
        if next.0 & 0x8000_0000 != 0 {
            next -= Wrapping(0x7fff_ffff);
        }
        (before, last) = (last, next);
    }
    (last << 1).0
}
