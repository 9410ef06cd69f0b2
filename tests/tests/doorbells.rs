//! Doorbells of a host with a quick poll, on a controller that completes one command at a time. The
//! controller runs in this thread and counts the values that it sees.

use std::time::Duration;

use nvio_driver::{DmaBuf, Namespace, Options, QueuePair, WritableController};
use nvio_emulator::{Backing, Config, NamespaceConfig};
use nvio_tests::simulator::device::Device;

const READS: u64 = 20_000;
/// Empty polls between two completions.
const EMPTY: usize = 3;
/// Reads after which the driver has found that its caller rings for each.
const ENOUGH: usize = 300;
/// More empty polls than commands can wait for their doorbell.
const LONG: usize = 300;

struct Rig {
    pair: QueuePair<()>,
    namespace: Namespace,
    bufs: Vec<DmaBuf>,
    qid: u16,
    _controller: WritableController,
    device: Device,
}

impl Rig {
    /// Opens a queue pair with room for 128 commands, and keeps `depth` in flight.
    fn new(depth: usize, shadow_doorbells: bool) -> Self {
        let disk = NamespaceConfig::new(Backing::null(1 << 30)).block_size(4096);
        let config = Config::new().shadow_doorbells(shadow_doorbells).namespace(disk);
        let mut device = Device::new(&config, 1, 1 << 32, false).unwrap();
        let options = Options { arena_bytes: 4 << 20, shadow_doorbells, ..Options::default() };
        let controller = device.open(Options { writable: true, ..options }).unwrap();
        let namespace = controller.namespace(1).unwrap();
        let pair: QueuePair<()> = controller.queue_pair(128).unwrap();
        let bufs = (0..depth).map(|_| controller.alloc(4096).unwrap()).collect();
        let qid = pair.id();
        Self { pair, namespace, bufs, qid, _controller: controller, device }
    }

    /// Submits a read with each buffer that is not in flight, and rings.
    fn submit(&mut self) {
        while let Some(buf) = self.bufs.pop() {
            self.pair.read(&self.namespace, self.bufs.len() as u64, buf, ()).unwrap();
        }
        self.pair.ring();
    }

    /// Polls once, and returns the number of completions.
    fn poll(&mut self) -> usize {
        let Self { pair, bufs, .. } = self;
        pair.poll(32, |done| {
            assert!(done.status.is_success());
            bufs.push(done.buf);
        })
    }

    /// Lets the controller execute at most one command. Returns true if it had one.
    fn serve(&self) -> bool {
        self.device.with(|machine| machine.pass(Duration::ZERO, 1)) > 0
    }

    fn changes(&self) -> (u64, u64) {
        self.device.with(|machine| machine.doorbell_changes(self.qid))
    }

    /// Keeps 128 commands in flight, of which the last waits for its doorbell.
    fn with_held_command() -> Self {
        let mut rig = Self::new(128, false);
        rig.submit();
        for _ in 0..ENOUGH {
            rig.serve();
            if rig.poll() > 0 {
                rig.submit();
            }
        }
        loop {
            rig.serve();
            let before = rig.changes().0;
            rig.poll();
            rig.submit();
            assert!(rig.serve());
            if rig.changes().0 == before {
                break rig;
            }
        }
    }

    /// Reads with a quick poll, and returns the changes of tail and head.
    fn read_one_by_one(&mut self) -> (u64, u64) {
        self.submit();
        assert!(self.serve());
        let before = self.changes();
        let mut done = 0;
        while done < READS {
            // The first poll finds a command that ended, and the others usually find none.
            for _ in 0..=EMPTY {
                let ended = self.poll();
                if ended > 0 {
                    self.submit();
                }
                done += ended as u64;
            }
            self.serve();
        }
        let after = self.changes();
        (after.0 - before.0, after.1 - before.1)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        while self.pair.in_flight() > 0 {
            self.serve();
            self.poll();
        }
    }
}

#[test]
fn deep_queues_ring_at_most_every_fourth_time() {
    for shadow_doorbells in [false, true] {
        let (tails, heads) = Rig::new(128, shadow_doorbells).read_one_by_one();
        println!("depth 128: {tails} tails, {heads} heads in {READS} reads");
        assert!(tails > 0 && 4 * tails <= READS, "{tails} tails in {READS} reads");
        assert!(heads > 0 && 4 * heads <= READS, "{heads} heads in {READS} reads");
    }
}

#[test]
fn one_command_is_shown_at_once() {
    let mut rig = Rig::new(1, false);
    for _ in 0..100 {
        rig.submit();
        assert!(rig.serve(), "the controller does not see the command");
        assert_eq!(rig.poll(), 1);
    }
    let (tails, heads) = rig.read_one_by_one();
    println!("depth 1: {tails} tails, {heads} heads in {READS} reads");
    assert!(tails.abs_diff(READS) <= 1, "{tails} tails in {READS} reads");
    assert!(heads > 0 && 4 * heads <= READS, "{heads} heads in {READS} reads");
}

#[test]
fn empty_polls_show_every_command_to_the_controller() {
    let mut rig = Rig::with_held_command();
    while rig.poll() > 0 {}
    for _ in 0..LONG {
        rig.poll();
    }
    // Without another call, the controller executes all commands.
    while rig.serve() {}
    while rig.poll() > 0 {}
    assert_eq!(rig.pair.in_flight(), 0);
}

/// A caller may look for completions with `is_ready` instead of polls.
#[test]
fn a_caller_that_polls_only_if_there_is_a_completion_waits_for_none_in_vain() {
    let mut rig = Rig::with_held_command();
    while rig.pair.in_flight() > 0 {
        assert!(rig.serve() && rig.pair.is_ready(), "{} in flight", rig.pair.in_flight());
        rig.poll();
    }
}

#[test]
fn the_doorbells_are_written_before_a_wait_and_before_a_sleep() {
    for sleeps in [false, true] {
        let mut rig = Rig::with_held_command();
        let known = rig.changes().0;
        let Rig { pair, bufs, .. } = &mut rig;
        match sleeps {
            true => assert!(!pair.prepare_to_sleep(), "there is no eventfd"),
            false => assert!(pair.wait(|done| bufs.push(done.buf)).unwrap() > 0),
        }
        rig.serve();
        assert_eq!(rig.changes().0, known + 1);
    }
}
