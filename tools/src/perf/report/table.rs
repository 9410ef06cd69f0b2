//! The result as a table.

use nvio_perf::outcome::Outcome;
use nvio_perf::plan::Latency;
use nvio_perf::target::{Counters, REASONS};

use super::PERCENTILES;
use super::units::{bandwidth, count, nanos};
use crate::perf::change::{Against, Measure, SAMPLES_MIN};
use crate::perf::environment::Environment;
use crate::perf::measurement::Measurement;
use crate::perf::settings::{Settings, Sizes};
use crate::perf::sweep::statistics::Spread;
use crate::record::Record;

/// Formats the result: the settings, a row for each device or file, and notes.
pub fn render(of: &Measurement) -> String {
    let rows: Vec<Record> = of.with_total().map(|(name, outcome)| row(name, outcome)).collect();
    let right: &[usize] = &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    let mut text = format!("{}\n{}\n\n", workload(of), clock(&of.settings, of.clock_cost));
    text += &Record::table(&rows, right);
    let mut notes: String = of.with_total().map(|(name, outcome)| notes(name, outcome)).collect();
    for row in &of.rows {
        let granted = row.outcome.granted / row.threads.max(1);
        if granted < of.settings.depth.into() {
            notes += &format!("{}: the queue has room for {granted} requests\n", row.name);
        }
    }
    if !notes.is_empty() {
        text += &format!("\n{notes}");
    }
    text += &format!("\n{}", machine(&of.environment));
    if let Some(against) = &of.baseline {
        text += &baseline(against);
    }
    if of.is_interrupted {
        text += "ended by a signal: the result so far\n";
    }
    text
}

/// Formats the comparison with an earlier run: the figure then and now, or only the file if there are
/// several, and the notes.
pub fn baseline(of: &Against) -> String {
    let figure = |figure: f64| match of.measure {
        Measure::Iops => format!("{} IOPS", count(figure)),
        Measure::Latency => format!("mean {}", nanos(figure)),
    };
    let mut text = match &of.changes[..] {
        [Some(change)] => {
            let spread = |of: &Spread| {
                format!("{} ({} to {})", figure(of.median), figure(of.min), figure(of.max))
            };
            let (then, now) = (spread(&change.then), spread(&change.now));
            format!("{}: {then}, now {now}: {}\n", of.file, change.words())
        }
        _ => format!("compared with {}\n", of.file),
    };
    if of.changes.iter().flatten().any(|change| change.is_noise().is_none()) {
        text += &format!("the noise needs {SAMPLES_MIN} samples of each run: seconds or rounds\n");
    }
    of.notes.iter().for_each(|note| text += &format!("{}: {note}\n", of.file));
    text
}

/// Formats the settings, the clock and the machine, a line each.
pub fn about(of: &Measurement) -> String {
    let command = of.settings.words();
    let (workload, clock) = (workload(of), clock(&of.settings, of.clock_cost));
    format!("{workload}\n{clock}\n{}{}\n", machine(&of.environment), command.join(" "))
}

fn workload(of: &Measurement) -> String {
    let settings = &of.settings;
    let Settings { depth, threads, seed, .. } = settings;
    let mut line = format!(
        "{} {}, QD {depth}, {threads} thread{}, {}, {}, seed {seed}",
        settings.rw.name(),
        Sizes(&settings.sizes),
        if *threads == 1 { "" } else { "s" },
        of.way().map_or("raw".to_owned(), |way| format!("path {way}")),
        settings.distribution,
    );
    line += if settings.interrupt { ", interrupts" } else { ", polled" };
    if settings.rw.writes() {
        line += &format!(", {} % reads", settings.rw.read_percent(settings.mix));
    }
    if let Some(rate) = settings.rate {
        line += &format!(", {} a second ({})", count(rate), settings.arrival.name());
    }
    line
}

/// Formats how latencies are measured. `cost` is that of a reading of the clock.
pub fn clock(settings: &Settings, cost: f64) -> String {
    let cost = nanos(cost);
    let how = match settings.latency {
        Latency::None => return "latency: not measured".to_owned(),
        Latency::Batch => "the clock is read once for each batch of results",
        Latency::Each => "the clock is read for each submission and each result",
    };
    let from = match settings.rate {
        Some(_) => "from the intended start",
        None => "from the submission",
    };
    format!("latency: {from}; {how}, {cost} a reading")
}

fn row(name: &str, outcome: &Outcome) -> Record {
    let mut row = Record::default();
    row.text("", name);
    row.text("IOPS", count(outcome.iops()));
    row.text("bandwidth", bandwidth(outcome.bandwidth()));
    let latency = outcome.latency();
    if !latency.is_empty() {
        let histogram = latency.histogram();
        row.text("mean", nanos(latency.mean()));
        for (quantile, name) in PERCENTILES {
            let value = latency.percentile(&histogram, quantile);
            row.text(name, value.map_or("-".to_owned(), |value| nanos(value as f64)));
        }
        row.text("max", nanos(latency.max() as f64));
    }
    let per_io = |count: u64| format!("{:.2}", count as f64 / outcome.ios().max(1) as f64);
    row.text("CPU/IO", nanos(outcome.cpu as f64 / outcome.ios().max(1) as f64));
    row.text("bells/IO", per_io(outcome.counters.doorbells));
    row.text("polls/IO", per_io(outcome.counters.polls));
    row.text("empty/IO", per_io(outcome.counters.empty_polls));
    row
}

/// Formats the facts about a row that most runs do not have.
fn notes(name: &str, outcome: &Outcome) -> String {
    let mut notes = Vec::new();
    let (reads, writes) = (&outcome.reads, &outcome.writes);
    if reads.ios > 0 && writes.ios > 0 {
        let iops = |ios: u64| count(ios as f64 * 1e9 / outcome.elapsed.max(1) as f64);
        let mean = |mean: f64| nanos(mean);
        notes.push(format!(
            "{} reads a second (mean {}), {} writes (mean {})",
            iops(reads.ios),
            mean(reads.latency.mean()),
            iops(writes.ios),
            mean(writes.latency.mean())
        ));
    }
    notes.extend(off_simple_path(&outcome.counters));
    let counters = &outcome.counters;
    for (count, what) in [
        (outcome.errors, "errors, which are not part of IOPS"),
        (outcome.late, "late starts: the queue was full"),
        (outcome.missed, "requests were due and never started"),
        (counters.bounced, "commands with a copy"),
        (counters.retries, "commands repeated by the driver"),
        (counters.resets, "resets of the controller"),
        (counters.sleeps, "sleeps until an interrupt"),
    ] {
        if count > 0 {
            notes.push(format!("{count} {what}"));
        }
    }
    notes.into_iter().map(|note| format!("{name}: {note}\n")).collect()
}

/// Formats the reasons of requests that left the simple path. `None` if there are none.
pub fn off_simple_path(counters: &Counters) -> Option<String> {
    let reasons = REASONS.iter().zip(counters.reasons).filter(|(_, count)| *count > 0);
    let reasons: Vec<String> =
        reasons.map(|((_, reason), count)| format!("{count} {reason}")).collect();
    (!reasons.is_empty()).then(|| format!("not on the simple path: {}", reasons.join(", ")))
}

/// Formats the devices and the machine.
pub fn machine(machine: &Environment) -> String {
    let mut text = String::new();
    for device in &machine.devices {
        if let Some(interface) = device.interface {
            text += &format!("{}: through the kernel by {interface}\n", device.name);
            continue;
        }
        text += &format!(
            "{}: {}, firmware {}, namespace {}, blocks of {} bytes{}\n",
            device.name,
            device.model,
            device.firmware,
            device.namespace,
            device.block_bytes,
            device.iommu.as_ref().map_or(String::new(), |kind| format!(", IOMMU {kind}"))
        );
    }
    let governor = machine.governor.as_deref().unwrap_or("unknown");
    text + &format!(
        "nvio {}, Linux {}, {} x {}, governor {governor}\n",
        machine.nvio, machine.kernel, machine.cpus, machine.cpu
    )
}
