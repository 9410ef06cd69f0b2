//! Any workload: reads and writes of several sizes, by a distribution, at a rate, with verification.

use std::ops::Range;

use crate::distribution::{Distribution, Draw};
use crate::pace::Pace;
use crate::random::{Random, scaled};
use crate::target::{Request, Wrong};
use crate::verify::Verify;
use crate::workload::{Issue, Workload};

/// Entries of the table of sizes.
const CHOICES: usize = 256;
/// Draws of a position until one is not in flight.
const DRAWS_MAX: u32 = 16;
const WHOLE: u64 = 100;

/// A size of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Length in bytes.
    pub bytes: usize,
    /// Weight among the sizes.
    pub weight: u32,
}

/// The settings of a workload.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Positions of all requests.
    pub range: Range<u64>,
    /// Sizes of requests.
    pub sizes: Vec<Size>,
    /// Percentage of reads.
    pub read_percent: u64,
    /// Distribution of the positions.
    pub distribution: Distribution,
    /// Seed of the run, from which popular positions follow.
    pub seed: u64,
    /// Random numbers of the thread.
    pub random: Random,
}

/// A workload of any settings.
#[derive(Debug)]
pub struct General {
    random: Random,
    range: Range<u64>,
    classes: Vec<Class>,
    /// Index of a class for each of 256 equally likely numbers.
    choices: Box<[u8; CHOICES]>,
    /// Reads among 2^64 numbers.
    reads: u64,
    only: Option<bool>,
    is_sequential: bool,
    /// Next position in sequence.
    next: u64,
    pace: Option<Pace>,
    verify: Option<Verify>,
    /// One pass over the range, for preparing and reading back.
    once: bool,
}

#[derive(Debug)]
struct Class {
    bytes: usize,
    draw: Draw,
}

impl General {
    /// Creates a workload. `range` has room for a request of each size.
    pub fn new(settings: Settings, pace: Option<Pace>, verify: Option<Verify>) -> Self {
        let Settings { range, sizes, read_percent, distribution, seed, random } = settings;
        let length = range.end - range.start;
        let class = |size: &Size| {
            let count = length / (size.bytes as u64).max(1);
            Class { bytes: size.bytes, draw: Draw::new(distribution, count, seed) }
        };
        let classes = sizes.iter().map(class).collect();
        let only = match read_percent {
            0 => Some(true),
            WHOLE.. => Some(false),
            _ => None,
        };
        Self {
            random,
            next: range.start,
            range,
            classes,
            choices: Box::new(choices(&sizes)),
            reads: (u64::MAX / WHOLE) * read_percent.min(WHOLE),
            only,
            is_sequential: distribution == Distribution::Sequential,
            pace,
            verify,
            once: false,
        }
    }

    /// Creates one pass over `range` in requests of `bytes`: writes or reads.
    pub fn pass(range: Range<u64>, bytes: usize, write: bool, verify: Option<Verify>) -> Self {
        let settings = Settings {
            range,
            sizes: vec![Size { bytes, weight: 1 }],
            read_percent: if write { 0 } else { WHOLE },
            distribution: Distribution::Sequential,
            seed: 0,
            random: Random::new(0, 0),
        };
        Self { once: true, ..Self::new(settings, None, verify) }
    }

    /// Returns the state of the verification.
    pub fn into_verify(self) -> Option<Verify> {
        self.verify
    }

    /// Draws the index of a size.
    #[inline(always)]
    fn choose(&mut self) -> usize {
        if self.classes.len() == 1 {
            return 0;
        }
        let number = usize::try_from(self.random.bits() >> 56).unwrap_or(0);
        self.choices.get(number).map_or(0, |&index| index.into())
    }

    #[inline(always)]
    fn request(&mut self) -> Option<Request> {
        let write = match self.only {
            Some(write) => write,
            None => self.random.bits() >= self.reads,
        };
        let index = self.choose();
        let class = self.classes.get(index)?;
        let mut bytes = class.bytes;
        if !self.is_sequential {
            let pos = self.range.start + class.draw.next(&mut self.random) * bytes as u64;
            return Some(Request { pos, bytes, write });
        }
        let mut pos = self.next;
        if pos + bytes as u64 > self.range.end {
            match self.once {
                true if pos == self.range.end => return None,
                true => bytes = usize::try_from(self.range.end - pos).unwrap_or(bytes),
                false => pos = self.range.start,
            }
        }
        self.next = pos + bytes as u64;
        Some(Request { pos, bytes, write })
    }

    /// Returns a request whose blocks no other request in flight has.
    #[inline(always)]
    fn free_request(&mut self) -> Option<Request> {
        if self.verify.is_none() {
            return self.request();
        }
        for _ in 0..DRAWS_MAX {
            let before = self.next;
            let request = self.request()?;
            if self.verify.as_mut().is_some_and(|verify| verify.reserve(&request)) {
                return Some(request);
            }
            if self.is_sequential {
                self.next = before;
                return None;
            }
        }
        None
    }
}

impl Workload for General {
    const PLAIN_READS: bool = false;

    #[inline(always)]
    fn next(&mut self, now: u64) -> Option<Issue> {
        let due = self.due();
        if due.is_some_and(|due| due > now) {
            return None;
        }
        let request = self.free_request()?;
        if let Some(pace) = &mut self.pace {
            pace.advance();
        }
        Some(Issue { request, due })
    }

    #[inline(always)]
    fn due(&self) -> Option<u64> {
        self.pace.as_ref().map(Pace::due)
    }

    fn begin(&mut self, now: u64) {
        if let Some(pace) = &mut self.pace {
            pace.begin(now);
        }
    }

    fn missed(&mut self, time: u64) -> u64 {
        let Some(pace) = &mut self.pace else { return 0 };
        let mut missed = 0;
        while pace.due() <= time {
            pace.advance();
            missed += 1;
        }
        missed
    }

    #[inline(always)]
    fn fill(&mut self, request: &Request, bytes: &mut [u8]) {
        if let Some(verify) = &mut self.verify {
            verify.fill(request, bytes);
        }
    }

    #[cold]
    fn undo(&mut self, request: &Request) {
        if let Some(verify) = &mut self.verify {
            verify.release(request);
        }
        if self.is_sequential {
            self.next = request.pos;
        }
    }

    #[inline(always)]
    fn settle(&mut self, request: &Request, bytes: Option<&mut [u8]>) -> Result<(), Wrong> {
        match &mut self.verify {
            None => Ok(()),
            Some(verify) => verify.settle(request, bytes),
        }
    }
}

/// Returns the index of a size for each of 256 numbers, so that each size has its share.
fn choices(sizes: &[Size]) -> [u8; CHOICES] {
    let total: u64 = sizes.iter().map(|size| u64::from(size.weight)).sum();
    let mut ends = Vec::new();
    let mut sum = 0;
    for size in sizes {
        sum += u64::from(size.weight);
        ends.push(sum);
    }
    std::array::from_fn(|number| {
        let at = scaled((number as u64) << 56, total.max(1));
        let index = ends.iter().position(|&end| at < end).unwrap_or(0);
        u8::try_from(index).unwrap_or(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::Origin;

    fn settings(range: Range<u64>, sizes: &[(usize, u32)], read_percent: u64) -> Settings {
        let sizes = sizes.iter().map(|&(bytes, weight)| Size { bytes, weight }).collect();
        let distribution = Distribution::Random;
        Settings { range, sizes, read_percent, distribution, seed: 1, random: Random::new(1, 0) }
    }

    #[test]
    fn sizes_and_directions_have_their_shares() {
        let settings = settings(8192..8192 + (1 << 20), &[(4096, 3), (16384, 1)], 70);
        let mut work = General::new(settings, None, None);
        let requests: Vec<Request> = (0..100_000).map(|_| work.next(0).unwrap().request).collect();
        let share = |of: &dyn Fn(&Request) -> bool| {
            requests.iter().filter(|request| of(request)).count() as f64 / 100_000.0
        };
        assert!((share(&|request| request.write) - 0.3).abs() < 0.01);
        assert!((share(&|request| request.bytes == 16384) - 0.25).abs() < 0.01);
        let both = share(&|request| request.write && request.bytes == 16384);
        assert!((both - 0.075).abs() < 0.01, "direction and size are independent: {both}");
        let first_half = share(&|request| request.pos < 8192 + (1 << 19));
        assert!((first_half - 0.5).abs() < 0.02, "{first_half}");
        for Request { pos, bytes, .. } in requests {
            assert!(pos >= 8192 && pos + bytes as u64 <= 8192 + (1 << 20));
            assert!((pos - 8192).is_multiple_of(bytes as u64));
        }
    }

    #[test]
    fn a_pass_covers_the_range_once() {
        let mut work = General::pass(4096..4096 + 10_240, 4096, true, None);
        let mut requests = Vec::new();
        while let Some(Issue { request, .. }) = work.next(0) {
            requests.push((request.pos, request.bytes, request.write));
        }
        assert_eq!(requests, [(4096, 4096, true), (8192, 4096, true), (12288, 2048, true)]);
    }

    #[test]
    fn a_sequence_wraps_at_the_end() {
        let mut settings = settings(0..12_288, &[(4096, 1)], 100);
        settings.distribution = Distribution::Sequential;
        let mut work = General::new(settings, None, None);
        let positions: Vec<u64> = (0..5).map(|_| work.next(0).unwrap().request.pos).collect();
        assert_eq!(positions, [0, 4096, 8192, 0, 4096]);
    }

    #[test]
    fn verified_requests_do_not_overlap() {
        let settings = settings(0..16_384, &[(4096, 1)], 50);
        let origin = Origin { seed: 1, file: 2 };
        let verify = Verify::new(origin, "/f", 0..16_384, 4096, false);
        let mut work = General::new(settings, None, Some(verify));
        let mut positions: Vec<u64> =
            std::iter::from_fn(|| Some(work.next(0)?.request.pos)).take(10).collect();
        positions.sort_unstable();
        assert!(positions.windows(2).all(|two| two[0] != two[1]), "{positions:?}");
        assert!(positions.len() >= 3);
    }
}
