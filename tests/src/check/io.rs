//! Shared functions of the checks: single commands, and comparisons with the pattern.

use std::thread;

use nvio_driver::spec::Status;
use nvio_driver::{Completion, Controller, DmaBuf, Namespace, QueuePair};

use super::runner::{Problem, Verdict, ensure};
use crate::media;
use nvio_testkit::random::Rng;

/// Waits for the only command in flight.
pub fn finish(queue: &mut QueuePair<u64>) -> Result<Completion<u64>, Problem> {
    let mut done = None;
    while queue.in_flight() > 0 {
        queue.wait(|completion| done = Some(completion))?;
    }
    done.ok_or_else(|| Problem::Failed("a command ended without a completion".to_owned()))
}

/// Reads `bytes` at block `lba`, with no other command in flight.
pub fn read(
    queue: &mut QueuePair<u64>,
    controller: &Controller,
    namespace: &Namespace,
    lba: u64,
    bytes: usize,
) -> Result<(Status, DmaBuf), Problem> {
    queue.read(namespace, lba, controller.alloc(bytes)?, lba)?;
    let done = finish(queue)?;
    ensure!(done.context == lba, "the completion of {} came for {lba}", done.context);
    Ok((done.status, done.buf))
}

/// Checks a read: its status and the pattern.
pub fn judge(namespace: &Namespace, lba: u64, status: Status, bytes: &[u8]) -> Verdict {
    ensure!(status.is_success(), "read at block {lba}: {status}");
    let offset = lba << namespace.block_shift();
    match media::mismatch(namespace.id(), offset, bytes) {
        None => Ok(()),
        Some(at) => Err(Problem::Failed(format!(
            "namespace {}: byte {at} of a read of {} bytes at {offset} is wrong",
            namespace.id(),
            bytes.len()
        ))),
    }
}

/// Reads blocks and checks them.
pub fn read_and_judge(
    queue: &mut QueuePair<u64>,
    controller: &Controller,
    namespace: &Namespace,
    lba: u64,
    bytes: usize,
) -> Verdict {
    let (status, buf) = read(queue, controller, namespace, lba, bytes)?;
    judge(namespace, lba, status, &buf)
}

/// Makes `count` reads of random places and sizes with a full queue, and checks each.
pub fn random_reads(
    queue: &mut QueuePair<u64>,
    controller: &Controller,
    namespace: &Namespace,
    seed: u64,
    count: usize,
) -> Verdict {
    let mut rng = Rng::new(seed);
    let most = (namespace.max_transfer() >> namespace.block_shift()) as u64;
    let (mut started, mut ended) = (0, 0);
    let mut verdict = Ok(());
    while ended < count {
        while started < count && queue.in_flight() < queue.capacity().min(32) {
            let blocks = rng.range(1, most + 1);
            let lba = rng.range(0, namespace.blocks() - blocks + 1);
            let bytes = usize::try_from(blocks << namespace.block_shift())?;
            queue.read(namespace, lba, controller.alloc(bytes)?, lba)?;
            started += 1;
        }
        ended += queue.wait(|done| {
            if verdict.is_ok() {
                verdict = judge(namespace, done.context, done.status, &done.buf);
            }
        })?;
    }
    verdict
}

/// Runs `work` on one thread for each of `items`, and returns the first error.
pub fn on_threads<I: Send>(items: Vec<I>, work: impl Fn(I) -> Verdict + Sync) -> Verdict {
    thread::scope(|scope| {
        let threads: Vec<_> = items.into_iter().map(|item| scope.spawn(|| work(item))).collect();
        let mut verdict = Ok(());
        for thread in threads {
            let panicked = || Err(Problem::Failed("a thread panicked".to_owned()));
            verdict = verdict.and(thread.join().unwrap_or_else(|_| panicked()));
        }
        verdict
    })
}
