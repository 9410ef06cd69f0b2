//! Cuts the power at each command of random workloads; see `nvio_tests::power`.
#![allow(clippy::unwrap_used)]

use std::process::ExitCode;

use nvio_testkit::image;
use nvio_tests::power::{check, workload};

const USAGE: &str = "\
usage: power --workloads N [--first S]

Plays random workloads of writes, and cuts the power at each command of them. Exit codes: 0 all is well,
1 a workload failed, 2 wrong usage.";

fn arguments() -> Option<(u64, u64)> {
    let (mut first, mut count) = (0, None);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let number = words.next()?.parse().ok()?;
        match word.as_str() {
            "--workloads" => count = Some(number),
            "--first" => first = number,
            _ => return None,
        }
    }
    Some((first, count?))
}

fn run(seed: u64) -> Result<check::Checked, String> {
    let folder = image::work_folder("power");
    let played = workload::play(folder.path(), seed).map_err(|error| error.to_string())?;
    let (checked, disk) = check::check(&played, seed)?;
    let path = folder.path().join("after.img");
    std::fs::write(&path, disk).map_err(|error| error.to_string())?;
    image::tool("e2fsck", &["-f", "-n", image::text(&path)]);
    Ok(checked)
}

fn main() -> ExitCode {
    let Some((first, count)) = arguments() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let (mut failed, mut total) = (0, check::Checked::default());
    for seed in first..first + count {
        match run(seed) {
            Ok(checked) => {
                total.cuts += checked.cuts;
                total.commands += checked.commands;
                total.lost += checked.lost;
            }
            Err(why) => {
                failed += 1;
                println!("FAILED: power --first {seed} --workloads 1: {why}");
            }
        }
    }
    println!(
        "{count} workloads, {failed} failed: {} writes, {} cuts, {} blocks went back to an older value",
        total.commands, total.cuts, total.lost
    );
    // A run in which nothing can be lost shows nothing.
    ExitCode::from(u8::from(failed > 0 || total.lost == 0))
}
