//! The result in the schema of fio's json+ output, for its plotters.

use nvio_perf::latency::Counts;
use nvio_perf::outcome::{Outcome, Side};
use serde_json::{Map, Value, json};

use crate::perf::measurement::{Measurement, Row};
use crate::perf::settings::{Settings, Sizes};

/// Percentiles that fio prints, and two more.
const PERCENTILES: [f64; 18] = [
    1.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95,
    99.99, 99.999,
];
/// Largest value of fio's histograms in nanoseconds. Its script does not end if there is a larger one.
const NANOS_MAX: u64 = 17_112_760_320;
/// Depths of `iodepth_level`.
const DEPTHS: [(u64, &str); 7] =
    [(1, "1"), (2, "2"), (4, "4"), (8, "8"), (16, "16"), (32, "32"), (64, ">=64")];
const KIB: u64 = 1 << 10;
const MILLION: u64 = 1_000_000;

/// Returns the document: a job for each row.
pub fn document(of: &Measurement) -> Value {
    let settings = &of.settings;
    json!({
        "fio version": format!("nvio-{}", of.environment.nvio),
        "nvio": super::json::document(of, false),
        "global options": { "command": settings.words().join(" ") },
        "jobs": of.rows.iter().enumerate().map(|(id, row)| job(id, row, settings)).collect::<Vec<_>>(),
    })
}

fn job(id: usize, row: &Row, settings: &Settings) -> Value {
    let outcome = &row.outcome;
    let milliseconds = outcome.elapsed / MILLION;
    let share = outcome.cpu as f64 * 100.0 / (outcome.elapsed.max(1) * row.threads as u64) as f64;
    json!({
        "jobname": row.name,
        "groupid": id,
        "error": i32::from(outcome.errors > 0),
        "eta": 0,
        "elapsed": milliseconds.div_ceil(1000),
        "job options": options(row, settings),
        "read": side(&outcome.reads, outcome),
        "write": side(&outcome.writes, outcome),
        "trim": side(&Side::default(), outcome),
        "job_runtime": milliseconds * row.threads as u64,
        "usr_cpu": share,
        "sys_cpu": 0.0,
        "ctx": 0,
        "majf": 0,
        "minf": 0,
        "iodepth_level": depths(settings.depth.into()),
        "latency_depth": settings.depth,
        "latency_target": 0,
        "latency_percentile": 100.0,
        "latency_window": 0,
        "total_err": outcome.errors,
    })
}

fn options(row: &Row, settings: &Settings) -> Value {
    let mut options = Map::new();
    let mut add = |key: &str, value: String| options.insert(key.to_owned(), Value::String(value));
    add("name", row.name.clone());
    add("ioengine", "nvio".to_owned());
    add("rw", settings.rw.name().to_owned());
    add("bs", Sizes(&settings.sizes).to_string());
    add("iodepth", settings.depth.to_string());
    add("numjobs", row.threads.to_string());
    add("size", row.bytes.to_string());
    add("random_distribution", settings.distribution.to_string());
    add("randseed", settings.seed.to_string());
    add("ramp_time", settings.ramp.as_secs_f64().to_string());
    if let Some(time) = settings.time {
        add("runtime", time.as_secs_f64().to_string());
    }
    if let Some(rate) = settings.rate {
        add("rate_iops", rate.to_string());
        add("rate_process", settings.arrival.name().to_owned());
    }
    if settings.rw.writes() {
        add("rwmixread", settings.rw.read_percent(settings.mix).to_string());
    }
    Value::Object(options)
}

fn side(of: &Side, outcome: &Outcome) -> Value {
    let elapsed = outcome.elapsed.max(1);
    let per_second = |count: u64| count as f64 * 1e9 / elapsed as f64;
    let bandwidth =
        (u128::from(of.bytes) * 1_000_000_000 / u128::from(elapsed)).min(u64::MAX.into());
    let bandwidth = u64::try_from(bandwidth).unwrap_or(u64::MAX);
    // The latency of a request is counted as a whole.
    json!({
        "io_bytes": of.bytes,
        "io_kbytes": of.bytes / KIB,
        "bw_bytes": bandwidth,
        "bw": bandwidth / KIB,
        "iops": per_second(of.ios),
        "runtime": outcome.elapsed / MILLION,
        "total_ios": of.ios,
        "short_ios": 0,
        "drop_ios": 0,
        "slat_ns": latency(&Counts::default()),
        "clat_ns": latency(&of.latency),
        "lat_ns": latency(&of.latency),
    })
}

/// Returns a histogram. One without values has no percentiles and no bins, as in fio.
fn latency(of: &Counts) -> Value {
    let histogram = of.histogram();
    let mut value = json!({
        "min": of.min(),
        "max": of.max(),
        "mean": of.mean(),
        "stddev": histogram.stdev(),
        "N": of.len(),
    });
    let Some(map) = value.as_object_mut().filter(|_| !of.is_empty()) else { return value };
    let percentiles: Map<String, Value> = PERCENTILES
        .iter()
        .filter_map(|&percent| {
            let value = of.percentile(&histogram, percent / 100.0)?;
            Some((format!("{percent:.6}"), json!(value)))
        })
        .collect();
    let mut bins = Map::new();
    for (first, last, count) in of.buckets() {
        let middle = (first + (last - first) / 2).min(NANOS_MAX);
        let bin = bins.entry(middle.to_string()).or_insert(json!(0));
        *bin = json!(bin.as_u64().unwrap_or(0) + count);
    }
    map.insert("percentile".to_owned(), Value::Object(percentiles));
    map.insert("bins".to_owned(), Value::Object(bins));
    value
}

/// Returns the share of the time with each number of requests in flight: the depth is kept.
fn depths(depth: u64) -> Value {
    let level = DEPTHS.iter().rev().find(|(least, _)| depth >= *least).map(|(_, name)| *name);
    let share = |name: &str| if Some(name) == level { 100.0 } else { 0.0 };
    DEPTHS.iter().map(|(_, name)| ((*name).to_owned(), json!(share(name)))).collect()
}
