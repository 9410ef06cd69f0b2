//! Registered memory, on the embedded controller and on a transport that fails to unmap.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nvio_emulator::{Backing, DeviceFault, Emulator, Fault, Faults, NamespaceConfig, Rule};
use nvio_spec::{Sqe, cns, opcode::nvm, status};
use zerocopy::little_endian::U64;

use super::super::registered::Registered;
use super::*;
use crate::dma::Claim;
use crate::error::Error;
use crate::mmio::Mmio;
use crate::served::{Served, writable};
use crate::transport::Transport;
use crate::{DmaBuf, Options, PAGE_SIZE};

fn served(faults: Faults) -> (Emulator, Controller) {
    let namespace = NamespaceConfig::new(Backing::memory(16 << 20));
    let builder = Emulator::builder().namespace(namespace).mdts(None);
    let options = Options { arena_bytes: 4 << 20, ..writable() };
    let Served { controller, emulator } = Served::start(builder.faults(faults), options);
    (emulator, controller)
}

fn shared_file(bytes: u64) -> File {
    let file = tempfile::tempfile_in("/dev/shm").unwrap();
    file.set_len(bytes).unwrap();
    file
}

/// Returns true if the controller can write to memory at this address.
fn reaches(controller: &Controller, iova: u64) -> bool {
    let mut sqe = Sqe::identify(cns::CONTROLLER, 0);
    sqe.prp1 = U64::new(iova);
    // SAFETY: no buffer is at this address.
    match unsafe { controller.writable().unwrap().admin(sqe, None) } {
        Ok(_) => true,
        Err(Error::Command { status, .. }) => {
            assert_eq!(status.bare(), status::DATA_TRANSFER_ERROR, "{status}");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

/// Returns true if the arena that the transport mapped reports the page as allocated.
fn is_allocated(controller: &Controller, iova: u64) -> bool {
    controller.0.registered.table.lock().ranges[&iova].arena.is_allocated(iova, 1)
}

fn mapped(controller: &Controller) -> usize {
    let table = controller.0.registered.table.lock();
    table.ranges.values().filter(|range| range.mapped).count()
}

#[test]
fn a_files_bytes_go_to_the_device_and_come_back() {
    let (_emulator, controller) = served(Faults::new());
    let file = shared_file(8 << 20);
    let pattern: Vec<u8> = (0..2 << 20).map(|i: u32| (i / 3) as u8).collect();
    file.write_all_at(&pattern, 1 << 20).unwrap();
    // SAFETY: the file is not used again before the memory is dropped.
    let memory = unsafe { DmaMemory::from_file(file.try_clone().unwrap(), 0, 8 << 20) }.unwrap();
    let arena = controller.register(memory).unwrap();
    let namespace = controller.writable().unwrap().writable_namespace(1).unwrap();
    let mut queue = controller.queue_pair(16).unwrap();
    let [from, to] = [1 << 20, 5 << 20].map(|at| arena.take(at, 2 << 20).unwrap());
    let mut again = None;
    queue.write(&namespace, 8, from, 0).unwrap();
    queue.wait(|done| assert!(done.status.is_success())).unwrap();
    queue.read(&namespace, 8, to, 1).unwrap();
    queue.wait(|done| again = Some(done.buf).filter(|_| done.status.is_success())).unwrap();
    assert!(*again.as_deref().unwrap() == *pattern);
    drop((again, arena));
    let mut read = vec![0; 2 << 20];
    file.read_exact_at(&mut read, 5 << 20).unwrap();
    assert!(read == pattern);
}

#[test]
fn unregistered_memory_is_unreachable_and_other_memory_is_reachable() {
    let (_emulator, controller) = served(Faults::new());
    let register = || controller.register(DmaMemory::new(2 << 20).unwrap()).unwrap();
    let (first, second) = (register(), register());
    let (gone, stays) = (first.iova(), second.iova());
    let buf = first.alloc(PAGE_SIZE).unwrap();
    assert!(is_allocated(&controller, gone) && !is_allocated(&controller, stays));
    drop(first);
    assert!(reaches(&controller, gone), "a buffer is left");
    drop(buf);
    assert!(!reaches(&controller, gone));
    assert!(reaches(&controller, stays));
    assert_eq!(mapped(&controller), 1);
}

#[test]
fn no_two_ranges_of_the_process_overlap() {
    let (_first, one) = served(Faults::new());
    let (_second, other) = served(Faults::new());
    let mut arenas = vec![one.arena().clone(), other.arena().clone()];
    for bytes in [1, 2 << 20, 6 << 20, 4 << 20] {
        for controller in [&one, &other] {
            arenas.push(controller.register(DmaMemory::new(bytes).unwrap()).unwrap());
        }
    }
    let mut ranges: Vec<_> =
        arenas.iter().map(|a| (a.iova(), a.iova() + a.size() as u64)).collect();
    ranges.sort_unstable();
    assert!(ranges.is_sorted_by(|a, b| a.1 <= b.0), "{ranges:x?}");
    // A buffer of another controller has an address that this controller does not know.
    let namespace = one.namespace(1).unwrap();
    let mut queue = one.queue_pair(4).unwrap();
    queue.read(&namespace, 0, other.alloc(512).unwrap(), ()).unwrap();
    queue.wait(|done| assert_eq!(done.status.bare(), status::DATA_TRANSFER_ERROR)).unwrap();
}

#[test]
fn an_overlap_is_an_error_of_the_transport() {
    let (_emulator, controller) = served(Faults::new());
    let taken = controller.arena();
    let again = controller.0.transport.map(taken);
    assert!(matches!(again, Err(Error::MappingExists { iova, .. }) if iova == taken.iova()));
    let memory = DmaMemory::new(1).unwrap();
    let unregistered = controller.register(memory).unwrap().iova();
    assert!(!reaches(&controller, unregistered));
}

/// Each range has two files: the owner's, and the server's.
fn allow_open_files(files: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a valid structure.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = limit.rlim_cur.max(files).min(limit.rlim_max);
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
    assert!(limit.rlim_cur >= files, "this needs {files} open files");
}

#[test]
fn the_table_has_an_end() {
    allow_open_files(4096);
    let (_emulator, controller) = served(Faults::new());
    let file = shared_file(2048 * PAGE_SIZE as u64);
    let register = |page: u64| {
        let file = file.try_clone().unwrap();
        // SAFETY: each page is registered once, and the file is not used otherwise.
        let memory = unsafe { DmaMemory::from_file(file, page * PAGE_SIZE as u64, PAGE_SIZE) };
        controller.register(memory.unwrap())
    };
    let mut arenas = Vec::new();
    let full = loop {
        match register(arenas.len() as u64) {
            Ok(arena) => arenas.push(arena),
            Err(error) => break error,
        }
    };
    assert!(matches!(full, Error::MappingLimit { limit: 1024 }), "{full}");
    assert_eq!(arenas.len(), 1023);
    assert!(arenas.iter().all(|arena| reaches(&controller, arena.iova())));
    let page = arenas.swap_remove(500);
    drop(page);
    arenas.push(register(500).unwrap());
    assert!(matches!(register(1500), Err(Error::MappingLimit { .. })));
}

#[test]
fn memory_outlives_its_controller() {
    let (_emulator, controller) = served(Faults::new());
    let arena = controller.register(DmaMemory::new(1).unwrap()).unwrap();
    let mut buf = arena.alloc(PAGE_SIZE).unwrap();
    drop(controller);
    buf.fill(7);
    assert_eq!(arena.alloc(PAGE_SIZE).unwrap()[0], 0);
    drop(arena);
    assert!(buf.iter().all(|&byte| byte == 7));
}

#[test]
fn a_command_in_flight_keeps_its_memory() {
    // The second read never completes.
    let lost = Rule::new(Fault::Lost).opcode(nvm::READ).nth(2);
    let (_emulator, controller) = served(Faults::new().rule(lost));
    let namespace = controller.namespace(1).unwrap();
    let mut queue = controller.queue_pair(4).unwrap();
    for context in [0, 1] {
        let arena = controller.register(DmaMemory::new(1).unwrap()).unwrap();
        queue.read(&namespace, 0, arena.alloc(512).unwrap(), context).unwrap();
    }
    let take = |queue: &mut crate::QueuePair<u64>| {
        let mut taken: Option<(u64, nvio_spec::Status, DmaBuf)> = None;
        queue.wait(|done| taken = Some((done.context, done.status, done.buf))).unwrap();
        taken.unwrap()
    };
    let first = take(&mut queue);
    assert!(first.1.is_success());
    assert_eq!((first.0, mapped(&controller)), (0, 2));
    drop(first);
    assert_eq!(mapped(&controller), 1, "the other is in flight");
    controller.reset().unwrap();
    assert_eq!(mapped(&controller), 1, "a controller that was stopped keeps it");
    let second = take(&mut queue);
    assert_eq!((second.0, second.1), (1, status::ABORTED_BY_HOST));
    drop(second);
    assert_eq!(mapped(&controller), 0);
}

#[test]
fn controller_that_is_gone_reaches_no_memory() {
    let lost = Rule::new(Fault::Lost).opcode(nvm::READ);
    let (emulator, controller) = served(Faults::new().rule(lost));
    let arena = controller.register(DmaMemory::new(1).unwrap()).unwrap();
    let namespace = controller.namespace(1).unwrap();
    let mut queue = controller.queue_pair(4).unwrap();
    queue.read(&namespace, 0, arena.alloc(512).unwrap(), ()).unwrap();
    queue.ring();
    emulator.inject(DeviceFault::Removed);
    let mut back = None;
    queue.wait(|done| back = Some((done.status, done.buf.len()))).unwrap();
    assert_eq!(back, Some((status::HOST_PATHING_ERROR, 512)));
    assert_eq!(mapped(&controller), 0);
    let refused = controller.register(DmaMemory::new(1).unwrap()).unwrap_err();
    assert!(matches!(refused, Error::Gone), "{refused}");
    drop(arena);
    assert!(controller.0.registered.table.lock().ranges.is_empty());
}

/// A transport that maps everything, and fails to unmap on request.
struct Stubborn {
    doorbells: Arc<Mmio>,
    refuses: AtomicBool,
}

impl Stubborn {
    fn new() -> Self {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let doorbells = Arc::new(Mmio::map(file.as_fd(), 0, 0x1000, 4096).unwrap());
        Self { doorbells, refuses: AtomicBool::new(true) }
    }
}

// SAFETY: there is no device.
unsafe impl Transport for Stubborn {
    fn read32(&self, _: u64) -> Result<u32> {
        Ok(0)
    }

    fn write32(&self, _: u64, _: u32) -> Result<()> {
        Ok(())
    }

    fn doorbells(&self) -> &Arc<Mmio> {
        &self.doorbells
    }

    fn choose_iova(&self, _: u64, used: &[std::ops::Range<u64>]) -> Result<u64> {
        // Above all ranges that tests of this process use.
        Ok(used.last().map_or(0, |last| last.end).next_multiple_of(2 << 20))
    }

    fn map(&self, _: &Arena) -> Result<()> {
        Ok(())
    }

    fn unmap(&self, _: &Arena) -> Result<()> {
        match self.refuses.load(Ordering::Relaxed) {
            true => Err(Error::Timeout { what: "a test", after: Duration::ZERO }),
            false => Ok(()),
        }
    }

    fn reset(&self) -> Result<()> {
        Ok(())
    }
}

#[test]
fn memory_that_cannot_be_unmapped_is_kept_and_its_address_too() {
    let (transport, registered) = (Stubborn::new(), Registered::default());
    let memory = || Arc::new(DmaMemory::new(1).unwrap());
    let (first, second) = (memory(), memory());
    let add = |memory: &Arc<_>| registered.add(&transport, Arc::clone(memory));
    let [iova, other] = [&first, &second].map(|memory| add(memory).unwrap().iova());
    assert_ne!(iova, other);
    registered.remove(&transport, iova);
    assert_eq!(Arc::strong_count(&first), 2, "kept");
    assert!(matches!(Claim::new(1, |_| Ok(iova)), Err(Error::MappingExists { .. })));
    assert!(registered.revoke(&transport).is_err());
    assert!(add(&second).is_err(), "no more after that");
    transport.refuses.store(false, Ordering::Relaxed);
    registered.revoke(&transport).unwrap();
    transport.refuses.store(true, Ordering::Relaxed);
    registered.revoke(&transport).unwrap();
    for iova in [iova, other] {
        registered.remove(&transport, iova);
    }
    assert_eq!((Arc::strong_count(&first), Arc::strong_count(&second)), (1, 1));
}
