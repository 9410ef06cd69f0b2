//! The result as one JSON document, which docs/perf-json.md describes.

use nvio_perf::latency::Counts;
use nvio_perf::outcome::{Outcome, Second, Side};
use nvio_perf::target::{Counters, REASONS};
use serde_json::{Map, Value, json};

use super::PERCENTILES;
use crate::perf::change::{Against, Change};
use crate::perf::environment::{DeviceFacts, Environment};
use crate::perf::measurement::{Measurement, Row};
use crate::perf::settings::{Settings, Sizes};
use crate::perf::sweep::statistics::Spread;

/// Version of the schema. It changes if a key is removed or changes its meaning.
pub const SCHEMA: u32 = 1;

/// Returns the document. `full` adds the buckets of the histograms.
pub fn document(of: &Measurement, full: bool) -> Value {
    json!({
        "schema": SCHEMA,
        "tool": "nvio perf",
        "kind": "run",
        "command": of.settings.words(),
        "settings": settings(&of.settings, of.way()),
        "clock_ns": of.clock_cost,
        "interrupted": of.is_interrupted,
        "environment": environment(&of.environment),
        "rows": of.rows.iter().map(|row| row_of(row, full)).collect::<Vec<_>>(),
        "total": outcome(&of.total, full),
        "baseline": of.baseline.as_ref().map(baseline),
        "change": of.baseline.as_ref().and_then(|baseline| Some(change(baseline.changes.first()?.as_ref()?))),
    })
}

/// Returns the file of a baseline, and differences that are not of the settings.
pub fn baseline(of: &Against) -> Value {
    json!({ "file": of.file, "measure": of.measure.name(), "notes": of.notes })
}

/// Returns a comparison with a baseline.
pub fn change(of: &Change) -> Value {
    json!({
        "baseline": spread(&of.then),
        "now": spread(&of.now),
        "ratio": of.ratio(),
        "within_noise": of.is_noise(),
    })
}

/// Returns a median with its spread.
pub fn spread(of: &Spread) -> Value {
    json!({ "median": of.median, "min": of.min, "max": of.max, "samples": of.samples })
}

/// Returns the settings. `way` is null for a device.
pub fn settings(of: &Settings, way: Option<&str>) -> Value {
    let seconds = |time: std::time::Duration| time.as_secs_f64();
    json!({
        "rw": of.rw.name(),
        "read_percent": of.rw.read_percent(of.mix),
        "bs": Sizes(&of.sizes).to_string(),
        "qd": of.depth,
        "threads": of.threads,
        "cpus": of.cpus,
        "time_s": of.time.map(seconds),
        "ramp_s": seconds(of.ramp),
        "count": of.count,
        "size": of.size,
        "path": way,
        "dist": of.distribution.to_string(),
        "rate": of.rate,
        "arrival": of.rate.map(|_| of.arrival.name()),
        "batch_submit": of.batch_submit,
        "batch_complete": of.batch_complete,
        "wait": if of.interrupt { "interrupt" } else { "poll" },
        "verify": of.verify,
        "prepare": of.prepare,
        "continue": of.go_on,
        "seed": of.seed,
        "latency": of.latency.name(),
    })
}

/// Returns the machine and the devices.
pub fn environment(of: &Environment) -> Value {
    json!({
        "nvio": of.nvio,
        "kernel": of.kernel,
        "cpu": of.cpu,
        "cpus": of.cpus,
        "governor": of.governor,
        "iommus": of.iommus,
        "devices": of.devices.iter().map(device).collect::<Vec<_>>(),
    })
}

fn device(of: &DeviceFacts) -> Value {
    json!({
        "name": of.name,
        "kernel": of.interface,
        "model": of.model,
        "serial": of.serial,
        "firmware": of.firmware,
        "nvme_version": of.version,
        "namespace": of.namespace,
        "lba_format": { "data_bytes": of.block_bytes, "metadata_bytes": of.metadata_bytes },
        "bytes": of.bytes,
        "max_transfer": of.max_transfer,
        "iommu": of.iommu,
        "numa_node": of.numa_node,
    })
}

fn row_of(row: &Row, full: bool) -> Value {
    let mut value = outcome(&row.outcome, full);
    if let Some(map) = value.as_object_mut() {
        map.insert("name".to_owned(), json!(row.name));
        map.insert("device".to_owned(), json!(row.device));
        map.insert("path".to_owned(), json!(row.path));
        map.insert("range_bytes".to_owned(), json!(row.bytes));
        map.insert("threads".to_owned(), json!(row.threads));
        map.insert("qd_granted".to_owned(), json!(row.outcome.granted / row.threads.max(1)));
    }
    value
}

fn outcome(of: &Outcome, full: bool) -> Value {
    json!({
        "elapsed_ns": of.elapsed,
        "ios": of.ios(),
        "bytes": of.bytes(),
        "iops": of.iops(),
        "bandwidth": of.bandwidth(),
        "latency_ns": latency(&of.latency(), full),
        "reads": side(&of.reads, of.elapsed, full),
        "writes": side(&of.writes, of.elapsed, full),
        "errors": of.errors,
        "late_starts": of.late,
        "missed_starts": of.missed,
        "cpu_ns": of.cpu,
        "per_io": per_io(&of.counters, of.cpu, of.ios()),
        "counters": counters(&of.counters),
        "seconds": of.seconds.iter().map(second).collect::<Vec<_>>(),
    })
}

/// Returns the cost of a request.
pub fn per_io(counters: &Counters, cpu: u64, ios: u64) -> Value {
    let per_io = |count: u64| count as f64 / ios.max(1) as f64;
    json!({
        "cpu_ns": per_io(cpu),
        "doorbells": per_io(counters.doorbells),
        "polls": per_io(counters.polls),
        "empty_polls": per_io(counters.empty_polls),
    })
}

/// Returns the counters of queues.
pub fn counters(counters: &Counters) -> Value {
    let reasons: Map<String, Value> = REASONS
        .iter()
        .zip(counters.reasons)
        .filter(|(_, count)| *count > 0)
        .map(|((_, name), count)| (name.replace(' ', "_"), json!(count)))
        .collect();
    json!({
        "doorbells": counters.doorbells,
        "polls": counters.polls,
        "empty_polls": counters.empty_polls,
        "sleeps": counters.sleeps,
        "retries": counters.retries,
        "resets": counters.resets,
        "simple": counters.simple,
        "generic": counters.generic,
        "bounced": counters.bounced,
        "left_simple_path": reasons,
    })
}

fn side(of: &Side, elapsed: u64, full: bool) -> Value {
    json!({
        "ios": of.ios,
        "bytes": of.bytes,
        "iops": of.ios as f64 * 1e9 / elapsed.max(1) as f64,
        "latency_ns": latency(&of.latency, full),
    })
}

/// Returns latencies: null if the clock was not read, or there was no request.
pub fn latency(of: &Counts, full: bool) -> Value {
    if of.is_empty() {
        return Value::Null;
    }
    let histogram = of.histogram();
    let percentiles: Map<String, Value> = PERCENTILES
        .iter()
        .filter_map(|&(quantile, name)| {
            Some((name.to_owned(), json!(of.percentile(&histogram, quantile)?)))
        })
        .collect();
    let mut value = json!({
        "count": of.len(),
        "min": of.min(),
        "mean": of.mean(),
        "stddev": histogram.stdev(),
        "max": of.max(),
        "percentiles": percentiles,
    });
    if let (true, Some(map)) = (full, value.as_object_mut()) {
        let buckets: Vec<Value> =
            of.buckets().map(|(low, high, count)| json!([low, high, count])).collect();
        map.insert("buckets".to_owned(), Value::Array(buckets));
    }
    value
}

fn second(of: &Second) -> Value {
    let mean = |side: usize| of.latency[side].checked_div(of.ios[side]);
    json!({
        "reads": of.ios[0],
        "writes": of.ios[1],
        "read_bytes": of.bytes[0],
        "write_bytes": of.bytes[1],
        "read_mean_ns": mean(0),
        "write_mean_ns": mean(1),
        "errors": of.errors,
    })
}
