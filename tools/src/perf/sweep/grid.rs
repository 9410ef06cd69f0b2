//! The loads of a sweep: all combinations of sizes, depths and ways, or those of a profile.

use std::time::Duration;

use nvio_perf::distribution::Distribution;
use nvio_perf::general::Size;

use crate::perf::settings::{Rw, Settings, Way};

const KIB: usize = 1 << 10;

/// The loads that are known from other tools, each for reads and for writes: order, size, requests in
/// flight of a thread, threads.
const PROFILE: [(Rw, Rw, usize, u16, usize); 4] = [
    (Rw::Read, Rw::Write, 1024 * KIB, 8, 1),
    (Rw::Read, Rw::Write, 128 * KIB, 32, 1),
    (Rw::Randread, Rw::Randwrite, 4 * KIB, 32, 4),
    (Rw::Randread, Rw::Randwrite, 4 * KIB, 1, 1),
];

/// A set of known loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    /// Three rounds of a second.
    Quick,
    /// Five rounds of five seconds.
    Full,
}

impl Profile {
    /// Returns the number of rounds.
    pub fn rounds(self) -> usize {
        match self {
            Self::Quick => 3,
            Self::Full => 5,
        }
    }

    /// Returns the duration of a load in a round.
    pub fn time(self) -> Duration {
        match self {
            Self::Quick => Duration::from_secs(1),
            Self::Full => Duration::from_secs(5),
        }
    }
}

/// Returns the loads of a profile on each way: four that read, and four that write with `writes`.
pub fn profile(base: &Settings, ways: &[Way], writes: bool) -> Vec<Settings> {
    let mut loads = Vec::new();
    for is_write in [false, true].into_iter().filter(|is_write| writes || !is_write) {
        for (read, write, bytes, depth, threads) in PROFILE {
            let rw = if is_write { write } else { read };
            let distribution = distribution(rw);
            let sizes = vec![Size { bytes, weight: 1 }];
            let load = Settings { rw, distribution, sizes, threads, ..base.clone() };
            let load = with_depth(load, depth);
            loads.extend(ways.iter().map(|&way| Settings { way, ..load.clone() }));
        }
    }
    loads
}

/// Returns the loads of all sizes, depths and ways. The ways of one size and depth follow each other.
pub fn grid(base: &Settings, sizes: &[Vec<Size>], depths: &[u16], ways: &[Way]) -> Vec<Settings> {
    let mut loads = Vec::new();
    for sizes in sizes {
        for &depth in depths {
            let load = with_depth(Settings { sizes: sizes.clone(), ..base.clone() }, depth);
            loads.extend(ways.iter().map(|&way| Settings { way, ..load.clone() }));
        }
    }
    loads
}

/// Returns the distribution of positions that belongs to the order of requests.
pub fn distribution(rw: Rw) -> Distribution {
    match rw.is_sequential() {
        true => Distribution::Sequential,
        false => Distribution::Random,
    }
}

/// Sets the depth, and lets no submission wait for more results than are in flight.
fn with_depth(load: Settings, depth: u16) -> Settings {
    let batch_complete = load.batch_complete.min(depth.into());
    Settings { depth, batch_complete, ..load }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ways_of_a_load_follow_each_other() {
        let base = Settings { batch_complete: 4, ..Settings::default() };
        let one = |bytes| vec![Size { bytes, weight: 1 }];
        let loads = grid(&base, &[one(512), one(4096)], &[1, 8], &[Way::Raw, Way::Bounce]);
        let shown = loads.iter().map(|load| {
            let Settings { depth, way, batch_complete, .. } = load;
            (load.bytes_max(), *depth, way.name(), *batch_complete)
        });
        let shown: Vec<_> = shown.collect();
        let expected = [
            (512, 1, "raw", 1),
            (512, 1, "bounce", 1),
            (512, 8, "raw", 4),
            (512, 8, "bounce", 4),
            (4096, 1, "raw", 1),
            (4096, 1, "bounce", 1),
            (4096, 8, "raw", 4),
            (4096, 8, "bounce", 4),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_profile_has_the_four_known_loads() {
        let shown = |writes| {
            let loads = profile(&Settings::default(), &[Way::Simple], writes);
            let shown = loads.iter().map(|load| {
                let Settings { rw, depth, threads, distribution, .. } = load;
                let kib = load.bytes_max() / KIB;
                format!("{} {kib}k {depth}x{threads} {distribution}", rw.name())
            });
            shown.collect::<Vec<_>>()
        };
        let reads = [
            "read 1024k 8x1 seq",
            "read 128k 32x1 seq",
            "randread 4k 32x4 random",
            "randread 4k 1x1 random",
        ];
        assert_eq!(shown(false), reads);
        assert_eq!(shown(true)[..4], reads);
        assert_eq!(shown(true)[4..6], ["write 1024k 8x1 seq", "write 128k 32x1 seq"]);
        assert_eq!(shown(true)[6..], ["randwrite 4k 32x4 random", "randwrite 4k 1x1 random"]);
    }
}
