//! Plays seeds of the simulation of driver and controller; see `nvio_tests::simulation`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{IsTerminal, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use nvio_tests::simulation::mix::Mix;
use nvio_tests::simulation::outcome::Outcome;
use nvio_tests::simulation::run::run;

const USAGE: &str = "\
usage: simulate --seeds N [--first S] [--twice] [--jobs N] [--json]
       simulate --seed S [--verbose]

Plays the driver against the embedded controller in one thread, with a clock of its own; a seed
decides everything. Exit codes: 0 all is well, 1 a seed failed, 2 wrong usage.

  --seeds N    seeds to play, from S on, 0 without --first
  --twice      play each seed twice, and compare the runs
  --jobs N     seeds played at once; as many as there are processors
  --json       the summary as JSON
  --verbose    with --seed: what the seed means, what happens, and what the driver logs";

/// Time after which a seed is considered to hang. It usually takes milliseconds.
const HANGS: Duration = Duration::from_secs(60);

struct Arguments {
    first: u64,
    seeds: u64,
    jobs: usize,
    twice: bool,
    json: bool,
    verbose: bool,
}

fn arguments() -> Option<Arguments> {
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    let (twice, json, verbose) = (false, false, false);
    let mut parsed = Arguments { first: 0, seeds: 0, jobs, twice, json, verbose };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next()?.parse::<u64>().ok();
        match word.as_str() {
            "--seed" => (parsed.first, parsed.seeds) = (number()?, 1),
            "--seeds" => parsed.seeds = number()?,
            "--first" => parsed.first = number()?,
            "--jobs" => parsed.jobs = usize::try_from(number()?).ok().filter(|&jobs| jobs > 0)?,
            "--twice" => parsed.twice = true,
            "--json" => parsed.json = true,
            "--verbose" => parsed.verbose = true,
            _ => return None,
        }
    }
    (parsed.seeds > 0 && (parsed.seeds == 1 || !parsed.verbose)).then_some(parsed)
}

/// Plays one seed, and returns its counts or the error.
fn play(seed: u64, twice: bool, verbose: bool) -> Result<Outcome, String> {
    let mix = Mix::new(seed);
    let once = |print| {
        let (outcome, checked) = catch_unwind(AssertUnwindSafe(|| run(&mix, print)))
            .map_err(|panic| format!("panic: {}", message(&*panic)))?;
        checked.map(|()| outcome).map_err(|wrong| wrong.0)
    };
    let outcome = once(verbose)?;
    match twice.then(|| once(false)).transpose()? {
        Some(again) if again != outcome => {
            Err(format!("two runs of one seed differ: {outcome:?} and {again:?}"))
        }
        _ => Ok(outcome),
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("of no text")
}

/// A message of a worker: the start of a seed, or its result.
enum Report {
    Begun(usize, u64),
    Ended(usize, u64, Box<Result<Outcome, String>>),
}

fn work(
    worker: usize,
    next: &AtomicU64,
    stop: &AtomicBool,
    arguments: &Arguments,
    to: &Sender<Report>,
) {
    while !stop.load(Ordering::Relaxed) {
        let index = next.fetch_add(1, Ordering::Relaxed);
        if index >= arguments.seeds {
            break;
        }
        let seed = arguments.first + index;
        let _ = to.send(Report::Begun(worker, seed));
        let played = play(seed, arguments.twice, arguments.verbose);
        let _ = to.send(Report::Ended(worker, seed, Box::new(played)));
    }
}

fn main() -> ExitCode {
    let Some(arguments) = arguments() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if arguments.verbose {
        env_logger::Builder::new().filter_level(log_level()).format_timestamp(None).init();
        println!("{}", Mix::new(arguments.first));
    } else {
        // The line of a failed seed contains the message of the panic.
        std::panic::set_hook(Box::new(|_| ()));
    }
    let (to, reports) = channel();
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let begun = Instant::now();
    let total = Mutex::new(Outcome::default());
    let failures = thread::scope(|scope| {
        let jobs = arguments.jobs.min(usize::try_from(arguments.seeds).unwrap_or(usize::MAX));
        for worker in 0..jobs {
            let (to, next, stop, arguments) = (to.clone(), &next, &stop, &arguments);
            scope.spawn(move || work(worker, next, stop, arguments, &to));
        }
        drop(to);
        let mut busy = vec![None; jobs];
        let (mut done, mut failures) = (0, 0);
        loop {
            match reports.recv_timeout(Duration::from_secs(1)) {
                Ok(Report::Begun(worker, seed)) => busy[worker] = Some((seed, Instant::now())),
                Ok(Report::Ended(worker, seed, played)) => {
                    busy[worker] = None;
                    done += 1;
                    match *played {
                        Ok(outcome) => *total.lock().unwrap() += &outcome,
                        Err(why) => {
                            failures += 1;
                            failed(seed, &why);
                        }
                    }
                    progress(done, arguments.seeds, failures);
                    // Stop after a hundred failures.
                    stop.store(failures >= 100, Ordering::Relaxed);
                }
                Err(RecvTimeoutError::Disconnected) => break failures,
                Err(RecvTimeoutError::Timeout) => {}
            }
            for &(seed, since) in busy.iter().flatten() {
                if since.elapsed() > HANGS {
                    failed(seed, "the run hangs");
                    std::process::exit(1);
                }
            }
        }
    });
    summary(&arguments, &total.into_inner().unwrap(), failures, begun.elapsed());
    ExitCode::from(u8::from(failures > 0))
}

fn log_level() -> log::LevelFilter {
    log::LevelFilter::Debug
}

/// Prints the line that replays a seed.
fn failed(seed: u64, why: &str) {
    let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
    println!("FAILED: simulate --seed {seed} --verbose: {why}");
}

fn progress(done: u64, seeds: u64, failures: u64) {
    if std::io::stderr().is_terminal() && (done.is_multiple_of(20) || done == seeds) {
        eprint!("\r{done} of {seeds} seeds, {failures} failed ");
        if done == seeds {
            eprintln!();
        }
        let _ = std::io::stderr().flush();
    }
}

fn summary(arguments: &Arguments, total: &Outcome, failures: u64, took: Duration) {
    let mut fields = total.fields();
    fields.insert(0, ("failed_seeds", failures));
    fields.insert(0, ("first", arguments.first));
    fields.push(("milliseconds", u64::try_from(took.as_millis()).unwrap_or(u64::MAX)));
    if arguments.json {
        let mut object: serde_json::Map<_, _> =
            fields.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        object.insert("hash".to_owned(), format!("{:016x}", total.hash).into());
        return println!("{}", serde_json::Value::Object(object));
    }
    for (name, value) in fields {
        println!("{name:<18} {value}");
    }
    println!("{:<18} {:016x}", "hash", total.hash);
}
