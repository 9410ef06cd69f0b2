//! The two checksums of the format.

/// Computes the CRC-32C of `metadata_csum`. The register is not inverted before or after, so that
/// the result is the seed for the bytes that follow. The initial seed is `!0`.
pub(crate) fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!seed, bytes)
}

/// Computes the CRC-16 of `gdt_csum` (polynomial 0x8005, reflected). The initial seed is `!0`.
pub(crate) fn crc16(seed: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(seed, |crc, &byte| {
        (0..8).fold(crc ^ u16::from(byte), |crc, _| {
            if crc & 1 == 0 { crc >> 1 } else { (crc >> 1) ^ 0xa001 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_check_values() {
        // The published value of CRC-32/ISCSI is 0xe3069283, which includes the final inversion.
        assert_eq!(crc32c(!0, b"123456789"), !0xe306_9283);
        // The published value of CRC-16/MODBUS.
        assert_eq!(crc16(!0, b"123456789"), 0x4b37);
    }

    #[test]
    fn checksums_chain() {
        assert_eq!(crc32c(crc32c(!0, b"1234"), b"56789"), crc32c(!0, b"123456789"));
        assert_eq!(crc16(crc16(!0, b"1234"), b"56789"), crc16(!0, b"123456789"));
    }
}
