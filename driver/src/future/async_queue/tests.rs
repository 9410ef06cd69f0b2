//! Futures on the embedded controller, with an executor that polls only tasks that were woken.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use nvio_emulator::{
    Backing, DeviceFault, Emulator, Fault, Faults, NamespaceConfig, Rule, Service,
};
use nvio_spec::{opcode::nvm, status};

use super::*;
use crate::served::{Served, writable};
use crate::{Arena, DmaMemory, Options, Wait};

const SIZE: u64 = 16 << 20;

struct Rig {
    emulator: Emulator,
    controller: Controller,
    namespace: WritableNamespace,
    /// An arena of its own, so that the test notices buffers that do not come back.
    arena: Arena,
}

impl Rig {
    fn buf(&self, bytes: usize) -> DmaBuf {
        self.arena.alloc(bytes).unwrap()
    }

    /// Returns true if every buffer came back.
    fn has_all_memory(&self) -> bool {
        self.arena.alloc(self.arena.size()).is_ok()
    }
}

fn rig(faults: Faults) -> Rig {
    let namespace = NamespaceConfig::new(Backing::memory(SIZE)).noiob(100);
    let builder = Emulator::builder().namespace(namespace).mdts(Some(2)).faults(faults);
    let served = Served::start(builder, writable());
    let namespace = served.writable_namespace();
    let Served { controller, emulator } = served;
    let arena = controller.register(DmaMemory::new(8 << 20).unwrap()).unwrap();
    Rig { emulator, controller, namespace, arena }
}

type Task<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Tasks. Each is polled only after it was woken.
struct Executor<'a>(Vec<(Arc<Flag>, Task<'a>)>);

impl<'a> Executor<'a> {
    fn new(tasks: impl IntoIterator<Item = Task<'a>>) -> Self {
        let woken = || Arc::new(Flag(AtomicBool::new(true)));
        Self(tasks.into_iter().map(|task| (woken(), task)).collect())
    }

    /// Polls each task that was woken once, and returns their number.
    fn round(&mut self) -> usize {
        let mut count = 0;
        self.0.retain_mut(|(flag, task)| {
            if !flag.0.swap(false, Ordering::Relaxed) {
                return true;
            }
            count += 1;
            let waker = Arc::clone(flag).into();
            task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending()
        });
        count
    }

    /// Polls tasks and queue until all tasks have ended.
    fn run(&mut self, queue: &AsyncQueue) {
        let end = Instant::now() + Duration::from_secs(60);
        while !self.0.is_empty() {
            assert!(Instant::now() < end, "{} tasks were never woken", self.0.len());
            self.round();
            queue.poll();
        }
    }
}

/// Polls a future once. It is pending afterwards.
fn start<F: Future>(future: Pin<&mut F>) {
    assert!(future.poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

#[test]
fn many_more_futures_than_slots_all_end_in_turn() {
    let served = rig(Faults::new());
    let queue = AsyncQueue::new(&served.controller, 8).unwrap();
    let order = Cell::new(0u64);
    let tasks = (0..1000u64).map(|i| {
        let (served, queue, order) = (&served, &queue, &order);
        Box::pin(async move {
            let mut buf = served.buf(512);
            buf.fill((i % 255) as u8);
            let mut buf = queue.write(&served.namespace, i, buf).await.unwrap();
            // First come, first served, except among commands in flight together.
            assert!(order.replace(order.get() + 1).abs_diff(i) <= 16);
            buf.fill(0xff);
            let buf = queue.read(&served.namespace, i, buf).await.unwrap();
            assert!(buf.iter().all(|&byte| u64::from(byte) == i % 255));
        }) as Task
    });
    Executor::new(tasks).run(&queue);
    assert_eq!((order.get(), queue.in_flight()), (1000, 0));
    let counters = queue.counters();
    assert_eq!((counters.submitted, counters.errors, counters.stale), (2000, 0, 0));
    // Fewer doorbells than commands: the futures were in flight together.
    assert!(counters.doorbells < 2000, "{counters:?}");
    assert!(served.has_all_memory());
}

#[test]
fn transfers_of_any_size_share_the_queue() {
    let served = rig(Faults::new());
    let queue = AsyncQueue::new(&served.controller, 5).unwrap();
    let sizes = [0, 1, 32, 33, 99, 100, 1000, 3000];
    let mut start = 0;
    let tasks = sizes.map(|blocks| {
        let (served, queue, lba) = (&served, &queue, start);
        start += blocks;
        Box::pin(async move {
            let model: Vec<u8> = (0..blocks * 512).map(|i| ((i + lba) % 251) as u8).collect();
            let mut buf = served.buf(model.len());
            buf.copy_from_slice(&model);
            let mut buf = queue.write(&served.namespace, lba, buf).await.unwrap();
            buf.fill(0);
            queue.flush(&served.namespace).await.unwrap();
            let buf = queue.read(&served.namespace, lba, buf).await.unwrap();
            assert!(*buf == *model, "{blocks} blocks at {lba}");
        }) as Task
    });
    Executor::new(tasks).run(&queue);
    queue.block_on(async {
        let all = queue.write_zeroes(&served.namespace, 7, 4000, true);
        all.await.unwrap();
        let ranges = [DsmRange::new(0, 7, 0)];
        let buf = queue.deallocate(&served.namespace, &ranges, served.buf(16)).await.unwrap();
        assert_eq!(buf.len(), 16);
        let buf = queue.read(&served.namespace, 0, served.buf(4007 * 512)).await.unwrap();
        assert!(buf[7 * 512..].iter().all(|&byte| byte == 0));
    });
    assert!(served.has_all_memory());
}

#[test]
fn errors_name_the_blocks_and_give_the_buffer_back() {
    let bad = Rule::new(Fault::Status(status::UNRECOVERED_READ_ERROR)).lbas(310..311);
    let served = rig(Faults::new().rule(bad));
    let queue = AsyncQueue::new(&served.controller, 64).unwrap();
    let read = |lba, bytes| queue.block_on(queue.read(&served.namespace, lba, served.buf(bytes)));
    let failed = read(0, 500 * 512).unwrap_err();
    assert!(matches!(failed.error, Error::Io { lba: 300, blocks: 32, .. }), "{failed}");
    assert_eq!(failed.payload.map(|buf| buf.len()), Some(500 * 512));
    let failed = read(0, 100).unwrap_err();
    assert!(matches!((failed.error, failed.payload), (Error::Misaligned { .. }, Some(_))));
    let failed = read(SIZE / 512, 512).unwrap_err();
    assert!(matches!((failed.error, failed.payload), (Error::OutOfRange { .. }, Some(_))));
    read(0, 300 * 512).unwrap();
    assert!(served.has_all_memory());
}

#[test]
fn a_line_that_is_full_is_an_error_and_keeps_nothing() {
    let served = rig(Faults::new());
    let queue = AsyncQueue::with_waiting(&served.controller, 2, 3).unwrap();
    let read = |lba| Box::pin(queue.read(&served.namespace, lba, served.buf(512)));
    let mut reads: Vec<_> = (0..5).map(read).collect();
    reads.iter_mut().for_each(|read| start(read.as_mut()));
    let failed = queue.block_on(read(5)).unwrap_err();
    assert!(matches!(failed.error, Error::QueueFull { capacity: 3 }), "{failed}");
    assert!(failed.payload.is_some());
    // A transfer whose first command waits goes on later.
    drop(reads.pop());
    let mut large = Box::pin(queue.read(&served.namespace, 0, served.buf(1 << 20)));
    start(large.as_mut());
    for read in reads {
        queue.block_on(read).unwrap();
    }
    queue.block_on(large).unwrap();
}

#[test]
fn a_transfer_that_finds_no_place_goes_on_when_its_own_commands_end() {
    let served = rig(Faults::new());
    let queue = AsyncQueue::with_waiting(&served.controller, 4, 0).unwrap();
    let buf = queue.block_on(queue.read(&served.namespace, 0, served.buf(1 << 20))).unwrap();
    assert_eq!((buf.len(), queue.counters().errors), (1 << 20, 0));
}

#[test]
fn futures_can_be_dropped_in_every_state() {
    let served = rig(Faults::new());
    let queue = AsyncQueue::new(&served.controller, 4).unwrap();
    let read = |bytes| Box::pin(queue.read(&served.namespace, 0, served.buf(bytes)));
    drop(read(512));
    let mut reads: Vec<_> = (0..8).map(|_| read(512)).collect();
    reads.iter_mut().for_each(|read| start(read.as_mut()));
    assert_eq!(queue.in_flight(), 4);
    // Two in flight, and two in the line.
    for at in [6, 4, 2, 0] {
        drop(reads.remove(at));
    }
    assert_eq!(queue.in_flight(), 4, "the commands go on");
    assert!(!served.has_all_memory());
    while queue.in_flight() > 0 {
        queue.poll();
    }
    // Two have ended and were not polled. One of them, and one that was granted a place, are
    // dropped.
    drop(reads.remove(3));
    drop(reads.remove(1));
    for read in reads {
        assert_eq!(queue.block_on(read).unwrap().len(), 512);
    }
    let mut large = read(1 << 20);
    start(large.as_mut());
    drop(large);
    // All places are free again.
    let mut all: Vec<_> = (0..4).map(|_| read(4096)).collect();
    all.iter_mut().for_each(|read| start(read.as_mut()));
    for read in all {
        queue.block_on(read).unwrap();
    }
    assert_eq!(queue.in_flight(), 0);
    assert!(served.has_all_memory());
}

#[test]
fn any_mix_of_dropping_and_waiting_loses_no_slot() {
    let served = rig(Faults::new());
    let queue = AsyncQueue::with_waiting(&served.controller, 3, 20).unwrap();
    let mut random = 99u64;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        random >> 33
    };
    let done = Cell::new(0);
    let mut executor = Executor::new([]);
    let end = Instant::now() + Duration::from_secs(60);
    while done.get() < 1000 {
        assert!(Instant::now() < end);
        if executor.0.len() < 16 && next() % 2 == 0 {
            let bytes = 512 * (1 + next() as usize % 200);
            let (served, queue, done) = (&served, &queue, &done);
            let task = Box::pin(async move {
                queue.read(&served.namespace, 0, served.buf(bytes)).await.unwrap();
                done.set(done.get() + 1);
            });
            executor.0.append(&mut Executor::new([task as Task]).0);
        }
        if !executor.0.is_empty() && next() % 16 == 0 {
            let at = next() as usize % executor.0.len();
            drop(executor.0.swap_remove(at));
        }
        executor.round();
        queue.poll();
    }
    executor.run(&queue);
    while queue.in_flight() > 0 {
        queue.poll();
    }
    assert!(served.has_all_memory());
    for _ in 0..3 {
        assert!(queue.permits().try_acquire(), "a slot was lost");
    }
    assert!(!queue.permits().try_acquire(), "a slot was made up");
}

#[test]
fn a_reset_ends_what_is_in_flight_and_the_line_goes_on() {
    let lost = Rule::new(Fault::Lost).opcode(nvm::READ).times(3);
    let served = rig(Faults::new().rule(lost));
    let queue = AsyncQueue::new(&served.controller, 3).unwrap();
    let (aborted, whole) = (Cell::new(0), Cell::new(0));
    let tasks = (0..10).map(|lba| {
        let (served, queue, aborted, whole) = (&served, &queue, &aborted, &whole);
        Box::pin(async move {
            match queue.read(&served.namespace, lba, served.buf(512)).await {
                Ok(_) => whole.set(whole.get() + 1),
                Err(Failed { error: Error::Io { status, .. }, payload: Some(_) }) => {
                    assert_eq!(status, status::ABORTED_BY_HOST);
                    aborted.set(aborted.get() + 1);
                }
                Err(failed) => panic!("{failed}"),
            }
        }) as Task
    });
    let mut executor = Executor::new(tasks);
    executor.round();
    queue.poll();
    while served.emulator.fault_counts().lost < 3 {
        std::thread::yield_now();
    }
    served.controller.reset().unwrap();
    executor.run(&queue);
    assert_eq!((aborted.get(), whole.get(), queue.counters().resets), (3, 7, 1));
    assert!(served.has_all_memory());
}

#[test]
fn a_controller_that_is_gone_ends_every_future() {
    let gone = Rule::new(Fault::Device(DeviceFault::Removed)).opcode(nvm::READ).nth(3);
    let served = rig(Faults::new().rule(gone));
    let queue = AsyncQueue::new(&served.controller, 4).unwrap();
    let (pathing, refused) = (Cell::new(0), Cell::new(0));
    let tasks = (0..20).map(|lba| {
        let (served, queue, pathing, refused) = (&served, &queue, &pathing, &refused);
        Box::pin(async move {
            match queue.read(&served.namespace, lba, served.buf(512)).await {
                Ok(_) => {}
                Err(Failed { error: Error::Io { status, .. }, payload: Some(_) }) => {
                    assert_eq!(status, status::HOST_PATHING_ERROR);
                    pathing.set(pathing.get() + 1);
                }
                Err(Failed { error: Error::Gone, payload: Some(_) }) => {
                    refused.set(refused.get() + 1)
                }
                Err(failed) => panic!("{failed}"),
            }
        }) as Task
    });
    Executor::new(tasks).run(&queue);
    assert!((1..=4).contains(&pathing.get()) && refused.get() >= 14, "{pathing:?} {refused:?}");
    assert!(served.has_all_memory());
    drop(served.emulator);
}

#[test]
fn a_queue_can_be_dropped_while_its_commands_go_on() {
    let served = rig(Faults::new());
    let queue = AsyncQueue::new(&served.controller, 4).unwrap();
    let mut read = Box::pin(queue.read(&served.namespace, 0, served.buf(1 << 20)));
    start(read.as_mut());
    queue.poll();
    drop(read);
    drop(queue);
    assert!(served.has_all_memory());
}

/// A waker that polls the queue, and drops a future, when it is woken.
struct Meddler {
    queue: *const AsyncQueue,
    done: AtomicBool,
}

// SAFETY: the test has one thread.
unsafe impl Send for Meddler {}
// SAFETY: as above.
unsafe impl Sync for Meddler {}

impl Wake for Meddler {
    fn wake(self: Arc<Self>) {
        // SAFETY: the queue outlives the wakers in it.
        let queue = unsafe { &*self.queue };
        queue.poll();
        self.done.store(true, Ordering::Relaxed);
    }
}

#[test]
fn wakers_and_closures_may_use_the_queue() {
    let served = rig(Faults::new());
    let queue = AsyncQueue::new(&served.controller, 2).unwrap();
    let meddler = Arc::new(Meddler { queue: &raw const queue, done: AtomicBool::new(false) });
    let waker = Arc::clone(&meddler).into();
    let mut reads: Vec<_> =
        (0..4).map(|_| Box::pin(queue.read(&served.namespace, 0, served.buf(512)))).collect();
    for read in &mut reads {
        assert!(read.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    while !meddler.done.load(Ordering::Relaxed) {
        queue.poll();
    }
    for read in reads {
        queue.block_on(read).unwrap();
    }
    drop(waker);
    assert_eq!(Arc::strong_count(&meddler), 1, "no waker is kept");
    // Inside of the function that submits another command.
    let mut other = Some(Box::pin(queue.flush(&served.namespace)));
    start(other.as_mut().unwrap().as_mut());
    let done = queue.block_on(queue.command((), |pair, (), ticket| {
        assert_eq!((queue.poll(), queue.in_flight()), (0, 1), "the other one");
        drop(other.take());
        pair.flush(&served.namespace, ticket)
    }));
    assert!(done.unwrap().status.is_success());
    while queue.in_flight() > 0 {
        queue.poll();
    }
}

#[test]
fn an_executor_with_nothing_to_do_sleeps_until_an_interrupt() {
    let slow = Service::new().latency(Duration::from_millis(20));
    let disk = NamespaceConfig::new(Backing::memory(SIZE));
    let builder = Emulator::builder().namespace(disk).service(slow);
    let wait = Wait::Interrupt { spin: Duration::ZERO };
    let options = Options { wait, ..Options::default() };
    let Served { controller, emulator: _emulator } = Served::start(builder, options);
    let namespace = controller.namespace(1).unwrap();
    let queue = AsyncQueue::new(&controller, 4).unwrap();
    assert!(queue.event_fd().is_some());
    let tasks = (0..8).map(|lba| {
        let (controller, queue, namespace) = (&controller, &queue, &namespace);
        Box::pin(async move {
            queue.read(namespace, lba, controller.alloc(512).unwrap()).await.unwrap();
        }) as Task
    });
    let mut executor = Executor::new(tasks);
    while !executor.0.is_empty() {
        executor.round();
        queue.wait().unwrap();
    }
    let counters = queue.counters();
    assert!(counters.sleeps > 0 && counters.idle_polls < 100_000, "{counters:?}");
    assert!(queue.prepare_to_sleep() && queue.poll() == 0 && queue.wait().unwrap() == 0);
}

#[test]
fn an_executor_that_only_polls_is_driven_by_a_task() {
    let served = rig(Faults::new());
    let queue = AsyncQueue::new(&served.controller, 4).unwrap();
    let mut executor = Executor::new([Box::pin(queue.drive(async {
        for lba in 0..10 {
            queue.read(&served.namespace, lba, served.buf(512)).await.unwrap();
        }
    })) as Task]);
    let end = Instant::now() + Duration::from_secs(10);
    while executor.round() > 0 {
        assert!(Instant::now() < end);
    }
    assert!(executor.0.is_empty());
}
