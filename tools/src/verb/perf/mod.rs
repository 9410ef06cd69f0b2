//! `nvio perf`: measures devices and files.

mod options;
mod result;
mod sweep;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use nvio::DeviceName;
use nvio_perf::clock::Monotonic;
use nvio_perf::distribution::Distribution;
use nvio_perf::general::Size;
use nvio_perf::outcome::{Failed, Outcome};
use nvio_perf::plan::Latency;

use self::options::{ArrivalWord, cpus, positive, rate, sizes};
use self::result::{Report, ReportArgs};
use self::sweep::{Given, SweepArgs};
use crate::args::VolumeArgs;
use crate::error::Error;
use crate::interrupt;
use crate::perf::baseline::{Baseline, Sample, whole_seconds};
use crate::perf::change::{Against, Measure};
use crate::perf::environment::Environment;
use crate::perf::measurement::{Measurement, Row};
use crate::perf::rows::{self, Names};
use crate::perf::session::Session;
use crate::perf::settings::{Rw, Settings, Way};
use crate::perf::sweep::grid::distribution;
use crate::perf::sweep::{self as turns, Plan, Sweep};
use crate::units::{number, size, time};

/// Duration of a measurement without --time, --count and --size.
const TIME: Duration = Duration::from_secs(10);
/// Requests in flight without --qd.
const QD: u16 = 32;
/// Size of requests without --bs.
const BYTES: usize = 4096;

/// Measure devices and files.
///
/// Each thread has a processor, a queue of its own and --qd requests in flight. The clock is read once
/// for each batch of results, unless --latency says otherwise. Ctrl-C ends the run with the result so
/// far. Some drives answer reads of blocks that were never written without their media: --prepare
/// writes the range first.
///
/// SIZE is a number of bytes, or one with K, M, G, T (powers of 1024). TIME is a number with us, ms, s
/// or m.
#[derive(Debug, Args)]
pub struct Perf {
    #[command(flatten)]
    volume: VolumeArgs,
    /// Files. Each is a row, with threads of its own.
    #[arg(value_name = "PATH", required_unless_present_any = ["raw", "kernel"], conflicts_with_all = ["raw", "kernel"])]
    paths: Vec<OsString>,
    /// Measure the namespace or partition itself.
    #[arg(long)]
    raw: bool,
    /// Measure the kernel: DEVICE is a block device, a mounted file or /dev/ngXnY, which is accessed by
    /// io_uring with O_DIRECT, or by NVMe passthrough.
    #[arg(long, conflicts_with = "raw")]
    kernel: bool,
    /// Another device, with files of the same paths. May be repeated.
    #[arg(long = "device", value_name = "DEVICE")]
    more: Vec<DeviceName>,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    sweep: SweepArgs,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    report: ReportArgs,
}

/// The load.
#[derive(Debug, Args)]
#[command(next_help_heading = "Load")]
struct LoadArgs {
    /// Directions and order of requests.
    #[arg(
        long,
        value_enum,
        default_value = "randread",
        hide_possible_values = true,
        value_name = "randread|read|randwrite|write|randrw|readwrite"
    )]
    rw: Rw,
    /// Percentage of reads in randrw and readwrite.
    #[arg(long, value_name = "PERCENT", default_value_t = 70, value_parser = clap::value_parser!(u64).range(0..=100))]
    rwmix: u64,
    /// Size of requests, or several with weights: 4k:3,16k:1. 4k by default.
    #[arg(long, value_name = "SIZE[:WEIGHT],..", value_parser = sizes)]
    bs: Option<Sizes>,
    /// Requests in flight of each thread. 32 by default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4095))]
    qd: Option<u16>,
    /// Threads of each device or file.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// Processors for the threads, in turn: 2,4-7. By default all that the process may use.
    #[arg(long, value_name = "LIST", value_parser = cpus)]
    cpus: Option<Cpus>,
    /// Duration of the measurement: 10s by default, 200ms for each load of a sweep, no limit with --count.
    #[arg(long, value_name = "TIME", value_parser = time)]
    time: Option<Duration>,
    /// Duration of the load before the measurement: 0 by default, 100ms for each load of a sweep.
    #[arg(long, value_name = "TIME", value_parser = time)]
    ramp: Option<Duration>,
    /// Number of requests to each device or file.
    #[arg(long, value_name = "N", value_parser = number::<u64>)]
    count: Option<u64>,
    /// Use only the first SIZE bytes of each device or file.
    #[arg(long, value_name = "SIZE", value_parser = size::<u64>)]
    size: Option<u64>,
    /// Way of the requests on files.
    #[arg(
        long,
        value_enum,
        default_value = "simple",
        hide_possible_values = true,
        value_name = "simple|generic|bounce|buffered|writethrough"
    )]
    path: Way,
    /// Distribution of the positions: random, zipf:1.1, pareto:0.2 or seq. By default that of --rw.
    #[arg(long, value_name = "DIST")]
    dist: Option<Distribution>,
    /// Start this many requests a second on each device or file, also if earlier ones are late: 50k.
    /// Latencies then count from the intended start.
    #[arg(long, value_name = "N", value_parser = rate)]
    rate: Option<f64>,
    /// Starts of requests with --rate.
    #[arg(
        long,
        value_enum,
        default_value = "poisson",
        value_name = "poisson|even",
        hide_possible_values = true,
        requires = "rate"
    )]
    arrival: ArrivalWord,
    /// Most requests for one doorbell.
    #[arg(long, value_name = "N", value_parser = positive)]
    batch_submit: Option<usize>,
    /// Results to gather before the next submission.
    #[arg(long, value_name = "N", value_parser = positive, default_value = "1")]
    batch_complete: usize,
    /// Poll for results. This is the default.
    #[arg(long, conflicts_with = "interrupt")]
    poll: bool,
    /// Sleep until an interrupt when there is no result, and with --rate until the next start.
    #[arg(long)]
    interrupt: bool,
    /// Seed of positions and patterns.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Processors.
type Cpus = std::vec::Vec<usize>;
/// Sizes with their weights.
type Sizes = std::vec::Vec<Size>;

/// Data that is written and checked, and errors.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Data and errors")]
struct DataArgs {
    /// Confirm that the data of the device or the files is overwritten. Files keep their blocks.
    #[arg(long)]
    write: bool,
    /// With --raw, overwrite a namespace or partition that has contents which nvio recognises.
    #[arg(long, requires = "raw")]
    force: bool,
    /// Write the whole range first.
    #[arg(long)]
    prepare: bool,
    /// Check the data of reads, and read all written blocks back at the end.
    #[arg(long, conflicts_with = "by_turns")]
    verify: bool,
    /// Count errors and continue. Without it, the first error ends the run with exit code 1.
    #[arg(long = "continue")]
    go_on: bool,
}

impl Perf {
    /// Runs the load, or several by turns, and prints the result.
    ///
    /// # Errors
    /// If a device cannot be opened, or not for writing; if a request fails.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let settings = self.settings()?;
        let plan = match self.sweep.is_used() {
            true => self.sweep.plan(&settings, self.given())?,
            false => Plan { loads: vec![settings], ways: 1, rounds: 1 },
        };
        plan.loads.iter().try_for_each(|load| self.check(load))?;
        let baseline = self.report.baseline.as_deref().map(Baseline::load).transpose()?;
        let baseline =
            baseline.map(|baseline| baseline.find(&plan.loads).map(|found| (baseline, found)));
        let baseline = baseline.transpose()?;
        let names = Names {
            volume: &self.volume,
            more: &self.more,
            paths: &self.paths,
            force: self.data.force,
            kernel: self.kernel,
        };
        let files = self.report.create()?;
        let mut environment = Environment::of_machine();
        let opened = rows::open(&names, &plan.loads)?;
        environment.devices = opened.facts;
        let session = Session::new(opened.lanes);
        let clock_cost = Monotonic::start().cost();
        let errors = match (self.sweep.is_used(), plan.loads.first()) {
            (false, Some(settings)) => {
                let mut run = single(&session, settings, environment, clock_cost)?;
                run.baseline =
                    baseline.map(|(baseline, found)| run_change(&run, &baseline, &found));
                self.report.write(files, &Report::Run(&run))?;
                for row in &run.rows {
                    say(&row.name, row.outcome.failed.as_ref());
                }
                run.total.errors
            }
            _ => {
                let mut sweep = turns::run(&session, plan, environment, clock_cost)?;
                sweep.baseline =
                    baseline.map(|(baseline, found)| sweep_change(&sweep, &baseline, &found));
                self.report.write(files, &Report::Sweep(&sweep))?;
                if let Some((name, failed)) = &sweep.failed {
                    say(name, Some(failed));
                }
                sweep.errors()
            }
        };
        Ok(match (session.signal(), errors) {
            (Some(signal), _) => interrupt::exit_code(signal),
            (None, 0) => ExitCode::SUCCESS,
            (None, _) if self.data.go_on && !self.data.verify => ExitCode::SUCCESS,
            (None, _) => ExitCode::FAILURE,
        })
    }

    /// Returns the options that were given, where a sweep has other defaults.
    fn given(&self) -> Given {
        let load = &self.load;
        Given {
            depth: load.qd.is_some(),
            sizes: load.bs.is_some(),
            end: load.time.is_some() || load.count.is_some(),
            ramp: load.ramp.is_some() || load.count.is_some(),
            write: self.data.write,
        }
    }

    fn settings(&self) -> Result<Settings, Error> {
        let (load, data) = (&self.load, self.data);
        let has_end = load.time.is_some() || load.count.is_some();
        let depth = load.qd.unwrap_or(QD);
        let is_raw = self.raw || self.kernel;
        if is_raw && load.path != Way::Simple {
            let text = "--path is for files; --raw and --kernel have no path";
            return Err(Error::PerfOptions(text));
        }
        Ok(Settings {
            rw: load.rw,
            mix: load.rwmix,
            sizes: load.bs.clone().unwrap_or_else(|| vec![Size { bytes: BYTES, weight: 1 }]),
            depth,
            threads: load.threads.into(),
            cpus: load.cpus.clone().unwrap_or_default(),
            time: if has_end { load.time } else { Some(TIME) },
            ramp: load.ramp.unwrap_or_default(),
            count: load.count,
            size: load.size,
            way: if is_raw { Way::Raw } else { load.path },
            distribution: load.dist.unwrap_or_else(|| distribution(load.rw)),
            rate: load.rate,
            arrival: load.arrival.into(),
            batch_submit: load.batch_submit,
            batch_complete: if self.sweep.is_used() {
                load.batch_complete
            } else {
                load.batch_complete.min(depth.into())
            },
            interrupt: load.interrupt,
            verify: data.verify,
            prepare: data.prepare,
            is_prepared: false,
            go_on: data.go_on,
            seed: load.seed,
            latency: self.report.latency.into(),
            command: std::env::args_os().collect(),
        })
    }

    /// Refuses options that exclude each other.
    fn check(&self, settings: &Settings) -> Result<(), Error> {
        if settings.writes() && !self.data.write {
            let rw = settings.rw.name();
            let device = self.volume.controller.device.to_string();
            return Err(Error::PerfWrite { rw, device });
        }
        match settings.latency == Latency::None && settings.rate.is_some() {
            true => {
                let text = "--rate needs the clock: use --latency batch or each";
                Err(Error::PerfOptions(text))
            }
            false => Ok(()),
        }
    }
}

/// Runs one load.
fn single(
    session: &Session,
    settings: &Settings,
    environment: Environment,
    clock_cost: f64,
) -> Result<Measurement, Error> {
    let rows: Vec<Row> = session.run(settings, "")?;
    let mut total = Outcome::default();
    rows.iter().for_each(|row| total.merge(&row.outcome));
    let is_interrupted = session.signal().is_some();
    let settings = settings.clone();
    Ok(Measurement {
        settings,
        environment,
        rows,
        total,
        clock_cost,
        is_interrupted,
        baseline: None,
    })
}

fn measure(settings: &Settings) -> Measure {
    if settings.rate.is_some() { Measure::Latency } else { Measure::Iops }
}

/// Compares the seconds of a run with a baseline, or the whole run if it was shorter.
fn run_change(run: &Measurement, baseline: &Baseline, found: &[usize]) -> Against {
    let total = &run.total;
    let seconds = total.seconds.iter().take(whole_seconds(total.elapsed));
    let seconds: Vec<Sample> = seconds
        .map(|second| {
            let sum = |of: [u64; 2]| (of[0] + of[1]) as f64;
            Sample::of_second(sum(second.ios), sum(second.latency))
        })
        .collect();
    let latency = total.latency();
    let mean = (!latency.is_empty()).then(|| latency.mean());
    let whole = vec![Sample { iops: total.iops(), mean }];
    let samples = if seconds.is_empty() { whole } else { seconds };
    let targets: Vec<&str> = run.rows.iter().map(|row| row.name.as_str()).collect();
    baseline.compare(found, measure(&run.settings), &[samples], &run.environment, &targets)
}

/// Compares the rounds of a sweep with a baseline.
fn sweep_change(sweep: &Sweep, baseline: &Baseline, found: &[usize]) -> Against {
    let samples = sweep.cells.iter().map(|cell| {
        let rounds = cell.rounds.iter();
        rounds.map(|round| Sample { iops: round.iops(), mean: round.mean }).collect()
    });
    let samples: Vec<Vec<Sample>> = samples.collect();
    let targets: Vec<&str> = sweep.targets.iter().map(|(name, _)| name.as_str()).collect();
    let measure = sweep.settings().map_or(Measure::Iops, measure);
    baseline.compare(found, measure, &samples, &sweep.environment, &targets)
}

fn say(name: &str, failed: Option<&Failed>) {
    if let Some(failed) = failed {
        interrupt::say(&describe(name, failed));
    }
}

/// Describes the first failure of a row: the request, where it went, and the error.
fn describe(name: &str, failed: &Failed) -> String {
    let Failed { request, lba, error, is_wrong_data, .. } = failed;
    let what = match (is_wrong_data, request.write) {
        (true, _) => return format!("{}{error}", at_lba(*lba)),
        (false, true) => "write",
        (false, false) => "read",
    };
    let place = at_lba(*lba);
    format!("{name}: {place}{what} of {} bytes at offset {}: {error}", request.bytes, request.pos)
}

fn at_lba(lba: Option<u64>) -> String {
    lba.map_or_else(String::new, |lba| format!("LBA {lba}: "))
}
