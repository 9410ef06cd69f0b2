//! The change of a figure since an earlier run.

use crate::perf::sweep::statistics::Spread;

/// Samples that a run needs for its noise to be known.
pub const SAMPLES_MIN: usize = 3;

/// The figure that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Requests a second.
    Iops,
    /// Mean latency in nanoseconds: a rate fixes the requests a second.
    Latency,
}

impl Measure {
    /// Returns the word of the reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Iops => "iops",
            Self::Latency => "mean_ns",
        }
    }
}

/// A figure in an earlier run and now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// The figure of the earlier run.
    pub then: Spread,
    /// The figure of this run.
    pub now: Spread,
}

impl Change {
    /// Returns the ratio of the medians. `None` if the earlier one is 0.
    pub fn ratio(&self) -> Option<f64> {
        (self.then.median > 0.0).then(|| self.now.median / self.then.median)
    }

    /// Returns true if the two runs differ by no more than their samples: the ranges from the lowest to
    /// the highest overlap. Of 126 pairs of runs of five samples that do not differ, one has ranges apart.
    /// `None` if there are fewer than [`SAMPLES_MIN`] samples.
    pub fn is_noise(&self) -> Option<bool> {
        let Self { then, now } = self;
        let is_known = then.samples.min(now.samples) >= SAMPLES_MIN;
        is_known.then(|| then.overlaps(now))
    }

    /// Returns the change in percent, and its meaning.
    pub fn words(&self) -> String {
        let Some(ratio) = self.ratio() else { return "nothing to compare with".to_owned() };
        let meaning = match self.is_noise() {
            Some(true) => "within the noise",
            Some(false) => "more than the noise",
            None => "noise unknown",
        };
        format!("{:+.1} % {meaning}", (ratio - 1.0) * 100.0)
    }
}

/// The comparison of a run with an earlier one.
#[derive(Clone, Debug)]
pub struct Against {
    /// The file of the earlier run.
    pub file: String,
    /// The figure.
    pub measure: Measure,
    /// Differences of the machines and the devices.
    pub notes: Vec<String>,
    /// The change of each cell of a sweep, or of the whole run.
    pub changes: Vec<Option<Change>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(then: &[f64], now: &[f64]) -> Change {
        let of = |samples: &[f64]| Spread::of(samples.iter().copied()).unwrap();
        Change { then: of(then), now: of(now) }
    }

    #[test]
    fn ranges_that_overlap_are_noise() {
        let then = [100.0, 104.0, 96.0];
        let same = change(&then, &[103.0, 111.0, 109.0]);
        assert_eq!(
            (same.is_noise(), same.words().as_str()),
            (Some(true), "+9.0 % within the noise")
        );
        let more = change(&then, &[105.0, 110.0, 120.0]);
        assert_eq!(
            (more.is_noise(), more.words().as_str()),
            (Some(false), "+10.0 % more than the noise")
        );
        let less = change(&then, &[95.0, 50.0, 50.0]);
        assert_eq!((less.is_noise(), less.ratio()), (Some(false), Some(0.5)));
    }

    #[test]
    fn two_samples_have_no_known_noise() {
        let few = change(&[100.0, 104.0, 96.0], &[200.0, 201.0]);
        assert_eq!((few.is_noise(), few.words().as_str()), (None, "+100.5 % noise unknown"));
        assert_eq!(change(&[0.0], &[1.0]).words(), "nothing to compare with");
    }
}
