//! `nvio ls -lR` of many files: time.

use std::fs;

use nvio_tests::walk::Result;
use nvio_tests::walk::command::{Served, timed};
use nvio_tests::walk::goal::{Goal, median};
use nvio_tests::walk::image::{DIRECTORIES, FILES_EACH, Many};

/// A read of a drive that is not busy.
const LATENCY: [&str; 2] = ["--latency", "80us"];
/// How many times faster it is with read-ahead.
const FASTER: f64 = 8.0;
const ROUNDS: usize = 3;

/// With and without read-ahead, by turns.
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
