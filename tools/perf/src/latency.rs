//! Counts of latencies in the buckets of an HDR histogram.

use hdrhistogram::Histogram;

/// Significant digits of a latency.
const DIGITS: u8 = 3;
/// Largest latency that has a bucket, 100 s. A longer one is counted there; the maximum is exact.
const NANOS_MAX: u64 = 100_000_000_000;
/// A bucket has this many steps, as the histogram of the crate with three digits.
const STEP_BITS: u32 = 11;
const STEPS: u64 = 1 << STEP_BITS;
/// A power of two, so that an index needs no check.
const LENGTH: usize = (index_of(NANOS_MAX) + 1).next_power_of_two();

/// Counts of latencies, 1 ns to 100 s, with three significant digits.
///
/// Recording is about ten instructions, a third of [`Histogram::record`], in the same buckets.
#[derive(Clone, Debug)]
pub struct Counts {
    counts: Box<[u64; LENGTH]>,
    /// Sum in nanoseconds.
    sum: u64,
    min: u64,
    max: u64,
    /// Distance from `min` up to which no latency changes `min` or `max`, or has no bucket.
    span: u64,
}

impl Default for Counts {
    fn default() -> Self {
        Self { counts: Box::new([0; LENGTH]), sum: 0, min: u64::MAX, max: 0, span: 0 }
    }
}

impl Counts {
    /// Records a latency in nanoseconds.
    #[inline(always)]
    pub fn record(&mut self, nanos: u64) {
        self.sum = self.sum.wrapping_add(nanos);
        let mut bounded = nanos;
        if nanos.wrapping_sub(self.min) > self.span {
            bounded = self.extend(nanos);
        }
        self.counts[index_of(bounded) & (LENGTH - 1)] += 1;
    }

    /// Includes a latency in the bounds, and returns it or the largest that has a bucket.
    #[cold]
    #[inline(never)]
    fn extend(&mut self, nanos: u64) -> u64 {
        self.min = self.min.min(nanos);
        self.max = self.max.max(nanos);
        self.span = self.max.min(NANOS_MAX).saturating_sub(self.min);
        nanos.min(NANOS_MAX)
    }

    /// Forgets all latencies.
    pub fn clear(&mut self) {
        self.counts.fill(0);
        (self.sum, self.min, self.max, self.span) = (0, u64::MAX, 0, 0);
    }

    /// Adds the latencies of another thread.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts.iter()) {
            *count += more;
        }
        self.sum = self.sum.wrapping_add(other.sum);
        if !other.is_empty() {
            self.extend(other.min);
            self.extend(other.max);
        }
    }

    /// Returns the number of latencies.
    pub fn len(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns true if no latency was recorded.
    pub fn is_empty(&self) -> bool {
        self.max == 0 && self.len() == 0
    }

    /// Sum of the latencies in nanoseconds.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// Shortest latency, exact. 0 if there is none.
    pub fn min(&self) -> u64 {
        if self.is_empty() { 0 } else { self.min }
    }

    /// Longest latency, exact.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// Mean latency, exact. 0 if there is none.
    pub fn mean(&self) -> f64 {
        self.sum as f64 / self.len().max(1) as f64
    }

    /// Returns the histogram, from which percentiles are read.
    pub fn histogram(&self) -> Histogram<u64> {
        let mut histogram = empty();
        for (lowest, _, count) in self.buckets() {
            // Each value is below the bound, so nothing is lost.
            let recorded = histogram.record_n(lowest, count);
            debug_assert!(recorded.is_ok());
        }
        histogram
    }

    /// Returns the latency that the share `quantile` of all does not exceed, if at least ten are above
    /// it. 0.999 of 5,000 latencies has only five.
    pub fn percentile(&self, histogram: &Histogram<u64>, quantile: f64) -> Option<u64> {
        const ABOVE_MIN: f64 = 10.0;
        let above = (1.0 - quantile) * histogram.len() as f64;
        // A share such as 0.99999 is not exact in binary.
        let is_known = above + 1e-6 >= ABOVE_MIN;
        is_known.then(|| histogram.value_at_quantile(quantile).clamp(self.min(), self.max))
    }

    /// Returns the first value, the last value and the count of each bucket that is not empty.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        let all = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        all.map(|(index, &count)| {
            let (lowest, highest) = bounds(index);
            (lowest, highest, count)
        })
    }
}

/// Returns an empty histogram with the bounds of [`Counts`].
pub fn empty() -> Histogram<u64> {
    match Histogram::new_with_bounds(1, NANOS_MAX, DIGITS) {
        Ok(histogram) => histogram,
        Err(_) => unreachable!("the crate accepts these constants"),
    }
}

/// Returns the bucket of a value: values below 2,048 have one each, then each power of two has 1,024.
#[allow(clippy::cast_possible_truncation, reason = "there are fewer than 2^16 buckets")]
const fn index_of(nanos: u64) -> usize {
    let shift = u64::BITS - STEP_BITS - (nanos | (STEPS - 1)).leading_zeros();
    ((shift as u64 * (STEPS / 2)) + (nanos >> shift)) as usize
}

/// Returns the first and the last value of a bucket.
fn bounds(index: usize) -> (u64, u64) {
    let index = index as u64;
    let shift = (index / (STEPS / 2)).saturating_sub(1);
    let step = index - shift * (STEPS / 2);
    (step << shift, ((step + 1) << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn samples() -> Vec<u64> {
        let mut random = Random::new(5, 0);
        (0..40_000).map(|i| random.bits() >> (28 + i % 30)).collect()
    }

    #[test]
    fn buckets_are_those_of_the_crate() {
        let (mut counts, mut reference) = (Counts::default(), empty());
        for nanos in samples() {
            counts.record(nanos);
            reference.record(nanos).unwrap();
        }
        let histogram = counts.histogram();
        assert_eq!(histogram, reference);
        for quantile in [0.0, 0.5, 0.9, 0.99, 0.999, 1.0] {
            assert_eq!(
                histogram.value_at_quantile(quantile),
                reference.value_at_quantile(quantile)
            );
        }
        for (lowest, highest, _) in counts.buckets() {
            assert_eq!(lowest, reference.lowest_equivalent(lowest));
            assert_eq!(highest, reference.highest_equivalent(lowest));
        }
    }

    #[test]
    fn four_threads_merge_to_the_histogram_of_all_samples() {
        let samples = samples();
        let (mut all, mut merged) = (Counts::default(), Counts::default());
        samples.iter().for_each(|&nanos| all.record(nanos));
        for part in samples.chunks(samples.len() / 4) {
            let mut thread = Counts::default();
            part.iter().for_each(|&nanos| thread.record(nanos));
            merged.merge(&thread);
        }
        assert_eq!(merged.histogram(), all.histogram());
        let exact = |counts: &Counts| (counts.len(), counts.sum(), counts.min(), counts.max());
        assert_eq!(exact(&merged), exact(&all));
        assert_eq!(exact(&all).2, *samples.iter().min().unwrap());
        assert_eq!(exact(&all).3, *samples.iter().max().unwrap());
    }

    #[test]
    fn a_percentile_needs_ten_latencies_above_it() {
        let mut counts = Counts::default();
        (0..9_999).for_each(|_| counts.record(100));
        assert_eq!(counts.percentile(&counts.histogram(), 0.999), None);
        counts.record(100);
        assert_eq!(counts.percentile(&counts.histogram(), 0.999), Some(100));
        assert_eq!(counts.percentile(&counts.histogram(), 0.9999), None);
    }

    #[test]
    fn extremes_are_exact() {
        let mut counts = Counts::default();
        assert_eq!((counts.min(), counts.max(), counts.is_empty()), (0, 0, true));
        counts.record(0);
        counts.record(NANOS_MAX + 12_345);
        assert_eq!((counts.min(), counts.max(), counts.len()), (0, NANOS_MAX + 12_345, 2));
        counts.clear();
        assert!(counts.is_empty() && counts.buckets().next().is_none());
    }
}
