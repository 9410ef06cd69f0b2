//! The output of a run or a sweep: standard output, and the files of --csv and --svg.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;

use super::options::{FormatWord, JsonForm, LatencyWord};
use crate::error::Error;
use crate::output::Output;
use crate::perf::measurement::Measurement;
use crate::perf::report::{csv, fio, json, svg, sweep, table};
use crate::perf::sweep::Sweep;

/// The result.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Result")]
pub struct ReportArgs {
    /// Reading of the clock: none, once for each batch of results, or for each request.
    #[arg(
        long,
        value_enum,
        default_value = "batch",
        value_name = "none|batch|each",
        hide_possible_values = true
    )]
    pub latency: LatencyWord,
    /// Compare with an earlier run of the same settings: FILE has its --json. Reports whether the
    /// difference is within the noise, which is the range of the rounds or seconds of both runs.
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,
    /// Write JSON. --json=full adds the buckets of the histograms.
    #[arg(long, value_enum, value_name = "full", num_args = 0..=1, require_equals = true, default_missing_value = "short", hide_possible_values = true)]
    json: Option<JsonForm>,
    /// Write JSON in the schema of fio (json+), for its plotters.
    #[arg(
        long,
        value_enum,
        value_name = "fio-json",
        conflicts_with_all = ["json", "by_turns"],
        hide_possible_values = true
    )]
    format: Option<FormatWord>,
    /// Also write a line for each second, or each round and load, to this file.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Also draw a picture into this file: latency by percentile and IOPS by time, or IOPS, ratios and
    /// latencies of a sweep.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// A finished measurement.
pub enum Report<'r> {
    /// One load.
    Run(&'r Measurement),
    /// Several by turns.
    Sweep(&'r Sweep),
}

/// The files of a result.
pub struct Files<'r> {
    csv: Option<(&'r Path, File)>,
    svg: Option<(&'r Path, File)>,
}

impl ReportArgs {
    /// Creates the files: before the run, because a path that cannot be written to would lose its result.
    ///
    /// # Errors
    /// If one cannot be created.
    pub fn create(&self) -> Result<Files<'_>, Error> {
        Ok(Files { csv: create(self.csv.as_deref())?, svg: create(self.svg.as_deref())? })
    }

    /// Writes the files, and the result to standard output.
    ///
    /// # Errors
    /// If one cannot be written to.
    pub fn write(&self, files: Files<'_>, report: &Report<'_>) -> Result<(), Error> {
        save(files.csv, || match report {
            Report::Run(of) => csv::render(of),
            Report::Sweep(of) => sweep::csv::render(of),
        })?;
        save(files.svg, || match report {
            Report::Run(of) => svg::render(of),
            Report::Sweep(of) => sweep::svg::render(of),
        })?;
        let mut out = Output::new();
        match (self.json, report) {
            (None, Report::Run(of)) if self.format.is_some() => out.json(&fio::document(of))?,
            (None, Report::Run(of)) => out.text(&table::render(of))?,
            (None, Report::Sweep(of)) => out.text(&sweep::table::render(of))?,
            (Some(form), Report::Run(of)) => {
                out.json(&json::document(of, form == JsonForm::Full))?
            }
            (Some(form), Report::Sweep(of)) => {
                out.json(&sweep::json::document(of, form == JsonForm::Full))?;
            }
        }
        out.flush()
    }
}

fn create(path: Option<&Path>) -> Result<Option<(&Path, File)>, Error> {
    let Some(path) = path else { return Ok(None) };
    let file = File::create(path).map_err(|error| Error::host("create", path, error))?;
    Ok(Some((path, file)))
}

fn save(target: Option<(&Path, File)>, text: impl FnOnce() -> String) -> Result<(), Error> {
    let Some((path, mut file)) = target else { return Ok(()) };
    file.write_all(text().as_bytes()).map_err(|error| Error::host("write", path, error))
}
