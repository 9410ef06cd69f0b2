//! A writer that changes its buffer while the write of it is in flight, on a protected namespace.
//!
//! The memory is a file that is mapped twice: registered with the controller, and by a thread that
//! never stops changing it. A guard that was made of the memory itself does not fit what the
//! controller fetches later; one that was made of a private copy always does.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nvio_driver::spec::protection::ProtectionType;
use nvio_driver::spec::{Status, status};
use nvio_driver::{
    Address, Arena, Controller, DmaBuf, DmaMemory, Options, Parts, QueuePair, WritableNamespace,
};
use nvio_emulator::{Backing, Emulator, NamespaceConfig};
use nvio_iomap::Protection;
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory};

/// Bytes of one write.
const BYTES: usize = 4096;
/// Writes in flight.
const DEPTH: u16 = 8;
const WRITES: u64 = 100_000;

struct Rig {
    _emulator: Emulator,
    controller: Controller,
    namespace: WritableNamespace,
    queue: QueuePair<u64>,
    protection: Protection,
    /// The writer's memory, as the controller sees it.
    arena: Arena,
    /// The same memory, as the one who changes it does.
    other: Arc<MmapRegion>,
}

fn rig(extended: bool) -> Rig {
    let config = NamespaceConfig::new(Backing::memory(16 << 20)).metadata(8, extended);
    let config = config.protection(ProtectionType::ONE, false);
    let emulator = Emulator::builder().namespace(config).start().unwrap();
    let address = Address::VfioUser(emulator.socket().to_owned());
    let options = Options { writable: true, arena_bytes: 4 << 20, ..Options::default() };
    let controller = Controller::open_with(&address, options).unwrap();
    let namespace = controller.writable().unwrap().writable_namespace(1).unwrap();
    let protection = Protection::of(&namespace).unwrap().unwrap();
    let queue = controller.queue_pair(DEPTH).unwrap();
    let file = tempfile::tempfile_in("/dev/shm").unwrap();
    let bytes = BYTES * usize::from(DEPTH);
    file.set_len(bytes as u64).unwrap();
    let other = MmapRegion::from_file(FileOffset::new(file.try_clone().unwrap(), 0), bytes);
    // SAFETY: what is asked for here is not kept, on purpose: a writer that changes its buffer is
    // what this file is about. Nothing is made of the bytes but copies and checksums, by code that
    // takes any values of them.
    let memory = unsafe { DmaMemory::from_file(file, 0, bytes) }.unwrap();
    let arena = controller.register(memory).unwrap();
    let other = Arc::new(other.unwrap());
    Rig { _emulator: emulator, controller, namespace, queue, protection, arena, other }
}

/// How writes get to the device.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Copied into private memory first.
    Bounce,
    /// From the writer's own memory.
    ZeroCopy,
}

impl Rig {
    /// Queues a write of what is in `own` now, which comes back at once if it is not needed.
    fn submit(&mut self, way: Way, index: u64, own: DmaBuf) -> Option<DmaBuf> {
        let blocks = BYTES as u32 >> self.namespace.block_shift();
        let lba = index % 100 * u64::from(blocks);
        let (range, how) = ((lba, blocks), self.protection.transfer(lba));
        if way == Way::Bounce {
            let mut buf = self.controller.alloc(self.protection.buf_len(BYTES)).unwrap();
            assert_eq!(self.protection.copy_in(&mut buf, BYTES, 0, &own), BYTES);
            self.protection.seal(&mut buf, BYTES, lba);
            self.queue.write_joined(&self.namespace, range, buf, how, index).unwrap();
            return Some(own);
        }
        let mut metadata = self.controller.alloc(self.protection.metadata_len(BYTES)).unwrap();
        self.protection.seal_apart(&own, &mut metadata, lba);
        let parts = Parts::new(vec![own], Some(metadata));
        self.queue.write_with(&self.namespace, range, parts, how, index).unwrap();
        None
    }

    /// Writes the same buffers over and over while another thread changes them, and gives how many
    /// writes ended with a guard error. With `first`, one of them is enough.
    fn guard_errors(&mut self, way: Way, first: bool) -> u64 {
        let stop = AtomicBool::new(false);
        let other = Arc::clone(&self.other);
        thread::scope(|scope| {
            scope.spawn(|| change(&other, &stop));
            let found = self.write(way, first);
            stop.store(true, Ordering::Relaxed);
            found
        })
    }

    fn write(&mut self, way: Way, first: bool) -> u64 {
        let places = 0..usize::from(DEPTH);
        let mut own: Vec<_> = places.map(|i| self.arena.take(i * BYTES, BYTES).unwrap()).collect();
        let (mut submitted, mut ended, mut errors) = (0, 0, 0);
        while ended < WRITES && !(first && errors > 0) {
            while submitted < WRITES && self.queue.in_flight() < usize::from(DEPTH) {
                let buf = own.swap_remove(0);
                own.extend(self.submit(way, submitted, buf));
                submitted += 1;
            }
            ended += self.wait(&mut errors, &mut own) as u64;
        }
        while self.queue.in_flight() > 0 {
            self.wait(&mut errors, &mut own);
        }
        errors
    }

    fn wait(&mut self, errors: &mut u64, own: &mut Vec<DmaBuf>) -> usize {
        let wait = self.queue.wait(|done| {
            match done.status.bare() {
                Status::SUCCESS => {}
                status::GUARD_CHECK_ERROR => *errors += 1,
                other => panic!("write {}: {other}", done.context),
            }
            if let Ok(parts) = Parts::from_completed(done.buf) {
                own.extend(parts.into_inner().0);
            }
        });
        wait.unwrap()
    }

    /// What is stored is whole: guards and tags of all that was written fit the data.
    fn verify(&mut self) {
        let blocks = BYTES as u32 >> self.namespace.block_shift();
        for lba in (0..100).map(|index| index * u64::from(blocks)) {
            let buf = self.controller.alloc(self.protection.buf_len(BYTES)).unwrap();
            let how = self.protection.transfer(lba);
            self.queue.read_joined(&self.namespace, (lba, blocks), buf, how, 0).unwrap();
            let protection = self.protection;
            let wait = self.queue.wait(|done| {
                assert!(done.status.is_success(), "{}", done.status);
                assert_eq!(protection.verify(&done.buf, BYTES, lba), Ok(()));
            });
            wait.unwrap();
        }
    }
}

/// Changes a word of each of many places, over and over.
fn change(memory: &MmapRegion, stop: &AtomicBool) {
    let all = memory.as_volatile_slice();
    let mut value = 0u64;
    while !stop.load(Ordering::Relaxed) {
        for at in (0..all.len()).step_by(64) {
            value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
            all.write_obj(value, at).unwrap();
        }
    }
}

#[test]
fn a_private_copy_never_has_a_wrong_guard() {
    for extended in [false, true] {
        let mut rig = rig(extended);
        assert_eq!(rig.guard_errors(Way::Bounce, false), 0);
        assert!(rig.queue.counters().completed >= WRITES);
        rig.verify();
    }
}

/// So that the test above can fail.
#[test]
fn the_writers_own_memory_has() {
    let mut rig = rig(false);
    assert!(rig.guard_errors(Way::ZeroCopy, true) > 0);
    // What did not pass was not stored.
    rig.verify();
}
