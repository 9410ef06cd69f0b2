//! Output of the measured rates as a table or JSON, and the goals.

use serde_json::{Value, json};

use crate::compare::Rates;
use crate::drive;
use crate::drive::{BANDWIDTH, COPY_DEPTH, IOPS, LATENCY};
use crate::rig::Way;

/// Minimum ratio of the simple path to the raw namespace, at every depth.
const SIMPLE_TO_RAW: f64 = 0.98;
/// Minimum ratio of bouncing to zero copy, by size.
const BOUNCE: [f64; 3] = [0.85, 0.99, 0.99];

/// A ratio with a goal.
pub(crate) struct Goal {
    pub(crate) name: String,
    pub(crate) least: f64,
    pub(crate) got: f64,
}

impl Goal {
    pub(crate) fn is_met(&self) -> bool {
        self.got >= self.least
    }
}

pub(crate) fn goals(drive: &drive::Report, processor: &[(usize, Rates)]) -> Vec<Goal> {
    let mut goals = Vec::new();
    for (depth, rates) in &drive.depths {
        let name = format!("simple/raw at depth {depth}");
        let got = rates.ratio(Way::Simple, Way::Raw);
        goals.push(Goal { name, least: SIMPLE_TO_RAW, got });
    }
    // If the drive is the limit, both paths have the same rate.
    if let Some((depth, rates)) = processor.last() {
        let name = format!("simple/generic at depth {depth}, the processor being the limit");
        goals.push(Goal { name, least: 1.0, got: rates.ratio(Way::Simple, Way::Generic) });
    }
    for (i, (bytes, rates)) in drive.copies.iter().enumerate() {
        let what = if is_write(rates) { "overwrites" } else { "reads" };
        let name = format!("bounce/zero copy, {what} of {}", size(*bytes));
        goals.push(Goal { name, least: BOUNCE[i / 2], got: to_zero_copy(rates) });
    }
    goals
}

fn is_write(rates: &Rates) -> bool {
    rates.ways.iter().any(|way| way.is_write())
}

/// Returns the ratio of bouncing to zero copy.
fn to_zero_copy(rates: &Rates) -> f64 {
    match rates.ways[..] {
        [without, with] => rates.ratio(with, without),
        _ => 0.0,
    }
}

fn size(bytes: u64) -> String {
    match bytes >> 20 {
        0 => format!("{} KiB", bytes >> 10),
        mib => format!("{mib} MiB"),
    }
}

pub(crate) fn print(drive: &drive::Report, processor: &[(usize, Rates)], goals: &[Goal]) {
    let model = drive.model;
    let us = LATENCY.as_micros();
    println!("A Gen5 drive ({:.1} M IOPS, {:.0} GB/s, {us} us),", IOPS / 1e6, BANDWIDTH / 1e9);
    println!("scaled to what two cores can feed, so that the drive is the limit and not the");
    println!("processor. Short slices by turns; what a tenth of the slices exceeded.");
    let (iops, served) = (IOPS * model.scale / 1e3, model.served / 1e3);
    println!("\n{iops:.0} k IOPS, of {served:.0} k that the emulator could serve:");
    println!("random reads of 4 KiB of a file of 1,000 extents a second");
    print!("{:>14}", "depth");
    for way in Way::READS {
        print!(" {:>10}", way.name());
    }
    println!(" {:>10} {:>14}", "simple/raw", "simple/generic");
    for (depth, rates) in &drive.depths {
        row(&depth.to_string(), rates);
    }
    let (bandwidth, copied) = (BANDWIDTH * model.copy_scale / 1e9, model.copied / 1e9);
    println!("\n{bandwidth:.2} GB/s, of {copied:.2} that a caller could copy on the way:");
    println!("requests a second, depth {COPY_DEPTH}");
    println!("{:>14} {:>8} {:>10} {:>10} {:>8}", "", "", "zero copy", "bounce", "ratio");
    for (bytes, rates) in &drive.copies {
        let what = if is_write(rates) { "overwrite" } else { "read" };
        print!("{what:>14} {:>8}", size(*bytes));
        rates.rates.iter().for_each(|rate| print!(" {rate:>10.0}"));
        println!(" {:>8.4}", to_zero_copy(rates));
    }
    println!("\nno model, no data, so that the processor is the limit: reads of 4 KiB a second");
    for (depth, rates) in processor {
        row(&depth.to_string(), rates);
    }
    println!();
    for Goal { name, least, got } in goals {
        let verdict = if got >= least { "ok" } else { "MISSED" };
        println!("{name:<62} {got:>8.4}  at least {least:.2}  {verdict}");
    }
}

fn row(name: &str, rates: &Rates) {
    print!("{name:>14}");
    rates.rates.iter().for_each(|rate| print!(" {rate:>10.0}"));
    let (raw, generic) =
        (rates.ratio(Way::Simple, Way::Raw), rates.ratio(Way::Simple, Way::Generic));
    println!(" {raw:>10.4} {generic:>14.4}");
}

pub(crate) fn json(drive: &drive::Report, processor: &[(usize, Rates)], goals: &[Goal]) -> Value {
    let model = drive.model;
    let rates = |rates: &Rates| -> Value {
        let named = rates.ways.iter().zip(&rates.rates);
        named.map(|(way, rate)| (way.name().to_owned(), json!(rate))).collect()
    };
    let copies = drive.copies.iter().map(|(bytes, copies)| {
        let [without, with] = [0, 1].map(|i| copies.rates.get(i));
        let what = if is_write(copies) { "overwrite" } else { "read" };
        json!({ "what": what, "bytes": bytes, "depth": COPY_DEPTH, "zero_copy": without,
            "bounce": with, "ratio": to_zero_copy(copies) })
    });
    json!({
        "model": {
            "latency_us": LATENCY.as_micros() as u64, "emulator_iops": model.served,
            "copied_bandwidth": model.copied, "iops": IOPS * model.scale,
            "copy_bandwidth": BANDWIDTH * model.copy_scale,
        },
        "depths": drive.depths.iter()
            .map(|(depth, at)| json!({ "depth": depth, "iops": rates(at) })).collect::<Vec<_>>(),
        "copies": copies.collect::<Vec<_>>(),
        "processor": processor.iter()
            .map(|(depth, at)| json!({ "depth": depth, "iops": rates(at) })).collect::<Vec<_>>(),
        "goals": goals.iter().map(|goal| json!({ "name": goal.name, "least": goal.least,
            "got": goal.got, "met": goal.is_met() })).collect::<Vec<_>>(),
    })
}
