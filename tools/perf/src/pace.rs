//! Intended starts of requests, for a rate that does not depend on the device.

use crate::random::{Random, mix, scaled, whole};

/// Fractions of a nanosecond, so that a rate of any size is exact on average.
const FRACTION_BITS: u32 = 16;
const NANOS: f64 = 1e9 * (1 << FRACTION_BITS) as f64;
/// Gaps of a Poisson process that are drawn from.
const GAP_BITS: u32 = 16;

/// The arrival of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arrival {
    /// Independent of each other: the gaps are exponentially distributed.
    #[default]
    Poisson,
    /// At equal distances.
    Even,
}

impl Arrival {
    /// Returns the word of the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Poisson => "poisson",
            Self::Even => "even",
        }
    }
}

/// A sequence of intended starts.
#[derive(Clone, Debug)]
pub struct Pace {
    /// The next start, in fractions of a nanosecond.
    next: u64,
    gap: u64,
    gaps: Box<[u64]>,
    random: Random,
}

impl Pace {
    /// Creates starts at `rate` a second, which is above 0.
    pub fn new(rate: f64, arrival: Arrival, random: Random) -> Self {
        let mean = NANOS / rate.max(1e-6);
        let gaps = match arrival {
            Arrival::Even => Box::default(),
            Arrival::Poisson => exponential(mean),
        };
        Self { next: 0, gap: whole(mean.round()), gaps, random }
    }

    /// Sets the time in nanoseconds from which the starts count. The first gap is random, so that the
    /// starts of several threads are not the same.
    pub fn begin(&mut self, now: u64) {
        let bits = mix(self.random.bits());
        self.next = (now << FRACTION_BITS) + scaled(bits, self.gap);
    }

    /// Returns the next intended start in nanoseconds.
    #[inline(always)]
    pub fn due(&self) -> u64 {
        self.next >> FRACTION_BITS
    }

    /// Goes on to the start after the next.
    #[inline(always)]
    pub fn advance(&mut self) {
        let gap = match self.gaps.is_empty() {
            true => self.gap,
            false => {
                let index = self.random.bits() >> (u64::BITS - GAP_BITS);
                let gap = usize::try_from(index).ok().and_then(|index| self.gaps.get(index));
                gap.copied().unwrap_or(self.gap)
            }
        };
        self.next = self.next.saturating_add(gap);
    }
}

/// Returns the quantiles of an exponential distribution, whose mean is exact.
fn exponential(mean: f64) -> Box<[u64]> {
    let count = 1_usize << GAP_BITS;
    let quantile = |index: usize| -((index as f64 + 0.5) / count as f64).ln();
    let sum: f64 = (0..count).map(quantile).sum();
    let scale = mean * count as f64 / sum;
    (0..count).map(|index| whole((quantile(index) * scale).round())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps(arrival: Arrival, rate: f64, count: usize) -> Vec<f64> {
        let mut pace = Pace::new(rate, arrival, Random::new(1, 0));
        pace.begin(1_000);
        assert!(pace.due() >= 1_000);
        let gap = |_| {
            let before = pace.due();
            pace.advance();
            (pace.due() - before) as f64
        };
        (0..count).map(gap).collect()
    }

    #[test]
    fn even_arrivals_are_exact_on_average() {
        let gaps = gaps(Arrival::Even, 300_000.0, 300_000);
        let sum: f64 = gaps.iter().sum();
        assert!((sum - 1e9).abs() < 10.0, "{sum}");
        assert!(gaps.iter().all(|&gap| (3_333.0..=3_334.0).contains(&gap)));
    }

    #[test]
    fn poisson_arrivals_have_mean_and_spread_of_a_poisson_process() {
        let gaps = gaps(Arrival::Poisson, 50_000.0, 500_000);
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        assert!((mean / 20_000.0 - 1.0).abs() < 0.01, "{mean}");
        // The standard deviation of an exponential distribution is its mean, and 1 - 1/e are below.
        let below = gaps.iter().filter(|&&gap| gap < 20_000.0).count() as f64 / gaps.len() as f64;
        assert!((below - 0.632).abs() < 0.005, "{below}");
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.02, "{variance}");
    }
}
