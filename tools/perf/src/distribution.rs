//! Distributions of positions, as tables: a draw is a lookup, without a division or a power.

use std::fmt;
use std::str::FromStr;

use crate::random::{Random, mix, scaled, whole};

/// Bits of the index into a table of quantiles.
const TABLE_BITS: u32 = 16;
const TABLE: usize = 1 << TABLE_BITS;
/// Ranks whose weights are summed one by one; the sum of later ones is an integral.
const EXACT_RANKS: u32 = 4096;

/// The distribution of positions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Distribution {
    /// All positions are equally likely.
    #[default]
    Random,
    /// The position of rank r has weight 1 / r^theta.
    Zipf(f64),
    /// The power law of which the share `h` of the positions gets the share `1 - h` of the requests.
    Pareto(f64),
    /// One after the other.
    Sequential,
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Random => f.write_str("random"),
            Self::Zipf(theta) => write!(f, "zipf:{theta}"),
            Self::Pareto(share) => write!(f, "pareto:{share}"),
            Self::Sequential => f.write_str("seq"),
        }
    }
}

impl FromStr for Distribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once(':').unwrap_or((text, ""));
        let value = value.parse::<f64>().ok();
        match (name, value) {
            ("random", None) if text == name => Ok(Self::Random),
            ("seq", None) if text == name => Ok(Self::Sequential),
            ("zipf", Some(theta)) if theta > 0.0 && theta <= 10.0 => Ok(Self::Zipf(theta)),
            ("pareto", Some(share)) if share > 0.0 && share < 1.0 => Ok(Self::Pareto(share)),
            _ => {
                Err("expected random, seq, zipf:THETA (0 to 10) or pareto:SHARE (0 to 1)"
                    .to_owned())
            }
        }
    }
}

/// Draws positions, as numbers below a bound.
#[derive(Clone, Debug)]
pub struct Draw {
    count: u64,
    skewed: Option<Skewed>,
}

/// The ranks at the quantiles of a skewed distribution. The ranks between two quantiles are equally
/// likely, so that the error is below one in 65,536.
#[derive(Clone, Debug)]
struct Skewed {
    ranks: Box<[u64]>,
    salt: u64,
}

impl Draw {
    /// Creates draws of numbers below `count`. `seed` decides where the popular ones are.
    pub fn new(distribution: Distribution, count: u64, seed: u64) -> Self {
        let count = count.max(1);
        let ranks = match distribution {
            Distribution::Random | Distribution::Sequential => None,
            Distribution::Zipf(theta) => Some(zipf(theta, count)),
            Distribution::Pareto(share) => Some(pareto(share, count)),
        };
        Self { count, skewed: ranks.map(|ranks| Skewed { ranks, salt: mix(seed) }) }
    }

    /// Returns the next number.
    #[inline(always)]
    pub fn next(&self, random: &mut Random) -> u64 {
        match &self.skewed {
            None => random.below(self.count),
            Some(skewed) => {
                let rank = skewed.rank(random.bits());
                // Popular positions are scattered over the whole range.
                scaled(mix(rank ^ skewed.salt), self.count)
            }
        }
    }
}

impl Skewed {
    #[inline(always)]
    fn rank(&self, bits: u64) -> u64 {
        let index = usize::try_from(bits >> (u64::BITS - TABLE_BITS)).unwrap_or(0);
        let first = self.ranks.get(index).copied().unwrap_or(0);
        let next = self.ranks.get(index + 1).copied().unwrap_or(first);
        first + scaled(bits << TABLE_BITS, (next - first).max(1))
    }
}

/// Returns the rank, from 0, at each quantile of a Zipf distribution over `count` ranks.
fn zipf(theta: f64, count: u64) -> Box<[u64]> {
    let exact = count.min(EXACT_RANKS.into());
    let mut sums = Vec::new();
    let mut sum = 0.0;
    for rank in 1..=exact {
        sum += (rank as f64).powf(-theta);
        sums.push(sum);
    }
    // The sum of 1 / r^theta beyond the exact ranks, as the integral around the middle of each.
    let antiderivative = |x: f64| match (theta - 1.0).abs() < 1e-9 {
        true => x.ln(),
        false => x.powf(1.0 - theta) / (1.0 - theta),
    };
    let inverse = |y: f64| match (theta - 1.0).abs() < 1e-9 {
        true => y.exp(),
        false => (y * (1.0 - theta)).powf(1.0 / (1.0 - theta)),
    };
    let begin = antiderivative(exact as f64 + 0.5);
    let total = sum + antiderivative(count as f64 + 0.5) - begin;
    let rank_at = |quantile: f64| {
        let wanted = quantile * total;
        if wanted < sum {
            return sums.partition_point(|&sum| sum <= wanted) as u64;
        }
        let rank = inverse(begin + wanted - sum) - 0.5;
        whole(rank.max(0.0)).clamp(exact, count)
    };
    quantiles(count, rank_at)
}

/// Returns the rank at each quantile of a power law over `count` ranks.
fn pareto(share: f64, count: u64) -> Box<[u64]> {
    // The share h of the ranks has the share 1 - h of the requests: h = (1 - h)^power.
    let power = share.ln() / (1.0 - share).ln();
    quantiles(count, |quantile| whole(quantile.powf(power) * count as f64))
}

fn quantiles(count: u64, rank_at: impl Fn(f64) -> u64) -> Box<[u64]> {
    let at = |index: usize| match index {
        TABLE => count,
        index => rank_at(index as f64 / TABLE as f64).min(count - 1),
    };
    (0..=TABLE).map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the shares of the requests that the ranks below each bound get.
    fn shares(distribution: Distribution, count: u64, bounds: &[u64]) -> Vec<f64> {
        let draw = Draw::new(distribution, count, 1);
        let (skewed, mut random) = (draw.skewed.unwrap(), Random::new(3, 0));
        let ranks: Vec<u64> = (0..400_000).map(|_| skewed.rank(random.bits())).collect();
        assert!(ranks.iter().all(|&rank| rank < count));
        let below = |bound| ranks.iter().filter(|&&rank| rank < bound).count();
        bounds.iter().map(|&bound| below(bound) as f64 / ranks.len() as f64).collect()
    }

    #[test]
    fn zipf_has_its_weights() {
        for (theta, count) in [(1.1, 100_000_u64), (0.8, 10_000), (1.0, 1_000)] {
            let bounds = [1, 10, 100, count / 2];
            let weight = |ranks: u64| (1..=ranks).map(|r| (r as f64).powf(-theta)).sum::<f64>();
            for (share, bound) in
                shares(Distribution::Zipf(theta), count, &bounds).iter().zip(bounds)
            {
                let expected = weight(bound) / weight(count);
                assert!((share - expected).abs() < 0.004, "{theta} {bound}: {share} {expected}");
            }
        }
    }

    #[test]
    fn pareto_gives_a_share_of_the_positions_the_rest_of_the_requests() {
        for share in [0.2, 0.1, 0.4] {
            let bound = whole(share * 1e6);
            let got = shares(Distribution::Pareto(share), 1_000_000, &[bound])[0];
            assert!((got - (1.0 - share)).abs() < 0.003, "{share}: {got}");
        }
    }

    #[test]
    fn positions_are_inside_and_popular_ones_are_scattered() {
        let draw = Draw::new(Distribution::Zipf(1.2), 1000, 7);
        let mut random = Random::new(1, 0);
        let mut counts = vec![0_u32; 1000];
        for _ in 0..100_000 {
            counts[usize::try_from(draw.next(&mut random)).unwrap()] += 1;
        }
        let most = counts.iter().max().copied().unwrap();
        let other = Draw::new(Distribution::Zipf(1.2), 1000, 8);
        let place = counts.iter().position(|&count| count == most).unwrap();
        let same = (0..1000).filter(|_| other.next(&mut random) == place as u64).count();
        assert!(most > 20_000, "{most}");
        assert!(same < 200, "another seed has other popular positions");
    }

    #[test]
    fn words_of_the_command_line() {
        for text in ["random", "seq", "zipf:1.1", "pareto:0.2"] {
            assert_eq!(text.parse::<Distribution>().unwrap().to_string(), text);
        }
        for text in ["", "zipf", "zipf:0", "zipf:x", "pareto:1", "random:1", "zipf:nan"] {
            assert!(text.parse::<Distribution>().is_err(), "{text}");
        }
    }
}
