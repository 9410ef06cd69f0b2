//! Comparison of several paths, in short slices and in turns.

use std::time::Duration;

use nvio_ext4::File;

use crate::Result;
use crate::load::Load;
use crate::rig::{Rig, Way};

/// Requests per second of each path.
pub(crate) struct Rates {
    pub(crate) ways: Vec<Way>,
    pub(crate) rates: Vec<f64>,
}

impl Rates {
    /// Returns the rate of a path, or 0 if it was not measured.
    pub(crate) fn of(&self, way: Way) -> f64 {
        let mut found = self.ways.iter().zip(&self.rates).filter(|&(&other, _)| other == way);
        found.next().map_or(0.0, |(_, &rate)| rate)
    }

    pub(crate) fn ratio(&self, way: Way, to: Way) -> f64 {
        self.of(way) / self.of(to).max(f64::MIN_POSITIVE)
    }
}

/// Duration of a measurement.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) slice: Duration,
    pub(crate) rounds: usize,
}

/// Measures the paths in turns with `depth` requests in flight. The order changes, so that other
/// work on the machine affects all paths alike.
pub(crate) fn steady(
    rig: &mut Rig,
    ways: &[Way],
    (file, load, depth): (&mut File, &mut Load, usize),
    effort: Effort,
) -> Result<Rates> {
    let mut rates = vec![Vec::with_capacity(effort.rounds); ways.len()];
    for round in 0..effort.rounds {
        for turn in 0..ways.len() {
            let which = (round + turn) % ways.len();
            let spent = rig.slice(ways[which], file, load, depth, effort.slice)?;
            rates[which].push(spent.rate());
        }
    }
    let rates = rates.into_iter().map(best_tenth).collect();
    Ok(Rates { ways: ways.to_vec(), rates })
}

/// Returns the rate that a tenth of the slices exceeds. Drive and processor limit the rate of a
/// slice, and other work on the machine only lowers it.
pub(crate) fn best_tenth(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    let exceeded = rates.len() / 10;
    rates.iter().rev().nth(exceeded).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_is_above() {
        assert_eq!(best_tenth(vec![]), 0.0);
        assert_eq!(best_tenth(vec![7.0]), 7.0);
        assert_eq!(best_tenth((0..20).rev().map(f64::from).collect()), 17.0);
    }
}
