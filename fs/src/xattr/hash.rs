//! Hashes of extended attributes whose values are in inodes of their own.

/// Returns the hash of an entry: the hash of its name, mixed with the hash of its value.
pub(crate) fn entry(name: &[u8], value: u32) -> u32 {
    mix(name.iter().map(|&byte| u32::from(byte)), value)
}

/// Returns the hash of an entry as kernels with a signed `char` computed it.
pub(crate) fn entry_signed(name: &[u8], value: u32) -> u32 {
    mix(name.iter().map(|&byte| i32::from(byte.cast_signed()).cast_unsigned()), value)
}

fn mix(name: impl Iterator<Item = u32>, value: u32) -> u32 {
    let hash = name.fold(0u32, |hash, byte| hash.rotate_left(5) ^ byte);
    hash.rotate_left(16) ^ value
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
}
