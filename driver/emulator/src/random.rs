//! A seeded random number generator: SplitMix64 (Steele, Lea, Flood 2014).

/// A generator that is deterministic and good enough to spread faults and delays, not for secrets.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

/// Certainty as a rate, because rates are in parts per million.
pub(crate) const MILLION: u32 = 1_000_000;

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Returns a number from 0 to `bound` - 1; 0 for a bound of 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // The high half of the product; the bias is below 2^-64 times the bound.
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// Returns true in `per_million` of a million cases. It always draws one number, so that a rate
    /// does not change the decisions for other rates.
    pub(crate) fn chance(&mut self, per_million: u32) -> bool {
        self.below(MILLION.into()) < u64::from(per_million)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_published_algorithm() {
        // The first outputs of other implementations for seed 1234567.
        let mut random = Random::new(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn chances_come_as_often_as_they_should() {
        let mut random = Random::new(1);
        let hits = (0..100_000).filter(|_| random.chance(MILLION / 4)).count();
        assert!((24_500..25_500).contains(&hits), "{hits}");
        assert!((0..1000).all(|_| !random.chance(0) && random.chance(MILLION)));
        assert!((0..1000).all(|_| random.below(7) < 7) && random.below(0) == 0);
    }
}
