//! Random sequences of calls from several threads, with faults. A seed decides everything.
//!
//! `NVIO_CACHE_SEQUENCES` is the number of sequences to play, `NVIO_CACHE_FIRST` the first seed.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::plan::{Call, Plan};
use super::world::{Counts, play};

/// Sequences that each run of the unit tests plays.
const SEQUENCES: u64 = 200;
/// Seeds that have failed. They mean other sequences when `plan.rs` changes.
const FAILED: [u64; 3] = [3985, 5780, 30296];
/// Schedules of a smaller sequence that are tried before it is taken to pass.
const SCHEDULES: u64 = 30;
/// Most sequences that are played to find a smaller one.
const TRIES: usize = 400;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap())
}

/// Returns the smallest sequence found that fails, with its schedule and the reason.
fn shrink(mut plan: Plan, mut why: String) -> (Plan, u64, String) {
    let (mut schedule, mut tries, mut size) = (0, 0, 8);
    while size > 0 {
        let mut at = 0;
        while at < plan.threads.iter().map(Vec::len).sum() {
            let smaller = without(&plan, at..at + size);
            let failed = (schedule..schedule + SCHEDULES).find_map(|schedule| {
                tries += 1;
                Some((schedule, play(&smaller, schedule).err()?))
            });
            match failed {
                Some((found, reason)) => (plan, schedule, why) = (smaller, found, reason),
                None => at += size,
            }
            if tries > TRIES * SCHEDULES as usize / 10 {
                return (plan, schedule, why);
            }
        }
        size /= 2;
    }
    (plan, schedule, why)
}

/// Returns the sequence without some calls, which are counted through all threads.
fn without(plan: &Plan, calls: std::ops::Range<usize>) -> Plan {
    let mut at = 0;
    let mut stays = |_: &Call| {
        at += 1;
        !calls.contains(&(at - 1))
    };
    let mut plan = plan.clone();
    plan.threads.iter_mut().for_each(|thread| thread.retain(&mut stays));
    plan
}

/// Plays a seed, and returns the report of its failure.
fn run(seed: u64) -> Result<Counts, String> {
    let plan = Plan::new(seed);
    play(&plan, 0).map_err(|why| {
        let (plan, schedule, smallest) = shrink(plan, why.clone());
        format!(
            "FAILED: seed {seed}: {why}\nsmallest: {smallest}\n{plan:?}, schedule {schedule}\nto \
             play it again: NVIO_CACHE_FIRST={seed} NVIO_CACHE_SEQUENCES=1 cargo test --profile \
             suite -p nvio-iomap --lib random_sequences"
        )
    })
}

#[test]
fn sequences_that_have_failed() {
    for seed in FAILED {
        if let Err(report) = run(seed) {
            panic!("{report}");
        }
    }
}

#[test]
fn random_sequences() {
    // The message of a panic is part of the report.
    let (first, count) = (number("NVIO_CACHE_FIRST", 0), number("NVIO_CACHE_SEQUENCES", SEQUENCES));
    let next = AtomicU64::new(first);
    let (total, failures) = (Mutex::new(Counts::default()), Mutex::new(Vec::new()));
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while failures.lock().unwrap().is_empty() {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= first + count {
                        break;
                    }
                    match run(seed) {
                        Ok(counts) => *total.lock().unwrap() += counts,
                        Err(report) => failures.lock().unwrap().push(report),
                    }
                }
            });
        }
    });
    println!("{count} sequences: {:?}", total.lock().unwrap());
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
