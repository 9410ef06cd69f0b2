//! Role `faulty`: blocks that cannot be read or written.

use nvio_driver::spec::{Status, status};
use nvio_driver::{Address, Controller, Error, Namespace, Options, QueuePair};

use super::io::{finish, read, read_and_judge};
use super::runner::{Runner, Verdict, ensure, ensure_eq};
use crate::media;

struct Rig {
    controller: Controller,
    namespace: Namespace,
    queue: QueuePair<u64>,
}

fn rig(address: &Address) -> Result<Rig, Error> {
    let controller = super::runner::open(address, Options::default())?;
    let namespace = controller.namespace(1)?;
    let queue = controller.queue_pair(64)?;
    Ok(Rig { controller, namespace, queue })
}

/// Runs the checks of this role.
pub fn run(runner: &mut Runner, address: &Address) {
    // This check is the first, because the error occurs only once.
    runner.check("readable-again", || readable_again(address));
    runner.check("unreadable", || unreadable(address));
    runner.check("unreadable-among-others", || among_others(address));
    runner.check("unwritable", || unwritable(address));
}

/// Returns true for Unrecovered Read Error, whatever the bits Do Not Retry and More.
fn is_read_error(found: Status) -> bool {
    found.bare() == status::UNRECOVERED_READ_ERROR
}

fn readable_again(address: &Address) -> Verdict {
    let Rig { controller, namespace, mut queue } = rig(address)?;
    let lba = media::READABLE_AGAIN;
    let (status, _) = read(&mut queue, &controller, &namespace, lba, 512)?;
    ensure!(is_read_error(status), "the first read: {status}");
    read_and_judge(&mut queue, &controller, &namespace, lba, 512)
}

fn unreadable(address: &Address) -> Verdict {
    let Rig { controller, namespace, mut queue } = rig(address)?;
    let bad = media::UNREADABLE;
    for (lba, bytes) in [(bad, 512), (bad - 1, 1024), (bad, 4096), (bad - 100, 65_536)] {
        let (status, _) = read(&mut queue, &controller, &namespace, lba, bytes)?;
        ensure!(is_read_error(status), "{bytes} bytes at block {lba}: {status}");
        // The queue still works.
        read_and_judge(&mut queue, &controller, &namespace, bad - 1, 512)?;
        read_and_judge(&mut queue, &controller, &namespace, bad + 1, 512)?;
    }
    Ok(())
}

/// Exactly one write fails.
fn unwritable(address: &Address) -> Verdict {
    let options = Options { writable: true, ..Options::default() };
    let controller = super::runner::open(address, options)?.writable()?;
    let namespace = controller.writable_namespace(1)?;
    let mut queue = controller.queue_pair(64)?;
    let bad = media::UNWRITABLE;
    for (lba, bytes, fails) in [(bad, 512, true), (bad + 1, 512, false), (bad - 7, 4096, true)] {
        let mut buf = controller.alloc(bytes)?;
        media::fill(1, lba * 512, &mut buf);
        queue.write(&namespace, lba, buf, lba)?;
        let found = finish(&mut queue)?.status;
        let expected = if fails { status::WRITE_FAULT } else { Status::SUCCESS };
        ensure_eq!(found.bare(), expected, format!("write of {bytes} bytes at {lba}"));
        // The unwritable block is unchanged. The adjacent blocks were written with their old
        // contents.
        read_and_judge(&mut queue, &controller, &namespace, lba, bytes)?;
    }
    Ok(())
}

/// A queue full of reads, exactly one of which fails.
fn among_others(address: &Address) -> Verdict {
    let Rig { controller, namespace, mut queue } = rig(address)?;
    for round in 0..50 {
        for lba in media::UNREADABLE - 20..media::UNREADABLE + 20 {
            queue.read(&namespace, lba, controller.alloc(512)?, lba)?;
        }
        let mut failed = Vec::new();
        let mut verdict = Ok(());
        while queue.in_flight() > 0 {
            queue.wait(|done| {
                if done.status.is_success() {
                    let judged = super::io::judge(&namespace, done.context, done.status, &done.buf);
                    verdict = std::mem::replace(&mut verdict, Ok(())).and(judged);
                } else {
                    failed.push((done.context, done.status));
                }
            })?;
        }
        verdict?;
        ensure_eq!(failed.len(), 1, format!("failed reads of round {round}"));
        let (lba, status) = failed[0];
        ensure_eq!(lba, media::UNREADABLE, "the block that failed");
        ensure!(is_read_error(status), "{status}");
    }
    Ok(())
}
