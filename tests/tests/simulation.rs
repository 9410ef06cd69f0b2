//! Single scenarios of the simulation of driver and controller, and some of its seeds. The program
//! `simulate` plays all seeds; `tests/run simulation` runs it.

use std::sync::Arc;
use std::time::Duration;

use nvio_driver::spec::opcode::nvm;
use nvio_driver::spec::{Status, status};
use nvio_driver::{DmaBuf, Error, Options, QueuePair, WritableController, WritableNamespace};
use nvio_emulator::{Backing, Config, DeviceFault, Fault, Faults, NamespaceConfig, Rule};
use nvio_tests::simulation::mix::Mix;
use nvio_tests::simulation::run::run;
use nvio_tests::simulator::bound::Bounds;
use nvio_tests::simulator::buffers::Buffers;
use nvio_tests::simulator::content;
use nvio_tests::simulator::device::Device;
use nvio_tests::simulator::lend::Lent;
use nvio_tests::simulator::lock;
use nvio_tests::simulator::machine::{Broken, Machine};

const BLOCK: usize = 4096;
/// A time longer than all timeouts of commands.
const EVER: Duration = Duration::from_secs(3600);
const LATE: Duration = Duration::from_millis(25);

type Pair = QueuePair<u64>;

/// A driver on a controller in the same thread.
struct Rig {
    namespace: WritableNamespace,
    buffers: Buffers,
    controller: WritableController,
    device: Device,
    bounds: Bounds,
}

impl Rig {
    fn new(config: impl FnOnce(Config) -> Config) -> Self {
        let (admin_timeout, io_timeout) = (Duration::from_millis(20), Duration::from_millis(50));
        Self::open(config, Options { admin_timeout, io_timeout, ..Options::default() })
    }

    fn open(config: impl FnOnce(Config) -> Config, options: Options) -> Self {
        let disk = NamespaceConfig::new(Backing::memory(1 << 20)).block_size(4096);
        let config = config(Config::new().namespace(disk));
        let mut device = Device::new(&config, 1, 1 << 32, false).unwrap();
        let buffers = Buffers::new(&device.with(|machine| Arc::clone(&machine.table)));
        let options = Options { arena_bytes: 4 << 20, writable: true, ..options };
        let bounds = Bounds::new(&options, Duration::from_millis(10));
        let controller = device.open(options).unwrap();
        let namespace = controller.writable_namespace(1).unwrap();
        Self { namespace, buffers, controller, device, bounds }
    }

    fn shadow() -> Self {
        Self::new(|config| config.shadow_doorbells(true))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Machine) -> T) -> T {
        self.device.with(act)
    }

    fn faults(&self, faults: Faults) {
        self.device.set_faults(&faults).unwrap();
    }

    fn inject(&self, fault: DeviceFault) {
        self.with(|machine| machine.inject(fault));
    }

    fn pass(&self, time: Duration) {
        self.with(|machine| machine.pass(time, usize::MAX));
    }

    fn buffer(&self, lent: Lent) -> DmaBuf {
        let mut buf = self.controller.alloc(BLOCK).unwrap();
        buf.fill(content::POISON);
        self.buffers.mark(&buf, lent);
        buf
    }

    /// Submits a read of block `lba`, which is also its token.
    fn read(&self, pair: &mut Pair, lba: u64) {
        pair.read(&self.namespace, lba, self.buffer(Lent::In), lba).unwrap();
    }

    /// Submits a write of `value` to block `lba`, which is also its token.
    fn write(&self, pair: &mut Pair, lba: u64, value: u64) {
        let mut buf = self.buffer(Lent::Out);
        content::fill(&mut buf, value, content::place(1, lba));
        pair.write(&self.namespace, lba, buf, lba).unwrap();
    }

    /// Waits until no command is in flight. Returns token, status and, for successful reads, the
    /// value of the block, sorted by token.
    fn end(&mut self, pair: &mut Pair) -> Vec<(u64, Status, Option<u64>)> {
        let mut ended = Vec::new();
        let begin = self.with(|machine| machine.now());
        pair.ring();
        while pair.in_flight() > 0 {
            self.pass(self.bounds.attention / 2);
            let mut done = Vec::new();
            pair.poll(usize::MAX, |completion| done.push(completion));
            pair.check(|completion| done.push(completion));
            for completion in done {
                let place = content::place(1, completion.context);
                let value = content::identify(&completion.buf, place);
                ended.push((completion.context, completion.status, value));
                self.buffers.keep(completion.buf);
            }
            let took = self.with(|machine| machine.now()) - begin;
            assert!(took < self.bounds.request, "{} in flight after {took:?}", pair.in_flight());
        }
        self.check();
        ended.sort_by_key(|(token, ..)| *token);
        ended
    }

    /// Checks that the controller has accessed only lent memory.
    fn check(&self) {
        assert_eq!(self.device.check_accesses(), Ok(()));
    }

    /// Checks that writes and reads on this pair succeed.
    fn goes_on(&mut self, pair: &mut Pair, value: u64) {
        for lba in 0..40 {
            while pair.in_flight() == pair.capacity() {
                self.end(pair);
            }
            self.write(pair, lba, value + lba);
        }
        let written = self.end(pair);
        assert!(written.iter().all(|(_, status, _)| status.is_success()), "{written:?}");
        for lba in 30..40 {
            self.read(pair, lba);
            assert_eq!(self.end(pair), [(lba, Status::SUCCESS, Some(value + lba))]);
        }
    }

    fn shadow_reads(&self) -> u64 {
        self.with(|machine| lock(&machine.table).shadow_reads())
    }

    /// Like [`goes_on`](Self::goes_on), and checks that shadow doorbells are used.
    fn goes_on_by_shadow(&mut self, pair: &mut Pair, value: u64) {
        let (before, reads) = (pair.counters(), self.shadow_reads());
        self.goes_on(pair, value);
        assert!(self.shadow_reads() > reads + 20, "{} looks", self.shadow_reads() - reads);
        let after = pair.counters();
        let rung = after.doorbells - before.doorbells;
        let polls = after.polls - before.polls - (after.idle_polls - before.idle_polls);
        // A tail doorbell is written only for an empty queue, as here for each command, and a head
        // doorbell almost never. Without shadow doorbells there would be two writes for each poll.
        assert!(2 * rung < 3 * polls, "{rung} doorbells rung, {polls} polls found something");
    }
}

fn statuses(ended: &[(u64, Status, Option<u64>)]) -> Vec<Status> {
    ended.iter().map(|(_, status, _)| status.bare()).collect()
}

#[test]
fn a_volume_that_stalls_for_35_seconds_is_waited_for() {
    let mut rig = Rig::open(|config| config, Options::default());
    let mut pair = rig.controller.queue_pair(16).unwrap();
    rig.write(&mut pair, 3, 77);
    rig.end(&mut pair);
    rig.faults(Faults::new().rule(Rule::new(Fault::Late(Duration::from_secs(35)))));
    rig.read(&mut pair, 3);
    rig.write(&mut pair, 4, 78);
    let ended = rig.end(&mut pair);
    assert_eq!(statuses(&ended), [Status::SUCCESS; 2]);
    assert_eq!(ended[0].2, Some(77));
    assert_eq!(rig.controller.resets().unrequested(), 0);
    assert!(rig.with(|machine| machine.now()) >= Duration::from_secs(35));
}

#[test]
fn a_repetition_after_a_reset_reads_the_right_block_beside_other_commands() {
    let (admin_timeout, io_timeout) = (Duration::from_millis(20), Duration::from_millis(50));
    let options = Options { admin_timeout, io_timeout, retries: 3, ..Options::default() };
    let mut rig = Rig::open(|config| config, options);
    let mut pair = rig.controller.queue_pair(16).unwrap();
    rig.goes_on(&mut pair, 500);
    let lost = Rule::new(Fault::Lost).opcode(nvm::READ).times(2);
    let stuck = Rule::new(Fault::NotAbortable).opcode(nvm::READ).times(2);
    rig.faults(Faults::new().rule(lost).rule(stuck));
    (30..36).for_each(|lba| rig.read(&mut pair, lba));
    let ended = rig.end(&mut pair);
    let expected: Vec<_> = (30..36).map(|lba| (lba, Status::SUCCESS, Some(500 + lba))).collect();
    assert_eq!(ended, expected);
    assert_eq!((rig.controller.resets().unrequested(), pair.counters().errors), (1, 0));
    assert_eq!(pair.counters().retries, 2);
    rig.goes_on(&mut pair, 900);
}

#[test]
fn the_retry_delay_of_the_controller_passes_before_the_second_attempt() {
    let options = Options { retries: 1, ..Options::default() };
    let mut rig = Rig::open(|config| config.crdt([20, 0, 0]), options);
    let mut pair = rig.controller.queue_pair(16).unwrap();
    rig.write(&mut pair, 3, 77);
    rig.end(&mut pair);
    // Command Retry Delay 1: 2 s.
    let delayed = Status(status::NAMESPACE_NOT_READY.0 | 1 << 11);
    rig.faults(Faults::new().rule(Rule::new(Fault::Status(delayed)).times(1)));
    let begin = rig.with(|machine| machine.now());
    rig.read(&mut pair, 3);
    assert_eq!(rig.end(&mut pair), [(3, Status::SUCCESS, Some(77))]);
    let took = rig.with(|machine| machine.now()) - begin;
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn after_a_reset_in_flight_shadow_doorbells_are_used_again_and_nothing_stale_comes() {
    let mut rig = Rig::shadow();
    let mut pairs: Vec<Pair> = (0..2).map(|_| rig.controller.queue_pair(16).unwrap()).collect();
    for (value, pair) in (1000..).step_by(1000).zip(&mut pairs) {
        rig.goes_on_by_shadow(pair, value);
    }
    rig.faults(Faults::new().rule(Rule::new(Fault::Late(LATE))));
    for pair in &mut pairs {
        (0..16).for_each(|lba| rig.read(pair, lba));
        pair.ring();
    }
    rig.pass(Duration::from_millis(1));
    rig.controller.reset().unwrap();
    // Late commands would complete now.
    rig.pass(2 * LATE);
    rig.faults(Faults::new());
    for pair in &mut pairs {
        let ended = rig.end(pair);
        assert_eq!(statuses(&ended), [status::ABORTED_BY_HOST; 16]);
        assert!(ended.iter().zip(0..).all(|(&(token, ..), lba)| token == lba));
    }
    for (value, pair) in (5000..).step_by(1000).zip(&mut pairs) {
        rig.goes_on_by_shadow(pair, value);
        assert_eq!((pair.counters().stale, pair.counters().resets), (0, 1));
    }
}

#[test]
fn after_a_fatal_status_every_pair_goes_on() {
    for shadow in [false, true] {
        let mut rig = Rig::new(|config| config.shadow_doorbells(shadow));
        let mut pairs: Vec<Pair> = (0..3).map(|_| rig.controller.queue_pair(8).unwrap()).collect();
        for round in 1..4u64 {
            rig.faults(Faults::new().rule(Rule::new(Fault::Late(LATE))));
            for pair in &mut pairs {
                (0..8).for_each(|lba| rig.write(pair, 100 + lba, round));
                pair.ring();
            }
            rig.pass(Duration::from_millis(1));
            rig.inject(DeviceFault::Fatal);
            rig.faults(Faults::new());
            for pair in &mut pairs {
                assert_eq!(statuses(&rig.end(pair)), [status::ABORTED_BY_HOST; 8]);
            }
            for (value, pair) in (round * 10_000..).step_by(100).zip(&mut pairs) {
                match shadow {
                    true => rig.goes_on_by_shadow(pair, value),
                    false => rig.goes_on(pair, value),
                }
                assert_eq!((pair.counters().stale, pair.counters().resets), (0, round));
            }
        }
    }
}

#[test]
fn an_identifier_from_before_a_reset_is_stale_after_it() {
    let mut rig = Rig::shadow();
    let mut pair: Pair = rig.controller.queue_pair(4).unwrap();
    // The first command of a pair has identifier 0.
    let never = Faults::new().rule(Rule::new(Fault::Lost)).rule(Rule::new(Fault::NotAbortable));
    rig.faults(never);
    rig.read(&mut pair, 7);
    assert_eq!(statuses(&rig.end(&mut pair)), [status::ABORTED_BY_HOST]);
    assert_eq!(pair.counters().resets, 1);
    rig.faults(Faults::new().rule(Rule::new(Fault::UnknownId(0)).times(3)));
    for lba in 0..3 {
        rig.read(&mut pair, lba);
        assert_eq!(rig.end(&mut pair), [(lba, Status::SUCCESS, Some(0))]);
    }
    assert_eq!(pair.counters().stale, 3);
}

#[test]
fn many_commands_that_are_lost_are_aborted_within_the_bound_of_one() {
    let mut rig = Rig::shadow();
    let mut pair: Pair = rig.controller.queue_pair(64).unwrap();
    rig.faults(Faults::new().rule(Rule::new(Fault::Lost)));
    (0..64).for_each(|lba| rig.read(&mut pair, lba));
    let ended = rig.end(&mut pair);
    assert_eq!(statuses(&ended), [status::ABORT_REQUESTED; 64]);
    assert_eq!(pair.counters().resets, 0);
    rig.faults(Faults::new());
    rig.goes_on(&mut pair, 1);
}

#[test]
fn a_command_that_is_late_for_ever_has_its_buffer_until_the_controller_is_stopped() {
    let mut rig = Rig::shadow();
    let mut pair: Pair = rig.controller.queue_pair(4).unwrap();
    rig.goes_on(&mut pair, 1);
    let late = Faults::new()
        .rule(Rule::new(Fault::Late(Duration::from_millis(400))))
        .rule(Rule::new(Fault::NotAbortable));
    rig.faults(late);
    rig.read(&mut pair, 33);
    let ended = rig.end(&mut pair);
    assert_eq!(ended, [(33, status::ABORTED_BY_HOST, None)]);
    assert_eq!(pair.counters().resets, 1);
    rig.pass(Duration::from_millis(800));
    rig.check();
}

#[test]
fn ready_that_is_stuck_delays_a_reset_and_no_more() {
    let stuck = Duration::from_millis(9);
    for fault in [DeviceFault::StuckReady(stuck), DeviceFault::StuckNotReady(stuck)] {
        let mut rig = Rig::shadow();
        let mut pair: Pair = rig.controller.queue_pair(8).unwrap();
        rig.faults(Faults::new().rule(Rule::new(Fault::Late(Duration::from_millis(5)))));
        (0..8).for_each(|lba| rig.read(&mut pair, lba));
        pair.ring();
        rig.pass(Duration::from_millis(1));
        rig.inject(fault);
        let before = rig.with(|machine| machine.now());
        rig.controller.reset().unwrap();
        assert!(rig.with(|machine| machine.now()) - before >= stuck);
        rig.faults(Faults::new());
        // While RDY was stuck at 1, commands were still processed and may have completed.
        let ended = rig.end(&mut pair);
        assert_eq!(ended.len(), 8);
        for status in statuses(&ended) {
            let in_time = status.is_success() && matches!(fault, DeviceFault::StuckReady(_));
            assert!(in_time || status == status::ABORTED_BY_HOST, "{fault:?}: {status}");
        }
        rig.goes_on_by_shadow(&mut pair, 1);
    }
}

#[test]
fn ready_that_is_stuck_for_too_long_is_a_typed_error_and_a_later_reset_helps() {
    let mut rig = Rig::shadow();
    let mut pair: Pair = rig.controller.queue_pair(8).unwrap();
    rig.inject(DeviceFault::StuckNotReady(Duration::from_secs(60)));
    let failed = rig.controller.reset();
    assert!(matches!(failed, Err(Error::ResetFailed)), "{failed:?}");
    pair.check(|_| ());
    let refused = pair.flush(&rig.namespace, 1).map_err(|rejected| rejected.error);
    assert!(matches!(refused, Err(Error::ResetFailed)), "{refused:?}");
    rig.controller.reset().unwrap();
    pair.check(|_| ());
    rig.goes_on_by_shadow(&mut pair, 1);
}

#[test]
fn removal_ends_every_command_and_every_call_with_a_typed_error() {
    let mut rig = Rig::shadow();
    let mut pairs: Vec<Pair> = (0..2).map(|_| rig.controller.queue_pair(8).unwrap()).collect();
    rig.faults(Faults::new().rule(Rule::new(Fault::Late(EVER))));
    for pair in &mut pairs {
        (0..8).for_each(|lba| rig.write(pair, lba, 1));
        pair.ring();
    }
    rig.pass(Duration::from_millis(1));
    rig.inject(DeviceFault::Removed);
    for pair in &mut pairs {
        assert_eq!(statuses(&rig.end(pair)), [status::HOST_PATHING_ERROR; 8]);
        let refused = pair.flush(&rig.namespace, 1).map_err(|rejected| rejected.error);
        assert!(matches!(refused, Err(Error::Gone)), "{refused:?}");
    }
    assert!(matches!(rig.controller.namespace(1), Err(Error::Gone)));
    assert!(matches!(rig.controller.queue_pair::<u64>(1).err(), Some(Error::Gone)));
    // A further reset returns the same error.
    assert!(matches!(rig.controller.reset(), Err(Error::Gone)));
}

#[test]
fn a_pair_that_could_not_be_made_again_gives_its_memory_back() {
    let mut rig = Rig::new(|config| config.max_queues(1));
    let arena = rig.controller.arena().clone();
    let pages = || {
        let pages = (0..arena.size() as u64).step_by(4096);
        pages.filter(|at| arena.is_allocated(arena.iova() + at, 1)).count()
    };
    let before = pages();
    let mut pair: Pair = rig.controller.queue_pair(8).unwrap();
    rig.goes_on(&mut pair, 1);
    let refused = Rule::admin(Fault::Status(status::INTERNAL_ERROR)).opcode(5).nth(1);
    rig.faults(Faults::new().rule(refused));
    rig.controller.reset().unwrap();
    pair.check(|_| ());
    assert!(pair.flush(&rig.namespace, 1).is_err());
    drop(pair);
    rig.buffers.clear();
    assert_eq!(pages(), before);
    let mut pair: Pair = rig.controller.queue_pair(8).unwrap();
    rig.goes_on(&mut pair, 100);
}

#[test]
fn a_controller_that_cannot_be_stopped_keeps_the_memory_that_it_may_use() {
    let mut rig = Rig::shadow();
    let mut pair: Pair = rig.controller.queue_pair(4).unwrap();
    rig.goes_on(&mut pair, 1);
    let minute = Duration::from_secs(60);
    let late =
        Faults::new().rule(Rule::new(Fault::Late(minute))).rule(Rule::new(Fault::NotAbortable));
    rig.faults(late);
    let buf = rig.buffer(Lent::In);
    let iova = buf.iova();
    pair.read(&rig.namespace, 33, buf, 33).unwrap();
    pair.ring();
    rig.pass(Duration::from_millis(1));
    rig.with(|machine| machine.broken = Broken { reset: true, unmap: true });
    rig.inject(DeviceFault::StuckReady(2 * minute));
    assert!(rig.controller.reset().is_err());
    let mut ended = Vec::new();
    pair.check(|completion| ended.push((completion.status, completion.buf.len())));
    assert_eq!(ended, [(status::ABORTED_BY_HOST, 0)], "without the buffer");
    drop(pair);
    // The late read writes to the buffer, and its completion to the ring.
    rig.pass(minute);
    rig.check();
    assert!(rig.controller.arena().is_allocated(iova, BLOCK));
    rig.with(|machine| machine.broken = Broken::default());
}

#[test]
fn a_few_seeds_play_and_play_again_the_same() {
    for seed in 0..40 {
        let mix = Mix::new(seed);
        let [first, second] = [(); 2].map(|()| run(&mix, false));
        assert_eq!(first.1, Ok(()), "simulate --seed {seed} --verbose");
        assert_eq!(first.0, second.0, "seed {seed}");
    }
}
