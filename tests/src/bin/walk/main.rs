//! Benchmarks of walks, fragmented files and large filesystems: the speed-up by read-ahead, and the
//! memory.
//!
//! `walk [--runs N]` creates images through loop mounts (as root), serves them with the latency of
//! a drive, and fails if a goal is missed. Times are judged only as ratios of medians within one
//! run. A missed goal may be chance on a machine with other work, so that part is measured again,
//! up to N times (1 without the option). With `NVIO_LONG=1` the largest directories have 1,000,000
//! files instead of 200,000. `NVIO` is the path of the command.

// Measured rates and times are far from the limits of their types.
#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]

mod command;
mod fragmented;
mod goal;
mod huge;
mod image;
mod list;

use std::process::ExitCode;

use goal::Goal;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<ExitCode> {
    let mut runs = 1;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match (arg.as_str(), args.len()) {
            ("--runs", 1..) => runs = args.next().unwrap_or_default().parse::<u32>()?,
            _ => return Err("usage: walk [--runs N]".into()),
        }
    }
    let long = std::env::var_os("NVIO_LONG").is_some_and(|value| !value.is_empty());
    let folder = tempfile::tempdir()?;
    let many = image::Many::new(folder.path(), if long { 1_000_000 } else { 200_000 })?;
    // Memory first, because a child process starts with the memory of this one.
    let mut goals = list::memory(&many)?;
    goals.extend(measured(runs, || list::speed(&many))?);
    drop(many);
    goals.extend(measured(runs, || huge::measure(folder.path()))?);
    let scattered = image::Scattered::new(folder.path())?;
    goals.extend(measured(runs, || fragmented::measure(&scattered))?);
    println!();
    goals.iter().for_each(Goal::print);
    match goals.iter().all(Goal::is_met) {
        true => Ok(ExitCode::SUCCESS),
        false => Ok(ExitCode::FAILURE),
    }
}

/// Returns the goals of the first run that meets them all, or of the last run.
fn measured(runs: u32, mut part: impl FnMut() -> Result<Vec<Goal>>) -> Result<Vec<Goal>> {
    let mut run = 1;
    loop {
        let goals = part()?;
        if run >= runs || goals.iter().all(Goal::is_met) {
            return Ok(goals);
        }
        eprintln!("run {run} of {runs}: below the goals");
        run += 1;
    }
}
