//! A device that breaks every promise except those of [`Transport`]: it does not access memory
//! after it reported so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nvio_driver::spec::register::{
    ACQ, AQA, ASQ, CAP, CC, CSTS, Cc, Csts, DOORBELLS, GONE, VS, cq_head_doorbell, sq_tail_doorbell,
};
use nvio_driver::spec::{Cqe, Sqe, Status};
use nvio_driver::{Arena, Error, Mmio, Result, Transport};

use super::memory::Memory;

/// More calls than a driver makes for an operation that ends.
const MOST_CALLS: u32 = 400_000;
/// Bytes of the window of doorbells.
const WINDOW: usize = 16 << 10;

/// Executes Identify, Get Log Page and similar commands: sets the data, which is zeroes before, and
/// returns the status and DW0.
pub type Answers = dyn FnMut(&Sqe, &mut [u8]) -> (Status, u32) + Send;

/// The values of registers. The default is their true values.
#[derive(Clone, Copy, Debug, Default)]
pub struct Registers {
    /// All ones, as of a device that was removed.
    pub gone: bool,
    /// Reads and writes fail.
    pub broken: bool,
    pub fatal: bool,
    /// CSTS.RDY does not depend on CC.EN.
    pub ready: Option<bool>,
    /// Number of accesses; 0 is without a bound.
    pub left: u16,
}

/// The execution of an admin command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduct {
    Honest,
    /// The command completes with this status, if that is an error.
    Refuse(Status),
    /// The command is executed, and not completed.
    Silent,
    /// The command is executed, and completed after this time.
    Late(Duration),
    /// The command is executed, and another identifier is completed.
    Other(u16),
    /// The command is executed, and completed twice.
    Twice,
    /// The command is executed, and completed with this result.
    Result(u32),
}

/// A queue pair of the device.
#[derive(Clone, Debug)]
pub struct Queue {
    pub sq: Option<u64>,
    pub cq: u64,
    pub sq_entries: u32,
    pub cq_entries: u32,
    /// Serial number of the queue pair among all of the run.
    pub number: u64,
    /// Commands fetched and not completed.
    pub live: VecDeque<u16>,
    head: u32,
    tail: u32,
    phase: bool,
}

impl Queue {
    pub(super) fn new(cq: u64, cq_entries: u32, number: u64) -> Self {
        let live = VecDeque::new();
        let (sq, sq_entries, head, tail) = (None, 0, 0, 0);
        Self { sq, cq, sq_entries, cq_entries, number, live, head, tail, phase: true }
    }

    /// The memory that the device may access.
    pub fn rings(&self) -> impl Iterator<Item = (u64, usize)> {
        let sq = self.sq.map(|sq| (sq, self.sq_entries as usize * 64));
        sq.into_iter().chain([(self.cq, self.cq_entries as usize * 16)])
    }
}

/// The state of the device.
pub struct Device {
    pub registers: Registers,
    pub reset_fails: bool,
    pub unmap_fails: bool,
    /// Time by which each read advances the clock.
    pub tick: Duration,
    /// The executions of the next admin commands. Without an entry, a command is executed honestly.
    pub conduct: VecDeque<Conduct>,
    /// The status of a command that is aborted.
    pub aborts: Option<Status>,
    /// The arena that was mapped, also after it was unmapped.
    pub memory: Option<Memory>,
    pub mapped: bool,
    pub running: bool,
    /// I/O queues.
    pub queues: BTreeMap<u16, Queue>,
    pub admin: Option<Queue>,
    /// Event requests that were not completed.
    pub events: VecDeque<u16>,
    /// Identifiers in the admin queue that were completed before their command was submitted.
    pub foretold: BTreeSet<u16>,
    /// Shadow doorbells and event indices.
    pub shadow: Option<(u64, u64)>,
    /// The device did something after which the driver must not reuse memory.
    pub dishonest: bool,
    pub(super) answers: Box<Answers>,
    pub(super) late: Vec<(Duration, Cqe)>,
    pub(super) created: u64,
    pub(super) clock: Duration,
    cap: u64,
    cc: Cc,
    /// CC.EN is set, and the device is not ready yet.
    starting: bool,
    written: BTreeMap<u64, u32>,
    calls: u32,
    doorbells: Arc<Mmio>,
}

impl Device {
    /// Creates a device with these capabilities.
    pub fn new(cap: u64, answers: Box<Answers>) -> Arc<Mutex<Self>> {
        let file = tempfile::tempfile().unwrap();
        file.set_len(WINDOW as u64).unwrap();
        let doorbells = Mmio::map(file.as_fd(), 0, DOORBELLS, WINDOW).unwrap();
        Arc::new(Mutex::new(Self {
            registers: Registers::default(),
            reset_fails: false,
            unmap_fails: false,
            tick: Duration::from_micros(10),
            conduct: VecDeque::new(),
            aborts: None,
            memory: None,
            mapped: false,
            running: false,
            queues: BTreeMap::new(),
            admin: None,
            events: VecDeque::new(),
            foretold: BTreeSet::new(),
            shadow: None,
            dishonest: false,
            answers,
            late: Vec::new(),
            created: 0,
            clock: Duration::ZERO,
            cap,
            cc: Cc(0),
            starting: false,
            written: BTreeMap::new(),
            calls: 0,
            doorbells: Arc::new(doorbells),
        }))
    }

    /// Starts to count the calls of the driver until it returns.
    pub fn begin(&mut self) {
        self.calls = 0;
    }

    pub fn pass(&mut self, time: Duration) {
        self.clock += time;
        self.serve();
    }

    pub fn memory(&self) -> &Memory {
        self.memory.as_ref().unwrap()
    }

    pub fn page_shift(&self) -> u32 {
        self.cc.page_shift()
    }

    fn stride(&self) -> u32 {
        4 << (self.cap >> 32 & 0xf)
    }

    /// Runs the device. Every call of the transport does this first.
    fn enter(&mut self) {
        self.calls += 1;
        assert!(self.calls < MOST_CALLS, "the driver does not come to an end");
        self.serve();
    }

    /// Ends the accesses to memory, as the driver was promised.
    fn stop(&mut self) {
        self.running = false;
        self.queues.clear();
        self.admin = None;
        self.events.clear();
        self.foretold.clear();
        self.late.clear();
        self.shadow = None;
    }

    fn start(&mut self) {
        let half = |offset| u64::from(self.written.get(&offset).copied().unwrap_or(0));
        let [sq, cq] = [ASQ, ACQ].map(|offset| half(offset + 4) << 32 | half(offset));
        let sizes = half(AQA) as u32;
        let mut admin = Queue::new(cq, (sizes >> 16 & 0xfff) + 1, 0);
        (admin.sq, admin.sq_entries) = (Some(sq), (sizes & 0xfff) + 1);
        for range in admin.rings() {
            self.memory().check(range, "an admin queue");
        }
        self.clear_doorbells(0);
        self.admin = Some(admin);
        (self.starting, self.running) = (false, true);
    }

    fn status(&mut self, registers: Registers) -> u32 {
        let ready = registers.ready.unwrap_or(self.cc.en());
        if !ready {
            self.stop();
        } else if self.starting && self.mapped {
            self.start();
        }
        let shut = if self.cc.shn() != 0 { Csts::SHUTDOWN_COMPLETE } else { 0 };
        let fatal = if registers.fatal { Csts::FATAL } else { 0 };
        u32::from(ready) | shut | fatal
    }

    fn take_registers(&mut self) -> Result<Registers> {
        let now = self.registers;
        match self.registers.left {
            0 => {}
            1 => self.registers = Registers::default(),
            _ => self.registers.left -= 1,
        }
        if now.broken { Err(refused("a register")) } else { Ok(now) }
    }

    fn read(&mut self, offset: u64) -> Result<u32> {
        self.enter();
        let registers = self.take_registers()?;
        if registers.gone {
            return Ok(GONE);
        }
        Ok(match offset {
            CAP => (self.cap & 0xffff_ffff) as u32,
            4 => (self.cap >> 32) as u32,
            VS => 0x0002_0000,
            CC => self.cc.0,
            CSTS => self.status(registers),
            _ => self.written.get(&offset).copied().unwrap_or(0),
        })
    }

    fn write(&mut self, offset: u64, value: u32) -> Result<()> {
        self.enter();
        let registers = self.take_registers()?;
        if registers.gone {
            return Ok(());
        }
        if offset == CC {
            let enabled = Cc(value).en() && !self.cc.en();
            assert!(!(enabled && self.running), "enabled while it was not seen disabled");
            self.starting = Cc(value).en() && (enabled || self.starting);
            self.cc = Cc(value);
        } else {
            assert!(!self.running, "register {offset:#x} is written while it is in use");
            self.written.insert(offset, value);
        }
        Ok(())
    }

    fn map(&mut self, arena: &Arena) {
        assert!(!self.mapped);
        self.memory = Some(Memory::new(arena));
        self.mapped = true;
    }

    fn unmap(&mut self) -> Result<()> {
        self.enter();
        if self.unmap_fails {
            self.dishonest = true;
            return Err(refused("unmap"));
        }
        self.mapped = false;
        self.stop();
        Ok(())
    }

    fn reset(&mut self) -> Result<()> {
        self.enter();
        if self.reset_fails {
            return Err(refused("reset"));
        }
        (self.cc, self.starting) = (Cc(0), false);
        self.stop();
        Ok(())
    }

    fn doorbell_offset(&self, qid: u16, completion: bool) -> u64 {
        match completion {
            false => sq_tail_doorbell(qid, self.stride()),
            true => cq_head_doorbell(qid, self.stride()),
        }
    }

    /// Returns the doorbell of a submission queue or of a completion queue, or its shadow.
    pub fn doorbell_at(&self, qid: u16, completion: bool, shadow: Option<(u64, u64)>) -> u32 {
        let offset = self.doorbell_offset(qid, completion);
        match shadow.filter(|_| qid != 0) {
            Some((values, _)) => self.memory().read32(values + (offset - DOORBELLS)),
            None => self.doorbells.read32(offset).unwrap(),
        }
    }

    /// Resets the shadow doorbells of a queue pair to their first values.
    pub fn clear_shadow(&self, qid: u16, shadow: Option<(u64, u64)>) {
        let Some((values, events)) = shadow else { return };
        for offset in [false, true].map(|it| self.doorbell_offset(qid, it) - DOORBELLS) {
            self.memory().write32(values + offset, 0);
            self.memory().write32(events + offset, 0);
        }
    }

    /// Resets a doorbell to the value of a new queue.
    pub fn clear_doorbells(&self, qid: u16) {
        for offset in [false, true].map(|it| self.doorbell_offset(qid, it)) {
            // The queue has no doorbell.
            self.doorbells.write32(offset, 0).unwrap_or(());
        }
    }

    /// Returns the serial number of a queue; 0 if there is none.
    pub fn number(&self, qid: u16) -> u64 {
        self.queues.get(&qid).map_or(0, |queue| queue.number)
    }

    /// Returns the commands that the driver has rung for, and the device has not fetched.
    pub fn fetch(&mut self, qid: u16) -> Vec<Sqe> {
        let tail = self.doorbell_at(qid, false, self.shadow);
        let admin = self.admin.as_mut().filter(|_| qid == 0);
        let Some(queue) = admin.or(self.queues.get_mut(&qid)) else { return vec![] };
        let Some(sq) = queue.sq else { return vec![] };
        assert!(tail < queue.sq_entries, "doorbell {tail} of a queue of {}", queue.sq_entries);
        let mut fetched = vec![];
        while queue.head != tail {
            fetched.push(self.memory.as_ref().unwrap().sqe(sq, queue.head));
            queue.head = (queue.head + 1) % queue.sq_entries;
        }
        queue.live.extend(fetched.iter().map(|sqe| sqe.cid.get()));
        fetched
    }

    /// Fetches the I/O commands that the driver has rung for.
    pub fn fetch_all(&mut self) {
        for qid in self.queues.keys().copied().collect::<Vec<_>>() {
            self.fetch(qid);
        }
    }

    /// Posts a completion at the tail, with the right phase.
    pub fn post(&mut self, qid: u16, cqe: &Cqe) {
        let admin = self.admin.as_mut().filter(|_| qid == 0);
        let Some(queue) = admin.or(self.queues.get_mut(&qid)) else { return };
        let status_phase = Cqe::pack_status(cqe.status(), queue.phase);
        let cqe = Cqe { status_phase, ..*cqe };
        self.memory.as_ref().unwrap().post(queue.cq, queue.tail, &cqe);
        queue.tail = (queue.tail + 1) % queue.cq_entries;
        queue.phase ^= queue.tail == 0;
        queue.live.retain(|&cid| cid != cqe.cid.get());
    }

    /// Posts a completion anywhere.
    pub fn scribble(&self, qid: u16, index: u32, cqe: &Cqe) {
        if let Some(queue) = self.queues.get(&qid) {
            self.memory().post(queue.cq, index % queue.cq_entries, cqe);
        }
    }
}

fn refused(call: &'static str) -> Error {
    let source = std::io::Error::from_raw_os_error(libc::EIO);
    Error::System { call, source }
}

pub fn lock(device: &Mutex<Device>) -> MutexGuard<'_, Device> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The transport to a device.
pub struct Link {
    device: Arc<Mutex<Device>>,
    doorbells: Arc<Mmio>,
}

impl Link {
    pub fn new(device: &Arc<Mutex<Device>>) -> Self {
        let doorbells = Arc::clone(&lock(device).doorbells);
        Self { device: Arc::clone(device), doorbells }
    }
}

// SAFETY: the device accesses memory in calls of its methods, in this thread, and only while it is
// running. It does not run after a reset, after its memory was unmapped, or after CSTS was read
// with RDY clear.
unsafe impl Transport for Link {
    fn read32(&self, offset: u64) -> Result<u32> {
        lock(&self.device).read(offset)
    }

    fn write32(&self, offset: u64, value: u32) -> Result<()> {
        lock(&self.device).write(offset, value)
    }

    fn doorbells(&self) -> &Arc<Mmio> {
        &self.doorbells
    }

    fn choose_iova(&self, _bytes: u64, used: &[Range<u64>]) -> Result<u64> {
        let after = used.last().map_or(1 << 32, |range| range.end);
        Ok(after.next_multiple_of(2 << 20))
    }

    fn map(&self, arena: &Arena) -> Result<()> {
        lock(&self.device).map(arena);
        Ok(())
    }

    fn unmap(&self, _arena: &Arena) -> Result<()> {
        lock(&self.device).unmap()
    }

    fn reset(&self) -> Result<()> {
        lock(&self.device).reset()
    }

    fn now(&self) -> Duration {
        let mut device = lock(&self.device);
        let tick = device.tick;
        device.clock += tick;
        device.enter();
        device.clock
    }

    fn pause(&self, time: Duration) {
        let mut device = lock(&self.device);
        // A sleep may take too long.
        device.clock += time.max(Duration::from_millis(10));
        device.enter();
    }
}
