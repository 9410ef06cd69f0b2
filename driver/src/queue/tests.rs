//! The rings against a controller made of raw memory, which can post any entry.

use std::os::fd::AsFd;
use std::sync::Arc;

use nvio_spec::register::{cq_head_doorbell, sq_tail_doorbell};
use nvio_spec::{Cqe, Sqe, Status, status};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32};

use super::completion::Completion;
use super::raw::{Layout, RawQueuePair};
use super::raw::{NotSubmitted, Processed};
use super::retry::RetryPolicy;
use crate::dma::{Arena, DmaBuf, ScatterList};
use crate::mmio::Mmio;

mod doorbells;
mod retries;

const QID: u16 = 3;

/// The controller of a queue pair.
struct Device {
    arena: Arena,
    doorbells: Arc<Mmio>,
    entries: u32,
    sq: u64,
    cq: u64,
    sq_head: u32,
    cq_tail: u32,
    phase: bool,
}

impl Device {
    fn with_core(entries: u32) -> (Self, RawQueuePair<u32>) {
        Self::with_depth(entries, u16::try_from(entries - 1).unwrap())
    }

    fn with_depth(entries: u32, depth: u16) -> (Self, RawQueuePair<u32>) {
        Self::with_retries(entries, depth, RetryPolicy::default())
    }

    fn with_retries(entries: u32, depth: u16, retry: RetryPolicy) -> (Self, RawQueuePair<u32>) {
        let arena = Arena::detached(2 << 20).unwrap();
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let doorbells = Arc::new(Mmio::map(file.as_fd(), 0, 0x1000, 4096).unwrap());
        let layout = Layout {
            arena: &arena,
            controller_memory: None,
            doorbells: &doorbells,
            stride: 4,
            page_shift: 12,
            list_pages: 1,
            sgl: false,
            qid: QID,
            depth,
            entries,
            retry,
        };
        let core = RawQueuePair::new(&layout).unwrap();
        let (sq, cq) = core.ring_iovas();
        (Self { arena, doorbells, entries, sq, cq, sq_head: 0, cq_tail: 0, phase: true }, core)
    }

    fn at<T>(&self, iova: u64, index: u32) -> *mut T {
        let offset = (iova - self.arena.iova()) as usize + index as usize * size_of::<T>();
        assert!(offset + size_of::<T>() <= self.arena.size());
        self.arena.base().wrapping_add(offset).cast()
    }

    /// Commands up to the doorbell since the last call.
    fn take(&mut self) -> Vec<Sqe> {
        let tail = self.doorbells.read32(sq_tail_doorbell(QID, 4)).unwrap();
        let mut taken = Vec::new();
        while self.sq_head != tail {
            // SAFETY: the entry is in the arena, and the driver does not write it now.
            taken.push(unsafe { self.at::<Sqe>(self.sq, self.sq_head).read_volatile() });
            self.sq_head = (self.sq_head + 1) % self.entries;
        }
        taken
    }

    /// Identifier of the last command up to the doorbell.
    fn sq_cid(&mut self) -> u16 {
        self.take().last().unwrap().cid.get()
    }

    fn post(&mut self, cid: u16, status: Status) {
        let cqe = Cqe {
            dw0: U32::new(u32::from(cid) ^ 0x5555_0000),
            cid: U16::new(cid),
            status_phase: Cqe::pack_status(status, self.phase),
            ..Cqe::default()
        };
        // SAFETY: the entry is in the arena, and the driver does not read it now.
        unsafe { self.at::<Cqe>(self.cq, self.cq_tail).write_volatile(cqe) };
        self.cq_tail = (self.cq_tail + 1) % self.entries;
        self.phase ^= self.cq_tail == 0;
    }

    fn head(&self) -> u32 {
        self.doorbells.read32(cq_head_doorbell(QID, 4)).unwrap()
    }

    /// Number of entries that were posted, and that the doorbell has not released.
    fn unreleased(&self) -> u32 {
        self.cq_tail.wrapping_sub(self.head()) & (self.entries - 1)
    }
}

fn submit(core: &mut RawQueuePair<u32>, context: u32) -> bool {
    core.submit(Sqe::flush(1), context).is_ok()
}

fn poll(core: &mut RawQueuePair<u32>) -> Vec<(u32, Status)> {
    let mut got = Vec::new();
    core.process(usize::MAX, &mut |Completion { status, result, context, .. }: Completion<u32>| {
        assert_eq!(result >> 16, 0x5555);
        got.push((context, status));
    });
    got
}

#[test]
fn rings_of_any_length_wrap_in_step_with_the_phase() {
    for (entries, depth) in [(2, 1), (4, 3), (8, 5), (64, 63)] {
        let (mut device, mut core) = Device::with_depth(entries, depth);
        let mut next = 0;
        for round in 0..200 {
            let first = next;
            let batch = 1 + round % u32::from(depth);
            for _ in 0..batch {
                assert!(submit(&mut core, next));
                next += 1;
            }
            assert!(device.take().is_empty(), "nothing is shown before the doorbell");
            core.ring();
            let commands = device.take();
            assert_eq!(commands.len(), batch as usize);
            // Last command first: completions come in any order.
            for sqe in commands.iter().rev() {
                device.post(sqe.cid.get(), Status::SUCCESS);
            }
            let want: Vec<_> = (first..next).rev().map(|c| (c, Status::SUCCESS)).collect();
            assert_eq!(poll(&mut core), want);
            assert!(device.unreleased() < entries / 2, "{} of {entries}", device.head());
        }
        assert_eq!((core.in_flight(), core.counters().stale), (0, 0));
    }
}

/// A one-page command does not write the words that it does not need, which must be zero.
#[test]
fn words_of_a_long_command_are_cleared_before_a_short_one() {
    for entries in [2, 4, 8] {
        let (mut device, mut core) = Device::with_core(entries);
        for round in 0..100u32 {
            let mut long = Sqe::write(1, 2, 3);
            (long.cdw2, long.mptr, long.prp2) = (7.into(), 8.into(), 9.into());
            (long.cdw14, long.cdw15) = (10.into(), 11.into());
            let is_long = round % 3 == 0 || round % 7 == 0;
            match is_long {
                true => assert!(core.submit(long, round).is_ok()),
                false => {
                    let buf = device.arena.alloc(4096).unwrap();
                    assert!(core.submit_page(2 | 1 << 32, 0x1_0000_0005, 6, buf, round).is_ok());
                }
            }
            core.ring();
            let sqe = device.take()[0];
            let cid = sqe.cid;
            match is_long {
                true => assert_eq!(sqe.as_bytes(), Sqe { cid, ..long }.as_bytes()),
                false => {
                    let short = Sqe { cid, prp1: sqe.prp1, ..Sqe::read(1, 0x1_0000_0005, 7) };
                    assert_eq!(sqe.as_bytes(), short.as_bytes(), "round {round} of {entries}");
                }
            }
            device.post(cid.get(), Status::SUCCESS);
            assert_eq!(poll(&mut core).len(), 1);
            if round == 50 {
                core.restart();
                (device.sq_head, device.cq_tail, device.phase) = (0, 0, true);
            }
        }
    }
}

#[test]
fn a_full_queue_takes_no_more_until_something_is_done() {
    let (mut device, mut core) = Device::with_core(4);
    assert!((0..3).all(|context| submit(&mut core, context)));
    assert!(!submit(&mut core, 3));
    core.ring();
    let commands = device.take();
    device.post(commands[1].cid.get(), status::LBA_OUT_OF_RANGE);
    assert_eq!(poll(&mut core), [(1, status::LBA_OUT_OF_RANGE)]);
    assert!(submit(&mut core, 3));
    assert!(!submit(&mut core, 4));
}

#[test]
fn made_up_doubled_and_stale_completions_are_counted_and_dropped() {
    let (mut device, mut core) = Device::with_core(8);
    device.post(0, Status::SUCCESS);
    device.post(0xffff, Status::SUCCESS);
    assert_eq!((poll(&mut core), core.counters().stale), (vec![], 2));

    submit(&mut core, 70);
    core.ring();
    let first = device.take()[0].cid.get();
    device.post(first, Status::SUCCESS);
    device.post(first, Status::SUCCESS);
    assert_eq!((poll(&mut core), core.counters().stale), (vec![(70, Status::SUCCESS)], 3));

    // The slot is used again: the late completion belongs to the first command.
    submit(&mut core, 71);
    core.ring();
    let second = device.take()[0].cid.get();
    device.post(first, Status::SUCCESS);
    assert_eq!((poll(&mut core), core.counters().stale, core.in_flight()), (vec![], 4, 1));
    device.post(second, Status::SUCCESS);
    assert_eq!(poll(&mut core), [(71, Status::SUCCESS)]);
}

#[test]
fn a_device_that_posts_for_ever_does_not_keep_the_poll() {
    let (mut device, mut core) = Device::with_core(4);
    for _ in 0..4 {
        device.post(0x7777, Status::SUCCESS);
    }
    assert_eq!(poll(&mut core), []);
    assert_eq!(core.counters().stale, 3, "one round less one");
    assert_eq!(device.head(), 2, "the doorbell of half of the ring");
}

#[test]
fn abandoned_commands_end_once_and_the_rings_begin_again() {
    let (mut device, mut core) = Device::with_core(4);
    assert!(submit(&mut core, 1) && submit(&mut core, 2));
    core.ring();
    let old: Vec<_> = device.take().iter().map(|sqe| sqe.cid.get()).collect();
    device.post(old[0], Status::SUCCESS);
    let mut ended = poll(&mut core);
    let abandoned = core.abandon(status::ABORTED_BY_HOST, false).unwrap();
    ended.push((abandoned.context, abandoned.status));
    assert!(core.abandon(status::ABORTED_BY_HOST, false).is_none());
    assert_eq!(ended, [(1, Status::SUCCESS), (2, status::ABORTED_BY_HOST)]);
    core.restart();
    (device.sq_head, device.cq_tail, device.phase) = (0, 0, true);
    // A late completion of a command from before the reset.
    device.post(old[1], Status::SUCCESS);
    assert_eq!((poll(&mut core), core.counters().stale), (vec![], 1));
    assert!(submit(&mut core, 3));
    core.ring();
    let new = device.take()[0].cid.get();
    assert!(!old.contains(&new));
    device.post(new, Status::SUCCESS);
    assert_eq!(poll(&mut core), [(3, Status::SUCCESS)]);
    let counters = core.counters();
    assert_eq!((counters.submitted, counters.completed, counters.errors), (3, 3, 1));
}

#[test]
fn a_closed_queue_takes_nothing_until_it_begins_again() {
    let (_device, mut core) = Device::with_core(4);
    core.pending.close();
    assert!(!submit(&mut core, 1));
    core.restart();
    assert!(submit(&mut core, 1));
}

#[test]
fn lost_memory_is_never_used_again() {
    let (device, mut core) = Device::with_core(4);
    let buf = device.arena.alloc(4096).unwrap();
    let iova = buf.iova();
    core.submit_buf(Sqe::read(1, 0, 8), buf, 1).unwrap();
    let parts = ScatterList::new(vec![device.arena.alloc(4096).unwrap()], None);
    assert!(core.submit_scattered(Sqe::read(1, 0, 8), parts, 2).is_ok());
    for _ in 0..2 {
        let ended = core.abandon(status::ABORTED_BY_HOST, true).unwrap();
        assert!(ScatterList::from_completed(ended.buf).is_err());
    }
    assert!(device.arena.alloc(8192).unwrap().iova() > iova + 4096);
}

#[test]
fn parts_move_in_and_come_back() {
    let (mut device, mut core) = Device::with_core(4);
    let alloc = |bytes| device.arena.alloc(bytes).unwrap();
    let parts = ScatterList::labelled(vec![alloc(4096), alloc(512)], Some(alloc(72)), 9);
    let [first, second] = [0, 1].map(|i| parts.data()[i].iova());
    let metadata = parts.metadata().unwrap().iova();
    assert!(core.submit_scattered(Sqe::write(1, 0, 9), parts, 5).is_ok());
    core.ring();
    let sqe = device.take()[0];
    assert_eq!([sqe.prp1.get(), sqe.prp2.get(), sqe.mptr.get()], [first, second, metadata]);
    device.post(sqe.cid.get(), Status::SUCCESS);
    let Processed::Completed(ended) = core.process_one() else { panic!("nothing was posted") };
    let back = ScatterList::from_completed(ended.buf).unwrap();
    assert_eq!((back.data_len(), back.metadata().map(DmaBuf::len)), (4608, Some(72)));
    assert_eq!(back.label(), 9);
    // Neither page is whole, so that PRPs do not describe the data.
    let data = vec![device.arena.alloc(100).unwrap(), device.arena.alloc(412).unwrap()];
    let refused = core.submit_scattered(Sqe::write(1, 0, 1), ScatterList::new(data, None), 6);
    let (reason, parts, _) = refused.unwrap_err();
    assert!(
        matches!(reason, NotSubmitted::Scattered)
            && parts.data().len() == 2
            && core.in_flight() == 0
    );
}

#[test]
fn length_of_the_transfer_determines_the_second_pointer() {
    let (mut device, mut core) = Device::with_core(4);
    // PRP2 of 4,096 bytes that begin inside a page is the next page, not a list, although the
    // buffer has five pages.
    let mut buf = device.arena.alloc(5 * 4096).unwrap();
    drop(buf.split_to(512));
    let iova = buf.iova();
    core.submit_prefix(Sqe::deallocate(1, 256), 4096, buf, 7).unwrap();
    core.ring();
    let sqe = device.take()[0];
    assert_eq!([sqe.prp1.get(), sqe.prp2.get()], [iova, iova - 512 + 4096]);
    device.post(sqe.cid.get(), Status::SUCCESS);
    let Processed::Completed(ended) = core.process_one() else { panic!("nothing was posted") };
    assert_eq!((ended.buf.iova(), ended.buf.len()), (iova, 5 * 4096 - 512));
}

#[test]
fn a_buffer_moves_in_and_comes_back() {
    let (mut device, mut core) = Device::with_core(4);
    let buf = device.arena.alloc(3 * 4096).unwrap();
    let iova = buf.iova();
    core.submit_buf(Sqe::read(1, 0, 24), buf, 9).unwrap();
    core.ring();
    let sqe = device.take()[0];
    assert_eq!(sqe.prp1.get(), iova);
    // SAFETY: the list is in the arena.
    let list = [0, 1, 2].map(|i| unsafe { device.at::<u64>(sqe.prp2.get(), i).read_volatile() });
    assert_eq!(list, [iova + 4096, iova + 8192, 0]);
    assert!(device.arena.alloc(device.arena.size()).is_err(), "the buffer is with the command");
    device.post(sqe.cid.get(), Status::SUCCESS);
    let mut back = None;
    core.process(1, &mut |it: Completion<u32>| {
        back = Some((it.buf.iova(), it.buf.len(), it.context))
    });
    assert_eq!(back, Some((iova, 3 * 4096, 9)));
}
