//! Comparison of several paths, in short slices and in turns.

use std::time::Duration;

use nvio_ext4::File;
use nvio_tests::walk::goal::best_tenth;

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
