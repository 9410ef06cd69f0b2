//! Numbers with a bound.

/// A number and its bound.
#[derive(Debug)]
pub struct Goal {
    name: String,
    got: f64,
    bound: Bound,
}

#[derive(Debug)]
enum Bound {
    Least(f64),
    Most(f64),
}

impl Goal {
    /// Creates a goal that is met by `least` or more.
    pub fn least(name: impl Into<String>, got: f64, least: f64) -> Self {
        Self { name: name.into(), got, bound: Bound::Least(least) }
    }

    /// Creates a goal that is met by `most` or less.
    pub fn most(name: impl Into<String>, got: f64, most: f64) -> Self {
        Self { name: name.into(), got, bound: Bound::Most(most) }
    }

    /// Returns true if the number is within its bound.
    pub fn is_met(&self) -> bool {
        match self.bound {
            Bound::Least(least) => self.got >= least,
            Bound::Most(most) => self.got <= most,
        }
    }

    /// Prints the number, the bound and the verdict.
    pub fn print(&self) {
        let (word, bound) = match self.bound {
            Bound::Least(least) => ("at least", least),
            Bound::Most(most) => ("at most", most),
        };
        let verdict = if self.is_met() { "ok" } else { "MISSED" };
        println!("{:<66} {:>9.3}  {word:<8} {bound:>7.2}  {verdict}", self.name, self.got);
    }
}

/// Returns the median.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Returns the rate that a tenth of the slices exceed. Drive and processor bound the rate of a
/// slice, and other work on the machine only makes slices slower.
pub fn best_tenth(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    let exceeded = rates.len() / 10;
    rates.iter().rev().nth(exceeded).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_and_medians() {
        assert!(Goal::least("", 8.0, 8.0).is_met() && !Goal::least("", 7.9, 8.0).is_met());
        assert!(Goal::most("", 0.5, 0.5).is_met() && !Goal::most("", f64::NAN, 0.5).is_met());
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert!(median(vec![]).is_nan());
    }
    #[test]
    fn a_tenth_is_above() {
        assert_eq!(best_tenth(vec![]), 0.0);
        assert_eq!(best_tenth(vec![7.0]), 7.0);
        assert_eq!(best_tenth((0..20).rev().map(f64::from).collect()), 17.0);
    }
}
