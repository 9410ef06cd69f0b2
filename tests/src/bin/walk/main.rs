//! Walks, copies, fragmented files and large filesystems, judged by counts: device rounds, modelled
//! time, commands, blocks that are read, and memory.
//!
//! The images are made through loop mounts (as root). With `NVIO_LONG=1` the largest directory has
//! 1,000,000 files instead of 200,000. `NVIO` is the command. The exit code is 1 if a goal is
//! missed. `cargo bench -p nvio-tests --bench walk` prints the times.

// Counts and sizes, none near the limits of its type.
#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]

mod buffered;
mod copy;
mod drive;
mod huge;
mod memory;
mod pieces;
mod rounds;

use std::process::ExitCode;

use nvio_tests::walk::Result;
use nvio_tests::walk::goal::Goal;
use nvio_tests::walk::image::{Many, Scattered};

fn main() -> Result<ExitCode> {
    let long = std::env::var_os("NVIO_LONG").is_some_and(|value| !value.is_empty());
    let folder = tempfile::tempdir()?;
    let many = Many::new(folder.path(), if long { 1_000_000 } else { 200_000 })?;
    // Memory first: a process inherits the peak of the one that starts it.
    let mut goals = memory::measure(&many)?;
    goals.extend(rounds::measure(&many)?);
    drop(many);
    goals.push(huge::measure(folder.path())?);
    let scattered = Scattered::new(folder.path())?;
    goals.push(pieces::measure(&scattered)?);
    goals.extend(copy::measure(folder.path(), &scattered)?);
    goals.push(buffered::measure(folder.path())?);
    println!();
    goals.iter().for_each(Goal::print);
    match goals.iter().all(Goal::is_met) {
        true => Ok(ExitCode::SUCCESS),
        false => Ok(ExitCode::FAILURE),
    }
}
