//! A caller's buffer that changes while it is written, or read into, on a protected namespace.
//!
//! The memory is a file that is mapped twice: registered with the controller, and by a thread that
//! never stops changing it. A guard that was made of the memory itself does not fit what the
//! controller fetches later; one that was made of a private copy always does.

use crate::extents;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use extents::{NoState, Scattered};
use nvio_driver::spec::protection::ProtectionType;
use nvio_driver::spec::status;
use nvio_driver::{Arena, DmaMemory, Options};
use nvio_emulator::{Backing, Emulator, NamespaceConfig};
use nvio_iomap::{
    BioError, DiskQueue, DmaBuf, Done, Error, FileQueue, IoArgs, IoFlags, Memory, Tag, WritableDisk,
};
use nvio_testkit::controller::{self, Served};
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory};

/// Bytes of one request.
const BYTES: usize = 4096;
/// Requests in flight.
const DEPTH: u16 = 8;
const WRITES: u64 = 100_000;
/// Requests of those tests in which errors are looked for.
const FEW: u64 = 20_000;
/// Blocks of the file.
const BLOCKS: u64 = 100;

struct Rig {
    _emulator: Emulator,
    queue: FileQueue<DiskQueue<Tag<NoState>, WritableDisk>, NoState>,
    file: Scattered,
    /// The caller's memory, as the controller sees it.
    arena: Arena,
    /// The memory, as the thread that changes it maps it.
    other: Arc<MmapRegion>,
    _alone: MutexGuard<'static, ()>,
}

/// Lock of the tests, which run one at a time because each keeps three threads busy.
static ALONE: Mutex<()> = Mutex::new(());

fn rig(extended: bool) -> Rig {
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let file = Scattered::new(BLOCKS * BYTES as u64);
    let config = NamespaceConfig::new(Backing::memory(file.disk_bytes())).metadata(8, extended);
    let config = config.protection(ProtectionType::ONE, false);
    let options = Options { arena_bytes: 4 << 20, ..controller::writable() };
    let served = Served::start(Emulator::builder().namespace(config), options);
    let namespace = served.writable_namespace();
    let Served { controller, emulator } = served;
    let disk = WritableDisk::whole(&namespace);
    let queue = FileQueue::new(DiskQueue::new(&controller, &disk, DEPTH).unwrap());
    let memory = tempfile::tempfile_in("/dev/shm").unwrap();
    let bytes = BYTES * usize::from(DEPTH);
    memory.set_len(bytes as u64).unwrap();
    let offset = FileOffset::new(memory.try_clone().unwrap(), 0);
    let other = Arc::new(MmapRegion::from_file(offset, bytes).unwrap());
    // SAFETY: what is asked for here is not kept, on purpose: a buffer that changes is what this
    // file is about. Nothing is made of the bytes but copies and checksums, by code that takes any
    // values of them.
    let memory = unsafe { DmaMemory::from_file(memory, 0, bytes) }.unwrap();
    let arena = controller.register(memory).unwrap();
    Rig { _emulator: emulator, queue, file, arena, other, _alone: alone }
}

/// Counts of results.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    good: u64,
    /// Guards that did not fit: found by the controller in a write, by the host in a read.
    guard_errors: u64,
}

impl Tally {
    fn add(&mut self, done: Done<Error>) -> DmaBuf {
        match done.result {
            Ok(n) => {
                assert_eq!(n, BYTES);
                self.good += 1;
            }
            Err(Error::Bio { what: "write", error: BioError::Status(status), .. }) => {
                assert_eq!(status.bare(), status::GUARD_CHECK_ERROR);
                self.guard_errors += 1;
            }
            Err(Error::Bio {
                what: "read", error: BioError::Guard { expected, found }, ..
            }) => {
                assert_ne!(expected, found);
                self.guard_errors += 1;
            }
            Err(error) => panic!("{error}"),
        }
        done.memory.unwrap().into_dma().unwrap()
    }
}

impl Rig {
    /// Moves the same buffers over and over while another thread changes them.
    fn run(&mut self, write: bool, flags: IoFlags, requests: u64) -> Tally {
        let stop = AtomicBool::new(false);
        let other = Arc::clone(&self.other);
        thread::scope(|scope| {
            scope.spawn(|| change(&other, &stop));
            let tally = self.requests(write, flags, requests);
            stop.store(true, Ordering::Relaxed);
            tally
        })
    }

    fn requests(&mut self, write: bool, flags: IoFlags, requests: u64) -> Tally {
        let mut tally = Tally::default();
        let places = 0..usize::from(DEPTH);
        let mut own: Vec<_> = places.map(|i| self.arena.take(i * BYTES, BYTES).unwrap()).collect();
        let mut submitted = 0;
        while own.len() < usize::from(DEPTH) || submitted < requests {
            while submitted < requests {
                let Some(buf) = own.pop() else { break };
                let io = IoArgs::at(submitted % BLOCKS * BYTES as u64).flags(flags);
                let memory = Memory::Dma(buf);
                match write {
                    true => self.queue.submit_write_with(&mut self.file, io, memory).unwrap(),
                    false => self.queue.submit_read_with(&mut self.file, io, memory).unwrap(),
                }
                submitted += 1;
            }
            self.queue.ring();
            self.queue.wait(|done| own.push(tally.add(done))).unwrap();
        }
        assert_eq!(tally.good + tally.guard_errors, requests);
        tally
    }

    /// Verifies that every stored block has a valid guard.
    fn verify(&mut self) {
        let mut out = vec![0; BLOCKS as usize * BYTES];
        assert_eq!(self.queue.read_at(&mut self.file, 0, &mut out).unwrap(), out.len());
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
        // There may be fewer processors than threads that poll.
        thread::yield_now();
    }
}

#[test]
fn bounced_write_never_has_a_wrong_guard() {
    for (extended, writes) in [(false, WRITES), (true, FEW)] {
        let mut rig = rig(extended);
        let tally = rig.run(true, IoFlags::BOUNCE, writes);
        assert_eq!(tally, Tally { good: writes, guard_errors: 0 });
        assert_eq!(rig.queue.counters().bounced, writes);
        rig.verify();
        assert_eq!(rig.run(false, IoFlags::BOUNCE, FEW).guard_errors, 0);
    }
}

/// Shows that the test with bounced writes can fail: without bouncing there are guard errors.
#[test]
fn the_callers_own_memory_has() {
    let mut rig = rig(false);
    let writes = rig.run(true, IoFlags::empty(), FEW);
    assert!(writes.guard_errors > 0, "{writes:?}");
    assert_eq!(rig.queue.counters().bounced, 0);
    // Rejected blocks were not stored.
    rig.verify();
    let reads = rig.run(false, IoFlags::empty(), FEW);
    assert!(reads.guard_errors > 0, "{reads:?}");
}

/// Data is always copied if metadata follows each block.
#[test]
fn blocks_with_metadata_in_between_never_have() {
    let mut rig = rig(true);
    for write in [true, false] {
        let tally = rig.run(write, IoFlags::empty(), FEW);
        assert_eq!(tally, Tally { good: FEW, guard_errors: 0 });
    }
    rig.verify();
}
