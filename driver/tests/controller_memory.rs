//! Submission queues in the Controller Memory Buffer of the embedded controller.

use std::time::Duration;

use nvio_driver::spec::status;
use nvio_driver::{Controller, Options, QueuePair, Wait};
use nvio_emulator::{Backing, Config, DeviceFault, Emulator, NamespaceConfig, Service};
use nvio_testkit::controller::open_at;

/// Bytes of controller memory, enough for four queues of 64 entries.
const BYTES: u64 = 16 << 10;

/// Starts a controller on which block `n` is filled with `n`.
fn content() -> tempfile::NamedTempFile {
    let image = tempfile::NamedTempFile::new().unwrap();
    let blocks: Vec<u8> = (0..=255u8).flat_map(|n| [n; 512]).collect();
    std::fs::write(image.path(), blocks).unwrap();
    image
}

fn emulator(image: &tempfile::NamedTempFile, configure: impl FnOnce(Config) -> Config) -> Emulator {
    let namespace = NamespaceConfig::new(Backing::image(image.path(), true));
    configure(Emulator::builder().namespace(namespace)).start().unwrap()
}

fn open(emulator: &Emulator, options: Options) -> Controller {
    open_at(emulator.socket(), options)
}

fn wanted() -> Options {
    Options { controller_memory_queues: true, ..Options::default() }
}

/// Reads every block several times with a full queue, and compares.
fn read(controller: &Controller, queue: &mut QueuePair<u8>) {
    let namespace = controller.namespace(1).unwrap();
    let mut blocks = (0..8).flat_map(|_| 0..=255u8);
    loop {
        for block in blocks.by_ref().take(queue.capacity() - queue.in_flight()) {
            let buf = controller.alloc(512).unwrap();
            queue.read(&namespace, u64::from(block), buf, block).unwrap();
        }
        let ended = queue.wait(|done| {
            assert!(done.status.is_success(), "{}", done.status);
            assert!(done.buf.iter().all(|&byte| byte == done.context), "block {}", done.context);
        });
        if ended.unwrap() == 0 {
            return;
        }
    }
}

fn pairs(controller: &Controller, count: usize) -> Vec<QueuePair<u8>> {
    (0..count).map(|_| controller.queue_pair(63).unwrap()).collect()
}

fn places(queues: &[QueuePair<u8>]) -> Vec<bool> {
    queues.iter().map(QueuePair::is_in_controller_memory).collect()
}

/// Both kinds of controller memory, with and without shadow doorbells and interrupts.
fn in_each_way(test: impl Fn(&Emulator, Options)) {
    let image = content();
    let ways: [fn(Config) -> Config; 3] = [
        |it| it.controller_memory(BYTES),
        |it| it.legacy_controller_memory(BYTES),
        |it| it.controller_memory(BYTES).shadow_doorbells(true),
    ];
    for way in ways {
        let emulator = emulator(&image, way);
        for wait in [Wait::Poll, Wait::Interrupt { spin: Duration::ZERO }] {
            test(&emulator, Options { wait, ..wanted() });
            // Time for the server to notice that the client has closed the connection.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn queues_are_there_as_long_as_there_is_room() {
    in_each_way(|emulator, options| {
        let controller = open(emulator, options);
        let mut queues = pairs(&controller, 6);
        assert_eq!(places(&queues), [true, true, true, true, false, false]);
        queues.iter_mut().for_each(|queue| read(&controller, queue));
        // The memory of a dropped pair is used by the next one.
        drop(queues.remove(1));
        queues.extend(pairs(&controller, 2));
        assert_eq!(places(&queues), [true, true, true, false, false, true, false]);
        queues.iter_mut().for_each(|queue| read(&controller, queue));
        assert!(queues.iter().all(|queue| queue.counters().stale == 0));
        assert_eq!(controller.resets().unrequested(), 0);
    });
}

/// Resets the controller, and reads with each of five queue pairs afterwards.
fn reset_and_read(emulator: &Emulator, options: Options, before: impl Fn()) {
    let controller = open(emulator, options);
    let mut queues = pairs(&controller, 5);
    before();
    controller.reset().unwrap();
    for queue in &mut queues {
        queue.check(|_| ());
        read(&controller, queue);
        assert_eq!((queue.counters().resets, queue.counters().missed_interrupts), (1, 0));
    }
    assert_eq!(places(&queues), [true, true, true, true, false]);
}

#[test]
fn after_a_reset_queues_are_there_again() {
    in_each_way(|emulator, options| reset_and_read(emulator, options, || ()));
}

/// A reset of the function clears the address of the controller memory.
#[test]
fn after_a_reset_of_the_function_queues_are_there_again() {
    let image = content();
    let emulator = emulator(&image, |it| it.controller_memory(BYTES));
    let options = Options { wait: Wait::Interrupt { spin: Duration::ZERO }, ..wanted() };
    reset_and_read(&emulator, options, || {
        // The controller does not stop within CAP.TO, so that the driver resets the function.
        emulator.inject(DeviceFault::StuckReady(Duration::from_secs(30)));
    });
}

#[test]
fn commands_in_flight_end_with_a_reset() {
    let image = content();
    let slow = Service::new().latency(Duration::from_millis(200));
    let emulator = emulator(&image, |it| it.controller_memory(BYTES).service(slow));
    let controller = open(&emulator, wanted());
    let namespace = controller.namespace(1).unwrap();
    let mut queue: QueuePair<u8> = controller.queue_pair(63).unwrap();
    for block in 0..63 {
        queue.read(&namespace, u64::from(block), controller.alloc(512).unwrap(), block).unwrap();
    }
    queue.ring();
    emulator.inject(DeviceFault::Fatal);
    let mut ended = 0;
    while ended < 63 {
        let wait = queue.wait(|done| assert_eq!(done.status, status::ABORTED_BY_HOST));
        ended += wait.unwrap();
    }
    assert!(queue.is_in_controller_memory());
    read(&controller, &mut queue);
}

#[test]
fn without_the_memory_or_the_wish_queues_are_in_host_memory() {
    let image = content();
    for (memory, options) in [(false, wanted()), (true, Options::default())] {
        let emulator = emulator(&image, |it| if memory { it.controller_memory(BYTES) } else { it });
        let controller = open(&emulator, options);
        let mut queues = pairs(&controller, 2);
        assert_eq!(places(&queues), [false, false]);
        queues.iter_mut().for_each(|queue| read(&controller, queue));
    }
}
