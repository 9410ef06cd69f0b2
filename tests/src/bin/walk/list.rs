//! `nvio ls -lR` of many files: time and memory.

use std::fs;

use crate::Result;
use crate::command::{Served, listed, timed};
use crate::goal::{Goal, median};
use crate::image::{DIRECTORIES, FILES_EACH, Many};

/// Latency of a read on an idle drive.
const LATENCY: [&str; 2] = ["--latency", "80us"];
/// Minimum speed-up by read-ahead.
const FASTER: f64 = 8.0;
const ROUNDS: usize = 3;
/// Maximum memory for a million files, MiB.
const MEMORY: f64 = 200.0;
const MILLION: f64 = 1e6;

/// Measures the time with and without read-ahead, in turns.
pub(crate) fn speed(many: &Many) -> Result<Vec<Goal>> {
    let served = Served::new(&many.image, &LATENCY)?;
    let outputs = ["ahead", "alone"].map(|name| many.image.with_extension(name));
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for ((options, output), times) in
            [&["-lR"][..], &["-lR", "--no-read-ahead"]].iter().zip(&outputs).zip(&mut times)
        {
            let arguments = [&["/spread"], *options].concat();
            times.push(timed(served.command("ls", &arguments), output)?.as_secs_f64());
        }
    }
    let [ahead, alone] = outputs.map(fs::read);
    if ahead? != alone? {
        return Err("read-ahead changes what is listed".into());
    }
    let [ahead, alone] = times.map(median);
    let files = DIRECTORIES * FILES_EACH;
    println!("{files} files in {DIRECTORIES} directories, 80 us: {ahead:.3} s, alone {alone:.3} s");
    Ok(vec![Goal::least("ls -lR, read-ahead to none, times faster", alone / ahead, FASTER)])
}

/// Measures the memory for files in many directories, and for files in one.
pub(crate) fn memory(many: &Many) -> Result<Vec<Goal>> {
    let served = Served::new(&many.image, &[])?;
    let list = |path| listed(served.command("ls", &["-lR", path]));
    let (spread, one) = (list("/spread")?, list("/one")?);
    let spread_files = DIRECTORIES * FILES_EACH;
    // Each directory has a heading, and an empty line before all but the first.
    let expected = [spread_files + DIRECTORIES + 2 * (DIRECTORIES + 1) - 1, many.in_one + 1];
    if [spread.lines, one.lines] != expected {
        return Err(format!("{} and {} lines were listed", spread.lines, one.lines).into());
    }
    if listed(served.command("ls", &["-lR", "/one", "--no-read-ahead"]))?.hash != one.hash {
        return Err("read-ahead changes what is listed".into());
    }
    println!("peak of memory: {:.1} MiB spread, {:.1} MiB in one", spread.peak, one.peak);
    // More files in one directory need memory only for their names.
    let each = (one.peak - spread.peak).max(0.0) / many.in_one as f64;
    let million = one.peak + each * (MILLION - many.in_one as f64);
    let name = format!("MiB for 1,000,000 files in one directory, from {}", many.in_one);
    Ok(vec![
        Goal::most(
            format!("MiB for {spread_files} files in {DIRECTORIES} directories"),
            spread.peak,
            MEMORY / 2.0,
        ),
        Goal::most(name, million, MEMORY),
    ])
}
