//! Random numbers of the hot loop.

/// A linear congruential generator of 64 bits (Knuth's MMIX), four instructions a number. Its high bits
/// are random enough for positions; its low bits are not, so that a number is scaled and never masked.
/// The generator is this project's own, so that a printed seed repeats a run with every version of every crate.
#[derive(Clone, Copy, Debug)]
pub struct Random(u64);

impl Random {
    /// Creates a generator. Each pair of a seed and a stream has its own sequence.
    pub fn new(seed: u64, stream: u64) -> Self {
        Self(mix(seed ^ mix(stream.wrapping_add(0x9e37_79b9_7f4a_7c15))))
    }

    /// Returns the next number of 64 bits, the high ones of which are random.
    #[inline(always)]
    pub fn bits(&mut self) -> u64 {
        // A small increment fits into the instruction.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_041);
        self.0
    }

    /// Returns a number below `n`.
    #[inline(always)]
    pub fn below(&mut self, n: u64) -> u64 {
        scaled(self.bits(), n)
    }
}

/// Maps 64 random bits to a number below `n`, without a division.
#[inline(always)]
pub(crate) fn scaled(bits: u64, n: u64) -> u64 {
    high(u128::from(bits) * u128::from(n))
}

#[inline(always)]
fn high(product: u128) -> u64 {
    (product >> 64) as u64
}

/// Rounds a number that is not negative down. Larger numbers than 64 bits have become the largest.
#[expect(clippy::cast_possible_truncation, reason = "the conversion saturates")]
pub(crate) fn whole(value: f64) -> u64 {
    value as u64
}

/// Mixes the bits of a number (SplitMix64), one to one.
#[inline]
pub(crate) fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_even_and_streams_differ() {
        let mut random = Random::new(1, 0);
        let mut counts = [0_u32; 10];
        for _ in 0..100_000 {
            counts[usize::try_from(random.below(10)).unwrap()] += 1;
        }
        assert!(counts.iter().all(|&count| (9_600..10_400).contains(&count)), "{counts:?}");
        // Neighbours in the sequence are independent, too: each of 16 x 16 squares is met as often.
        let mut squares = [0_u32; 256];
        for _ in 0..256_000 {
            let (x, y) = (random.below(16), random.below(16));
            squares[usize::try_from(16 * x + y).unwrap()] += 1;
        }
        assert!(squares.iter().all(|&count| (850..1_150).contains(&count)), "{squares:?}");
        let first = |seed, stream| Random::new(seed, stream).bits();
        assert_eq!(first(7, 3), first(7, 3));
        assert!(first(7, 3) != first(7, 4) && first(7, 3) != first(8, 3));
    }
}
