//! Faults, with the controller stepped by the test and its clock with it.

use crate::stepped;

use std::time::Duration;

use nvio_emulator::{
    Backing, Config, Controller, DeviceFault, Fault, FaultCounts, Faults, NamespaceConfig, Rates,
    Rule,
};
use nvio_spec::opcode::{admin, nvm};
use nvio_spec::register::{ACQ, AQA, ASQ, CC, CSTS, Cc, Csts, GONE};
use nvio_spec::{Cqe, EventType, Sqe, Status, status};
use stepped::{DATA, Pair, SIZE, Stepped, with_data};

fn host(faults: Faults) -> (Stepped, Pair) {
    let namespace = NamespaceConfig::new(Backing::memory(1 << 20));
    let mut host = Stepped::new(&Config::new().namespace(namespace).faults(faults));
    let pair = host.create(1, 16);
    (host, pair)
}

fn rule(fault: Fault) -> Faults {
    Faults::new().rule(Rule::new(fault).nth(2))
}

fn device(fault: DeviceFault) -> Faults {
    rule(Fault::Device(fault))
}

fn steps(count: u32) -> Duration {
    Controller::STEP * count
}

fn read(lba: u64) -> Sqe {
    with_data(Sqe::read(1, lba, 1), DATA, 0)
}

fn write(lba: u64) -> Sqe {
    with_data(Sqe::write(1, lba, 1), DATA, 0)
}

/// Submits commands and rings once; identifiers go on from those before.
fn submit(host: &Stepped, pair: &mut Pair, commands: &[Sqe]) {
    for sqe in commands {
        host.push(pair, *sqe);
    }
    host.ring(pair);
}

fn tick(host: &mut Stepped) -> usize {
    host.controller.step(&host.memory)
}

/// Everything that has completed, by identifier.
fn taken(host: &mut Stepped, pair: &mut Pair) -> Vec<u16> {
    std::iter::from_fn(|| host.take(pair)).map(|cqe| cqe.cid.get()).collect()
}

fn counts(host: &Stepped) -> FaultCounts {
    host.controller.fault_counts()
}

#[test]
fn a_status_ends_the_command_it_is_for_and_no_other() {
    let bad = Fault::Status(status::UNRECOVERED_READ_ERROR);
    let unreadable = Rule::new(bad).opcode(nvm::READ).lbas(100..102);
    let refused = Rule::new(Fault::Status(Status(0x79bc))).opcode(nvm::WRITE).nth(2);
    let (mut host, mut pair) = host(Faults::new().rule(unreadable).rule(refused));
    host.write(DATA, &[0x11; 512]);
    assert!(host.run(&mut pair, write(100)).status().is_success());
    host.write(DATA, &[0x22; 512]);
    // Any status, with all of its bits but the Command Retry Delay, which the host has not enabled;
    // the blocks stay as they were.
    assert_eq!(host.run(&mut pair, write(102)).status(), Status(0x61bc));
    for (lba, expected, content) in [
        (99, Status::SUCCESS, 0),
        (100, status::UNRECOVERED_READ_ERROR, 0x33),
        (101, status::UNRECOVERED_READ_ERROR, 0x33),
        (102, Status::SUCCESS, 0),
    ] {
        host.write(DATA, &[0x33; 512]);
        assert_eq!(host.run(&mut pair, read(lba)).status(), expected, "LBA {lba}");
        assert!(host.read(DATA, 512) == [content; 512], "LBA {lba}");
    }
    assert_eq!(counts(&host).status, 3);
    let health = with_data(Sqe::new(admin::GET_LOG_PAGE, u32::MAX), DATA, 0);
    let health = Sqe { cdw10: (127 << 16 | 2).into(), ..health };
    assert!(host.admin(health).status().is_success());
    // Media and data integrity errors.
    assert_eq!(host.read(DATA + 160, 2), [2, 0]);
}

#[test]
fn late_commands_touch_nothing_until_they_are_due() {
    let slow = Rule::new(Fault::Late(steps(5))).opcode(nvm::READ).times(1);
    let (mut host, mut pair) = host(Faults::new().rule(slow));
    host.write(DATA, &[0x44; 512]);
    submit(&host, &mut pair, &[read(7), write(0), write(1)]);
    tick(&mut host);
    // Others overtake it.
    assert_eq!(taken(&mut host, &mut pair), [2, 3]);
    for _ in 0..4 {
        assert_eq!(tick(&mut host), 0);
        assert_eq!(host.read(DATA, 1), [0x44]);
    }
    assert_eq!(host.controller.until_due(), Some(steps(1)));
    assert_eq!(tick(&mut host), 1);
    assert_eq!(host.read(DATA, 1), [0]);
    assert_eq!(taken(&mut host, &mut pair), [1]);
    assert_eq!((counts(&host).late, host.controller.until_due()), (1, None));
}

#[test]
fn lost_and_duplicate_completions() {
    let (mut host, mut pair) = host(rule(Fault::Lost));
    host.write(DATA, &[0x55; 512]);
    submit(&host, &mut pair, &[read(0), write(9), read(9)]);
    host.write(DATA, &[0x55; 512]);
    host.step();
    assert_eq!(taken(&mut host, &mut pair), [1, 3]);
    // It was executed all the same, with the zeroes that were read before it.
    assert!(host.run(&mut pair, read(9)).status().is_success());
    assert_eq!(counts(&host).lost, 1);

    let (mut host, mut pair) = self::host(rule(Fault::Duplicate));
    submit(&host, &mut pair, &[read(0), read(1), read(2)]);
    host.step();
    assert_eq!(taken(&mut host, &mut pair), [1, 2, 2, 3]);
    assert_eq!(counts(&host).duplicate, 1);
}

#[test]
fn stale_and_unknown_identifiers_come_before_or_instead() {
    let (mut host, mut pair) = host(rule(Fault::StaleId));
    submit(&host, &mut pair, &[read(0), read(1), read(2)]);
    host.step();
    assert_eq!(taken(&mut host, &mut pair), [1, 1, 2, 3]);

    let instead = rule(Fault::UnknownId(999)).rule(Rule::new(Fault::Lost).nth(2));
    let (mut host, mut pair) = self::host(instead);
    submit(&host, &mut pair, &[read(0), read(1), read(2)]);
    host.step();
    assert_eq!(taken(&mut host, &mut pair), [1, 999, 3]);
    assert_eq!((counts(&host).unknown_id, counts(&host).lost), (1, 1));

    // Never one in progress: that would be a completion like any other.
    let held = Rule::new(Fault::Late(steps(9))).nth(1);
    let (mut host, mut pair) = self::host(rule(Fault::UnknownId(1)).rule(held));
    submit(&host, &mut pair, &[read(0), read(1)]);
    host.step();
    assert_eq!(taken(&mut host, &mut pair), [2]);
    assert_eq!(counts(&host).unknown_id, 0);
}

#[test]
fn fatal_status_stops_everything_until_a_reset() {
    let late = Rule::new(Fault::Late(steps(3))).nth(1);
    let (mut host, mut pair) = host(device(DeviceFault::Fatal).rule(late));
    host.write(DATA, &[0x66; 512]);
    submit(&host, &mut pair, &[read(0), read(1), read(2)]);
    tick(&mut host);
    assert!(host.csts().fatal() && host.csts().ready());
    for _ in 0..10 {
        assert_eq!(tick(&mut host), 0);
    }
    assert_eq!(taken(&mut host, &mut pair), [0u16; 0]);
    assert_eq!(host.read(DATA, 1), [0x66]);
    host.set(CC, 0);
    assert_eq!(host.csts(), Csts(0));
    host.enable();
    let mut pair = host.create(1, 16);
    for _ in 0..10 {
        tick(&mut host);
    }
    // What was in progress is gone, and did not come back.
    assert_eq!((taken(&mut host, &mut pair), host.read(DATA, 1)), (vec![], vec![0x66]));
    assert!(host.run(&mut pair, read(0)).status().is_success());
}

#[test]
fn ready_is_stuck_at_one_and_the_controller_goes_on_until_it_falls() {
    let late = Rule::new(Fault::Late(steps(3))).nth(2);
    let (mut host, mut pair) = host(device(DeviceFault::StuckReady(steps(5))).rule(late));
    host.write(DATA, &[0x77; 512]);
    submit(&host, &mut pair, &[write(0), read(1)]);
    tick(&mut host);
    assert_eq!(taken(&mut host, &mut pair), [1]);
    host.set(CC, 0);
    for step in 0..4 {
        assert!(host.csts().ready(), "step {step}");
        tick(&mut host);
    }
    // A reset that is not over yet: memory was still accessed.
    assert_eq!(host.read(DATA, 1), [0]);
    tick(&mut host);
    assert_eq!(host.csts(), Csts(0));
    host.enable();
}

#[test]
fn ready_is_stuck_at_zero_for_its_time() {
    let (mut host, mut pair) = host(device(DeviceFault::StuckNotReady(steps(4))));
    submit(&host, &mut pair, &[read(0), read(1)]);
    tick(&mut host);
    host.set(CC, 0);
    assert_eq!(host.csts(), Csts(0));
    for (register, value) in [
        (AQA, 31 << 16 | 31),
        (ASQ, host.admin.at as u32),
        (ACQ, host.admin.cq() as u32),
        (CC, Cc::enabled(12).0),
    ] {
        host.set(register, value);
    }
    for step in 0..4 {
        assert_eq!(host.csts(), Csts(0), "step {step}");
        tick(&mut host);
    }
    assert_eq!(host.csts(), Csts(Csts::READY));
    // Only once; and for good is ended by a reset of the function.
    host.set(CC, 0);
    host.controller.inject(DeviceFault::StuckNotReady(Duration::MAX));
    host.set(CC, Cc::enabled(12).0);
    for _ in 0..1000 {
        tick(&mut host);
    }
    assert_eq!(host.csts(), Csts(0));
    host.controller.function_reset();
    host.enable();
}

#[test]
fn a_removed_device_is_all_ones_and_touches_nothing() {
    let late = Rule::new(Fault::Late(steps(3))).nth(1);
    let (mut host, mut pair) = host(device(DeviceFault::Removed).rule(late));
    submit(&host, &mut pair, &[read(0), read(1), read(2)]);
    let before = host.read(stepped::BASE, SIZE);
    tick(&mut host);
    for offset in [0, 4, CC, CSTS, AQA, 0x1000, 0x1008] {
        assert_eq!(host.controller.read_register(offset), GONE, "{offset:#x}");
    }
    for _ in 0..10 {
        host.set(CC, 0);
        host.set(CC, Cc::enabled(12).0);
        host.set(0x1008, 5);
        assert_eq!(tick(&mut host), 0);
    }
    host.controller.function_reset();
    assert!(host.csts().gone());
    assert!(host.read(stepped::BASE, SIZE) == before);
    host.controller.reinsert();
    assert_eq!(host.csts(), Csts(0));
    host.enable();
    let mut pair = host.create(1, 16);
    assert!(host.run(&mut pair, read(0)).status().is_success());
}

#[test]
fn an_event_is_reported_and_the_command_goes_on() {
    let event = DeviceFault::Event { kind: EventType::NOTICE, info: 0, log: 4 };
    let (mut host, mut pair) = host(device(event));
    let mut waiting = std::mem::replace(&mut host.admin, Pair::new(0, 2));
    host.push(&mut waiting, Sqe::new(admin::ASYNC_EVENT_REQUEST, 0));
    host.ring(&waiting);
    host.step();
    assert!(host.take(&mut waiting).is_none());
    submit(&host, &mut pair, &[read(0), read(1)]);
    host.step();
    assert_eq!(host.take(&mut waiting).unwrap().dw0.get(), 0x0004_0002);
    assert_eq!(taken(&mut host, &mut pair), [1, 2]);
}

fn abort(qid: u16, cid: u16) -> Sqe {
    let cdw10 = u32::from(cid) << 16 | u32::from(qid);
    Sqe { cdw10: cdw10.into(), ..Sqe::new(admin::ABORT, 0) }
}

/// Aborts command `cid` of queue 1; whether there was one to abort.
fn aborted(host: &mut Stepped, cid: u16) -> bool {
    let cqe = host.admin(abort(1, cid));
    assert_eq!(cqe.status(), Status::SUCCESS);
    cqe.dw0.get() == 0
}

#[test]
fn abort_ends_what_is_late_before_it_is_executed() {
    let late = Rule::new(Fault::Late(Duration::MAX)).opcode(nvm::READ);
    let (mut host, mut pair) = host(Faults::new().rule(late));
    host.write(DATA, &[0x88; 512]);
    submit(&host, &mut pair, &[read(0), write(0)]);
    host.step();
    assert_eq!(taken(&mut host, &mut pair), [2]);
    assert!(!aborted(&mut host, 2) && !aborted(&mut host, 7));
    assert!(aborted(&mut host, 1));
    host.step();
    let cqe = host.take(&mut pair).unwrap();
    assert_eq!((cqe.cid.get(), cqe.status()), (1, status::ABORT_REQUESTED));
    assert_eq!(host.read(DATA, 1), [0x88]);
    assert!(!aborted(&mut host, 1));
    // That is no fault.
    assert_eq!(counts(&host).status, 0);
}

#[test]
fn abort_ends_what_was_executed_and_lost_and_once() {
    let lost = Rule::new(Fault::Lost).times(2);
    let twice = Rule::new(Fault::Duplicate).nth(2);
    let (mut host, mut pair) = host(Faults::new().rule(lost).rule(twice));
    host.write(DATA, &[0x89; 512]);
    submit(&host, &mut pair, &[write(3), write(4), write(5)]);
    host.step();
    assert_eq!(taken(&mut host, &mut pair), [3]);
    assert!(aborted(&mut host, 2));
    assert!(!aborted(&mut host, 2));
    for _ in 0..5 {
        tick(&mut host);
    }
    // Once, whatever else was to go wrong.
    let cqe = host.take(&mut pair).unwrap();
    assert_eq!((cqe.cid.get(), cqe.status()), (2, status::ABORT_REQUESTED));
    assert!(host.take(&mut pair).is_none());
    host.write(DATA, &[0; 512]);
    assert!(host.run(&mut pair, read(4)).status().is_success());
    assert_eq!(host.read(DATA, 1), [0x89]);
    // The other is still waited for, until its queue is gone.
    assert!(host.admin(Sqe::delete_io_sq(1)).status().is_success());
    assert!(!aborted(&mut host, 1));
}

#[test]
fn abort_does_not_find_what_a_fault_keeps_from_it() {
    for fault in [Fault::Lost, Fault::Late(Duration::MAX)] {
        let kept = Rule::new(Fault::NotAbortable);
        let (mut host, mut pair) = host(Faults::new().rule(Rule::new(fault)).rule(kept));
        submit(&host, &mut pair, &[read(0)]);
        host.step();
        assert!(!aborted(&mut host, 1) && !aborted(&mut host, 1));
        host.step();
        assert!(host.take(&mut pair).is_none());
        // A reset ends it like any other.
        host.set(CC, 0);
        host.enable();
        assert!(!aborted(&mut host, 1));
    }
}

#[test]
fn no_other_completion_is_posted_for_a_command_that_was_lost() {
    let faults = rule(Fault::UnknownId(1)).rule(Rule::new(Fault::Lost).nth(1));
    let (mut host, mut pair) = host(faults);
    submit(&host, &mut pair, &[read(0), read(1)]);
    host.step();
    assert_eq!((taken(&mut host, &mut pair), counts(&host).unknown_id), (vec![2], 0));
    // Identifiers come again: the host has given that command up.
    for _ in 0..u16::MAX {
        host.run(&mut pair, read(0));
    }
    assert!(aborted(&mut host, 1));
}

#[test]
fn abort_ends_a_request_for_events() {
    // Without any fault, and so without commands in progress.
    let (mut host, _) = host(Faults::new());
    let mut pair = std::mem::replace(&mut host.admin, Pair::new(0, 2));
    let requests = [Sqe::new(admin::ASYNC_EVENT_REQUEST, 0); 4];
    let first = pair.cid + 1;
    submit(&host, &mut pair, &requests);
    host.step();
    assert!(host.take(&mut pair).is_none());
    submit(&host, &mut pair, &[abort(0, first + 2), abort(0, first + 2), abort(0, 9999)]);
    host.step();
    let cqes: Vec<Cqe> = std::iter::from_fn(|| host.take(&mut pair)).collect();
    let found: Vec<_> =
        cqes.iter().map(|cqe| (cqe.cid.get(), cqe.status(), cqe.dw0.get())).collect();
    let abort = |n: u16, dw0| (first + 4 + n, Status::SUCCESS, dw0);
    let ended = (first + 2, status::ABORT_REQUESTED, 0);
    assert_eq!(found, [abort(0, 0), abort(1, 1), abort(2, 1), ended]);
    // The others still wait, and there is room for one more.
    let event = DeviceFault::Event { kind: EventType::NOTICE, info: 0, log: 4 };
    host.controller.inject(event);
    host.step();
    assert_eq!(taken(&mut host, &mut pair), [first]);
    submit(&host, &mut pair, &requests);
    host.step();
    let over: Vec<Cqe> = std::iter::from_fn(|| host.take(&mut pair)).collect();
    assert_eq!(over.len(), 2);
    assert!(over.iter().all(|cqe| cqe.status().bare() == status::AER_LIMIT_EXCEEDED));
}

#[test]
fn commands_of_a_deleted_queue_are_gone() {
    let late = Rule::new(Fault::Late(steps(3)));
    let (mut host, mut pair) = host(Faults::new().rule(late));
    host.write(DATA, &[0x99; 512]);
    submit(&host, &mut pair, &[read(0), read(1)]);
    tick(&mut host);
    assert!(host.admin(Sqe::delete_io_sq(1)).status().is_success());
    assert!(host.admin(Sqe::delete_io_cq(1)).status().is_success());
    let mut pair = host.create(1, 16);
    for _ in 0..10 {
        tick(&mut host);
    }
    assert_eq!((taken(&mut host, &mut pair), host.read(DATA, 1)), (vec![], vec![0x99]));
}

#[test]
fn admin_commands_can_be_lost_and_late_too() {
    let lost = Rule::admin(Fault::Lost).opcode(admin::DELETE_IO_SQ);
    let late = Rule::admin(Fault::Late(steps(4))).opcode(admin::IDENTIFY);
    let (mut host, _) = host(Faults::new().rule(lost).rule(late));
    let mut pair = std::mem::replace(&mut host.admin, Pair::new(0, 2));
    let identify = with_data(Sqe::identify(1, 0), DATA, 0);
    let first = pair.cid + 1;
    submit(&host, &mut pair, &[Sqe::delete_io_sq(1), identify, Sqe::delete_io_cq(1)]);
    tick(&mut host);
    // The queue is deleted: its completion queue can be.
    assert_eq!(taken(&mut host, &mut pair), [first + 2]);
    assert_eq!(host.read(DATA, 64), [0; 64]);
    for _ in 0..4 {
        tick(&mut host);
    }
    assert_eq!(taken(&mut host, &mut pair), [first + 1]);
    assert_ne!(host.read(DATA, 64), [0; 64]);
}

#[test]
fn due_completions_wait_for_room_and_extra_ones_are_dropped() {
    let late = Rule::new(Fault::Late(steps(2)));
    let twice = Rule::new(Fault::Duplicate);
    let (mut host, _) = host(Faults::new().rule(late).rule(twice));
    // A completion queue of 4 entries below a submission queue of 16.
    assert!(host.admin(Sqe::delete_io_sq(1)).status().is_success());
    assert!(host.admin(Sqe::delete_io_cq(1)).status().is_success());
    let mut pair = Pair::new(1, 4);
    host.write(pair.at, &[0; 128 << 10]);
    assert!(host.admin(Sqe::create_io_cq(1, 4, pair.cq(), None)).status().is_success());
    assert!(host.admin(Sqe::create_io_sq(1, 16, pair.at, 1)).status().is_success());
    for sqe in (0..6).map(read) {
        // The ring of the submission queue is longer than that of the completion queue.
        pair.entries = 16;
        host.push(&mut pair, sqe);
    }
    host.ring(&pair);
    pair.entries = 4;
    let mut seen = Vec::new();
    for _ in 0..20 {
        tick(&mut host);
        seen.extend(taken(&mut host, &mut pair));
    }
    seen.dedup();
    assert_eq!(seen, [1, 2, 3, 4, 5, 6]);
    let twice = counts(&host).duplicate;
    assert!((1..6).contains(&twice), "{twice}");
}

/// Everything a host can see of a run: completions by step and queue, status register, and the
/// memory that the controller wrote.
#[derive(Debug, PartialEq)]
struct Trace {
    completions: Vec<(u32, u16, [u8; 16])>,
    csts: Vec<(u32, u32)>,
    memory: Vec<u8>,
    counts: FaultCounts,
}

/// A random load on two queues, with every fault by seed, and resets when the controller fails.
fn run(seed: u64) -> Trace {
    let rates = Rates {
        status: 30_000,
        late: 200_000,
        lost: 10_000,
        duplicate: 30_000,
        stale_id: 30_000,
        unknown_id: 30_000,
        fatal: 3_000,
        stuck_ready: 3_000,
        stuck_not_ready: 3_000,
        event: 1_000,
        removed: 500,
        not_abortable: 100_000,
        old_version: 10_000,
        late_up_to: steps(50),
        stuck_up_to: steps(20),
    };
    let namespace = NamespaceConfig::new(Backing::memory(64 << 10));
    let config = Config::new().namespace(namespace).faults(Faults::new().seeded(seed, rates));
    let mut host = Stepped::new(&config);
    let mut pairs = [host.create(1, 16), host.create(2, 32)];
    let mut load = 0x1234_5678_u32;
    let mut trace = Trace {
        completions: Vec::new(),
        csts: Vec::new(),
        memory: Vec::new(),
        counts: counts(&host),
    };
    for step in 0..5_000 {
        for pair in &mut pairs {
            load = load.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (lba, data) = (u64::from(load >> 25), DATA + u64::from(load >> 8 & 0xff) * 512);
            let kind = if load >> 16 & 1 == 0 { Sqe::read } else { Sqe::write };
            // One entry of the ring stays free, whatever has been fetched.
            if step % 4 < 3 {
                submit(&host, pair, &[with_data(kind(1, lba, 1), data, 0)]);
            }
        }
        tick(&mut host);
        for pair in &mut pairs {
            while let Some(cqe) = host.take(pair) {
                use zerocopy::IntoBytes;
                let bytes: &[u8] = Cqe::as_bytes(&cqe);
                trace.completions.push((step, pair.qid, bytes.try_into().unwrap()));
            }
        }
        let csts = host.csts();
        trace.csts.push((step, csts.0));
        if csts.gone() {
            host.controller.reinsert();
        }
        if csts.fatal() || step % 1000 == 999 {
            host.set(CC, 0);
            for _ in 0..25 {
                tick(&mut host);
            }
            assert_eq!(host.csts(), Csts(0), "step {step}");
            host.set(AQA, 31 << 16 | 31);
            host.set(ASQ, host.admin.at as u32);
            host.set(ACQ, host.admin.cq() as u32);
            host.admin = Pair::new(0, 32);
            host.write(host.admin.at, &[0; 128 << 10]);
            host.set(CC, Cc::enabled(12).0);
            for _ in 0..25 {
                tick(&mut host);
            }
            pairs = [host.create(1, 16), host.create(2, 32)];
        }
    }
    trace.memory = host.read(stepped::BASE, SIZE);
    trace.counts = counts(&host);
    trace
}

#[test]
fn the_same_seed_is_the_same_run() {
    let first = run(1);
    assert!(first == run(1), "the same seed, another run");
    assert!(first != run(2), "another seed, the same run");
    let counts = first.counts;
    for (fault, count) in [
        ("status", counts.status),
        ("late", counts.late),
        ("lost", counts.lost),
        ("duplicate", counts.duplicate),
        ("stale", counts.stale_id),
        ("unknown", counts.unknown_id),
        ("old version", counts.old_version),
        ("device", counts.device),
    ] {
        assert!(count > 0, "no {fault} in {} completions", first.completions.len());
    }
}

#[test]
fn faults_can_be_changed_at_any_time() {
    let (mut host, mut pair) = host(Faults::new());
    assert!(host.run(&mut pair, read(0)).status().is_success());
    let bad = Fault::Status(status::UNRECOVERED_READ_ERROR);
    host.controller.set_faults(&Faults::new().rule(Rule::new(bad).nth(2))).unwrap();
    let read_twice = |host: &mut Stepped, pair: &mut Pair| {
        [0; 2].map(|lba| host.run(pair, read(lba)).status().is_success())
    };
    assert_eq!(read_twice(&mut host, &mut pair), [true, false]);
    host.controller.set_faults(&Faults::new()).unwrap();
    assert_eq!(read_twice(&mut host, &mut pair), [true, true]);
    let wrong = Faults::new().seeded(1, Rates { lost: 1_000_001, ..Rates::default() });
    assert!(host.controller.set_faults(&wrong).is_err());
    assert_eq!(counts(&host).status, 1);
}

#[test]
fn a_stale_identifier_is_not_one_of_an_earlier_queue() {
    let rule = Rule::new(Fault::StaleId).nth(2);
    let (mut host, mut pair) = host(Faults::new().rule(rule));
    assert!(host.run(&mut pair, read(0)).status().is_success());
    for sqe in [Sqe::delete_io_sq(1), Sqe::delete_io_cq(1)] {
        assert!(host.admin(sqe).status().is_success());
    }
    let mut pair = host.create(1, 16);
    assert!(host.run(&mut pair, read(0)).status().is_success());
    assert_eq!(counts(&host).stale_id, 0);
}
