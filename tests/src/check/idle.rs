//! Role `idle`: waiting for interrupts, with hardly any polls (PCIe 3.5). Namespace 2 is slow: a
//! read spends most of its time waiting for it.

use std::thread;
use std::time::Duration;

use nvio_driver::{Address, Controller, Options, QueuePair, Wait};

use super::io::{random_reads, read_and_judge};
use super::runner::{Problem, Runner, Verdict, ensure, ensure_eq};

/// Pause between two reads.
const GAP: Duration = Duration::from_millis(10);
/// Reads with a pause.
const READS: u64 = 80;
/// Reads without a gap.
const BUSY_READS: usize = 2_000;
/// Polls of a wait before a sleep, and after the last one, at most.
const POLLS_PER_SLEEP: u64 = 65;

/// Runs the checks of this role.
pub fn run(runner: &mut Runner, address: &Address) {
    runner.check("gaps", || gaps(address));
    runner.check("none-is-lost", || none_is_lost(address));
}

fn open(address: &Address) -> Result<(Controller, QueuePair<u64>), Problem> {
    let wait = Wait::Interrupt { spin: Duration::ZERO };
    let options = Options { wait, ..Options::default() };
    let controller = super::runner::open(address, options)?;
    let queue = controller.queue_pair(32)?;
    Ok((controller, queue))
}

/// One read at a time, and a pause after each. The driver has no thread of its own, so that bounded
/// polls are bounded use of the processor.
fn gaps(address: &Address) -> Verdict {
    let (controller, mut queue) = open(address)?;
    let namespace = controller.namespace(2)?;
    for count in 0..READS {
        let lba = count * 8 % namespace.blocks();
        queue.read(&namespace, lba, controller.alloc(4096)?, lba)?;
        let mut success = false;
        queue.wait(|done| success = done.status.is_success())?;
        ensure!(success, "read {count} failed");
        thread::sleep(GAP);
    }
    let counters = queue.counters();
    let (polls, sleeps) = (counters.polls, counters.sleeps);
    println!("# {READS} reads: {polls} polls, {sleeps} sleeps");
    ensure_eq!(counters.completed, READS, "reads that ended");
    ensure_eq!(counters.missed_interrupts, 0, "interrupts that did not come");
    ensure!(sleeps > READS / 2, "{sleeps} sleeps only");
    ensure!(sleeps <= 10 * READS, "{sleeps} sleeps: woken without a completion");
    let most = POLLS_PER_SLEEP * (sleeps + READS);
    ensure!(polls <= most, "{polls} polls, more than {most}");
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
