//! The service model, by the logical clock of a stepped controller and by real time.

use crate::stepped;

use std::time::{Duration, Instant};

use nvio_emulator::{Backing, Config, Controller, Emulator, NamespaceConfig, Service};
use nvio_spec::{Sqe, Status};
use nvio_testkit::host::{self, Host};
use stepped::{DATA, Stepped, with_data};

const LATENCY: Duration = Duration::from_micros(100);

fn namespace() -> NamespaceConfig {
    NamespaceConfig::new(Backing::null(1 << 30)).block_size(4096)
}

/// Commands a second of logical time at a depth, over 50 ms of it; identifiers as they completed.
fn stepped(service: Service, depth: u16) -> (u64, Vec<(u32, u16)>) {
    const STEPS: u32 = 50_000;
    let mut host = Stepped::new(&Config::new().namespace(namespace()).service(service));
    let mut pair = host.create(1, 64);
    let (mut submitted, mut order) = (0u64, Vec::new());
    for step in 0..STEPS {
        while submitted - (order.len() as u64) < u64::from(depth) {
            let read = with_data(Sqe::read(1, submitted % 1000, 1), DATA, 0);
            host.push(&mut pair, read);
            submitted += 1;
        }
        host.ring(&pair);
        host.controller.step(&host.memory);
        while let Some(cqe) = host.take(&mut pair) {
            assert_eq!(cqe.status(), Status::SUCCESS);
            order.push((step, cqe.cid.get()));
        }
    }
    let second = Duration::from_secs(1).as_nanos() / (Controller::STEP * STEPS).as_nanos();
    (order.len() as u64 * second as u64, order)
}

fn within(rate: u64, expected: u64, percent: u64) -> bool {
    rate.abs_diff(expected) * 100 <= expected * percent
}

#[test]
fn latency_limits_one_command_and_commands_overlap() {
    let service = Service::new().latency(LATENCY);
    let (one, _) = stepped(service, 1);
    assert!(one <= 10_000 && within(one, 10_000, 2), "{one}");
    let (many, _) = stepped(service, 32);
    assert!(many <= 320_000 && within(many, 320_000, 2), "{many}");
}

#[test]
fn caps_hold_at_depth_and_not_below() {
    let capped = Service::new().latency(LATENCY).iops(50_000);
    let (rate, _) = stepped(capped, 32);
    assert!(within(rate, 50_000, 2), "{rate}");
    let (rate, _) = stepped(capped, 1);
    assert!(within(rate, 10_000, 2), "{rate}");
    // 100 MB/s of 4096 bytes each.
    let (rate, _) = stepped(Service::new().bandwidth(100_000_000), 32);
    assert!(within(rate, 24_414, 2), "{rate}");
}

#[test]
fn completions_come_when_due_and_by_the_seed() {
    let service = |seed| Service::new().latency(LATENCY).jitter(LATENCY, seed);
    let (_, order) = stepped(service(7), 32);
    assert!(order == stepped(service(7), 32).1);
    assert!(order != stepped(service(8), 32).1);
    // Later ones overtake earlier ones, and none comes before its latency.
    assert!(order.windows(2).any(|pair| pair[1].1 < pair[0].1));
    assert!(order[0].0 >= 100 - 1 && order[0].0 < 110, "{:?}", order[0]);
}

/// Executes `total` commands, `depth` at a time, and returns the time they took.
fn threaded(service: Service, depth: u32, total: u32) -> Duration {
    let emulator = Emulator::builder().namespace(namespace()).service(service).start().unwrap();
    let mut host = Host::connect(emulator.socket());
    let mut queue = host.create_queue(1, 64, None);
    let (mut submitted, mut completed) = (0u32, 0u32);
    let started = Instant::now();
    while completed < total {
        let before = submitted;
        while submitted - completed < depth && submitted < total {
            let read = Sqe::read(1, u64::from(submitted % 1000), 1);
            host.push(&mut queue, with_data(read, host::DATA, 0));
            submitted += 1;
        }
        if submitted > before {
            host.ring(&queue);
        }
        let before = completed;
        while let Some(cqe) = host.poll(&mut queue) {
            assert_eq!(cqe.status(), Status::SUCCESS);
            completed += 1;
        }
        if completed > before {
            host.release(&queue);
        } else {
            std::thread::yield_now();
        }
    }
    started.elapsed()
}

/// A busy machine makes the device slower than promised, but never faster. The stepped clock shows
/// the exact times.
#[test]
fn real_time_keeps_the_same_promises() {
    let latency = Duration::from_millis(20);
    let service = Service::new().latency(latency);
    let alone = threaded(service, 1, 32);
    assert!(alone >= latency * 32, "{alone:?}");
    // All 32 wait for their latency at once.
    let together = threaded(service, 32, 32);
    assert!(together >= latency && together < alone, "{together:?} of {alone:?}");
    // 5,000 in a second, with 2 % for the first of them.
    let capped = threaded(Service::new().iops(5_000), 32, 1_000);
    assert!(capped >= Duration::from_millis(200) * 98 / 100, "{capped:?}");
}
