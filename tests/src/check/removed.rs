//! Roles `asked-back` and `pulled`: a controller that is removed during use.
//!
//! Observations in the guest. Asked back (QEMU's `device_del`, the button of the slot): after five
//! seconds the kernel's slot driver removes the function; vfio-pci then signals the request
//! eventfd, holds the device's lock, and waits until its files are closed. The controller works
//! during that time. Pulled (the slot loses power): the registers read as zeroes, configuration
//! space as all ones, and no command completes any more.

use std::process::Command;
use std::time::{Duration, Instant};

use nvio_driver::spec::status;
use nvio_driver::{Address, Controller, Error, Namespace, QueuePair};

use super::io::judge;
use super::runner::{Problem, Runner, Verdict, ensure, ensure_eq};

/// Environment variable with a shell command that removes the controller.
const REMOVE: &str = "NVME_CHECK_REMOVE";
/// Maximum time from the removal to the end of I/O.
const BOUND: Duration = Duration::from_secs(30);
const DEPTH: u16 = 32;

/// Runs the checks of role `asked-back`.
pub fn asked_back(runner: &mut Runner, address: &Address) {
    runner.check("ends-with-an-error", || ends(address).map(drop));
}

/// Runs the checks of role `pulled`.
pub fn pulled(runner: &mut Runner, address: &Address) {
    runner.check("ends-with-an-error", || {
        let lost = ends(address)?;
        ensure!(lost > 0, "no read was in flight when the controller was lost");
        Ok(())
    });
}

/// The reads in flight and their results.
#[derive(Default)]
struct Tally {
    started: u64,
    read: u64,
    /// Reads that failed.
    lost: u64,
    problem: Option<Problem>,
}

impl Tally {
    /// Fills the queue. Returns the error of the submission that fails.
    fn fill(
        &mut self,
        queue: &mut QueuePair<u64>,
        controller: &Controller,
        namespace: &Namespace,
    ) -> Result<Option<Error>, Problem> {
        while queue.in_flight() < queue.capacity() {
            let lba = self.started * 8 % namespace.blocks();
            match queue.read(namespace, lba, controller.alloc(4096)?, lba) {
                Ok(()) => self.started += 1,
                Err(rejected) => return Ok(Some(rejected.error)),
            }
        }
        Ok(None)
    }

    /// Waits for completions.
    fn drain(&mut self, queue: &mut QueuePair<u64>, namespace: &Namespace) -> Verdict {
        queue.wait(|done| {
            if done.status.bare() == status::HOST_PATHING_ERROR {
                self.lost += 1;
                return;
            }
            self.read += 1;
            let judged = judge(namespace, done.context, done.status, &done.buf);
            self.problem = self.problem.take().or(judged.err());
        })?;
        match self.problem.take() {
            Some(problem) => Err(problem),
            None => Ok(()),
        }
    }
}

/// Reads until the controller is gone. Returns the number of failed reads.
fn ends(address: &Address) -> Result<u64, Problem> {
    let Ok(remove) = std::env::var(REMOVE) else {
        return Err(Problem::Skipped(format!("{REMOVE} does not say how to remove it")));
    };
    let controller = Controller::open(address)?;
    let namespace = controller.namespace(1)?;
    let mut queue = controller.queue_pair(DEPTH)?;
    let mut tally = Tally::default();
    let begin = Instant::now();
    let mut removed = None;
    let error = loop {
        let refused = tally.fill(&mut queue, &controller, &namespace)?;
        tally.drain(&mut queue, &namespace)?;
        if let Some(error) = refused {
            break error;
        }
        if removed.is_none() && begin.elapsed() > Duration::from_millis(500) {
            let status = Command::new("sh").args(["-c", &remove]).status()?;
            ensure!(status.success(), "{remove}: {status}");
            removed = Some(Instant::now());
        }
        ensure!(removed.is_none_or(|at| at.elapsed() < BOUND), "I/O goes on after the removal");
    };
    while queue.in_flight() > 0 {
        tally.drain(&mut queue, &namespace)?;
    }
    ensure!(matches!(error, Error::Gone), "the queue takes no more reads: {error}");
    ensure_eq!(tally.started, tally.read + tally.lost, "reads that ended");
    ensure!(tally.read > 100, "{} reads before the removal", tally.read);
    // Other calls fail at once with the same error.
    for _ in 0..2 {
        let refused = controller.health(None).err();
        ensure!(matches!(refused, Some(Error::Gone)), "a log page: {refused:?}");
    }
    let refused = controller.queue_pair::<u64>(8).err();
    ensure!(matches!(refused, Some(Error::Gone)), "another queue pair: {refused:?}");
    Ok(tally.lost)
}
