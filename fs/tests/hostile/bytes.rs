//! Integers in bytes, and the checksums of the format. Written for the tests from the format's
//! documentation, so that they share no code with the library.

/// Reads a little-endian integer of `width` bytes at `at`.
pub fn get(bytes: &[u8], at: usize, width: usize) -> u64 {
    let mut wide = [0; 8];
    wide[..width].copy_from_slice(&bytes[at..at + width]);
    u64::from_le_bytes(wide)
}

pub fn put(bytes: &mut [u8], at: usize, width: usize, value: u64) {
    bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
}

/// Reads a big-endian integer of `width` bytes at `at`, as in journals.
pub fn get_be(bytes: &[u8], at: usize, width: usize) -> u64 {
    bytes[at..at + width].iter().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

pub fn put_be(bytes: &mut [u8], at: usize, width: usize, value: u64) {
    bytes[at..at + width].copy_from_slice(&value.to_be_bytes()[8 - width..]);
}

const fn table(polynomial: u32) -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ polynomial } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

static CRC32C: [u32; 256] = table(0x82f6_3b78);
static CRC16: [u32; 256] = table(0xa001);

fn crc(table: &[u32; 256], start: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(start, |crc, &byte| crc >> 8 ^ table[usize::from(crc as u8 ^ byte)])
}

/// CRC-32C without inversion before or after, as in ext4.
pub fn crc32c(start: u32, bytes: &[u8]) -> u32 {
    crc(&CRC32C, start, bytes)
}

pub fn crc16(start: u16, bytes: &[u8]) -> u16 {
    crc(&CRC16, start.into(), bytes) as u16
}

/// Returns a digest of bytes, for comparing contents without keeping them.
pub fn digest(start: u64, bytes: &[u8]) -> u64 {
    let mix =
        |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words.iter().fold(start, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(mix(hash, u64::from_le_bytes(last)), bytes.len() as u64)
}
