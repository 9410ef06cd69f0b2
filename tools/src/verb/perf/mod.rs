//! `nvio perf`: measures devices and files.

mod options;

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use clap::Args;
use nvio::DeviceName;
use nvio_perf::clock::Monotonic;
use nvio_perf::distribution::Distribution;
use nvio_perf::general::Size;
use nvio_perf::outcome::{Failed, Outcome};
use nvio_perf::plan::Latency;

use self::options::{ArrivalWord, FormatWord, JsonForm, LatencyWord, cpus, positive, rate, sizes};
use crate::args::VolumeArgs;
use crate::error::Error;
use crate::interrupt;
use crate::output::Output;
use crate::perf::environment::Environment;
use crate::perf::live;
use crate::perf::measurement::{Measurement, Row};
use crate::perf::report::{csv, fio, json, svg, table};
use crate::perf::rows::{self, Names};
use crate::perf::settings::{Rw, Settings, Way};
use crate::perf::threads::{self, Shared};
use crate::units::{number, size, time};

/// Duration of a measurement without --time, --count and --size.
const TIME: Duration = Duration::from_secs(10);

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
    /// Size of requests, or several with weights: 4k:3,16k:1.
    #[arg(long, value_name = "SIZE[:WEIGHT],..", default_value = "4k", value_parser = sizes)]
    bs: std::vec::Vec<Size>,
    /// Requests in flight of each thread.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=4095))]
    qd: u16,
    /// Threads of each device or file.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// Processors for the threads, in turn: 2,4-7. By default all that the process may use.
    #[arg(long, value_name = "LIST", value_parser = cpus)]
    cpus: Option<Cpus>,
    /// Duration of the measurement: 10s by default, no limit with --count.
    #[arg(long, value_name = "TIME", value_parser = time)]
    time: Option<Duration>,
    /// Duration of the load before the measurement.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "0")]
    ramp: Duration,
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
    /// Sleep until an interrupt when there is no result.
    #[arg(long, conflicts_with = "rate")]
    interrupt: bool,
    /// Seed of positions and patterns.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Processors.
type Cpus = std::vec::Vec<usize>;

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
    #[arg(long)]
    verify: bool,
    /// Count errors and continue. Without it, the first error ends the run with exit code 1.
    #[arg(long = "continue")]
    go_on: bool,
}

/// The result.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Result")]
struct ReportArgs {
    /// Reading of the clock: none, once for each batch of results, or for each request.
    #[arg(
        long,
        value_enum,
        default_value = "batch",
        value_name = "none|batch|each",
        hide_possible_values = true
    )]
    latency: LatencyWord,
    /// Write JSON. --json=full adds the buckets of the histograms.
    #[arg(long, value_enum, value_name = "full", num_args = 0..=1, require_equals = true, default_missing_value = "short", hide_possible_values = true)]
    json: Option<JsonForm>,
    /// Write JSON in the schema of fio (json+), for its plotters.
    #[arg(
        long,
        value_enum,
        value_name = "fio-json",
        conflicts_with = "json",
        hide_possible_values = true
    )]
    format: Option<FormatWord>,
    /// Also write a line for each second to this file.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Also draw latency by percentile and IOPS by time into this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

impl Perf {
    /// Runs the load and prints the result.
    ///
    /// # Errors
    /// If a device cannot be opened, or not for writing; if a request fails.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let settings = self.settings()?;
        let names = Names {
            volume: &self.volume,
            more: &self.more,
            paths: &self.paths,
            force: self.data.force,
            kernel: self.kernel,
        };
        // Before the run, because a path that cannot be written to would lose its result.
        let files = [&self.report.csv, &self.report.svg].map(|path| path.as_deref().map(create));
        let [csv_file, svg_file] = files.map(Option::transpose);
        let (csv_file, svg_file) = (csv_file?, svg_file?);
        let mut environment = Environment::of_machine();
        let (rows, devices) = rows::open(&names, &settings)?;
        environment.devices = devices;
        let clock_cost = Monotonic::start().cost();
        let shared = Arc::new(Shared::new(rows.len() * settings.threads));
        let signal = Arc::new(AtomicI32::new(0));
        {
            let (shared, signal) = (Arc::clone(&shared), Arc::clone(&signal));
            interrupt::stop_at_next(move |number| {
                signal.store(number, Ordering::Relaxed);
                shared.stop.store(true, Ordering::Relaxed);
            });
        }
        let outcomes = threads::run(&rows, &settings, &shared, || live::show(&shared, &settings));
        let outcomes = outcomes.map_err(|(name, error)| Error::Perf { name, text: error.0 })?;
        let rows: Vec<Row> =
            rows.iter().zip(outcomes).map(|(row, outcome)| of(row, outcome, &settings)).collect();
        let mut total = Outcome::default();
        rows.iter().for_each(|row| total.merge(&row.outcome));
        let signal = signal.load(Ordering::Relaxed);
        let measurement = Measurement {
            settings,
            environment,
            rows,
            total,
            clock_cost,
            is_interrupted: signal != 0,
        };
        save(csv_file, || csv::render(&measurement))?;
        save(svg_file, || svg::render(&measurement))?;
        self.print(&measurement)?;
        let failed =
            measurement.rows.iter().filter_map(|row| Some((row, row.outcome.failed.as_ref()?)));
        for (row, failed) in failed {
            interrupt::say(&describe(&row.name, failed));
        }
        Ok(match (signal, measurement.total.errors) {
            (0, 0) => ExitCode::SUCCESS,
            (0, _) if self.data.go_on && !self.data.verify => ExitCode::SUCCESS,
            (0, _) => ExitCode::FAILURE,
            (signal, _) => interrupt::exit_code(signal),
        })
    }

    fn settings(&self) -> Result<Settings, Error> {
        let (load, data) = (&self.load, self.data);
        let has_end = load.time.is_some() || load.count.is_some();
        let distribution = load.dist.unwrap_or(match load.rw.is_sequential() {
            true => Distribution::Sequential,
            false => Distribution::Random,
        });
        let settings = Settings {
            rw: load.rw,
            mix: load.rwmix,
            sizes: load.bs.clone(),
            depth: load.qd,
            threads: load.threads.into(),
            cpus: load.cpus.clone().unwrap_or_default(),
            time: if has_end { load.time } else { Some(TIME) },
            ramp: load.ramp,
            count: load.count,
            size: load.size,
            way: load.path,
            distribution,
            rate: load.rate,
            arrival: load.arrival.into(),
            batch_submit: load.batch_submit,
            batch_complete: load.batch_complete.min(load.qd.into()),
            interrupt: load.interrupt,
            verify: data.verify,
            prepare: data.prepare,
            go_on: data.go_on,
            seed: load.seed,
            latency: self.report.latency.into(),
            command: std::env::args_os().collect(),
        };
        self.check(&settings)?;
        Ok(settings)
    }

    /// Refuses options that exclude each other.
    fn check(&self, settings: &Settings) -> Result<(), Error> {
        if settings.writes() && !self.data.write {
            let rw = settings.rw.name();
            let device = self.volume.controller.device.to_string();
            return Err(Error::PerfWrite { rw, device });
        }
        let refuse =
            |refused: bool, text| if refused { Err(Error::PerfOptions(text)) } else { Ok(()) };
        let none = settings.latency == Latency::None;
        refuse(
            none && settings.rate.is_some(),
            "--rate needs the clock: use --latency batch or each",
        )?;
        let is_other = self.load.path != Way::Simple;
        let is_file = !self.raw && !self.kernel;
        refuse(!is_file && is_other, "--path is for files; --raw and --kernel have no path")
    }

    fn print(&self, measurement: &Measurement) -> Result<(), Error> {
        let mut out = Output::new();
        match self.report.json {
            None if self.report.format.is_some() => out.json(&fio::document(measurement))?,
            None => out.text(&table::render(measurement))?,
            Some(form) => out.json(&json::document(measurement, form == JsonForm::Full))?,
        }
        out.flush()
    }
}

/// A file of a result, and its name.
type Target<'p> = (&'p Path, File);

fn create(path: &Path) -> Result<Target<'_>, Error> {
    let file = File::create(path).map_err(|error| Error::host("create", path, error))?;
    Ok((path, file))
}

fn save(target: Option<Target<'_>>, text: impl FnOnce() -> String) -> Result<(), Error> {
    let Some((path, mut file)) = target else { return Ok(()) };
    file.write_all(text().as_bytes()).map_err(|error| Error::host("write", path, error))
}

fn of(row: &rows::Row, outcome: Outcome, settings: &Settings) -> Row {
    Row {
        name: row.name.clone(),
        device: row.device,
        path: row.path.clone(),
        bytes: row.range.end - row.range.start,
        outcome,
        threads: settings.threads,
    }
}

/// Describes the first failure of a row: the request, where it went, and the error.
fn describe(name: &str, failed: &Failed) -> String {
    let Failed { request, lba, error, is_wrong_data } = failed;
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
