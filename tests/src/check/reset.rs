//! Role `cmb`: a controller with memory for submission queues (Base 8.5). Reads, and resets while
//! reads are in flight, with each feature that a reset disables.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nvio_driver::spec::status;
use nvio_driver::{Address, Options, QueuePair};

use super::io::{judge, random_reads};
use super::runner::{Problem, Runner, Verdict, ensure, ensure_eq};

/// Number of resets per check.
const RESETS: u64 = 5;
const RANDOM_READS: usize = 1_000;
/// Depth of a queue in the controller's memory, with 512 entries. No other queue has it.
const INSIDE_DEPTH: u16 = 511;

/// Runs the checks of this role.
pub fn run(runner: &mut Runner, address: &Address) {
    let plain = || Options { shadow_doorbells: false, ..Options::default() };
    let inside = || Options { controller_memory_queues: true, ..plain() };
    runner.check("reads", || reads(address, plain(), 63));
    runner.check("reads-with-shadow-doorbells", || reads(address, Options::default(), 63));
    runner.check("reads-with-queues-inside", || reads(address, inside(), INSIDE_DEPTH));
    runner.check("reset", || resets(address, plain()));
    runner.check("reset-with-shadow-doorbells", || resets(address, Options::default()));
    runner.check("reset-with-queues-inside", || resets(address, inside()));
}

fn reads(address: &Address, options: Options, depth: u16) -> Verdict {
    let controller = super::runner::open(address, options)?;
    let namespace = controller.namespace(1)?;
    if depth == INSIDE_DEPTH {
        // With this line, the controller's trace shows whether the queue is in host memory.
        let arena = controller.arena();
        println!("# arena {:#x} {:#x}", arena.iova(), arena.iova() + arena.size() as u64);
    }
    let mut queue = controller.queue_pair(depth)?;
    random_reads(&mut queue, &controller, &namespace, 11, RANDOM_READS)?;
    let counters = queue.counters();
    ensure_eq!(counters.submitted, RANDOM_READS as u64, "commands submitted");
    ensure_eq!(counters.completed, counters.submitted, "commands completed");
    ensure_eq!((counters.errors, counters.stale, counters.resets), (0, 0, 0), "what went wrong");
    Ok(())
}

/// A thread resets the controller several times. Reads that a reset aborts end with the status for
/// that, the others with their data.
fn resets(address: &Address, options: Options) -> Verdict {
    let controller = super::runner::open(address, options)?;
    let namespace = controller.namespace(1)?;
    let mut queue: QueuePair<u64> = controller.queue_pair(32)?;
    let done = AtomicBool::new(false);
    let (mut started, mut read, mut aborted) = (0u64, 0u64, 0u64);
    let verdict = thread::scope(|scope| {
        let resetting = scope.spawn(|| {
            for _ in 0..RESETS {
                thread::sleep(Duration::from_millis(100));
                controller.reset()?;
            }
            done.store(true, Ordering::Release);
            Ok::<(), nvio_driver::Error>(())
        });
        let mut verdict: Verdict = Ok(());
        let mut last = 64;
        while verdict.is_ok() && (last > 0 || queue.in_flight() > 0) {
            while last > 0 && queue.in_flight() < queue.capacity() {
                // Continue for a while after the last reset.
                last -= u64::from(done.load(Ordering::Acquire) || resetting.is_finished());
                let lba = started * 8 % namespace.blocks();
                queue.read(&namespace, lba, controller.alloc(4096)?, lba)?;
                started += 1;
            }
            queue.wait(|done| match done.status.bare() {
                status::ABORTED_BY_HOST => aborted += 1,
                _ => {
                    read += 1;
                    if verdict.is_ok() {
                        verdict = judge(&namespace, done.context, done.status, &done.buf);
                    }
                }
            })?;
        }
        let reset = resetting.join().unwrap_or(Ok(()));
        verdict.and(reset.map_err(Problem::from))
    });
    verdict?;
    ensure_eq!(read + aborted, started, "reads that ended");
    ensure!(aborted > 0, "no read was in flight during {RESETS} resets");
    ensure_eq!(queue.counters().resets, RESETS, "resets that the queue noticed");
    ensure_eq!(queue.counters().stale, 0, "stale completions");
    Ok(())
}
