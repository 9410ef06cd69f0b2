//! Role `idle`: waiting for interrupts with little processor time (PCIe 3.5). Namespace 2 is slow,
//! so most of the time of a read is spent waiting.

use std::thread;
use std::time::{Duration, Instant};

use nvio_driver::{Address, Controller, Options, QueuePair, Wait};

use super::io::{random_reads, read_and_judge};
use super::{Problem, Runner, Verdict, ensure, ensure_eq};

/// Pause between two reads.
const GAP: Duration = Duration::from_millis(10);
/// Number of rounds, and number of reads per round.
const ROUNDS: u64 = 10;
const READS: u64 = 20;
/// Number of reads without a pause.
const BUSY_READS: usize = 5_000;
/// Maximum share of a processor, percent. An emulated guest needs some tens of times as long for
/// each instruction; on the embedded controller the share is 5 %.
const MOST_CPU: f64 = 10.0;

/// Runs the checks of this role.
pub fn run(runner: &mut Runner, address: &Address) {
    runner.check("gaps", || gaps(address));
    runner.check("none-is-lost", || none_is_lost(address));
}

fn open(address: &Address) -> Result<(Controller, QueuePair<u64>), Problem> {
    let wait = Wait::Interrupt { spin: Duration::from_micros(10) };
    let options = Options { wait, ..Options::default() };
    let controller = super::open(address, options)?;
    let queue = controller.queue_pair(32)?;
    Ok((controller, queue))
}

/// Returns the processor time of this thread (`/proc/thread-self/schedstat`, nanoseconds).
fn on_cpu() -> Result<Duration, Problem> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = text.split(' ').next().unwrap_or_default().parse()?;
    Ok(Duration::from_nanos(nanoseconds))
}

/// Reads with a pause after each. The round with the smallest share counts, because a guest also
/// counts time that its host gave to other processes.
fn gaps(address: &Address) -> Verdict {
    let (controller, mut queue) = open(address)?;
    let namespace = controller.namespace(2)?;
    let mut shares = Vec::new();
    for round in 0..ROUNDS {
        let (begin, cpu) = (Instant::now(), on_cpu()?);
        for count in 0..READS {
            let lba = (round * READS + count) * 8 % namespace.blocks();
            queue.read(&namespace, lba, controller.alloc(4096)?, lba)?;
            let mut success = false;
            queue.wait(|done| success = done.status.is_success())?;
            ensure!(success, "read {count} failed");
            thread::sleep(GAP);
        }
        let used = on_cpu()?.saturating_sub(cpu);
        shares.push(100.0 * used.as_secs_f64() / begin.elapsed().as_secs_f64());
    }
    shares.sort_by(f64::total_cmp);
    println!("# on a processor, percent of the time: {shares:.1?}");
    let least = shares.first().copied().unwrap_or(100.0);
    let few = least < MOST_CPU;
    ensure!(few, "{least:.1} % of a processor");
    let counters = queue.counters();
    ensure_eq!(counters.completed, ROUNDS * READS, "reads that ended");
    ensure_eq!(counters.missed_interrupts, 0, "interrupts that did not come");
    ensure!(counters.sleeps > ROUNDS * READS / 2, "{} sleeps only", counters.sleeps);
    read_and_judge(&mut queue, &controller, &namespace, 0, 4096)
}

fn none_is_lost(address: &Address) -> Verdict {
    let (controller, mut queue) = open(address)?;
    let namespace = controller.namespace(1)?;
    random_reads(&mut queue, &controller, &namespace, 21, BUSY_READS)?;
    let counters = queue.counters();
    ensure_eq!(counters.completed, BUSY_READS as u64, "reads that ended");
    ensure_eq!(counters.missed_interrupts, 0, "interrupts that did not come");
    ensure_eq!((counters.errors, counters.stale), (0, 0), "errors, stale completions");
    Ok(())
}
