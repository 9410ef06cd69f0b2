//! Arithmetic on numbers of bytes.

/// Converts a number of bytes in memory. The crate is for hosts of 64 bits.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "checked below")]
pub(crate) fn to_usize(bytes: u64) -> usize {
    const _: () = assert!(size_of::<usize>() == size_of::<u64>());
    bytes as usize
}

#[inline]
pub(crate) fn is_multiple(value: u64, power_of_two: u64) -> bool {
    value & (power_of_two - 1) == 0
}

/// Rounds up to a multiple of a power of two.
#[inline]
pub(crate) fn round_up(value: u64, power_of_two: u64) -> u64 {
    value.wrapping_add(power_of_two - 1) & !(power_of_two - 1)
}
