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

/// Commands a second of real time at a depth.
fn threaded(service: Service, depth: u32, time: Duration) -> u64 {
    let emulator = Emulator::builder().namespace(namespace()).service(service).start().unwrap();
    let mut host = Host::connect(emulator.socket());
    let mut queue = host.create_queue(1, 64, None);
    let (mut submitted, mut completed) = (0u32, 0u32);
    let started = Instant::now();
    while started.elapsed() < time {
        let before = submitted;
        while submitted - completed < depth {
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
    (f64::from(completed) / started.elapsed().as_secs_f64()) as u64
}

#[test]
fn real_time_keeps_the_same_promises() {
    let time = Duration::from_millis(300);
    let service = Service::new().latency(LATENCY);
    let one = threaded(service, 1, time);
    let many = threaded(service, 32, time);
    println!("latency of 100 us: {one} IOPS at QD 1, {many} at QD 32");
    assert!((1..=10_000).contains(&one), "{one}");
    assert!(many > one * 2 && many <= 320_000, "{one} {many}");
    // A busy machine may be slow at times; too fast it never is.
    let rates: Vec<u64> = (0..3).map(|_| threaded(service.iops(5_000), 32, time)).collect();
    println!("cap of 5000 IOPS: {rates:?}");
    assert!(rates.iter().all(|&rate| rate <= 5_000 * 102 / 100), "{rates:?}");
    assert!(rates.iter().any(|&rate| rate >= 5_000 / 2), "{rates:?}");
}
