//! Bitmaps of blocks or inodes: bit `n` is bit `n % 8` of byte `n / 8`; 1 is in use.

use std::ops::Range;

use crate::format::checksum::crc32c;
use crate::format::corrupt::Problem;
use crate::format::superblock::Superblock;
use crate::number::as_usize;

/// Computes the checksum of a bitmap, which covers the bits of a whole group of `length`.
pub(crate) fn checksum(superblock: &Superblock, bits: &[u8], length: u32) -> u32 {
    let bytes = as_usize(length >> 3);
    crc32c(superblock.checksum_seed, bits.get(..bytes).unwrap_or(bits))
}

/// Verifies the checksum of a bitmap, if the filesystem has metadata checksums. Descriptors of 32
/// bytes store the lower half.
pub(crate) fn verify(
    superblock: &Superblock,
    bits: &[u8],
    length: u32,
    stored: u32,
) -> Result<(), Problem> {
    if !superblock.has_metadata_csum() {
        return Ok(());
    }
    let is_whole = superblock.geometry.descriptor_size >= 64;
    let mask = if is_whole { u32::MAX } else { 0xffff };
    Problem::verify_checksum(stored, checksum(superblock, bits, length) & mask)
}

/// Returns true if bit `at` is set. Bits after the end count as set.
pub(crate) fn is_set(bits: &[u8], at: u32) -> bool {
    let byte = usize::try_from(at >> 3).ok().and_then(|index| bits.get(index));
    byte.is_none_or(|byte| byte.wrapping_shr(at & 7) & 1 != 0)
}

/// Sets or clears the bits of a range. Bits after the end are left out.
pub(crate) fn fill(bits: &mut [u8], range: Range<u32>, used: bool) {
    for at in range {
        let Some(byte) = usize::try_from(at >> 3).ok().and_then(|index| bits.get_mut(index)) else {
            return;
        };
        let mask = 1u8.wrapping_shl(at & 7);
        *byte = if used { *byte | mask } else { *byte & !mask };
    }
}

/// Returns the number of clear bits among the first `length`.
pub(crate) fn count_free(bits: &[u8], length: u32) -> u32 {
    let whole = bits.get(..as_usize(length >> 3)).unwrap_or(bits);
    let (words, bytes) = whole.as_chunks();
    let words = words.iter().map(|&word| u64::from_le_bytes(word).count_zeros());
    let bytes = bytes.iter().map(|byte| byte.count_zeros());
    let last = (length & !7..length).map(|at| u32::from(!is_set(bits, at)));
    words.chain(bytes).chain(last).fold(0, u32::saturating_add)
}

/// Returns the runs of clear bits in a range, in order.
pub(crate) fn runs(bits: &[u8], range: Range<u32>) -> impl Iterator<Item = Range<u32>> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        let start = next(bits, at..range.end, false)?;
        let end = next(bits, start..range.end, true).unwrap_or(range.end);
        at = end;
        Some(start..end)
    })
}

/// Returns the first bit in a range that is set, or clear.
fn next(bits: &[u8], range: Range<u32>, set: bool) -> Option<u32> {
    let mut at = range.start;
    let skipped = if set { 0 } else { u8::MAX };
    while at < range.end {
        let rest = usize::try_from(at >> 3).ok().and_then(|index| bits.get(index..));
        let rest = rest.unwrap_or_default();
        // Words and bytes are skipped, because a bitmap has up to 65,536 bytes.
        if at & 63 == 0 && rest.first_chunk() == Some(&[skipped; 8]) {
            at = at.saturating_add(64);
        } else if at & 7 == 0 && rest.first() == Some(&skipped) {
            at = at.saturating_add(8);
        } else if is_set(bits, at) == set {
            return Some(at);
        } else {
            at = at.saturating_add(1);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_those_of_single_bits() {
        let mut random = 5u64;
        for _ in 0..500 {
            let mut bits = vec![0; 16];
            for _ in 0..6 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let start = (random >> 33) as u32 % 128;
                let end = start + (random >> 50) as u32 % 40;
                fill(&mut bits, start..end, random >> 45 & 1 == 0);
            }
            let (from, to) = ((random >> 20) as u32 % 64, 64 + (random >> 28) as u32 % 80);
            let found: Vec<u32> = runs(&bits, from..to).flatten().collect();
            let expected: Vec<u32> = (from..to).filter(|&at| !is_set(&bits, at)).collect();
            assert_eq!(found, expected);
            let runs: Vec<_> = runs(&bits, from..to).collect();
            assert!(runs.windows(2).all(|pair| pair[0].end < pair[1].start), "{runs:?}");
            let all = (0..100).filter(|&at| !is_set(&bits, at)).count();
            assert_eq!(count_free(&bits, 100) as usize, all);
        }
    }

    #[test]
    fn bits_after_the_end_are_in_use() {
        assert!(is_set(&[0], 8) && is_set(&[], 0) && is_set(&[0], u32::MAX));
        assert!(runs(&[0], 0..100).eq(std::iter::once(0..8)));
    }
}
