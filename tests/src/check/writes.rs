//! Commands that change stored data, and commands that check it without transferring it. They use
//! the second half of each namespace; the first half keeps its pattern.

use nvio_driver::spec::{CopyRange, DsmRange, Status, status};
use nvio_driver::{
    Address, CommandOptions, Controller, DmaBuf, Error, Options, Protection, QueuePair,
    ScatterList, WritableController, WritableNamespace,
};

use super::io::{self, finish, on_threads, read};
use super::runner::{Problem, Runner, Verdict, ensure, ensure_eq};
use nvio_testkit::random::Rng;

/// No protection: no generation and no checks.
pub const NONE: Protection = Protection {
    action: false,
    check_guard: false,
    check_application: false,
    check_reference: false,
    reference: 0,
    application: 0,
    application_mask: 0,
};

/// Number of random writes per queue.
const RANDOM_WRITES: usize = 300;
const FUA: CommandOptions = CommandOptions { fua: true, limited_retry: false, protection: NONE };

pub(super) struct Rig {
    pub(super) controller: WritableController,
    pub(super) namespaces: Vec<WritableNamespace>,
    pub(super) queue: QueuePair<u64>,
}

pub(super) fn open(address: &Address) -> Result<WritableController, Error> {
    let options = Options { arena_bytes: 16 << 20, writable: true, ..Options::default() };
    super::runner::open(address, options)?.writable()
}

pub(super) fn rig(address: &Address) -> Result<Rig, Error> {
    let controller = open(address)?;
    let ids = controller.namespace_ids()?.into_iter();
    let namespaces =
        ids.map(|nsid| controller.writable_namespace(nsid)).collect::<Result<_, _>>()?;
    let queue = controller.queue_pair(64)?;
    Ok(Rig { controller, namespaces, queue })
}

/// Runs the checks of writes.
pub fn run(runner: &mut Runner, address: &Address) {
    runner.check("not-writable", || not_writable(address));
    runner.check("write-and-read", || write_and_read(address, CommandOptions::default()));
    runner.check("write-through", || write_and_read(address, FUA));
    runner.check("write-zeroes", || write_zeroes(address));
    runner.check("deallocate", || deallocate(address));
    runner.check("compare", || compare(address));
    runner.check("copy", || copy(address));
    runner.check("verify", || verify(address));
    runner.check("random-writes", || writes_on_all_queues(address));
    runner.check("first-half-as-it-was", || first_half(address));
}

/// Skips the check if the controller does not support this optional command.
pub(super) fn known(name: &str, found: Status) -> Result<Status, Problem> {
    match found.bare() {
        status::INVALID_OPCODE => Err(Problem::Skipped(format!("no {name}"))),
        _ => Ok(found),
    }
}

/// Returns the first block of the half that may be written.
fn second_half(namespace: &WritableNamespace) -> u64 {
    namespace.blocks() / 2
}

fn filled(controller: &Controller, bytes: usize, seed: u64) -> Result<DmaBuf, Problem> {
    let mut buf = controller.alloc(bytes)?;
    buf.copy_from_slice(&Rng::new(seed).bytes(bytes as u64));
    Ok(buf)
}

fn blocks(namespace: &WritableNamespace, bytes: usize) -> Result<u32, Problem> {
    Ok(u32::try_from(bytes >> namespace.block_shift())?)
}

impl Rig {
    fn write(&mut self, index: usize, lba: u64, bytes: usize, seed: u64) -> Verdict {
        let namespace = &self.namespaces[index];
        self.queue.write(namespace, lba, filled(&self.controller, bytes, seed)?, lba)?;
        let done = finish(&mut self.queue)?;
        ensure!(done.status.is_success(), "write of {bytes} bytes at {lba}: {}", done.status);
        Ok(())
    }

    /// Checks that the stored data is the random bytes of `seed`, or zeroes.
    fn expect(&mut self, index: usize, lba: u64, bytes: usize, seed: Option<u64>) -> Verdict {
        let namespace = &self.namespaces[index];
        let (status, buf) = read(&mut self.queue, &self.controller, namespace, lba, bytes)?;
        ensure!(status.is_success(), "read of {bytes} bytes at {lba}: {status}");
        let wanted = match seed {
            Some(seed) => Rng::new(seed).bytes(bytes as u64),
            None => vec![0; bytes],
        };
        ensure!(buf[..] == wanted[..], "{bytes} bytes at {lba} are not what was written");
        Ok(())
    }
}

/// A handle for reading cannot be used to write.
fn not_writable(address: &Address) -> Verdict {
    let controller = super::runner::open(address, Options::default())?;
    ensure!(matches!(controller.writable(), Err(Error::ReadOnly)), "a writable handle was given");
    Ok(())
}

fn write_and_read(address: &Address, how: CommandOptions) -> Verdict {
    let mut rig = rig(address)?;
    for index in 0..rig.namespaces.len() {
        let namespace = rig.namespaces[index].clone();
        let (block, most) = (namespace.block_size() as usize, namespace.max_transfer());
        let start = second_half(&namespace);
        for (seed, bytes) in (1..).zip([block, 2 * block, most - block, most]) {
            // Write the blocks around the range, which must not change.
            rig.write(index, start, most, 100 + seed)?;
            rig.write(index, start + (most / block) as u64, most, 200 + seed)?;
            let lba = start + 1;
            if how == CommandOptions::default() {
                rig.write(index, lba, bytes, seed)?;
            } else {
                let parts = ScatterList::from(filled(&rig.controller, bytes, seed)?);
                let range = (lba, blocks(&namespace, bytes)?);
                rig.queue.write_with(&namespace, range, parts, how, 0)?;
                let done = finish(&mut rig.queue)?;
                ensure!(done.status.is_success(), "write_with of {bytes}: {}", done.status);
            }
            rig.expect(index, lba, bytes, Some(seed))?;
            let (status, first) = read(&mut rig.queue, &rig.controller, &namespace, start, block)?;
            ensure!(status.is_success(), "{status}");
            let before = Rng::new(100 + seed).bytes(most as u64);
            ensure!(first[..] == before[..block], "the block before the write changed");
            let end = lba + (bytes / block) as u64;
            let (status, after) = read(&mut rig.queue, &rig.controller, &namespace, end, block)?;
            ensure!(status.is_success(), "{status}");
            let at = (end - start) as usize * block;
            let behind = Rng::new(200 + seed).bytes(most as u64);
            let wanted = if at < most { &before[at..] } else { &behind[at - most..] };
            ensure!(after[..] == wanted[..block], "the block after the write changed");
        }
    }
    Ok(())
}

fn write_zeroes(address: &Address) -> Verdict {
    let mut rig = rig(address)?;
    for index in 0..rig.namespaces.len() {
        let namespace = rig.namespaces[index].clone();
        let (block, most) = (namespace.block_size() as usize, namespace.max_transfer());
        let start = second_half(&namespace);
        for deallocate in [false, true] {
            rig.write(index, start, most, 5)?;
            let range = (start + 1, blocks(&namespace, most)? - 2);
            let how = CommandOptions::default();
            rig.queue.write_zeroes(&namespace, range, deallocate, how, 0)?;
            let status = known("Write Zeroes", finish(&mut rig.queue)?.status)?;
            ensure!(status.is_success(), "{status}");
            rig.expect(index, start + 1, most - 2 * block, None)?;
            let (_, first) = read(&mut rig.queue, &rig.controller, &namespace, start, block)?;
            let wanted = Rng::new(5).bytes(most as u64);
            ensure!(first[..] == wanted[..block], "the block before the zeroes changed");
        }
    }
    Ok(())
}

fn deallocate(address: &Address) -> Verdict {
    let mut rig = rig(address)?;
    for index in 0..rig.namespaces.len() {
        let namespace = rig.namespaces[index].clone();
        let start = second_half(&namespace);
        let most = namespace.max_transfer();
        let count = blocks(&namespace, most)?;
        for piece in 0..3 {
            rig.write(index, start + piece * u64::from(count), most, 40 + piece)?;
        }
        // The first and the third of three ranges.
        let third = start + 2 * u64::from(count);
        let ranges = [DsmRange::new(0, count, start), DsmRange::new(0, count, third)];
        let list = rig.controller.alloc(4096)?;
        rig.queue.deallocate(&namespace, &ranges, list, 0)?;
        let status = known("Dataset Management", finish(&mut rig.queue)?.status)?;
        ensure!(status.is_success(), "{status}");
        rig.expect(index, start + u64::from(count), most, Some(41))?;
        // The controller chooses the contents of deallocated blocks (NVM 3.2.3.2): zeroes, ones or
        // the old data.
        for lba in [start, third] {
            let (status, buf) = read(&mut rig.queue, &rig.controller, &namespace, lba, most)?;
            ensure!(status.is_success(), "{status}");
            let old = Rng::new(if lba == start { 40 } else { 42 }).bytes(most as u64);
            let uniform = buf.iter().all(|&byte| byte == buf[0]) && matches!(buf[0], 0 | 0xff);
            ensure!(uniform || buf[..] == old[..], "deallocated blocks at {lba} read as new data");
        }
    }
    Ok(())
}

fn compare(address: &Address) -> Verdict {
    let mut rig = rig(address)?;
    for index in 0..rig.namespaces.len() {
        let namespace = rig.namespaces[index].clone();
        let (start, most) = (second_half(&namespace), namespace.max_transfer());
        rig.write(index, start, most, 6)?;
        let range = (start, blocks(&namespace, most)?);
        for (wrong, wanted) in [(None, None), (Some(0), Some(0)), (Some(most - 1), Some(0))] {
            let mut buf = filled(&rig.controller, most, 6)?;
            if let Some(at) = wrong {
                buf[at] ^= 1;
            }
            let parts = ScatterList::from(buf);
            rig.queue.compare(&namespace, range, parts, CommandOptions::default(), 0)?;
            let found = known("Compare", finish(&mut rig.queue)?.status)?;
            match wanted {
                None => ensure!(found.is_success(), "equal data: {found}"),
                Some(_) => {
                    ensure!(found.bare() == status::COMPARE_FAILURE, "byte {wrong:?}: {found}");
                }
            }
        }
    }
    Ok(())
}

fn copy(address: &Address) -> Verdict {
    let mut rig = rig(address)?;
    for index in 0..rig.namespaces.len() {
        let namespace = rig.namespaces[index].clone();
        let start = second_half(&namespace);
        let block = namespace.block_size() as usize;
        rig.write(index, start, 4 * block, 7)?;
        rig.write(index, start + 8, 4 * block, 8)?;
        // Two ranges to one place, in reverse order.
        let ranges = [CopyRange::new(start + 8, 4), CopyRange::new(start, 4)];
        let list = rig.controller.alloc(4096)?;
        rig.queue.copy(&namespace, start + 100, &ranges, list, 0)?;
        let status = known("Copy", finish(&mut rig.queue)?.status)?;
        ensure!(status.is_success(), "{status}");
        rig.expect(index, start + 100, 4 * block, Some(8))?;
        rig.expect(index, start + 104, 4 * block, Some(7))?;
        rig.expect(index, start, 4 * block, Some(7))?;
    }
    Ok(())
}

fn verify(address: &Address) -> Verdict {
    let mut rig = rig(address)?;
    for namespace in &rig.namespaces {
        let range = (second_half(namespace), blocks(namespace, namespace.max_transfer())?);
        rig.queue.verify(namespace, range, CommandOptions::default(), 0)?;
        let status = known("Verify", finish(&mut rig.queue)?.status)?;
        ensure!(status.is_success(), "{status}");
    }
    Ok(())
}

/// Each queue writes a range of its own in pieces of random sizes, and reads it back.
fn writes_on_all_queues(address: &Address) -> Verdict {
    let controller = open(address)?;
    let count = u64::from(controller.granted_queues().min(4));
    let ids = controller.namespace_ids()?;
    let mut work = Vec::new();
    for (index, &nsid) in (0..count).zip(ids.iter().cycle()) {
        let namespace = controller.writable_namespace(nsid)?;
        work.push((index, namespace, controller.queue_pair(31)?));
    }
    on_threads(work, |(index, namespace, mut queue)| {
        let share = namespace.blocks() / 2 / count;
        let start = namespace.blocks() / 2 + index * share;
        random_writes(&mut queue, &controller, &namespace, (start, share), index)?;
        queue.flush(&namespace, 0)?;
        let done = finish(&mut queue)?;
        ensure!(done.status.is_success(), "flush: {}", done.status);
        Ok(())
    })
}

fn random_writes(
    queue: &mut QueuePair<u64>,
    controller: &Controller,
    namespace: &WritableNamespace,
    (start, share): (u64, u64),
    seed: u64,
) -> Verdict {
    let mut rng = Rng::new(seed);
    let most = (namespace.max_transfer() >> namespace.block_shift()) as u64;
    // The range consists of slots of the maximum transfer size. A slot has at most one write in
    // flight, because the order of overlapping commands is undefined (NVM 2.1.4).
    let slots = usize::try_from(share / most)?;
    let mut stored: Vec<Option<(usize, u64)>> = vec![None; slots];
    let (mut slot, mut failed) = (0, None);
    for count in 0..RANDOM_WRITES {
        let bytes = usize::try_from(rng.range(1, most + 1) << namespace.block_shift())?;
        let seed = rng.next_u64();
        slot = (slot + 1) % slots;
        stored[slot] = Some((bytes, seed));
        let lba = start + slot as u64 * most;
        queue.write(namespace, lba, filled(controller, bytes, seed)?, lba)?;
        let batch = queue.in_flight() == queue.capacity().min(slots) || count + 1 == RANDOM_WRITES;
        while batch && queue.in_flight() > 0 {
            queue.wait(|done| {
                if !done.status.is_success() {
                    failed = Some((done.context, done.status));
                }
            })?;
        }
    }
    ensure!(failed.is_none(), "a write failed: {failed:?}");
    for (slot, stored) in stored.into_iter().enumerate() {
        let Some((bytes, seed)) = stored else { continue };
        let lba = start + slot as u64 * most;
        let (status, buf) = read(queue, controller, namespace, lba, bytes)?;
        ensure!(status.is_success(), "{status}");
        let wanted = Rng::new(seed).bytes(bytes as u64);
        ensure!(buf[..] == wanted[..], "{bytes} bytes at {lba} are not what was written");
    }
    Ok(())
}

fn first_half(address: &Address) -> Verdict {
    let Rig { controller, namespaces, mut queue } = rig(address)?;
    for namespace in &namespaces {
        let bytes = namespace.max_transfer();
        let step = bytes >> namespace.block_shift();
        for lba in (0..namespace.blocks() / 2).step_by(step) {
            io::read_and_judge(&mut queue, &controller, namespace, lba, bytes)?;
        }
    }
    ensure_eq!(queue.counters().stale, 0, "stale completions");
    Ok(())
}
