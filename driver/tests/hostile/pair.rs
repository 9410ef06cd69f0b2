//! A queue pair as an observer sees it: the submitted commands and the entries of the completion
//! ring determine the possible completions.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use nvio_driver::spec::{Cqe, status};
use nvio_driver::{Completion, QueuePair, ScatterList};

use super::device::{Device, Queue, lock};
use super::lent::{Lent, Wanted};
use super::memory::Range;

/// A command in flight.
#[derive(Debug)]
struct Flying {
    cid: u16,
    lent: Lent,
    /// Serial number of the queue of the device; 0 if the device had none.
    number: u64,
}

/// The rings of a pair, followed as the specification defines them.
struct Rings {
    /// The addresses of the rings, which do not change.
    queue: Queue,
    qid: u16,
    shadow: Option<(u64, u64)>,
    /// Contexts, by identifier, of commands without a completion.
    cids: BTreeMap<u16, u64>,
    tail: u32,
    /// The tail that the device was shown.
    rung: u32,
    head: u32,
    phase: bool,
    stale: u64,
}

impl Rings {
    /// Returns the entry at the head, if it is new.
    fn entry(&self, device: &Device) -> Option<Cqe> {
        let cqe = device.memory().cqe(self.queue.cq, self.head);
        (cqe.phase() == self.phase).then_some(cqe)
    }

    /// Skips the entry at the head, and returns true if it matches a command.
    fn pass(&mut self, cqe: &Cqe) -> bool {
        self.head = (self.head + 1) % self.queue.cq_entries;
        self.phase ^= self.head == 0;
        let matches = self.cids.remove(&cqe.cid.get()).is_some();
        self.stale += u64::from(!matches);
        matches
    }

    /// Returns the next entry that matches a command, and the number of entries before it, without
    /// moving the head.
    fn find(&self, device: &Device) -> Option<(Cqe, u32)> {
        let (mut head, mut phase) = (self.head, self.phase);
        for before in 0..self.queue.cq_entries {
            let cqe = device.memory().cqe(self.queue.cq, head);
            if cqe.phase() != phase {
                return None;
            }
            if self.cids.contains_key(&cqe.cid.get()) {
                return Some((cqe, before));
            }
            head = (head + 1) % self.queue.cq_entries;
            phase ^= head == 0;
        }
        None
    }

    /// Starts again with new queues.
    fn restart(&mut self, device: &Device, stale: u64) {
        let qid = self.qid;
        device.clear_doorbells(qid);
        if let Some(queue) = device.queues.get(&qid) {
            // The device may not have created the submission queue.
            assert!(queue.sq.is_none_or(|sq| Some(sq) == self.queue.sq));
            assert_eq!(queue.cq, self.queue.cq);
            self.shadow = device.shadow;
        }
        device.clear_shadow(qid, self.shadow);
        self.cids.clear();
        (self.tail, self.rung, self.head, self.phase, self.stale) = (0, 0, 0, true, stale);
    }
}

/// A queue pair with its observer.
pub struct Pair {
    pub queue: QueuePair<u64>,
    device: Arc<Mutex<Device>>,
    rings: Rings,
    flying: BTreeMap<u64, Flying>,
    submitted: u64,
    completed: u64,
    errors: u64,
    resets: u64,
}

impl Pair {
    /// `None` if the device does not have the queues, although it reported success.
    pub fn new(queue: QueuePair<u64>, device: &Arc<Mutex<Device>>) -> Option<Self> {
        let known = {
            let device = lock(device);
            device.queues.get(&queue.id()).cloned().zip(Some(device.shadow))
        };
        let (known, shadow) = known.filter(|(known, _)| known.sq.is_some())?;
        assert!(queue.capacity() < known.sq_entries as usize, "full looks like empty");
        let (tail, rung, head, phase, stale) = (0, 0, 0, true, 0);
        let cids = BTreeMap::new();
        let qid = queue.id();
        let rings = Rings { queue: known, qid, shadow, cids, tail, rung, head, phase, stale };
        let device = Arc::clone(device);
        let flying = BTreeMap::new();
        let (submitted, completed, errors, resets) = (0, 0, 0, 0);
        let mut pair = Self { queue, device, rings, flying, submitted, completed, errors, resets };
        pair.settle();
        Some(pair)
    }

    pub fn flying(&self) -> usize {
        self.flying.len()
    }

    pub fn has_room(&self) -> bool {
        self.flying.len() < self.queue.capacity()
    }

    /// Returns all memory that the device may access for this pair.
    pub fn lent(&self) -> impl Iterator<Item = Range> + '_ {
        self.flying.values().flat_map(|flying| flying.lent.all()).chain(self.rings.queue.rings())
    }

    /// Returns the identifiers of commands in flight.
    pub fn identifiers(&self) -> impl Iterator<Item = u16> + '_ {
        self.flying.values().map(|flying| flying.cid)
    }

    /// Records a command that was accepted, and checks its entry.
    pub fn accepted(&mut self, context: u64, lent: Lent, wanted: &Wanted) {
        let Rings { queue, shadow, tail, rung, cids, .. } = &mut self.rings;
        let device = lock(&self.device);
        let shown = device.doorbell_at(self.queue.id(), false, *shadow);
        assert_eq!(shown, *rung, "a command is shown before the doorbell is rung");
        let sqe = device.memory().sqe(queue.sq.unwrap(), *tail);
        wanted.check(&sqe, &lent, &device);
        let (cid, number) = (sqe.cid.get(), device.number(self.queue.id()));
        drop(device);
        assert_ne!(cid, 0xffff, "the identifier that is not to be used");
        assert_eq!(cids.insert(cid, context), None, "identifier {cid:#x} is in flight already");
        *tail = (*tail + 1) % queue.sq_entries;
        assert!(self.flying.insert(context, Flying { cid, lent, number }).is_none());
        self.submitted += 1;
        self.settle();
    }

    /// Rings the doorbell, and makes the device fetch the commands.
    pub fn ring(&mut self) {
        self.queue.ring();
        self.settle();
        lock(&self.device).fetch(self.rings.qid);
    }

    /// Runs `call`, and compares each of its completions with the entries of the device.
    pub fn run(&mut self, call: impl FnOnce(&mut QueuePair<u64>, &mut dyn FnMut(Completion<u64>))) {
        lock(&self.device).begin();
        let Self { queue, device, rings, flying, completed, errors, .. } = self;
        call(queue, &mut |done| {
            *completed += 1;
            *errors += u64::from(!done.status.is_success());
            let ended = flying.remove(&done.context);
            let ended = ended.expect("the end of a command that is not in flight");
            let device = lock(device);
            let found = rings.find(&device).filter(|(cqe, _)| {
                let posted = (cqe.cid.get(), cqe.status(), cqe.dw0.get());
                posted == (ended.cid, done.status, done.result)
            });
            for _ in 0..found.map_or(0, |(_, before)| before + 1) {
                let cqe = rings.entry(&device).unwrap();
                rings.pass(&cqe);
            }
            let serves = device.number(rings.qid) == ended.number && ended.number != 0;
            check_end(done, &ended, found.is_some(), serves, device.dishonest);
        });
        self.settle();
    }

    /// Follows the driver past completions that match no command, and compares its doorbells and all
    /// counters.
    pub fn settle(&mut self) {
        let counters = self.queue.counters();
        let rings = &mut self.rings;
        let qid = rings.qid;
        let device = lock(&self.device);
        if counters.resets != self.resets {
            assert!(self.flying.is_empty(), "queues begin again while commands are in flight");
            self.resets = counters.resets;
            rings.restart(&device, counters.stale);
        }
        while rings.stale < counters.stale {
            let cqe = rings.entry(&device).expect("a completion is taken that was not posted");
            assert!(!rings.pass(&cqe), "a completion is lost: {cqe:?}");
        }
        // The device has room for more than half of the ring.
        let head = device.doorbell_at(qid, true, rings.shadow);
        let entries = rings.queue.cq_entries;
        let kept = (rings.head + entries - head) % entries;
        assert!(kept < entries / 2, "the head doorbell is {kept} of {entries} behind");
        rings.rung = device.doorbell_at(qid, false, rings.shadow);
        drop(device);
        assert_eq!(counters.stale, rings.stale, "completions that match no command");
        assert_eq!(self.queue.in_flight(), self.flying.len());
        let counted = (counters.submitted, counters.completed, counters.errors);
        assert_eq!(counted, (self.submitted, self.completed, self.errors));
        assert!(counters.idle_polls <= counters.polls);
    }
}

/// Returns true if a command may complete like this. `posted`: the device posted this completion.
/// `serves`: the device still has the command's queue. `dishonest`: that cannot be known.
fn check_end(done: Completion<u64>, ended: &Flying, posted: bool, serves: bool, dishonest: bool) {
    if !posted {
        let by_host = [status::ABORTED_BY_HOST, status::HOST_PATHING_ERROR];
        assert!(by_host.contains(&done.status) && done.result == 0, "made up: {done:?}");
    }
    let whole = match &ended.lent {
        Lent::Nothing => done.buf.is_empty(),
        lent @ Lent::Buf(_) => Lent::of(&done.buf) == *lent,
        lent @ Lent::ScatterList(..) => {
            ScatterList::from_completed(done.buf).is_ok_and(|parts| Lent::of_parts(&parts) == *lent)
        }
    };
    match (whole, &ended.lent) {
        (true, Lent::Nothing) => {}
        (true, _) => assert!(posted || !serves, "memory comes back that the device may write"),
        (false, _) => assert!(dishonest && !posted, "memory does not come back: {ended:?}"),
    }
}
