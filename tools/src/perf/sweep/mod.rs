//! Loads that run by turns, so that their ratios are those of one run.
//!
//! A [`Cell`] is a load on one way. All cells run in each round. Every second round runs them in the
//! reverse order, because a machine that becomes slower would otherwise favour the first way.

pub mod grid;
pub mod statistics;

use nvio_perf::latency::Counts;
use nvio_perf::outcome::{Failed, Outcome};
use nvio_perf::target::Counters;

use self::statistics::Spread;
use crate::error::Error;
use crate::perf::change::Against;
use crate::perf::environment::Environment;
use crate::perf::measurement;
use crate::perf::session::Session;
use crate::perf::settings::Settings;

/// A load on one way.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The load.
    pub settings: Settings,
    /// Index of the cell with this load on the first of the compared ways.
    pub reference: Option<usize>,
    /// Results of its rounds.
    pub rounds: Vec<Round>,
    /// Latencies of all rounds.
    pub latency: Counts,
}

/// The result of a cell in a round: all devices and files together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Round {
    /// Requests that succeeded.
    pub ios: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Duration of the measurement in nanoseconds.
    pub elapsed: u64,
    /// Mean latency in nanoseconds, if the clock was read.
    pub mean: Option<f64>,
    /// Processor time in nanoseconds.
    pub cpu: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Requests that were due while the queue was full.
    pub late: u64,
    /// Requests that were due and never started.
    pub missed: u64,
    /// Requests in flight of a thread that its queue had room for.
    pub granted: usize,
    /// Counters of the queues.
    pub counters: Counters,
}

/// A finished sweep.
#[derive(Debug)]
pub struct Sweep {
    /// The machine and the devices.
    pub environment: Environment,
    /// Cost of one reading of the clock in nanoseconds.
    pub clock_cost: f64,
    /// Number of rounds that were asked for.
    pub rounds: usize,
    /// The cells, by size, depth and way.
    pub cells: Vec<Cell>,
    /// Bytes that requests of a cell went to, at most, with the names of devices and files.
    pub targets: Vec<(String, u64)>,
    /// The first failure, with the name of the device or file.
    pub failed: Option<(String, Failed)>,
    /// The user has ended the run.
    pub is_interrupted: bool,
    /// The comparison of each cell with an earlier run.
    pub baseline: Option<Against>,
}

/// The loads of a sweep.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The loads. Those that differ only in their way follow each other.
    pub loads: Vec<Settings>,
    /// Number of ways.
    pub ways: usize,
    /// Number of rounds.
    pub rounds: usize,
}

impl Round {
    fn of(outcome: &Outcome, granted: usize) -> Self {
        let latency = outcome.latency();
        Self {
            ios: outcome.ios(),
            bytes: outcome.bytes(),
            elapsed: outcome.elapsed,
            mean: (!latency.is_empty()).then(|| latency.mean()),
            cpu: outcome.cpu,
            errors: outcome.errors,
            late: outcome.late,
            missed: outcome.missed,
            granted,
            counters: outcome.counters,
        }
    }

    /// Returns the requests a second.
    pub fn iops(&self) -> f64 {
        self.ios as f64 * 1e9 / self.elapsed.max(1) as f64
    }

    /// Returns the bytes a second.
    pub fn bandwidth(&self) -> f64 {
        self.bytes as f64 * 1e9 / self.elapsed.max(1) as f64
    }

    /// Divides a count by the number of requests.
    pub fn per_io(&self, count: u64) -> f64 {
        count as f64 / self.ios.max(1) as f64
    }
}

impl Cell {
    fn new(settings: Settings) -> Self {
        Self { settings, reference: None, rounds: Vec::new(), latency: Counts::default() }
    }

    /// Describes a figure of the rounds. `None` if no round has it.
    pub fn spread(&self, figure: impl Fn(&Round) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(figure))
    }

    /// Describes the requests a second.
    pub fn iops(&self) -> Option<Spread> {
        self.spread(|round| Some(round.iops()))
    }

    /// Returns the counters of all rounds.
    pub fn counters(&self) -> Counters {
        self.rounds.iter().fold(Counters::default(), |sum, round| sum.plus(round.counters))
    }

    /// Adds a round, and returns its number of errors.
    fn add(&mut self, rows: &[measurement::Row]) -> u64 {
        let mut total = Outcome::default();
        rows.iter().for_each(|row| total.merge(&row.outcome));
        let granted = rows.iter().map(|row| row.outcome.granted / row.threads.max(1)).min();
        self.rounds.push(Round::of(&total, granted.unwrap_or(0)));
        self.latency.merge(&total.latency());
        total.errors
    }
}

impl Sweep {
    /// Describes the ratio of the requests a second to those on the first way, of each round.
    pub fn ratio(&self, cell: &Cell) -> Option<Spread> {
        let reference = self.cells.get(cell.reference?)?;
        let iops = |cell: &Cell| cell.rounds.iter().map(Round::iops).collect::<Vec<_>>();
        Spread::of_ratios(iops(cell).into_iter().zip(iops(reference)))
    }

    /// Returns the word for the way of a cell.
    pub fn path(&self, cell: &Cell) -> &'static str {
        let is_kernel = self.environment.devices.iter().any(|device| device.interface.is_some());
        if is_kernel { "kernel" } else { cell.settings.way.name() }
    }

    /// Returns true if the cells are compared with those of a first way.
    pub fn is_comparison(&self) -> bool {
        self.cells.iter().any(|cell| cell.reference.is_some())
    }

    /// Returns the settings that all cells have in common.
    pub fn settings(&self) -> Option<&Settings> {
        self.cells.first().map(|cell| &cell.settings)
    }

    /// Returns the number of errors of all rounds.
    pub fn errors(&self) -> u64 {
        self.cells.iter().flat_map(|cell| &cell.rounds).map(|round| round.errors).sum()
    }
}

/// Returns the order of `cells` cells in a round.
fn order(cells: usize, round: usize) -> Vec<usize> {
    match round.is_multiple_of(2) {
        true => (0..cells).collect(),
        false => (0..cells).rev().collect(),
    }
}

/// Runs loads by turns. A signal or an error ends the sweep with the rounds so far; some cells then have
/// a round less than others.
///
/// # Errors
/// If a queue cannot be created, or fails.
pub fn run(
    session: &Session,
    Plan { loads, ways, rounds }: Plan,
    environment: Environment,
    clock_cost: f64,
) -> Result<Sweep, Error> {
    let mut cells: Vec<Cell> = loads.into_iter().map(Cell::new).collect();
    refer(&mut cells, ways);
    let mut sweep = Sweep {
        environment,
        clock_cost,
        rounds,
        cells,
        targets: Vec::new(),
        failed: None,
        is_interrupted: false,
        baseline: None,
    };
    let count = sweep.cells.len();
    let mut prepared: Vec<(u64, usize)> = Vec::new();
    for round in 0..rounds {
        for index in order(count, round) {
            let Some(cell) = sweep.cells.get_mut(index) else { continue };
            // Other sizes and numbers of threads leave out other bytes at the end.
            let range = (cell.settings.unit(), cell.settings.threads);
            let is_prepared = prepared.contains(&range);
            let settings = Settings { is_prepared, ..cell.settings.clone() };
            let label = label(&settings, round * count + index + 1, rounds * count);
            let rows = session.run(&settings, &label)?;
            prepared.push(range);
            if session.signal().is_some() {
                sweep.is_interrupted = true;
                return Ok(sweep);
            }
            let errors = cell.add(&rows);
            remember(&mut sweep, rows);
            if errors > 0 && !settings.go_on {
                return Ok(sweep);
            }
        }
    }
    Ok(sweep)
}

/// Compares each cell but the first of `ways` cells with the first.
fn refer(cells: &mut [Cell], ways: usize) {
    for (index, cell) in cells.iter_mut().enumerate() {
        let first = index - index % ways.max(1);
        cell.reference = (ways > 1).then_some(first);
    }
}

fn label(settings: &Settings, number: usize, count: usize) -> String {
    let Settings { depth, way, .. } = settings;
    format!("{number} of {count}, QD {depth}, {}, ", way.name())
}

/// Keeps the names of devices and files, and the first failure.
fn remember(sweep: &mut Sweep, rows: Vec<measurement::Row>) {
    for row in rows {
        if let (None, Some(failed)) = (&sweep.failed, row.outcome.failed) {
            sweep.failed = Some((row.name.clone(), failed));
        }
        match sweep.targets.iter_mut().find(|(name, _)| *name == row.name) {
            Some((_, bytes)) => *bytes = row.bytes.max(*bytes),
            None => sweep.targets.push((row.name, row.bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_round_runs_backwards() {
        assert_eq!([order(3, 0), order(3, 1), order(3, 2)], [[0, 1, 2], [2, 1, 0], [0, 1, 2]]);
        assert!(order(0, 1).is_empty());
    }
}
