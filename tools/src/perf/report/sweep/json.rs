//! A sweep as one JSON document, which docs/perf-json.md describes.

use serde_json::{Value, json};

use crate::perf::report::json::{
    SCHEMA, baseline, change, counters, environment, latency, per_io, settings, spread,
};
use crate::perf::settings::{Sizes, Way};
use crate::perf::sweep::{Cell, Round, Sweep};

/// Returns the document. `full` adds the buckets of the histograms.
pub fn document(of: &Sweep, full: bool) -> Value {
    let target = |(name, bytes): &(String, u64)| json!({ "name": name, "range_bytes": bytes });
    json!({
        "schema": SCHEMA,
        "tool": "nvio perf",
        "kind": "sweep",
        "command": of.settings().map(|settings| settings.words()),
        "rounds": of.rounds,
        "clock_ns": of.clock_cost,
        "interrupted": of.is_interrupted,
        "environment": environment(&of.environment),
        "targets": of.targets.iter().map(target).collect::<Vec<_>>(),
        "cells": (0..of.cells.len()).filter_map(|index| cell(of, index, full)).collect::<Vec<_>>(),
        "baseline": of.baseline.as_ref().map(baseline),
    })
}

fn cell(of: &Sweep, index: usize, full: bool) -> Option<Value> {
    let cell = of.cells.get(index)?;
    let load = &cell.settings;
    let ratio = of.ratio(cell).zip(reference(of, cell)).map(|(ratio, to)| {
        let mut value = spread(&ratio);
        value["to"] = json!(to);
        value
    });
    let against = of.baseline.as_ref().and_then(|against| against.changes.get(index)?.as_ref());
    let sum = |count: fn(&Round) -> u64| cell.rounds.iter().map(count).sum::<u64>();
    let totals = cell.counters();
    Some(json!({
        "rw": load.rw.name(),
        "bs": Sizes(&load.sizes).to_string(),
        "qd": load.depth,
        "threads": load.threads,
        "path": of.path(cell),
        "settings": settings(load, (load.way != Way::Raw).then(|| load.way.name())),
        "iops": cell.iops().as_ref().map(spread),
        "bandwidth": cell.spread(|round| Some(round.bandwidth())).as_ref().map(spread),
        "ratio": ratio,
        "mean_ns": cell.spread(|round| round.mean).as_ref().map(spread),
        "latency_ns": latency(&cell.latency, full),
        "errors": sum(|round| round.errors),
        "late_starts": sum(|round| round.late),
        "missed_starts": sum(|round| round.missed),
        "per_io": per_io(&totals, sum(|round| round.cpu), sum(|round| round.ios)),
        "counters": counters(&totals),
        "rounds": cell.rounds.iter().map(round).collect::<Vec<_>>(),
        "change": against.map(change),
    }))
}

/// Returns the way that a cell is compared with.
fn reference(of: &Sweep, cell: &Cell) -> Option<&'static str> {
    Some(of.cells.get(cell.reference?)?.settings.way.name())
}

fn round(of: &Round) -> Value {
    json!({
        "elapsed_ns": of.elapsed,
        "ios": of.ios,
        "bytes": of.bytes,
        "iops": of.iops(),
        "bandwidth": of.bandwidth(),
        "mean_ns": of.mean,
        "errors": of.errors,
        "cpu_ns": of.cpu,
        "qd_granted": of.granted,
    })
}
