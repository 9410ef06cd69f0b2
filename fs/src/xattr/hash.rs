//! Hashes of extended attributes, which entries in a block have, and entries whose values are in inodes
//! of their own.

/// Returns the hash of an entry: the hash of its name, mixed with the hash of its value.
pub(crate) fn entry(name: &[u8], value: u32) -> u32 {
    mix(name.iter().map(|&byte| u32::from(byte)), [value].into_iter())
}

/// Returns the hash of an entry as kernels with a signed `char` computed it.
pub(crate) fn entry_signed(name: &[u8], value: u32) -> u32 {
    mix(name.iter().map(|&byte| i32::from(byte.cast_signed()).cast_unsigned()), [value].into_iter())
}

/// Returns the hash of an entry in a block, whose value is in the same block.
pub(crate) fn entry_with(name: &[u8], value: &[u8]) -> u32 {
    let words = value.chunks(4).map(|bytes| {
        let mut word = [0; 4];
        word.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        u32::from_le_bytes(word)
    });
    mix(name.iter().map(|&byte| u32::from(byte)), words)
}

/// Returns the hash of a block, from those of its entries. A block with an entry whose hash is 0 has
/// the hash 0, and the kernel does not look for such blocks in order to share them.
pub(crate) fn block(entries: impl Iterator<Item = u32>) -> u32 {
    entries
        .map(|entry| (entry != 0).then_some(entry))
        .try_fold(0u32, |hash, entry| Some(hash.rotate_left(16) ^ entry?))
        .unwrap_or(0)
}

fn mix(name: impl Iterator<Item = u32>, value: impl Iterator<Item = u32>) -> u32 {
    let hash = name.fold(0u32, |hash, byte| hash.rotate_left(5) ^ byte);
    value.fold(hash, |hash, word| hash.rotate_left(16) ^ word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_with_the_upper_bit_differ() {
        assert_eq!(entry(b"a", 0), 0x61 << 16);
        assert_eq!(entry(b"ab", 1), (0x61u32 << 5 ^ 0x62) << 16 | 1);
        assert_eq!(entry(b"plain", 7), entry_signed(b"plain", 7));
        assert_eq!(entry_signed(b"\xff", 0), !0);
        assert_eq!(entry(b"\xff", 0), 0xff << 16);
    }

    #[test]
    fn values_and_blocks() {
        assert_eq!(entry_with(b"a", b""), 0x61);
        assert_eq!(entry_with(b"a", &[1]), entry(b"a", 1));
        assert_eq!(entry_with(b"a", &[1, 0, 0, 0, 2]), entry(b"a", 1).rotate_left(16) ^ 2);
        assert_eq!(block([].into_iter()), 0);
        assert_eq!(block([1, 2].into_iter()), 1 << 16 | 2);
        assert_eq!(block([1, 0, 2].into_iter()), 0);
    }
}
