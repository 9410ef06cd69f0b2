//! Shadow doorbells, with a host that rings only when EventIdx asks for it.

use crate::stepped;

use std::sync::atomic::{Ordering, fence};

use nvio_emulator::{Backing, Config, Controller, Fault, Faults, NamespaceConfig, Rule};
use nvio_spec::opcode::admin;
use nvio_spec::register::CC;
use nvio_spec::{IdentifyController, Sqe, Status, cns, status};
use nvio_testkit::host::{self, Host};
use stepped::{BASE, DATA, Pair, SIZE, Stepped, with_data};
use zerocopy::FromBytes;

/// The two pages, above the data.
const SHADOW: u64 = DATA + (1 << 20);
const EVENT: u64 = SHADOW + 4096;

fn config() -> Config {
    let namespace = NamespaceConfig::new(Backing::memory(1 << 20));
    Config::new().namespace(namespace).shadow_doorbells(true)
}

fn lend(host: &mut Stepped, shadow: u64, event: u64) -> Status {
    host.admin_status(with_data(Sqe::new(admin::DOORBELL_BUFFER_CONFIG, 0), shadow, event))
}

fn host(config: &Config) -> (Stepped, Pair) {
    let mut host = Stepped::new(config);
    assert_eq!(lend(&mut host, SHADOW, EVENT), Status::SUCCESS);
    let pair = host.create(1, 16);
    (host, pair)
}

fn dword(host: &Stepped, at: u64) -> u32 {
    u32::from_le_bytes(host.read(at, 4).try_into().unwrap())
}

/// Stores a doorbell of queue 1 (0 the tail, 1 the head); says whether it has to be rung, by the
/// rule of the specification.
fn store(host: &Stepped, which: u64, new: u32) -> bool {
    let at = 8 + 4 * which;
    let old = dword(host, SHADOW + at);
    host.write(SHADOW + at, &new.to_le_bytes());
    let event = dword(host, EVENT + at) as u16;
    (new as u16).wrapping_sub(event).wrapping_sub(1) < (new as u16).wrapping_sub(old as u16)
}

/// Submits one read; whether the doorbell was rung.
fn submit(host: &Stepped, pair: &mut Pair) -> bool {
    host.push(pair, with_data(Sqe::read(1, 0, 1), DATA, 0));
    let ring = store(host, 0, pair.tail);
    if ring {
        host.ring(pair);
    }
    ring
}

/// Takes everything that has completed, and moves only the shadow head.
fn taken(host: &mut Stepped, pair: &mut Pair) -> Vec<u16> {
    let doorbells = host.controller.doorbells().clone();
    let before = doorbells.cq_head(1);
    let cids = std::iter::from_fn(|| host.take(pair)).map(|cqe| cqe.cid.get()).collect();
    doorbells.ring_cq(1, before);
    if host.read(SHADOW + 12, 4) != pair.head.to_le_bytes() {
        // Heads need no ringing, but for the first: nothing has been put into EventIdx yet.
        let first = dword(host, EVENT + 12) == 0 && dword(host, SHADOW + 12) == 0;
        assert!(!store(host, 1, pair.head) || first);
    }
    cids
}

#[test]
fn shadow_doorbells_are_offered_only_when_asked_for() {
    for offered in [true, false] {
        let mut host = Stepped::new(&config().shadow_doorbells(offered));
        host.admin(with_data(Sqe::identify(cns::CONTROLLER, 0), DATA, 0));
        let identify = IdentifyController::read_from_bytes(&host.read(DATA, 4096)).unwrap();
        assert_eq!(identify.oacs.get() >> 8 & 1 != 0, offered);
        let expected = if offered { Status::SUCCESS } else { status::INVALID_OPCODE };
        assert_eq!(lend(&mut host, SHADOW, EVENT), expected);
    }
    let many = config().max_queues(1000);
    assert!(Controller::new(&many).is_err());
}

#[test]
fn pages_that_cannot_be_used_are_refused() {
    let mut host = Stepped::new(&config());
    let outside = BASE + SIZE as u64;
    for (shadow, event) in [
        (SHADOW + 8, EVENT),
        (SHADOW, EVENT + 2048),
        (SHADOW, SHADOW),
        (outside, EVENT),
        (SHADOW, outside),
        (u64::MAX - 4095, EVENT),
    ] {
        let refused = lend(&mut host, shadow, event);
        assert_eq!(refused, status::INVALID_FIELD, "{shadow:#x} {event:#x}");
    }
}

#[test]
fn a_busy_queue_is_not_rung_and_an_idle_one_is() {
    let (mut host, mut pair) = host(&config());
    let (mut rung, mut completed) = (0, 0);
    for round in 0..1000 {
        // The first wakes the queue; while it has not been served, the others need not ring.
        let rings: Vec<bool> = (0..1 + round % 5).map(|_| submit(&host, &mut pair)).collect();
        assert!(rings[0] && !rings[1..].contains(&true), "round {round}: {rings:?}");
        rung += 1;
        host.step();
        let cids = taken(&mut host, &mut pair);
        assert_eq!(cids.len(), rings.len(), "round {round}");
        completed += cids.len();
        // Once more, to find the queue empty.
        host.step();
    }
    assert_eq!((rung, completed), (1000, 3000));
}

#[test]
fn a_queue_that_sleeps_is_not_looked_at_until_it_is_rung() {
    let (mut host, mut pair) = host(&config());
    host.step();
    host.push(&mut pair, with_data(Sqe::read(1, 0, 1), DATA, 0));
    assert!(store(&host, 0, pair.tail));
    for _ in 0..100 {
        assert_eq!(host.step(), 0);
    }
    host.ring(&pair);
    assert_eq!(host.step(), 1);
    assert_eq!(taken(&mut host, &mut pair), [1]);
    // The value rung is only a bell: the tail is that of the shadow.
    host.step();
    host.push(&mut pair, with_data(Sqe::read(1, 0, 1), DATA, 0));
    store(&host, 0, pair.tail);
    host.controller.doorbells().ring_sq(1, 9);
    assert_eq!(host.step(), 1);
    assert_eq!(taken(&mut host, &mut pair), [2]);
}

#[test]
fn after_a_reset_the_pages_are_the_hosts_own() {
    let late = Rule::new(Fault::Late(Controller::STEP * 3)).times(1);
    let (mut host, mut pair) = host(&config().faults(Faults::new().rule(late)));
    submit(&host, &mut pair);
    host.controller.step(&host.memory);
    host.set(CC, 0);
    host.write(SHADOW, &[0x0b; 4096]);
    host.write(EVENT, &[0xee; 4096]);
    host.enable();
    let mut pair = host.create(1, 16);
    for round in 0..40 {
        // The doorbells of BAR0 again, and nothing else.
        let cqe = host.run(&mut pair, with_data(Sqe::read(1, 0, 1), DATA, 0));
        assert_eq!(cqe.status(), Status::SUCCESS, "round {round}");
        host.controller.step(&host.memory);
    }
    assert_eq!(host.step(), 0);
    assert!(host.read(SHADOW, 4096) == [0x0b; 4096]);
    assert!(host.read(EVENT, 4096) == [0xee; 4096]);
    // The host can lend the pages again.
    host.write(SHADOW, &[0; 4096]);
    host.set(CC, 0);
    host.enable();
    assert_eq!(lend(&mut host, SHADOW, EVENT), Status::SUCCESS);
    let mut pair = host.create(1, 16);
    assert_eq!(host.step(), 0);
    assert!(submit(&host, &mut pair));
    assert_eq!(host.step(), 1);
    assert_eq!(taken(&mut host, &mut pair), [1]);
}

#[test]
fn late_commands_complete_by_shadow_heads() {
    let late = Rule::new(Fault::Late(Controller::STEP * 7));
    let (mut host, mut pair) = host(&config().faults(Faults::new().rule(late)));
    let mut seen = 0;
    for _ in 0..500 {
        if pair.cid - seen < 10 {
            submit(&host, &mut pair);
        }
        host.controller.step(&host.memory);
        for cid in taken(&mut host, &mut pair) {
            seen += 1;
            assert_eq!(cid, seen);
        }
    }
    assert!(seen > 400, "{seen}");
}

#[test]
fn a_shadow_that_is_unmapped_in_use_is_fatal() {
    let (mut host, mut pair) = host(&config());
    submit(&host, &mut pair);
    host.memory.unmap(BASE, SIZE as u64).unwrap();
    host.step();
    assert!(host.csts().fatal());
}

#[test]
fn no_command_is_overlooked_when_host_and_controller_race() {
    let emulator = config().start().unwrap();
    let mut host = Host::connect(emulator.socket());
    let (shadow, event) = (host::DATA + (1 << 20), host::DATA + (1 << 20) + 4096);
    let lend = with_data(Sqe::new(admin::DOORBELL_BUFFER_CONFIG, 0), shadow, event);
    assert_eq!(host.admin(lend).status(), Status::SUCCESS);
    let mut queue = host.create_queue(1, 64, None);
    let bytes = |value: u32| value.to_le_bytes();
    let (mut rung, mut tail, mut head) = (0u32, 0u32, 0u32);
    for command in 0..60_000u32 {
        host.push(&mut queue, with_data(Sqe::read(1, 0, 1), host::DATA, 0));
        let old = tail;
        tail = (tail + 1) % 64;
        fence(Ordering::Release);
        host.write(shadow + 8, &bytes(tail));
        // The EventIdx is read after the tail can be seen.
        fence(Ordering::SeqCst);
        let seen = u32::from_le_bytes(host.read(event + 8, 4).try_into().unwrap());
        let (tail, seen, old) = (tail as u16, seen as u16, old as u16);
        if tail.wrapping_sub(seen).wrapping_sub(1) < tail.wrapping_sub(old) {
            host.ring(&queue);
            rung += 1;
        }
        assert_eq!(host.wait(&mut queue).status(), Status::SUCCESS);
        head = (head + 1) % 64;
        host.write(shadow + 12, &bytes(head));
        // The next comes while the controller is awake, asleep, or between the two.
        (0..command % 50).for_each(|_| std::hint::spin_loop());
    }
    println!("60000 commands, {rung} rings");
}
