//! Numbers that are stored as a lower and an upper half.

use zerocopy::little_endian::{U16, U32};

/// Joins the halves of a number of 64 bits.
pub(crate) fn join_64(low: U32, high: U32) -> u64 {
    u64::from(low.get()) | u64::from(high.get()) << 32
}

/// Joins the halves of a number of 32 bits.
pub(crate) fn join_32(low: U16, high: U16) -> u32 {
    u32::from(low.get()) | u32::from(high.get()) << 16
}

/// Splits a number of 64 bits.
pub(crate) fn split_64(value: u64) -> (U32, U32) {
    let [a, b, c, d, high @ ..] = value.to_le_bytes();
    (U32::from_bytes([a, b, c, d]), U32::from_bytes(high))
}

/// Splits a number of 32 bits.
pub(crate) fn split_32(value: u32) -> (U16, U16) {
    let [a, b, high @ ..] = value.to_le_bytes();
    (U16::from_bytes([a, b]), U16::from_bytes(high))
}
