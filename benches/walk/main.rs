//! Times of walks, fragmented files and large filesystems, as ratios within one run.
//!
//! `cargo bench -p nvio-tests --bench walk` makes images through loop mounts (as root), serves them
//! with the latency of a drive, and prints the ratios of medians with their goals. `NVIO` is the
//! command. `tests/run walk` judges the counts.

// Rates and times, none near the limits of its type.
#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
#![allow(missing_docs)]

mod fragmented;
mod huge;
mod list;

use nvio_tests::walk::Result;
use nvio_tests::walk::goal::Goal;
use nvio_tests::walk::image::{Many, Scattered};

fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let many = Many::new(folder.path(), 1)?;
    let mut goals = list::speed(&many)?;
    drop(many);
    goals.extend(huge::measure(folder.path())?);
    goals.extend(fragmented::measure(&Scattered::new(folder.path())?)?);
    println!();
    goals.iter().for_each(Goal::print);
    Ok(())
}
