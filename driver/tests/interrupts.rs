//! Waiting by interrupts, on the embedded controller.

use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use nvio_driver::spec::status;
use nvio_driver::{Controller, Counters, DmaBuf, Namespace, Options, QueuePair, Wait};
use nvio_emulator::{Backing, Config, DeviceFault, Emulator, NamespaceConfig, Service};
use nvio_testkit::controller::open_at;

const MIB: u64 = 1 << 20;

fn emulator(configure: impl FnOnce(Config) -> Config) -> Emulator {
    let builder = Emulator::builder().namespace(NamespaceConfig::new(Backing::memory(MIB)));
    configure(builder).start().unwrap()
}

fn open(emulator: &Emulator, wait: Wait) -> Controller {
    let options = Options { wait, ..Options::default() };
    open_at(emulator.socket(), options)
}

fn interrupt(spin: Duration) -> Wait {
    Wait::Interrupt { spin }
}

/// Polls of a wait between two sleeps, at most, without a time of polling before the sleep.
const POLLS_PER_SLEEP: u64 = 64;

/// The waits of a pair that sleeps at once took at most the polls around their sleeps.
fn assert_hardly_polled(counters: &Counters, waits: u64) {
    let most = (POLLS_PER_SLEEP + 1) * (counters.sleeps + waits);
    assert!(counters.polls <= most, "more than {most} polls: {counters:?}");
    assert!(counters.sleeps <= 2 * waits, "woken without a completion: {counters:?}");
}

/// Reads all blocks in turn with `depth` commands in flight, until `count` have completed.
fn read(
    controller: &Controller,
    namespace: &Namespace,
    queue: &mut QueuePair<u64>,
    depth: usize,
    count: u64,
) {
    let mut free: Vec<_> = (0..depth).map(|_| controller.alloc(512).unwrap()).collect();
    let (mut started, mut ended) = (0, 0);
    let mut seen = vec![false; count as usize];
    while ended < count {
        while let Some(buf) = free.pop_if(|_| started < count) {
            queue.read(namespace, started % namespace.blocks(), buf, started).unwrap();
            started += 1;
        }
        ended += queue
            .wait(|done| {
                assert!(done.status.is_success(), "{}", done.status);
                assert!(!std::mem::replace(&mut seen[done.context as usize], true));
                free.push(done.buf);
            })
            .unwrap() as u64;
    }
    assert_eq!(queue.in_flight(), 0);
}

/// Waits for 50 commands that take 10 ms each.
fn wait_long(wait: Wait) -> Counters {
    let emulator = emulator(|it| it.service(Service::new().latency(Duration::from_millis(10))));
    let controller = open(&emulator, wait);
    let namespace = controller.namespace(1).unwrap();
    let mut queue = controller.queue_pair(1).unwrap();
    let begin = Instant::now();
    read(&controller, &namespace, &mut queue, 1, 50);
    assert!(begin.elapsed() >= Duration::from_millis(500));
    queue.counters()
}

#[test]
fn waiting_asleep_takes_hardly_any_polls() {
    let polling = wait_long(Wait::Poll);
    assert_eq!(polling.sleeps, 0);
    let asleep = wait_long(interrupt(Duration::ZERO));
    assert_hardly_polled(&asleep, 50);
    assert!(polling.polls > 2 * asleep.polls, "{polling:?} polling, {asleep:?} asleep");
    assert!(asleep.sleeps >= 25, "{asleep:?}");
    assert_eq!(asleep.missed_interrupts, 0);
    // The time of polling before a sleep is bounded, too.
    let both = wait_long(interrupt(Duration::from_micros(50)));
    assert!(both.sleeps >= 25 && both.polls < polling.polls, "{both:?}, {polling:?} polling");
}

#[test]
fn an_idle_gap_between_commands_takes_no_polls() {
    let emulator = emulator(|it| it.service(Service::new().latency(Duration::from_micros(80))));
    let controller = open(&emulator, interrupt(Duration::ZERO));
    let namespace = controller.namespace(1).unwrap();
    let mut queue = controller.queue_pair(1).unwrap();
    for _ in 0..100 {
        read(&controller, &namespace, &mut queue, 1, 1);
        let before = queue.counters().polls;
        thread::sleep(Duration::from_millis(1));
        assert_eq!(queue.counters().polls, before);
    }
    assert_hardly_polled(&queue.counters(), 100);
    assert_eq!(queue.counters().missed_interrupts, 0);
}

/// Waits for completions by the eventfd alone: each must make it readable, however late the
/// machine lets the device do that.
fn wait_for_event(queue: &mut QueuePair<u64>, sleeps: &mut u64, free: &mut Vec<DmaBuf>) -> u64 {
    if queue.prepare_to_sleep() {
        let fd = queue.event_fd().unwrap().as_raw_fd();
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd of an open descriptor.
        assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 60_000) }, 1, "a lost interrupt");
        *sleeps += 1;
    }
    let ended = queue.poll(usize::MAX, |done| {
        assert!(done.status.is_success(), "{}", done.status);
        free.push(done.buf);
    });
    ended as u64
}

/// Each wait is a race between going to sleep and the completion.
#[test]
fn no_completion_is_lost() {
    let emulator = emulator(|it| it);
    let mut sleeps = 0;
    for (depth, count) in [(1, 100_000), (32, 100_000)] {
        let controller = open(&emulator, interrupt(Duration::ZERO));
        let namespace = controller.namespace(1).unwrap();
        let mut queue: QueuePair<u64> = controller.queue_pair(32).unwrap();
        let mut free: Vec<_> = (0..depth).map(|_| controller.alloc(512).unwrap()).collect();
        let (mut started, mut ended) = (0, 0);
        while ended < count {
            while let Some(buf) = free.pop_if(|_| started < count) {
                queue.read(&namespace, started % namespace.blocks(), buf, started).unwrap();
                started += 1;
            }
            ended += wait_for_event(&mut queue, &mut sleeps, &mut free);
        }
        let counters = queue.counters();
        assert_eq!((counters.completed, counters.stale), (count, 0));
    }
    // The race is won by either side, as the speed of the two threads decides.
    assert!(sleeps > 0, "there was no race");
}

#[test]
fn waits_after_a_time_of_polling_end() {
    let emulator = emulator(|it| it);
    for depth in [1, 32] {
        let controller = open(&emulator, interrupt(Duration::from_micros(5)));
        let namespace = controller.namespace(1).unwrap();
        let mut queue = controller.queue_pair(32).unwrap();
        read(&controller, &namespace, &mut queue, depth, 20_000);
        let counters = queue.counters();
        assert_eq!((counters.completed, counters.stale), (20_000, 0));
    }
}

#[test]
fn threads_have_vectors_of_their_own() {
    let emulator = emulator(|it| it.max_queues(8));
    let controller = open(&emulator, interrupt(Duration::ZERO));
    let namespace = controller.namespace(1).unwrap();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut queue = controller.queue_pair(4).unwrap();
                read(&controller, &namespace, &mut queue, 3, 1000);
                assert_eq!(queue.counters().missed_interrupts, 0);
            });
        }
    });
    // The vectors are free again after each round.
    for _ in 0..20 {
        let queues: Vec<QueuePair> = (0..8).map(|_| controller.queue_pair(2).unwrap()).collect();
        let mut events: Vec<_> =
            queues.iter().map(|queue| queue.event_fd().unwrap().as_raw_fd()).collect();
        events.sort_unstable();
        events.dedup();
        assert_eq!(events.len(), 8);
    }
    assert_eq!(controller.resets().unrequested(), 0);
}

#[test]
fn an_event_loop_can_wait_for_the_eventfd() {
    let emulator = emulator(|it| it.service(Service::new().latency(Duration::from_millis(3))));
    let controller = open(&emulator, interrupt(Duration::ZERO));
    let namespace = controller.namespace(1).unwrap();
    let mut queue: QueuePair<u64> = controller.queue_pair(4).unwrap();
    for round in 0..20 {
        queue.read(&namespace, round, controller.alloc(512).unwrap(), round).unwrap();
        let mut ended = Vec::new();
        while ended.is_empty() {
            if queue.prepare_to_sleep() {
                let fd = queue.event_fd().unwrap().as_raw_fd();
                let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
                // SAFETY: one pollfd of an open descriptor.
                assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 10_000) }, 1, "a completion");
            }
            queue.poll(8, |done| ended.push(done.context));
        }
        assert_eq!(ended, [round]);
    }
    let polled = open_other();
    let mut queue: QueuePair = polled.1.queue_pair(4).unwrap();
    assert!(queue.event_fd().is_none() && !queue.prepare_to_sleep());
}

/// Opens a controller for polling, on an emulator of its own.
fn open_other() -> (Emulator, Controller) {
    let emulator = emulator(|it| it);
    let controller = open(&emulator, Wait::Poll);
    (emulator, controller)
}

#[test]
fn after_a_reset_in_flight_queues_have_their_interrupts_again() {
    let emulator = emulator(|it| it.service(Service::new().latency(Duration::from_millis(300))));
    let controller = open(&emulator, interrupt(Duration::ZERO));
    let namespace = controller.namespace(1).unwrap();
    let mut queue: QueuePair<u64> = controller.queue_pair(8).unwrap();
    for round in 0..4 {
        for lba in 0..8 {
            queue.read(&namespace, lba, controller.alloc(512).unwrap(), lba).unwrap();
        }
        queue.ring();
        if round % 2 == 0 {
            controller.reset().unwrap();
        } else {
            emulator.inject(DeviceFault::Fatal);
        }
        let mut ended = 0;
        while ended < 8 {
            let wait = queue.wait(|done| assert_eq!(done.status, status::ABORTED_BY_HOST));
            ended += wait.unwrap();
        }
        read(&controller, &namespace, &mut queue, 8, 8);
    }
    let counters = queue.counters();
    assert_eq!((counters.resets, counters.missed_interrupts), (4, 0), "{counters:?}");
    assert!(counters.sleeps >= 8);
}

/// A reset wakes a thread that sleeps for a command that does not complete.
#[test]
fn a_reset_wakes_those_who_sleep() {
    let emulator = emulator(|it| it.service(Service::new().latency(Duration::from_secs(20))));
    let controller = open(&emulator, interrupt(Duration::ZERO));
    let namespace = controller.namespace(1).unwrap();
    let mut queue: QueuePair<u64> = controller.queue_pair(8).unwrap();
    queue.read(&namespace, 0, controller.alloc(512).unwrap(), 7).unwrap();
    let begin = Instant::now();
    let resetter = controller.clone();
    let resetting = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        resetter.reset().unwrap();
    });
    let mut ended = Vec::new();
    queue.wait(|done| ended.push((done.context, done.status))).unwrap();
    assert_eq!(ended, [(7, status::ABORTED_BY_HOST)]);
    assert!(begin.elapsed() < Duration::from_secs(20), "the command itself has ended");
    resetting.join().unwrap();
}

#[test]
fn a_controller_that_goes_while_one_sleeps_is_noticed() {
    let emulator = emulator(|it| it.service(Service::new().latency(Duration::from_secs(20))));
    let controller = open(&emulator, interrupt(Duration::ZERO));
    let namespace = controller.namespace(1).unwrap();
    let mut queue: QueuePair<u64> = controller.queue_pair(8).unwrap();
    queue.read(&namespace, 0, controller.alloc(512).unwrap(), 7).unwrap();
    queue.ring();
    thread::sleep(Duration::from_millis(20));
    emulator.inject(DeviceFault::Removed);
    let begin = Instant::now();
    let mut ended = Vec::new();
    queue.wait(|done| ended.push(done.status)).unwrap();
    assert_eq!(ended, [status::HOST_PATHING_ERROR]);
    assert!(begin.elapsed() < Duration::from_secs(20), "the command itself has ended");
}
