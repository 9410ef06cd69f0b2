//! The engine of `nvio perf` on a stepped clock: its numbers against those of the controller's model.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nvio_driver::{DmaBuf, Options};
use nvio_emulator::{Backing, Config, NamespaceConfig, Service};
use nvio_perf::clock::Clock;
use nvio_perf::distribution::Distribution;
use nvio_perf::engine;
use nvio_perf::general::{General, Settings, Size};
use nvio_perf::outcome::Outcome;
use nvio_perf::pace::{Arrival, Pace};
use nvio_perf::plan::{Latency, Live, Plan, Watch};
use nvio_perf::random::Random;
use nvio_perf::raw::Raw;
use nvio_perf::target::{Counters, Error, Rejected, Request, Sink, Target};
use nvio_perf::uniform::UniformReads;
use nvio_perf::workload::Workload;
use nvio_tests::simulator::device::Device;
use nvio_tests::simulator::lock;
use nvio_tests::simulator::machine::Machine;

const BLOCK: u64 = 4096;
const BYTES: u64 = 64 << 20;
const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLISECOND;

type Shared = Arc<Mutex<Machine>>;

/// The clock of the machine, which stands still while the engine works.
struct Stepped(Shared);

impl Clock for Stepped {
    fn now(&mut self) -> u64 {
        u64::try_from(lock(&self.0).now().as_nanos()).unwrap()
    }
}

/// A namespace whose controller makes progress with each poll. Time passes when a poll finds nothing.
struct Timed {
    raw: Raw,
    machine: Shared,
    /// Longest step of the time.
    step: Duration,
    /// The controller does nothing in the last part of each second, in nanoseconds.
    stall: u64,
    /// Time passes only while the engine waits, not when a poll finds nothing.
    interrupt: bool,
}

impl Timed {
    fn is_stalled(&self, machine: &Machine) -> bool {
        let now = u64::try_from(machine.now().as_nanos()).unwrap();
        now % SECOND >= SECOND - self.stall
    }
}

impl Target for Timed {
    type Buf = DmaBuf;

    fn alloc(&mut self, bytes: usize) -> Result<DmaBuf, Error> {
        self.raw.alloc(bytes)
    }

    fn submit(
        &mut self,
        request: &Request,
        buf: DmaBuf,
        slot: u64,
    ) -> Result<(), Box<Rejected<DmaBuf>>> {
        self.raw.submit(request, buf, slot)
    }

    fn ring(&mut self) {
        self.raw.ring();
    }

    fn poll(&mut self, limit: usize, sink: &mut impl Sink<DmaBuf>) -> usize {
        {
            let mut machine = lock(&self.machine);
            let budget = if self.is_stalled(&machine) { 0 } else { usize::MAX };
            machine.pass(Duration::ZERO, budget);
        }
        let count = self.raw.poll(limit, sink);
        if count == 0 && !self.interrupt {
            let mut machine = lock(&self.machine);
            let due = machine.until_due().filter(|due| !due.is_zero());
            machine.pass(due.unwrap_or(self.step).min(self.step), 0);
        }
        count
    }

    fn wait(
        &mut self,
        within: Option<Duration>,
        sink: &mut impl Sink<DmaBuf>,
    ) -> Result<usize, Error> {
        {
            let mut machine = lock(&self.machine);
            let due = machine.until_due().filter(|due| !due.is_zero());
            machine.pass(due.into_iter().chain(within).min().unwrap_or(self.step), 0);
        }
        Ok(self.poll(usize::MAX, sink))
    }

    fn capacity(&self) -> usize {
        self.raw.capacity()
    }

    fn counters(&self) -> Counters {
        self.raw.counters()
    }

    fn lba(&mut self, pos: u64) -> Option<u64> {
        self.raw.lba(pos)
    }

    fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// Runs a load on a controller with a service model.
fn run(service: Service, plan: &Plan, stall: u64, work: &mut impl Workload) -> Outcome {
    let disk = NamespaceConfig::new(Backing::null(BYTES)).block_size(BLOCK as u32);
    let config = Config::new().namespace(disk).service(service);
    let mut device = Device::new(&config, 1, 0x1_0000_0000, false).unwrap();
    let controller = device.open(Options { writable: true, ..Options::default() }).unwrap();
    let namespace = controller.namespace(1).unwrap();
    let raw = Raw::new(&controller, &namespace, None, u16::try_from(plan.depth).unwrap()).unwrap();
    let machine = Arc::clone(device.machine());
    // A stall is noticed in time, and a rate has its starts in time.
    let step = if stall > 0 { Duration::from_micros(1) } else { Duration::from_millis(1) };
    let interrupt = plan.interrupt;
    let mut timed = Timed { raw, machine: Arc::clone(&machine), step, stall, interrupt };
    let (stop, live) = (AtomicBool::new(false), Live::default());
    let watch = Watch { stop: &stop, live: &live };
    lock(&machine).hold_clock(true);
    let outcome =
        engine::run(&mut timed, &mut Stepped(Arc::clone(&machine)), work, plan, watch).unwrap();
    lock(&machine).hold_clock(false);
    drop((timed, controller, namespace));
    outcome
}

fn drive() -> Service {
    Service::new().latency(Duration::from_micros(80)).iops(500_000)
}

fn near(value: f64, expected: f64, percent: f64) -> bool {
    (value / expected - 1.0).abs() * 100.0 <= percent
}

#[test]
fn latencies_and_rates_are_those_of_the_model() {
    // Depth, and the latency and the rate that follow from 80 us and 500,000 IOPS (Little's law).
    for (depth, latency_us, iops) in
        [(1, 80.0, 12_500.0), (32, 80.0, 400_000.0), (128, 256.0, 500_000.0)]
    {
        for latency in [Latency::Batch, Latency::Each] {
            let time = 200 * MILLISECOND;
            let plan = Plan { depth, latency, ramp: 5 * MILLISECOND, time, ..Plan::default() };
            let mut work = UniformReads::new(0..BYTES, 4096, Random::new(1, 0));
            let outcome = run(drive(), &plan, 0, &mut work);
            let counts = outcome.latency();
            let p50 = counts.percentile(&counts.histogram(), 0.5).unwrap() as f64 / 1e3;
            let which = format!("depth {depth}, {latency:?}: {p50} us, {} IOPS", outcome.iops());
            assert!(near(p50, latency_us, 2.0), "{which}");
            assert!(near(outcome.iops(), iops, 1.0), "{which}");
            assert_eq!(counts.len(), outcome.ios(), "{which}");
            assert_eq!(outcome.bytes(), outcome.ios() * 4096);
            assert_eq!((outcome.errors, outcome.late, outcome.missed), (0, 0, 0));
        }
    }
}

#[test]
fn a_rate_is_that_of_the_model_where_the_device_keeps_up() {
    for (arrival, rate) in [(Arrival::Even, 100_000.0), (Arrival::Poisson, 100_000.0)] {
        let plan = Plan { depth: 64, time: 500 * MILLISECOND, ..Plan::default() };
        // A stall too short to matter makes the steps short.
        let outcome = run(drive(), &plan, 1, &mut paced(rate, arrival));
        let counts = outcome.latency();
        let p50 = counts.percentile(&counts.histogram(), 0.5).unwrap() as f64 / 1e3;
        assert!(near(outcome.iops(), rate, 1.0), "{arrival:?}: {}", outcome.iops());
        assert!(near(p50, 81.0, 2.0), "{arrival:?}: {p50} us");
        assert_eq!((outcome.late, outcome.missed), (0, 0), "{arrival:?}");
    }
}

#[test]
fn a_rate_with_interrupts_sleeps_until_the_next_start_or_result() {
    for arrival in [Arrival::Even, Arrival::Poisson] {
        let time = 500 * MILLISECOND;
        let plan = Plan { depth: 64, time, interrupt: true, ..Plan::default() };
        let outcome = run(drive(), &plan, 0, &mut paced(100_000.0, arrival));
        let counts = outcome.latency();
        let p50 = counts.percentile(&counts.histogram(), 0.5).unwrap() as f64 / 1e3;
        assert!(near(outcome.iops(), 100_000.0, 1.0), "{arrival:?}: {}", outcome.iops());
        assert!(near(p50, 81.0, 2.0), "{arrival:?}: {p50} us");
        assert_eq!((outcome.late, outcome.missed), (0, 0), "{arrival:?}");
        // A start and a result end a sleep each, with a poll before and after it.
        assert!(outcome.counters.polls <= 4 * outcome.ios() + 100, "{:?}", outcome.counters);
    }
}

#[test]
fn starts_that_pass_while_all_places_are_in_use_are_late_with_interrupts_too() {
    let time = 500 * MILLISECOND;
    let plan = Plan { depth: 4, time, interrupt: true, ..Plan::default() };
    // Four requests in 100 microseconds, and five that are due.
    let service = Service::new().latency(Duration::from_micros(100));
    let outcome = run(service, &plan, 0, &mut paced(50_000.0, Arrival::Even));
    assert!(near(outcome.iops(), 40_000.0, 1.0), "{}", outcome.iops());
    let due = outcome.late + outcome.missed;
    assert!((24_800..=25_000).contains(&due), "{} and {}", outcome.late, outcome.missed);
}

#[test]
fn a_stall_shows_in_the_tail_and_each_late_start_is_counted() {
    const RATE: u64 = 10_000;
    const STALL: u64 = 100 * MILLISECOND;
    let depth = 32;
    // A device without latency, so that only the requests that a stall held back are late.
    let plan = Plan { depth, time: 3 * SECOND, ..Plan::default() };
    let mut work = paced(RATE as f64, Arrival::Even);
    let outcome = run(Service::new(), &plan, STALL, &mut work);
    let counts = outcome.latency();
    let histogram = counts.histogram();
    let at = |quantile| counts.percentile(&histogram, quantile).unwrap();
    assert!(at(0.5) < 10_000, "{}", at(0.5));
    assert!((98 * MILLISECOND..=STALL).contains(&at(0.999)), "{}", at(0.999));
    // Each stall holds all requests that are due in it. As many as the queue has room for start.
    let (in_a_stall, started) = (RATE / 10, depth as u64);
    assert_eq!((outcome.late, outcome.missed), (3 * (in_a_stall - started), 0));
    // Without a rate the stall is hidden: few requests are in flight during it.
    let mut closed = UniformReads::new(0..BYTES, 4096, Random::new(1, 0));
    let plan = Plan { count: 400_000, ..plan };
    let service = Service::new().latency(Duration::from_micros(80));
    let hidden = run(service, &plan, STALL, &mut closed).latency();
    assert!(hidden.percentile(&hidden.histogram(), 0.999).unwrap() < 100_000);
}

fn paced(rate: f64, arrival: Arrival) -> General {
    let settings = Settings {
        range: 0..BYTES,
        sizes: vec![Size { bytes: 4096, weight: 1 }],
        read_percent: 100,
        distribution: Distribution::Random,
        seed: 1,
        random: Random::new(1, 0),
    };
    General::new(settings, Some(Pace::new(rate, arrival, Random::new(2, 0))), None)
}
