//! The options of several loads by turns.

use std::time::Duration;

use clap::{ArgGroup, Args};
use nvio_perf::general::Size;

use super::options::one_size;
use crate::error::Error;
use crate::perf::settings::{Settings, Way};
use crate::perf::sweep::Plan;
use crate::perf::sweep::grid::{self, Profile};

/// Number of rounds without --rounds and --profile.
const ROUNDS: usize = 5;
/// Most rounds.
const ROUNDS_MAX: usize = 1000;
/// Duration of a load in a round without --time, --count and --profile.
const TIME: Duration = Duration::from_millis(200);
/// Duration of the load before it, without --ramp and --count.
const RAMP: Duration = Duration::from_millis(100);
/// Most values of a list.
const VALUES_MAX: usize = 64;
/// Most loads. The histogram of each takes 256 KiB.
const LOADS_MAX: usize = 1024;
const QD_MAX: u64 = 4095;

/// Several loads by turns.
#[derive(Clone, Debug, Args)]
#[command(
    next_help_heading = "Sweeps and comparisons",
    group = ArgGroup::new("by_turns").multiple(true)
)]
pub struct SweepArgs {
    /// Measure each depth or size of a list: qd=1,2,4..256 or bs=4k..1M. A..B doubles from A up to B. May
    /// be given once for each of the two.
    #[arg(long, value_name = "qd|bs=LIST", value_parser = axis, group = "by_turns")]
    sweep: Vec<Axis>,
    /// Measure several paths, and the ratio of each to the first: raw, simple, generic, bounce, buffered
    /// and writethrough. raw reads as many bytes of the device as the file has.
    #[arg(
        long,
        value_name = "PATH,..",
        value_parser = ways,
        group = "by_turns",
        conflicts_with_all = ["raw", "kernel", "path"]
    )]
    compare: Option<Ways>,
    /// Measure the loads that other tools show: sequential 1 MiB with QD 8, sequential 128 KiB with QD
    /// 32, random 4 KiB with QD 32 and 4 threads, random 4 KiB with QD 1; with --write also writes.
    /// quick takes three rounds of a second, full five of five seconds.
    #[arg(
        long,
        value_enum,
        value_name = "quick|full",
        hide_possible_values = true,
        group = "by_turns",
        conflicts_with_all = ["sweep", "rw", "rwmix", "bs", "qd", "threads", "dist"]
    )]
    profile: Option<Profile>,
    /// Rounds of a sweep or comparison: each measures all loads once, for --time. Results are medians of
    /// the rounds, with the lowest and the highest. 5 by default.
    #[arg(long, value_name = "N", value_parser = rounds, requires = "by_turns")]
    rounds: Option<usize>,
}

/// Paths of requests.
type Ways = std::vec::Vec<Way>;

/// The values of --sweep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Axis {
    /// Requests in flight.
    Depths(Vec<u16>),
    /// Sizes of requests.
    Sizes(Vec<usize>),
}

/// The options of a single load that a sweep replaces or shortens.
#[derive(Clone, Copy, Debug)]
pub struct Given {
    /// --qd.
    pub depth: bool,
    /// --bs.
    pub sizes: bool,
    /// --time or --count.
    pub end: bool,
    /// --ramp or --count.
    pub ramp: bool,
    /// --write.
    pub write: bool,
}

impl SweepArgs {
    /// Returns true if there are several loads.
    pub fn is_used(&self) -> bool {
        !self.sweep.is_empty() || self.compare.is_some() || self.profile.is_some()
    }

    /// Returns the loads, which differ from `base` in depth, size and way.
    ///
    /// # Errors
    /// If options exclude each other, or there are too many loads.
    pub fn plan(&self, base: &Settings, given: Given) -> Result<Plan, Error> {
        let mut base = base.clone();
        if !given.end {
            base.time = Some(self.profile.map_or(TIME, Profile::time));
        }
        if !given.ramp {
            base.ramp = RAMP;
        }
        let ways = self.compare.clone().unwrap_or_else(|| vec![base.way]);
        let loads = match self.profile {
            Some(_) => grid::profile(&base, &ways, given.write),
            None => self.grid(&base, &ways, given)?,
        };
        let rounds = self.profile.map_or(ROUNDS, Profile::rounds);
        let rounds = self.rounds.unwrap_or(rounds);
        if loads.iter().any(Settings::writes) && ways.contains(&Way::Raw) && self.compare.is_some()
        {
            return Err(Error::PerfOptions(
                "writes to raw would destroy the filesystem; leave raw out of --compare",
            ));
        }
        match loads.len() > LOADS_MAX {
            true => Err(Error::PerfOptions("--sweep is for up to 1024 loads; give fewer values")),
            false => Ok(Plan { loads, ways: ways.len(), rounds }),
        }
    }

    fn grid(&self, base: &Settings, ways: &[Way], given: Given) -> Result<Vec<Settings>, Error> {
        let (mut depths, mut sizes) = (None, None);
        for axis in &self.sweep {
            let is_again = match axis {
                Axis::Depths(list) => depths.replace(list.clone()).is_some(),
                Axis::Sizes(list) => sizes.replace(list.clone()).is_some(),
            };
            if is_again {
                return Err(Error::PerfOptions("give --sweep once for qd and once for bs"));
            }
        }
        if depths.is_some() && given.depth || sizes.is_some() && given.sizes {
            return Err(Error::PerfOptions("--sweep replaces --qd or --bs; leave that out"));
        }
        let one = |bytes| vec![Size { bytes, weight: 1 }];
        let sizes = sizes.map(|sizes| sizes.into_iter().map(one).collect());
        let sizes: Vec<Vec<Size>> = sizes.unwrap_or_else(|| vec![base.sizes.clone()]);
        let depths = depths.unwrap_or_else(|| vec![base.depth]);
        Ok(grid::grid(base, &sizes, &depths, ways))
    }
}

/// Parses `qd=1,2,4..256` or `bs=4k..1M`.
fn axis(text: &str) -> Result<Axis, String> {
    match text.split_once('=') {
        Some(("qd", text)) => {
            let depth = |text: &str| {
                let depth = text.parse::<u64>().ok().filter(|depth| (1..=QD_MAX).contains(depth));
                depth.ok_or_else(|| format!("{text:?} is not a depth from 1 to {QD_MAX}"))
            };
            let depths = list(text, depth)?.into_iter();
            Ok(Axis::Depths(depths.filter_map(|depth| u16::try_from(depth).ok()).collect()))
        }
        Some(("bs", text)) => {
            let sizes = list(text, |text| match text.contains(':') {
                true => Err(format!("{text:?} has a weight, which only --bs knows")),
                false => one_size(text).map(|size| size.bytes as u64),
            })?;
            let sizes = sizes.into_iter().filter_map(|bytes| usize::try_from(bytes).ok()).collect();
            Ok(Axis::Sizes(sizes))
        }
        _ => Err("expected qd=LIST or bs=LIST, such as qd=1,2,4..256".to_owned()),
    }
}

/// Parses values and ranges, which double from the first value up to the last.
fn list(text: &str, parse: impl Fn(&str) -> Result<u64, String>) -> Result<Vec<u64>, String> {
    let mut values: Vec<u64> = Vec::new();
    for part in text.split(',') {
        let Some((first, last)) = part.split_once("..") else {
            values.push(parse(part)?);
            continue;
        };
        let (first, last) = (parse(first)?, parse(last)?);
        if first > last {
            return Err(format!("{part:?} ends before it begins; write the smaller value first"));
        }
        let steps = std::iter::successors(Some(first), |value| value.checked_mul(2));
        values.extend(steps.take_while(|&value| value < last));
        values.push(last);
    }
    if let Some(again) =
        values.iter().enumerate().find(|(index, value)| values[..*index].contains(value))
    {
        return Err(format!("{} is there twice; give each value once", again.1));
    }
    match values.len() > VALUES_MAX {
        true => Err(format!("{} values are more than {VALUES_MAX}", values.len())),
        false => Ok(values),
    }
}

/// Parses `raw,simple,buffered`.
fn ways(text: &str) -> Result<Vec<Way>, String> {
    let mut ways = Vec::new();
    for name in text.split(',') {
        let Some(&way) = Way::ALL.iter().find(|way| way.name() == name) else {
            let names: Vec<&str> = Way::ALL.iter().map(|way| way.name()).collect();
            return Err(format!("{name:?} is not one of {}", names.join(", ")));
        };
        if ways.contains(&way) {
            return Err(format!("{name} is there twice; give each path once"));
        }
        ways.push(way);
    }
    Ok(ways)
}

fn rounds(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=ROUNDS_MAX).contains(number));
    number.ok_or_else(|| format!("expected a number from 1 to {ROUNDS_MAX}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_double_and_include_their_end() {
        let depths = |text: &str| axis(&format!("qd={text}"));
        let of = |list: &[u16]| Ok(Axis::Depths(list.to_vec()));
        assert_eq!(depths("1,2,4..256"), of(&[1, 2, 4, 8, 16, 32, 64, 128, 256]));
        assert_eq!(depths("3..20,1"), of(&[3, 6, 12, 20, 1]));
        assert_eq!(depths("7..7"), of(&[7]));
        assert_eq!(axis("bs=512,4k..16K"), Ok(Axis::Sizes(vec![512, 4096, 8192, 16384])));
        for (text, part) in [
            ("", "qd=LIST"),
            ("qd", "qd=LIST"),
            ("threads=1", "qd=LIST"),
            ("qd=", "not a depth"),
            ("qd=0", "from 1 to 4095"),
            ("qd=1..4096", "from 1 to 4095"),
            ("qd=8..4", "smaller value first"),
            ("qd=1..8,4", "4 is there twice"),
            ("qd=1...4", "not a depth"),
            ("bs=100", "multiple of 512"),
            ("bs=4k:1", "weight"),
        ] {
            let said = axis(text).unwrap_err();
            assert!(said.contains(part), "{text}: {said}");
        }
        let many: Vec<String> = (1..=65).map(|depth| depth.to_string()).collect();
        assert!(depths(&many.join(",")).unwrap_err().contains("more than 64"));
    }

    #[test]
    fn paths_are_compared_once() {
        assert_eq!(ways("raw,buffered"), Ok(vec![Way::Raw, Way::Buffered]));
        assert!(ways("raw,raw").unwrap_err().contains("twice"));
        let said = ways("raw,fast").unwrap_err();
        assert!(said.contains("raw, simple, generic, bounce, buffered, writethrough"), "{said}");
        assert!(rounds("0").is_err() && rounds("1001").is_err() && rounds("3") == Ok(3));
    }
}
