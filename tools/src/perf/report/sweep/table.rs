//! A sweep as a table.

use nvio_perf::plan::Latency;

use crate::perf::change::{Change, Measure};
use crate::perf::report::table::{baseline, clock, machine, off_simple_path};
use crate::perf::report::units::{bandwidth, count, nanos};
use crate::perf::settings::{Settings, Sizes, Way};
use crate::perf::sweep::statistics::Spread;
use crate::perf::sweep::{Cell, Round, Sweep};
use crate::record::Record;

/// Formats the result: the settings, a row for each cell, and notes.
pub fn render(of: &Sweep) -> String {
    let rows: Vec<Record> = (0..of.cells.len()).filter_map(|index| row(of, index)).collect();
    let right: &[usize] = &[1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13];
    let mut text = format!("{}\n", workload(of));
    if let Some(settings) = of.settings() {
        text += &format!("{}\n", clock(settings, of.clock_cost));
    }
    text += &format!("\n{}\n", Record::table(&rows, right));
    of.cells.iter().for_each(|cell| text += &notes(of, cell));
    text += &machine(&of.environment);
    if let Some(against) = &of.baseline {
        text += &baseline(against);
    }
    if of.is_interrupted {
        text += "ended by a signal: the result of the rounds so far\n";
    }
    text
}

/// Formats the settings and the machine, with the command line.
pub fn about(of: &Sweep) -> String {
    let command = of.settings().map(|settings| settings.words().join(" ")).unwrap_or_default();
    format!("{}\n{}{command}\n", workload(of), machine(&of.environment))
}

fn workload(of: &Sweep) -> String {
    let Some(settings) = of.settings() else { return String::new() };
    let Settings { seed, interrupt, ramp, .. } = settings;
    let length = match (settings.time, settings.count) {
        (_, Some(count)) => format!("{count} requests"),
        (Some(time), None) => nanos(time.as_nanos() as f64),
        (None, None) => "no limit".to_owned(),
    };
    let ramp = match ramp.is_zero() {
        true => String::new(),
        false => format!(" after {}", nanos(ramp.as_nanos() as f64)),
    };
    let rate = match settings.rate {
        Some(rate) => format!(", {} a second ({})", count(rate), settings.arrival.name()),
        None => String::new(),
    };
    let distribution = settings.distribution;
    let is_same = of.cells.iter().all(|cell| cell.settings.distribution == distribution);
    let distribution = if is_same { format!("{distribution}, ") } else { String::new() };
    format!(
        "median of {} rounds by turns, each {length}{ramp}; {distribution}seed {seed}{rate}, {}",
        of.rounds,
        if *interrupt { "interrupts" } else { "polled" },
    )
}

fn row(of: &Sweep, index: usize) -> Option<Record> {
    let cell = of.cells.get(index)?;
    let iops = cell.iops()?;
    let load = &cell.settings;
    let mut row = Record::default();
    row.text("rw", load.rw.name());
    row.text("bs", Sizes(&load.sizes).to_string());
    row.text("QD", load.depth.to_string());
    row.text("threads", load.threads.to_string());
    row.text("path", of.path(cell));
    row.text("IOPS", count(iops.median));
    row.text("lowest..highest", range(&iops, count));
    let bytes = cell.spread(|round| Some(round.bandwidth())).unwrap_or_default();
    row.text("bandwidth", bandwidth(bytes.median));
    if let Some(first) = first_way(of) {
        let ratio = of.ratio(cell).filter(|_| cell.reference != Some(index));
        let digits = |ratio: f64| format!("{ratio:.3}");
        row.text(format!("of {first}"), ratio.map_or("-".to_owned(), |ratio| digits(ratio.median)));
        row.text("spread", ratio.map_or("-".to_owned(), |ratio| range(&ratio, digits)));
    }
    let latency = &cell.latency;
    if load.latency != Latency::None {
        let histogram = latency.histogram();
        let percentile = |quantile| {
            let value = latency.percentile(&histogram, quantile);
            value.map_or("-".to_owned(), |value| nanos(value as f64))
        };
        row.text("p50", percentile(0.5));
        row.text("p99", percentile(0.99));
    }
    let cpu = cell.spread(|round| Some(round.per_io(round.cpu))).unwrap_or_default();
    row.text("CPU/IO", nanos(cpu.median));
    if let Some(against) = &of.baseline {
        let change = against.changes.get(index)?.as_ref();
        let heading = match against.measure {
            Measure::Iops => "since baseline",
            Measure::Latency => "mean latency since baseline",
        };
        row.text(heading, change.map_or("-".to_owned(), Change::words));
    }
    Some(row)
}

fn range(of: &Spread, format: impl Fn(f64) -> String) -> String {
    format!("{}..{}", format(of.min), format(of.max))
}

/// Returns the way that all others are compared with.
pub fn first_way(of: &Sweep) -> Option<&'static str> {
    of.is_comparison().then(|| of.settings().map(|settings| settings.way.name()))?
}

/// Formats the facts about a cell that most do not have.
fn notes(of: &Sweep, cell: &Cell) -> String {
    let load = &cell.settings;
    let name =
        format!("{} {} QD {} {}", load.rw.name(), Sizes(&load.sizes), load.depth, of.path(cell));
    let sum = |of: fn(&Round) -> u64| cell.rounds.iter().map(of).sum::<u64>();
    let mut text = String::new();
    for (count, what) in [
        (sum(|round| round.errors), "errors, which are not part of IOPS"),
        (sum(|round| round.late), "late starts: the queue was full"),
        (sum(|round| round.missed), "requests were due and never started"),
        (sum(|round| round.counters.retries), "commands repeated by the driver"),
        (sum(|round| round.counters.resets), "resets of the controller"),
    ] {
        if count > 0 {
            text += &format!("{name}: {count} {what}\n");
        }
    }
    // Other ways leave it because they were asked to.
    let is_simple = load.way == Way::Simple && !load.rw.writes();
    if let Some(note) = off_simple_path(&cell.counters()).filter(|_| is_simple) {
        text += &format!("{name}: {note}\n");
    }
    let granted = cell.rounds.iter().map(|round| round.granted).min();
    if let Some(granted) = granted.filter(|&granted| granted < load.depth.into()) {
        text += &format!("{name}: the queue has room for {granted} requests\n");
    }
    text
}
