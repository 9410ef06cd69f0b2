//! Several ways beside each other: in short slices, by turns.

use std::time::Duration;

use nvio_ext4::File;

use crate::Result;
use crate::load::Load;
use crate::rig::{Rig, Way};

/// Requests of a second by each way.
pub(crate) struct Rates {
    pub(crate) ways: Vec<Way>,
    pub(crate) rates: Vec<f64>,
}

impl Rates {
    /// 0 for a way that is not among them.
    pub(crate) fn of(&self, way: Way) -> f64 {
        let mut found = self.ways.iter().zip(&self.rates).filter(|&(&other, _)| other == way);
        found.next().map_or(0.0, |(_, &rate)| rate)
    }

    pub(crate) fn ratio(&self, way: Way, to: Way) -> f64 {
        self.of(way) / self.of(to).max(f64::MIN_POSITIVE)
    }
}

/// How long is measured.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) slice: Duration,
    pub(crate) rounds: usize,
}

/// Lets requests go each way by turns, always `depth` of them; who is first changes. What else the
/// machine does meets all ways alike.
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

/// What a tenth of the slices exceeded. The drive bounds what a slice can have, and so does the
/// processor; what others on the machine take only makes slices slower.
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
