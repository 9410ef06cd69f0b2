//! The guards of protection information (NVM 5.2.1), a bit at a time.

/// CRC-16/T10-DIF: the polynomial 0x8bb7, most significant bit first, from zero.
pub fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| {
            (crc << 1) ^ if crc >> 15 == 1 { 0x8bb7 } else { 0 }
        })
    })
}

/// CRC-64/NVME: the polynomial 0xad93d23594c93659, least significant bit first, from all ones, and
/// inverted in the end.
pub fn crc64(bytes: &[u8]) -> u64 {
    !bytes.iter().fold(u64::MAX, |crc, byte| {
        (0..8).fold(crc ^ u64::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0xad93_d235_94c9_3659_u64.reverse_bits() } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values() {
        assert_eq!(crc16(b"123456789"), 0xd0db);
        assert_eq!(crc64(b"123456789"), 0xae8b_1486_0a79_9888);
    }
}
