//! Random numbers of the hot loop.

/// A generator of the WyRand family, about five instructions a number. It is this project's own, so
/// that a printed seed repeats a run with every version of every crate.
#[derive(Clone, Copy, Debug)]
pub struct Random(u64);

impl Random {
    /// Creates a generator. Each pair of a seed and a stream has its own sequence.
    pub fn new(seed: u64, stream: u64) -> Self {
        Self(mix(seed ^ mix(stream.wrapping_add(0x9e37_79b9_7f4a_7c15))))
    }

    /// Returns the next 64 random bits.
    #[inline(always)]
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x2d35_8dcc_aa6c_78a5);
        fold(self.0, self.0 ^ 0x8bb8_4b93_962e_acc9)
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

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the low half is wanted")]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    high(product) ^ product as u64
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
        let first = |seed, stream| Random::new(seed, stream).bits();
        assert_eq!(first(7, 3), first(7, 3));
        assert!(first(7, 3) != first(7, 4) && first(7, 3) != first(8, 3));
    }
}
