//! Commands that the test holds back.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use nvio_driver::{DmaBuf, Handler, Rejected};

use super::*;
use crate::cache::wait::block_on;
use crate::{Bio, BioDone, Queue, Ticket, WriteQueue};

/// A queue whose commands end when the gate is open.
struct Held(ImageQueue<Device, Ticket>, Arc<Gate>);

#[derive(Default)]
pub(super) struct Gate {
    pub(super) closed: AtomicBool,
    /// Number of polls while it was closed.
    polls: AtomicUsize,
}

impl Gate {
    /// Waits until another thread polls without success.
    fn wait_for_waiter(&self) {
        let before = self.polls.load(SeqCst);
        while self.polls.load(SeqCst) < before + 100 {
            std::thread::yield_now();
        }
    }
}

impl Queue<Ticket> for Held {
    fn block_shift(&self) -> u32 {
        self.0.block_shift()
    }
    fn size(&self) -> u64 {
        self.0.size()
    }
    fn capacity(&self) -> usize {
        self.0.capacity()
    }
    fn max_transfer(&self) -> usize {
        8192
    }
    fn has_volatile_cache(&self) -> bool {
        self.0.has_volatile_cache()
    }
    fn submit(&mut self, bio: Bio<Ticket>) -> Result<(), Rejected<Error, Bio<Ticket>>> {
        self.0.submit(bio)
    }
    fn flush(&mut self, tag: Ticket) -> Result<(), Rejected<Error, Ticket>> {
        self.0.flush(tag)
    }
    fn ring(&mut self) {
        self.0.ring();
    }
    fn poll(&mut self, limit: usize, handler: &mut impl Handler<BioDone<Ticket>>) -> usize {
        if self.1.closed.load(SeqCst) {
            self.1.polls.fetch_add(1, SeqCst);
            return 0;
        }
        self.0.poll(limit, handler)
    }
    fn wait(&mut self, done: impl FnMut(BioDone<Ticket>)) -> Result<usize, Error> {
        self.0.wait(done)
    }
    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn prepare_to_sleep(&mut self) -> bool {
        false
    }
    fn alloc(&mut self, bytes: usize) -> Result<DmaBuf, Error> {
        self.0.alloc(bytes)
    }

    fn alloc_uncleared(&mut self, bytes: usize) -> Result<DmaBuf, Error> {
        self.0.alloc(bytes).map(|mut buf| {
            buf.fill(0xa5);
            buf
        })
    }
}

impl WriteQueue<Ticket> for Held {}

fn rig(blocks: Vec<Block>, size: u64) -> (Device, Arc<Gate>, Double, CachedFile<Double>) {
    let device = Device::new(vec![0; 1 << 20]);
    let gate = Arc::new(Gate::default());
    let queue = ImageQueue::new(device.clone(), 16).unwrap();
    let cache = PageCache::new(Held(queue, Arc::clone(&gate)), 1 << 20);
    let double = Double::new(blocks, size, 200);
    (device, gate, double.clone(), CachedFile::new(&cache, double))
}

pub(super) fn mapped_rig() -> (Device, Arc<Gate>, Double, CachedFile<Double>) {
    rig((0..64).map(|index| Block::Mapped(index * BLOCK)).collect(), 64 * BLOCK)
}

#[test]
fn folio_that_is_being_written_is_read_but_not_changed() {
    let (device, gate, double, mut file) = mapped_rig();
    file.write_at(0, &[0; 4096][..]).unwrap();
    file.sync_data().unwrap();
    gate.closed.store(true, SeqCst);
    through(&mut file, 0, &[1; 2048], false).unwrap();
    let mut out = [0; 4096];
    assert_eq!(file.read_at(0, &mut out).unwrap(), 4096);
    assert_eq!((out[2047], out[2048]), (1, 0));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut second = file.clone();
        let done = &done;
        scope.spawn(move || {
            second.write_at(1000, &[2; 2000][..]).unwrap();
            done.store(true, SeqCst);
        });
        gate.wait_for_waiter();
        assert!(!done.load(SeqCst), "the second writer waits");
        assert_eq!(file.read_at(0, &mut out).unwrap(), 4096);
        assert_eq!(out[1000], 1, "the folio did not change");
        gate.closed.store(false, SeqCst);
    });
    device.disk(|disk| assert_eq!(disk.bytes[..2048], [1; 2048], "what was written first"));
    file.sync_data().unwrap();
    let found = device.disk(|disk| double.on_device(&disk.bytes));
    assert_eq!((found[999], found[1000], found[2999], found[3000]), (1, 2, 2, 0));
}

#[test]
fn size_rises_at_once_in_memory_and_after_the_data_on_the_disk() {
    let (device, gate, double, mut file) = rig(Vec::new(), 0);
    gate.closed.store(true, SeqCst);
    through(&mut file, 0, &[3; 1500], false).unwrap();
    assert_eq!((file.size(), double.record(|record| record.size)), (1500, 0));
    gate.closed.store(false, SeqCst);
    file.sync_data().unwrap();
    double.record(|record| {
        assert_eq!(record.size, 1500);
        assert_eq!(record.ends.iter().map(|end| end.bytes).sum::<u64>(), 1500, "not the block");
    });
    let found = device.disk(|disk| double.on_device(&disk.bytes));
    assert_eq!(found, [3; 1500]);
}

#[test]
fn no_command_is_longer_than_the_device_accepts() {
    let (device, _, double, mut file) = mapped_rig();
    file.write_at(1024, &[3; 40_000][..]).unwrap();
    file.sync_data().unwrap();
    file.invalidate(0..u64::MAX);
    file.read_at(0, &mut [0; 65_536]).unwrap();
    device.disk(|disk| {
        let commands = disk.writes.iter().chain(&disk.reads);
        assert!(commands.clone().count() > 10);
        assert!(commands.clone().all(|&(_, len)| len <= 8192), "{:?}", disk.writes);
    });
    let found = device.disk(|disk| double.on_device(&disk.bytes));
    assert!(found[1024..41_024].iter().all(|&byte| byte == 3));
}

#[test]
fn sync_waits_for_every_part_of_every_call() {
    let (device, gate, double, mut file) = mapped_rig();
    gate.closed.store(true, SeqCst);
    for block in [0, 4, 9, 40] {
        through(&mut file, block * BLOCK, &[7; 1024], false).unwrap();
    }
    let synced = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (mut other, synced) = (file.clone(), &synced);
        scope.spawn(move || {
            other.sync_data().unwrap();
            synced.store(true, SeqCst);
        });
        gate.wait_for_waiter();
        assert!(!synced.load(SeqCst));
        gate.closed.store(false, SeqCst);
    });
    let found = device.disk(|disk| double.on_device(&disk.bytes));
    for block in [0, 4, 9, 40] {
        assert_eq!(found[block * 1024..][..1024], [7; 1024]);
    }
}

#[test]
fn reader_is_served_while_another_thread_does_not_poll() {
    let (_, gate, _, mut file) = mapped_rig();
    gate.closed.store(true, SeqCst);
    // A thread begins to fill a folio, and never polls again.
    let range = 8192..12_288;
    std::thread::scope(|scope| {
        let other = file.clone();
        scope.spawn(move || block_on(other.cache_for_tests().read_ahead(range)));
    });
    gate.closed.store(false, SeqCst);
    assert_eq!(file.read_at(8192, &mut [1; 4096]).unwrap(), 4096);
}

#[test]
fn last_handle_waits_for_what_is_in_flight_and_writes_the_rest() {
    let (device, gate, double, mut file) = mapped_rig();
    gate.closed.store(true, SeqCst);
    through(&mut file, 0, &[5; 1024], false).unwrap();
    file.write_at(4096, &[6; 1024][..]).unwrap();
    gate.closed.store(false, SeqCst);
    drop(file);
    let found = device.disk(|disk| double.on_device(&disk.bytes));
    assert_eq!((found[0], found[1023], found[4096], found[5119]), (5, 5, 6, 6));
}
