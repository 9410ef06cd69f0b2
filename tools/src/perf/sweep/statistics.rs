//! Medians of rounds, and their spread.

/// The median of some samples, with the lowest and the highest.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    /// The sample in the middle, or the mean of the two in the middle.
    pub median: f64,
    /// The lowest sample.
    pub min: f64,
    /// The highest sample.
    pub max: f64,
    /// Number of samples.
    pub samples: usize,
}

impl Spread {
    /// Describes samples. `None` if there is none, or one is not a number.
    pub fn of(samples: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = samples.into_iter().collect();
        if sorted.iter().any(|sample| sample.is_nan()) {
            return None;
        }
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let upper = *sorted.get(sorted.len() / 2)?;
        let lower = *sorted.get((sorted.len() - 1) / 2)?;
        Some(Self { median: f64::midpoint(lower, upper), min, max, samples: sorted.len() })
    }

    /// Describes the ratios of samples that belong together: of the same round. `None` if there is none,
    /// or a divisor is 0.
    pub fn of_ratios(samples: impl IntoIterator<Item = (f64, f64)>) -> Option<Self> {
        let mut ratios = Vec::new();
        for (sample, reference) in samples {
            if reference <= 0.0 {
                return None;
            }
            ratios.push(sample / reference);
        }
        Self::of(ratios)
    }

    /// Returns true if the ranges from the lowest to the highest sample have a value in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.min <= other.max && other.min <= self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(median: f64, min: f64, max: f64, samples: usize) -> Option<Spread> {
        Some(Spread { median, min, max, samples })
    }

    #[test]
    fn a_median_is_the_middle_or_between_the_two_in_the_middle() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([7.0]), spread(7.0, 7.0, 7.0, 1));
        assert_eq!(Spread::of([9.0, 1.0, 2.0]), spread(2.0, 1.0, 9.0, 3));
        assert_eq!(Spread::of([4.0, 100.0, 1.0, 2.0]), spread(3.0, 1.0, 100.0, 4));
        assert_eq!(Spread::of([1.0, f64::NAN]), None);
    }

    /// The second round was twice as fast for both. The ratio of the medians would be 150/110.
    #[test]
    fn a_ratio_is_that_of_each_round() {
        let rounds = [(150.0, 100.0), (250.0, 200.0), (110.0, 110.0)];
        assert_eq!(Spread::of_ratios(rounds), spread(1.25, 1.0, 1.5, 3));
        assert_eq!(Spread::of_ratios([(1.0, 1.0), (1.0, 0.0)]), None);
        assert_eq!(Spread::of_ratios([]), None);
    }

    #[test]
    fn ranges_overlap_if_they_share_a_value() {
        let of = |min, max| Spread { median: min, min, max, samples: 5 };
        for (other, expected) in [
            (of(1.0, 9.9), false),
            (of(1.0, 10.0), true),
            (of(12.0, 13.0), true),
            (of(20.0, 30.0), true),
            (of(20.1, 30.0), false),
            (of(1.0, 99.0), true),
        ] {
            assert_eq!(of(10.0, 20.0).overlaps(&other), expected, "{other:?}");
            assert_eq!(other.overlaps(&of(10.0, 20.0)), expected, "{other:?}");
        }
    }
}
