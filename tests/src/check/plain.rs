//! Role `plain`: namespace 1 with 512-byte blocks, namespace 2 with 4096-byte blocks, at most 32
//! KiB per command, three I/O queue pairs.

use nvio_driver::{Address, Controller, Error, Namespace, Options, QueuePair};

use super::io::{self, finish, on_threads, random_reads, read_and_judge};
use super::runner::{Runner, Verdict, ensure, ensure_eq};
use super::writes;
use crate::media;

/// Number of random reads per queue. A guest without hardware support makes some thousands per
/// second.
const RANDOM_READS: usize = 1_000;

/// Both namespaces and a queue.
struct Rig {
    controller: Controller,
    namespaces: Vec<Namespace>,
    queue: QueuePair<u64>,
}

fn open(address: &Address) -> Result<Controller, Error> {
    let options = Options { arena_bytes: 16 << 20, ..Options::default() };
    super::runner::open(address, options)
}

fn rig(address: &Address) -> Result<Rig, Error> {
    let controller = open(address)?;
    let namespaces = [1, 2].into_iter().map(|nsid| controller.namespace(nsid));
    let namespaces = namespaces.collect::<Result<_, _>>()?;
    let queue = controller.queue_pair(64)?;
    Ok(Rig { controller, namespaces, queue })
}

/// Runs the checks of this role.
pub fn run(runner: &mut Runner, address: &Address) {
    runner.check("identify", || identify(address));
    runner.check("opened-again", || identify(address));
    runner.check("log-pages", || log_pages(address));
    runner.check("every-block", || every_block(address));
    runner.check("every-size", || every_size(address));
    runner.check("odd-buffers", || odd_buffers(address));
    runner.check("out-of-range", || out_of_range(address));
    runner.check("flush", || flush(address));
    runner.check("fewer-queues", || fewer_queues(address));
    runner.check("random-reads", || reads_on_all_queues(address));
    writes::run(runner, address);
}

fn identify(address: &Address) -> Verdict {
    let Rig { controller, namespaces, .. } = rig(address)?;
    ensure_eq!(controller.namespace_ids()?, [1, 2], "active namespaces");
    for (namespace, layout) in namespaces.iter().zip([media::PLAIN_512, media::PLAIN_4096]) {
        ensure_eq!(namespace.block_size(), layout.block_size, "block size");
        ensure_eq!(namespace.bytes(), layout.bytes, "size");
        ensure_eq!(namespace.max_transfer(), 32 << 10, "largest transfer");
    }
    ensure!(matches!(controller.namespace(3), Err(Error::NoNamespace { nsid: 3 })), "namespace 3");
    Ok(())
}

fn log_pages(address: &Address) -> Verdict {
    let controller = open(address)?;
    let health = controller.health(None)?;
    ensure_eq!(health.critical_warning, 0, "critical warning");
    // Between the freezing and the boiling point of water.
    ensure!((273..373).contains(&health.temperature()), "{} K", health.temperature());
    let slots = controller.firmware_slots()?;
    // QEMU reports "1.0" here and its own version in Identify Controller.
    let active = slots.active_slot();
    ensure!(slots.slots().any(|(slot, _)| slot == active), "no slot {active}");
    controller.error_log()?;
    let commands = controller.command_effects()?;
    ensure!(commands.io[2].get() & 1 != 0, "Read is not among the supported commands");
    Ok(())
}

fn every_block(address: &Address) -> Verdict {
    let Rig { controller, namespaces, mut queue } = rig(address)?;
    for namespace in &namespaces {
        let bytes = namespace.max_transfer();
        let step = bytes >> namespace.block_shift();
        for lba in (0..namespace.blocks()).step_by(step) {
            read_and_judge(&mut queue, &controller, namespace, lba, bytes)?;
        }
    }
    Ok(())
}

/// One page, two pages, and lists of pages, across every boundary.
fn every_size(address: &Address) -> Verdict {
    let Rig { controller, namespaces, mut queue } = rig(address)?;
    for namespace in &namespaces {
        let block = namespace.block_size() as usize;
        for bytes in (block..=namespace.max_transfer()).step_by(block) {
            let last = namespace.blocks() - (bytes / block) as u64;
            for lba in [0, 1, 7, 8, last] {
                read_and_judge(&mut queue, &controller, namespace, lba, bytes)?;
            }
        }
    }
    Ok(())
}

/// Buffers that begin inside a page or a block: the offset in the first PRP entry.
fn odd_buffers(address: &Address) -> Verdict {
    let Rig { controller, namespaces, mut queue } = rig(address)?;
    for namespace in &namespaces {
        for offset in [4, 512, 2048, 4092] {
            let bytes = namespace.max_transfer() - namespace.block_size() as usize;
            let mut buf = controller.alloc(bytes + 4096)?;
            let _front = buf.split_to(offset);
            let Some(part) = buf.split_to(bytes) else { continue };
            queue.read(namespace, 16, part, 0)?;
            let done = finish(&mut queue)?;
            io::judge(namespace, 16, done.status, &done.buf)?;
        }
    }
    Ok(())
}

/// The driver rejects each command before submission, and returns its buffer.
fn out_of_range(address: &Address) -> Verdict {
    let Rig { controller, namespaces, mut queue } = rig(address)?;
    let namespace = &namespaces[0];
    let most = namespace.max_transfer();
    for (lba, bytes, wanted) in [
        (namespace.blocks(), 512, "outside"),
        (u64::MAX, 512, "outside"),
        (namespace.blocks() - 1, 1024, "outside"),
        (0, most + 512, "does not fit one command"),
        (0, 100, "multiple of 512"),
    ] {
        let Err(rejected) = queue.read(namespace, lba, controller.alloc(bytes)?, 7) else {
            return Err(super::runner::Problem::Failed(format!(
                "{bytes} bytes at {lba} were taken"
            )));
        };
        let error = rejected.error.to_string();
        ensure!(error.contains(wanted), "{bytes} bytes at {lba}: {error}");
        ensure_eq!((rejected.payload.0.len(), rejected.payload.1), (bytes, 7), "what came back");
    }
    ensure_eq!(queue.in_flight(), 0, "commands in flight");
    read_and_judge(&mut queue, &controller, namespace, 0, most)
}

fn flush(address: &Address) -> Verdict {
    let Rig { namespaces, mut queue, .. } = rig(address)?;
    for namespace in &namespaces {
        queue.flush(namespace, 1)?;
        let done = finish(&mut queue)?;
        ensure!(done.status.is_success(), "{}", done.status);
    }
    Ok(())
}

fn fewer_queues(address: &Address) -> Verdict {
    let controller = open(address)?;
    let granted = controller.granted_queues();
    ensure_eq!(granted, 3, "I/O queue pairs granted");
    let mut pairs = Vec::new();
    for _ in 0..granted {
        pairs.push(controller.queue_pair::<u64>(8)?);
    }
    let refused = controller.queue_pair::<u64>(8);
    ensure!(matches!(refused, Err(Error::NoQueue { granted: 3 })), "a pair too many was made");
    // The identifier of a dropped pair can be used again.
    pairs.pop();
    let mut queue = controller.queue_pair(8)?;
    read_and_judge(&mut queue, &controller, &controller.namespace(1)?, 9, 4096)
}

fn reads_on_all_queues(address: &Address) -> Verdict {
    let controller = open(address)?;
    let mut work = Vec::new();
    for (index, nsid) in (0..controller.granted_queues()).zip([1, 2].into_iter().cycle()) {
        work.push((u64::from(index), controller.namespace(nsid)?, controller.queue_pair(31)?));
    }
    on_threads(work, |(seed, namespace, mut queue)| {
        random_reads(&mut queue, &controller, &namespace, seed, RANDOM_READS)
    })
}
