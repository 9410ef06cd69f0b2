//! The I/O path under an instruction counter.
//!
//! `budget PART` repeats one part of the work on the embedded controller's null backing, inside the
//! function of that name, and callgrind counts only the instructions in it. `tests/budget` runs the
//! parts and compares the counts with the budgets. The program prints the number of I/Os, and of
//! allocations and frees in them.
//!
//! `budget queues N` reads with N queue pairs of one controller, `budget controllers N` with one of
//! each of N controllers.

mod allocations;
mod append;
mod cached;
mod file;
mod load;
mod perf;
mod raw;
mod scaling;

use std::hint::black_box;

use file::Reads;
use nvio_perf::engine;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let part = std::env::args().nth(1).unwrap_or_default();
    let number = || std::env::args().nth(2).unwrap_or_default().parse::<usize>();
    let count = match part.as_str() {
        "batches" | "one-by-one" | "empty-poll" => {
            let mut rig = raw::Rig::new()?;
            let count = match part.as_str() {
                "batches" => rig.batches(),
                "one-by-one" => rig.one_by_one(),
                _ => rig.empty(),
            };
            black_box(rig.sum);
            count
        }
        "simple" => file::Rig::new(Reads::Simple)?.batches()?,
        "generic" => file::Rig::new(Reads::Generic)?.batches()?,
        "extents" => file::Rig::new(Reads::Extents)?.batches()?,
        "queues" => scaling::run(1, number()?)?,
        "controllers" => scaling::run(number()?, number()?)?,
        "perf-none" => perf::run::<{ engine::NONE }>()?,
        "perf-batch" => perf::run::<{ engine::BATCH }>()?,
        "cached-read" | "cached-write" | "cached-clean" | "cached-copy" => cached::run(&part)?,
        "append" => append::run()?,
        _ => {
            let paths = "batches|one-by-one|empty-poll|simple|generic|extents|perf-none|perf-batch";
            let cached =
                "cached-read|cached-write|cached-clean|cached-copy|append|queues N|controllers N";
            return Err(format!("usage: budget {paths}|{cached}").into());
        }
    };
    println!("{count} {}", allocations::counted());
    Ok(())
}
