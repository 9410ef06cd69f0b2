//! A driver whose device posts arbitrary completions.
//!
//! Whatever the device posts: the driver does not panic or wait without a bound. Each command
//! completes once, with the status that the device posted for its identifier or, after the device
//! was stopped, with a status of the driver. Its memory is returned whole, and not while the device
//! may write to it. The entry of every command is the requested one, with pointers into allocated
//! memory. The counters agree with an observer of the rings.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use nvio_driver::spec::{Cqe, Status, status};
use nvio_driver::{Controller, Options, WritableController, WritableNamespace};
use zerocopy::little_endian::{U16, U32};

use super::admin::answer;
use super::bytes::Bytes;
use super::device::{Conduct, Device, Link, Registers, lock};
use super::honest::Honest;
use super::memory::Range;
use super::pair::Pair;

const MOST_STEPS: usize = 400;
const MOST_PAIRS: usize = 3;
/// Empty polls before a queue pair runs its health check.
const PATIENCE: usize = 1024;

/// Statuses in the completions of the device.
const STATUSES: [Status; 8] = [
    Status::SUCCESS,
    status::INVALID_FIELD,
    status::ABORT_REQUESTED,
    status::UNRECOVERED_READ_ERROR,
    status::ABORTED_BY_HOST,
    Status(0x4000),
    Status(0x7fff),
    Status(0x0800),
];

/// The rings and commands of a dropped pair, which the device may still access.
struct Left {
    qid: u16,
    number: u64,
    ranges: Vec<Range>,
}

pub(super) struct Host {
    pub(super) device: Arc<Mutex<Device>>,
    pub(super) controller: WritableController,
    pub(super) namespace: WritableNamespace,
    pub(super) honest: Honest,
    pub(super) pairs: Vec<Pair>,
    pub(super) next: u64,
    left: Vec<Left>,
    /// The device posts without a bound at the end of the run.
    floods: bool,
}

/// Runs the driver as the bytes determine.
pub fn run(bytes: &[u8]) {
    let bytes = &mut Bytes::new(bytes);
    let mut host = Host::new(bytes);
    host.add_pair(7);
    for _ in 0..MOST_STEPS {
        if bytes.is_empty() {
            break;
        }
        host.step(bytes);
        host.check();
    }
    host.finish();
}

impl Host {
    fn new(bytes: &mut Bytes<'_>) -> Self {
        let (first, second) = (bytes.u8(), bytes.u8());
        let (metadata, extended, protection) = match second & 7 {
            0..=2 => (0, false, 0),
            3 => (8, false, 1),
            4 => (8, true, 2),
            5 => (16, false, 0),
            6 => (64, true, 0),
            _ => (8, true, 3),
        };
        let honest = Honest {
            mdts: [0, 1, 3, 5][usize::from(first & 3)],
            sgl: first & 4 != 0,
            shadow: first & 8 != 0,
            queues: 3,
            blocks: [1 << 20, 9, 1 << 40, 1000][usize::from(first >> 4 & 3)],
            lbads: if first & 0x40 != 0 { 12 } else { 9 },
            metadata,
            extended,
            protection,
        };
        // MQES, CQR, TO of 500 ms, the NVM command set.
        let entries = [63, 1, 6, 15][usize::from(second >> 3 & 3)];
        let cap = entries | 1 << 16 | 1 << 24 | 1 << 37;
        let device = Device::new(cap, Box::new(move |sqe, data| honest.answer(sqe, data)));
        let options = Options {
            arena_bytes: 2 << 20,
            queues: 3,
            admin_timeout: Duration::from_millis(200),
            io_timeout: Duration::from_millis(400),
            max_transfer: 64 << 10,
            writable: true,
            ..Options::default()
        };
        let controller = Controller::open_on(Box::new(Link::new(&device)), options);
        let controller = controller.unwrap().writable().unwrap();
        let namespace = controller.writable_namespace(1).unwrap();
        let (pairs, left, floods) = (vec![], vec![], second & 0xe0 == 0x20);
        Self { device, controller, namespace, honest, pairs, next: 0, left, floods }
    }

    fn step(&mut self, bytes: &mut Bytes<'_>) {
        lock(&self.device).begin();
        match bytes.below(20) {
            0..=4 => self.submit(bytes),
            5 => self.on_pair(bytes, |pair, _| pair.ring()),
            6 | 7 => self.complete(bytes),
            8 => self.post(bytes),
            9 | 10 => self.poll(bytes),
            11 => self.add_pair(bytes.u16() % 80),
            12 => self.drop_pair(bytes),
            13 => self.change_registers(bytes),
            14 => self.change_conduct(bytes),
            15 => self.pass(bytes),
            16 => self.post_admin(bytes),
            17 => self.ask(bytes),
            18 => drop(self.controller.reset()),
            _ => self.change_failures(bytes),
        }
        self.pairs.iter_mut().for_each(Pair::settle);
    }

    fn on_pair(&mut self, bytes: &mut Bytes<'_>, act: impl FnOnce(&mut Pair, &mut Bytes<'_>)) {
        let index = bytes.below(MOST_PAIRS);
        if let Some(pair) = self.pairs.get_mut(index) {
            act(pair, bytes);
        }
    }

    fn add_pair(&mut self, depth: u16) {
        if self.pairs.len() == MOST_PAIRS {
            return;
        }
        if let Ok(queue) = self.controller.queue_pair(depth) {
            self.pairs.extend(Pair::new(queue, &self.device));
        }
    }

    fn drop_pair(&mut self, bytes: &mut Bytes<'_>) {
        let index = bytes.below(MOST_PAIRS);
        if index < self.pairs.len() {
            let pair = self.pairs.swap_remove(index);
            let qid = pair.queue.id();
            let number = lock(&self.device).number(qid);
            self.left.push(Left { qid, number, ranges: pair.lent().collect() });
        }
    }

    /// Posts the completion of a command that the device has fetched.
    fn complete(&mut self, bytes: &mut Bytes<'_>) {
        let mut device = lock(&self.device);
        device.fetch_all();
        let qids: Vec<u16> = device.queues.keys().copied().collect();
        if qids.is_empty() {
            return;
        }
        let qid = bytes.pick(&qids);
        let live = device.queues[&qid].live.clone();
        if !live.is_empty() {
            let cid = live[bytes.below(live.len())];
            let (status, dw0) = (bytes.pick(&STATUSES), bytes.u8());
            device.post(qid, &answer(cid, status, dw0.into()));
        }
    }

    /// Posts an arbitrary completion.
    fn post(&mut self, bytes: &mut Bytes<'_>) {
        let index = bytes.below(MOST_PAIRS);
        let Some(pair) = self.pairs.get(index) else { return };
        let known: Vec<u16> = pair.identifiers().collect();
        let how = bytes.u8();
        let cid = match how & 3 {
            0 if !known.is_empty() => bytes.pick(&known),
            1 if !known.is_empty() => bytes.pick(&known) ^ 1 << (bytes.u8() & 15),
            2 => bytes.u8().into(),
            _ => bytes.u16(),
        };
        let cqe = Cqe {
            dw0: U32::new(bytes.u8().into()),
            cid: U16::new(cid),
            status_phase: U16::new(bytes.u16()),
            ..Cqe::default()
        };
        let mut device = lock(&self.device);
        match how & 4 {
            0 => device.post(pair.queue.id(), &cqe),
            _ => device.scribble(pair.queue.id(), bytes.u8().into(), &cqe),
        }
    }

    fn poll(&mut self, bytes: &mut Bytes<'_>) {
        let device = Arc::clone(&self.device);
        self.on_pair(bytes, |pair, bytes| match bytes.below(6) {
            0 | 1 => pair.run(|queue, done| _ = queue.poll(usize::MAX, done)),
            2 => {
                let limit = bytes.below(9);
                let before = pair.flying();
                pair.run(|queue, done| _ = queue.poll(limit, done));
                assert!(pair.queue.counters().resets > 0 || before - pair.flying() <= limit);
            }
            3 => pair.run(|queue, done| queue.pop().into_iter().for_each(done)),
            4 => pair.run(|queue, done| _ = queue.check(done)),
            _ => {
                let tick = Duration::from_millis(500);
                let before = std::mem::replace(&mut lock(&device).tick, tick);
                pair.run(|queue, done| drop(queue.wait(done)));
                lock(&device).tick = before;
            }
        });
    }

    fn change_registers(&mut self, bytes: &mut Bytes<'_>) {
        let how = bytes.u8();
        lock(&self.device).registers = Registers {
            gone: how & 7 == 1,
            broken: how & 7 == 2,
            fatal: how & 7 == 3,
            ready: match how & 7 {
                4 => Some(true),
                5 => Some(false),
                _ => None,
            },
            left: bytes.u8().into(),
        };
    }

    fn change_conduct(&mut self, bytes: &mut Bytes<'_>) {
        let conduct = match bytes.below(8) {
            0 | 1 => Conduct::Honest,
            2 => Conduct::Refuse(bytes.pick(&STATUSES)),
            3 => Conduct::Silent,
            4 => Conduct::Late(Duration::from_millis(u64::from(bytes.u8()) * 2)),
            5 => Conduct::Other(bytes.u16()),
            6 => Conduct::Twice,
            _ => Conduct::Result(bytes.u32()),
        };
        let mut device = lock(&self.device);
        if device.conduct.len() < 16 {
            device.conduct.push_back(conduct);
        }
    }

    fn change_failures(&mut self, bytes: &mut Bytes<'_>) {
        let how = bytes.u8();
        let mut device = lock(&self.device);
        device.reset_fails = how & 1 != 0;
        device.unmap_fails = how & 6 == 6;
        device.aborts = (how & 8 != 0).then(|| STATUSES[usize::from(how >> 5)]);
    }

    fn pass(&mut self, bytes: &mut Bytes<'_>) {
        lock(&self.device).pass(Duration::from_millis(u64::from(bytes.u8()) * 4));
    }

    /// Posts an arbitrary completion into the admin queue.
    fn post_admin(&mut self, bytes: &mut Bytes<'_>) {
        let mut device = lock(&self.device);
        let how = bytes.u8();
        let status = if how & 2 != 0 { bytes.pick(&STATUSES) } else { Status::SUCCESS };
        if how & 1 == 0 {
            if let Some(cid) = device.events.pop_front() {
                device.post(0, &answer(cid, status, bytes.u32()));
            }
            return;
        }
        let cid = match how & 4 {
            0 => bytes.u8().into(),
            _ => bytes.u16(),
        };
        // The next command with this identifier completes at once, with success.
        device.foretold.insert(cid);
        device.post(0, &answer(cid, Status::SUCCESS, bytes.u8().into()));
    }

    fn ask(&mut self, bytes: &mut Bytes<'_>) {
        let controller = &self.controller;
        match bytes.below(6) {
            0 => drop(controller.poll_events(|event| drop(event.to_string()))),
            1 => drop(controller.next_event()),
            2 => drop(controller.health(None)),
            3 => drop(controller.namespace_ids()),
            4 => drop(controller.namespace(bytes.u8().into())),
            _ => drop(controller.error_log()),
        }
    }

    /// Checks that all memory that the device may access is allocated.
    fn check(&mut self) {
        let device = lock(&self.device);
        let Some(memory) = device.memory.as_ref().filter(|_| device.mapped && device.running)
        else {
            return;
        };
        for queue in device.queues.values().chain(&device.admin) {
            queue.rings().for_each(|range| memory.check(range, "a queue of the device"));
        }
        self.left.retain(|left| device.number(left.qid) == left.number && left.number != 0);
        for range in self.left.iter().flat_map(|left| &left.ranges) {
            memory.check(*range, "memory of a pair whose queues were not deleted");
        }
    }

    /// Checks that polling completes all commands in flight, whatever the device does.
    fn finish(mut self) {
        lock(&self.device).tick = Duration::from_millis(500);
        for index in 0..self.pairs.len() {
            let pair = &mut self.pairs[index];
            // For each command, the health checks that see it, find it overdue and abort it, and
            // the recovery.
            let looks = 4 * (pair.flying() + 5);
            let (rounds, polls) =
                if self.floods { (looks * PATIENCE, 1) } else { (looks, PATIENCE) };
            for _ in 0..rounds {
                if pair.flying() == 0 {
                    break;
                }
                if self.floods {
                    // Every poll finds completions, none of which matches a command.
                    lock(&self.device).post(pair.queue.id(), &answer(0xffff, Status::SUCCESS, 0));
                }
                pair.run(|queue, done| {
                    (0..polls).for_each(|_| _ = queue.poll(usize::MAX, &mut *done));
                });
            }
            assert_eq!(pair.flying(), 0, "commands do not end");
        }
        self.check();
        let Self { device, controller, namespace, pairs, .. } = self;
        lock(&device).begin();
        drop(pairs);
        drop((namespace, controller));
        let device = lock(&device);
        if !device.dishonest {
            assert!(device.memory().is_free(), "memory is still allocated in the end");
        }
        device.memory().discard();
    }
}
