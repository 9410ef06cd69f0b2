//! Goals: measured numbers and their bounds.

/// A measured number and its bound.
pub(crate) struct Goal {
    name: String,
    got: f64,
    bound: Bound,
}

enum Bound {
    Least(f64),
    Most(f64),
}

impl Goal {
    pub(crate) fn least(name: impl Into<String>, got: f64, least: f64) -> Self {
        Self { name: name.into(), got, bound: Bound::Least(least) }
    }

    pub(crate) fn most(name: impl Into<String>, got: f64, most: f64) -> Self {
        Self { name: name.into(), got, bound: Bound::Most(most) }
    }

    pub(crate) fn is_met(&self) -> bool {
        match self.bound {
            Bound::Least(least) => self.got >= least,
            Bound::Most(most) => self.got <= most,
        }
    }

    pub(crate) fn print(&self) {
        let (word, bound) = match self.bound {
            Bound::Least(least) => ("at least", least),
            Bound::Most(most) => ("at most", most),
        };
        let verdict = if self.is_met() { "ok" } else { "MISSED" };
        println!("{:<66} {:>9.3}  {word:<8} {bound:>7.2}  {verdict}", self.name, self.got);
    }
}

/// Returns the median.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
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
}
