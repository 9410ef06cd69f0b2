//! An earlier run to compare with: the JSON of one run or of a sweep.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::Error;
use crate::perf::change::{Against, Change, Measure};
use crate::perf::environment::Environment;
use crate::perf::report::json;
use crate::perf::settings::{Settings, Way};
use crate::perf::sweep::statistics::Spread;

/// Differences that an error names.
const NAMED_MAX: usize = 4;
/// Facts about the machine that may explain a difference.
const FACTS: [&str; 5] = ["nvio", "kernel", "cpu", "cpus", "governor"];
const SECOND: u64 = 1_000_000_000;

/// An earlier run.
#[derive(Debug)]
pub struct Baseline {
    file: String,
    entries: Vec<Entry>,
    environment: Value,
    targets: Vec<String>,
    is_interrupted: bool,
}

/// A measurement of the earlier run.
#[derive(Debug)]
struct Entry {
    settings: Map<String, Value>,
    /// The rounds of a cell, or the seconds of a run, or the whole run.
    samples: Vec<Sample>,
}

/// A part of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Requests a second.
    pub iops: f64,
    /// Mean latency in nanoseconds.
    pub mean: Option<f64>,
}

impl Sample {
    fn figure(self, measure: Measure) -> Option<f64> {
        match measure {
            Measure::Iops => Some(self.iops),
            Measure::Latency => self.mean,
        }
    }
}

impl Baseline {
    /// Reads the JSON of `nvio perf`.
    ///
    /// # Errors
    /// If the file cannot be read, or is not such a document.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read(path).map_err(|error| Error::host("read", path, error))?;
        let file = path.display().to_string();
        let refused =
            |text: &str| Error::PerfBaseline { file: file.clone(), text: text.to_owned() };
        let Ok(document) = serde_json::from_slice::<Value>(&text) else {
            return Err(refused("it is not JSON; write it with `nvio perf --json > FILE`"));
        };
        if document["tool"] != "nvio perf" || document["schema"] != json::SCHEMA {
            return Err(refused("it is not a document of this version of `nvio perf --json`"));
        }
        let entries = match document["kind"].as_str() {
            Some("sweep") => array(&document["cells"]).iter().filter_map(cell).collect(),
            _ => run(&document).into_iter().collect::<Vec<_>>(),
        };
        if entries.is_empty() {
            return Err(refused("it has no measurement"));
        }
        let names = ["targets", "rows"].map(|key| array(&document[key]));
        let names = names.into_iter().flatten().filter_map(|target| target["name"].as_str());
        Ok(Self {
            targets: names.map(str::to_owned).collect(),
            environment: document["environment"].clone(),
            is_interrupted: document["interrupted"] == true,
            file,
            entries,
        })
    }

    /// Finds the measurements with the settings of `runs`.
    ///
    /// # Errors
    /// If there is none: the error names the settings that differ.
    pub fn find(&self, runs: &[Settings]) -> Result<Vec<usize>, Error> {
        runs.iter().map(|run| self.find_one(run)).collect()
    }

    fn find_one(&self, run: &Settings) -> Result<usize, Error> {
        let wanted = keys(run);
        let differences = self.entries.iter().map(|entry| differences(&entry.settings, &wanted));
        let nearest = differences.enumerate().min_by_key(|(_, differences)| differences.len());
        let (index, differences) = nearest.unwrap_or_default();
        if differences.is_empty() {
            return Ok(index);
        }
        let more = differences.len().saturating_sub(NAMED_MAX);
        let mut text = differences.into_iter().take(NAMED_MAX).collect::<Vec<_>>().join(", ");
        if more > 0 {
            text += &format!(", and {more} more");
        }
        let text =
            format!("its settings differ: {text}; repeat its command, or leave out --baseline");
        Err(Error::PerfBaseline { file: self.file.clone(), text })
    }

    /// Compares a run with the measurements that [`find`](Self::find) has found for its cells, whose
    /// samples are `now`.
    pub fn compare(
        &self,
        found: &[usize],
        measure: Measure,
        now: &[Vec<Sample>],
        environment: &Environment,
        targets: &[&str],
    ) -> Against {
        let spread = |samples: &[Sample]| {
            Spread::of(samples.iter().filter_map(|sample| sample.figure(measure)))
        };
        let change = |(&index, now): (&usize, &Vec<Sample>)| {
            let entry = self.entries.get(index)?;
            Some(Change { then: spread(&entry.samples)?, now: spread(now)? })
        };
        Against {
            file: self.file.clone(),
            measure,
            notes: self.notes(environment, targets),
            changes: found.iter().zip(now).map(change).collect(),
        }
    }

    fn notes(&self, environment: &Environment, targets: &[&str]) -> Vec<String> {
        let mut notes = Vec::new();
        if self.is_interrupted {
            notes.push("it was ended by a signal".to_owned());
        }
        let now = json::environment(environment);
        for key in FACTS {
            let (then, now) = (&self.environment[key], &now[key]);
            if then != now {
                notes.push(format!("{key} was {}, is {}", plain(then), plain(now)));
            }
        }
        let models = |of: &Value| -> Vec<String> {
            let devices = array(&of["devices"]).iter();
            devices.map(|device| plain(&device["model"])).collect()
        };
        let (then, now) = (models(&self.environment), models(&now));
        if then != now {
            notes.push(format!("the device was {}, is {}", then.join(", "), now.join(", ")));
        }
        if self.targets != targets {
            let (then, now) = (self.targets.join(", "), targets.join(", "));
            notes.push(format!("it measured {then}, this run {now}"));
        }
        notes
    }
}

/// Returns the settings as the document has them.
fn keys(run: &Settings) -> Map<String, Value> {
    let way = (run.way != Way::Raw).then(|| run.way.name());
    // Through text, because a number may be read as its neighbour.
    let text = json::settings(run, way).to_string();
    match serde_json::from_str(&text) {
        Ok(Value::Object(keys)) => keys,
        _ => Map::new(),
    }
}

/// Names the settings that differ.
fn differences(then: &Map<String, Value>, now: &Map<String, Value>) -> Vec<String> {
    let missing = Value::Null;
    let differing = now.iter().filter_map(|(key, now)| {
        let then = then.get(key).unwrap_or(&missing);
        (then != now).then(|| format!("{key} {} instead of {}", plain(then), plain(now)))
    });
    differing.collect()
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "none".to_owned(),
        other => other.to_string(),
    }
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn cell(cell: &Value) -> Option<Entry> {
    let sample = |round: &Value| {
        Some(Sample { iops: round["iops"].as_f64()?, mean: round["mean_ns"].as_f64() })
    };
    let samples = array(&cell["rounds"]).iter().filter_map(sample).collect();
    Some(Entry { settings: cell["settings"].as_object()?.clone(), samples })
}

fn run(document: &Value) -> Option<Entry> {
    let total = &document["total"];
    let settings = document["settings"].as_object()?.clone();
    let whole = whole_seconds(total["elapsed_ns"].as_u64()?);
    let seconds = array(&total["seconds"]).iter().take(whole);
    let seconds: Vec<Sample> = seconds.filter_map(second).collect();
    let mean = total["latency_ns"]["mean"].as_f64();
    let samples = match seconds.is_empty() {
        true => vec![Sample { iops: total["iops"].as_f64()?, mean }],
        false => seconds,
    };
    Some(Entry { settings, samples })
}

fn second(second: &Value) -> Option<Sample> {
    let [reads, writes] = ["reads", "writes"].map(|key| second[key].as_f64());
    let (reads, writes) = (reads?, writes?);
    let mean = |key: &str| second[key].as_f64().unwrap_or(0.0);
    let sum = mean("read_mean_ns") * reads + mean("write_mean_ns") * writes;
    Some(Sample::of_second(reads + writes, sum))
}

impl Sample {
    /// Creates a sample of the requests in a second, whose latencies have the sum `sum` in nanoseconds.
    pub fn of_second(ios: f64, sum: f64) -> Self {
        Self { iops: ios, mean: (ios > 0.0 && sum > 0.0).then(|| sum / ios) }
    }
}

/// Returns the number of whole seconds. The last second of a run may be shorter.
pub fn whole_seconds(nanos: u64) -> usize {
    usize::try_from(nanos / SECOND).unwrap_or(usize::MAX)
}
