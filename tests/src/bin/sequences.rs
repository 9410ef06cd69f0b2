//! Plays seeds of random sequences of operations on a file; see `nvio_tests::sequences`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use nvio_tests::sequences::outcome::Outcome;
use nvio_tests::sequences::play::{Failure, drawn, play};
use nvio_tests::sequences::run::run;
use nvio_tests::sequences::watch::Sabotage;

const USAGE: &str = "\
usage: sequences --seeds N [--first S] [--jobs N] [--most N] [--keep]
       sequences --seed S [--keep] [--verbose]

Plays random sequences of operations on a file, and compares what comes of them with a model. A
sequence that fails is made smaller. Exit codes: 0 all is well, 1 a seed failed, 2 wrong usage.

  --seeds N    seeds to play, from S on, 0 without --first
  --jobs N     seeds played at once; as many as there are processors
  --most N     failures after which no more seeds are played, 20 by default
  --keep       add what fails to the file of sequences that cargo test plays again
  --verbose    with --seed: what happens in the sequence, or in the smallest that fails";

struct Arguments {
    first: u64,
    seeds: u64,
    jobs: usize,
    most: u64,
    keep: bool,
    verbose: bool,
}

fn arguments() -> Option<Arguments> {
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    let (keep, verbose) = (false, false);
    let mut parsed = Arguments { first: 0, seeds: 0, jobs, most: 20, keep, verbose };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next()?.parse::<u64>().ok();
        match word.as_str() {
            "--seed" => (parsed.first, parsed.seeds) = (number()?, 1),
            "--seeds" => parsed.seeds = number()?,
            "--first" => parsed.first = number()?,
            "--jobs" => parsed.jobs = usize::try_from(number()?).ok().filter(|&jobs| jobs > 0)?,
            "--most" => parsed.most = number()?,
            "--keep" => parsed.keep = true,
            "--verbose" => parsed.verbose = true,
            _ => return None,
        }
    }
    (parsed.seeds > 0 && (parsed.seeds == 1 || !parsed.verbose)).then_some(parsed)
}

fn main() -> ExitCode {
    let Some(arguments) = arguments() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if arguments.verbose {
        let level = log::LevelFilter::Debug;
        env_logger::Builder::new().filter_level(level).format_timestamp(None).init();
    }
    // The line of a failed seed contains the message of the panic.
    std::panic::set_hook(Box::new(|_| ()));
    if arguments.verbose {
        // Print the sequence before shrinking, so that it is visible if a step hangs.
        let sequence = drawn(arguments.first).unwrap();
        println!("{sequence:#?}");
        let _ = run(&sequence, Sabotage::None, true);
    }
    let (next, failures) = (AtomicU64::new(0), AtomicU64::new(0));
    let total = Mutex::new(Outcome::default());
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..arguments.jobs.min(usize::try_from(arguments.seeds).unwrap_or(1)) {
            scope.spawn(|| {
                while failures.load(Ordering::Relaxed) < arguments.most {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= arguments.seeds {
                        break;
                    }
                    let seed = arguments.first + index;
                    match play(seed, Sabotage::None, arguments.keep) {
                        Ok(outcome) => *total.lock().unwrap() += &outcome,
                        Err(failure) => {
                            failures.fetch_add(1, Ordering::Relaxed);
                            failed(seed, &failure, arguments.verbose);
                        }
                    }
                }
            });
        }
    });
    summary(&total.into_inner().unwrap(), begun.elapsed().as_secs_f64());
    ExitCode::from(u8::from(failures.into_inner() > 0))
}

/// Prints the line that replays a seed, and the smallest sequence that fails.
fn failed(seed: u64, failure: &Failure, verbose: bool) {
    let why = failure.why.split_whitespace().collect::<Vec<_>>().join(" ");
    if verbose {
        println!("{:#?}", failure.smallest);
        let _ = run(&failure.smallest, Sabotage::None, true);
    }
    println!("FAILED: sequences --seed {seed} --verbose: {why}");
}

fn summary(total: &Outcome, seconds: f64) {
    println!("{total:#?}");
    println!("{seconds:.1} s");
}
