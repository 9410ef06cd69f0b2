//! Benchmark of all paths to a file, compared with each other and with the raw namespace.
//!
//! `paths [--json] [--runs N]` measures the rates of the raw queue pair, the simple path, the
//! generic path and bouncing on the embedded controller, in one process and in turns, prints a
//! table, and fails if a ratio is below its goal. A missed goal may be chance on a machine with
//! other work, so the measurement is repeated up to N times (1 without the option), and fails if no
//! run meets all goals.

// Measured rates and sizes are far from the limits of their types.
#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]

mod check;
mod compare;
mod drive;
mod file;
mod image;
mod load;
mod processor;
mod raw;
mod rig;
mod table;

use std::process::ExitCode;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<ExitCode> {
    let (mut as_json, mut runs) = (false, 1);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match (arg.as_str(), args.len()) {
            ("--json", _) => as_json = true,
            ("--runs", 1..) => runs = args.next().unwrap_or_default().parse::<u32>()?,
            _ => return Err("usage: paths [--json] [--runs N]".into()),
        }
    }
    let image = image::Image::new()?;
    for run in 1..=runs {
        let model = drive::Model::scaled(&image)?;
        let (drive, processor) = (drive::measure(&image, model)?, processor::measure(&image)?);
        let goals = table::goals(&drive, &processor);
        match as_json {
            true => println!("{:#}", table::json(&drive, &processor, &goals)),
            false => table::print(&drive, &processor, &goals),
        }
        if goals.iter().all(table::Goal::is_met) {
            return Ok(ExitCode::SUCCESS);
        }
        eprintln!("run {run} of {runs}: below the goals");
    }
    Ok(ExitCode::FAILURE)
}
