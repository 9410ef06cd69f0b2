//! The load of all parts.

/// Number of commands in flight.
pub(crate) const DEPTH: u16 = 128;
/// Number of commands per doorbell.
pub(crate) const BATCH: usize = 32;
/// Number of batches.
pub(crate) const ROUNDS: usize = 64;

/// Returns the next of a sequence of numbers below 2^31.
pub(crate) fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    *seed >> 33
}
