//! A device that breaks every promise but those of [`Transport`]: it leaves memory alone when it
//! said that it does.

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

/// More calls than a driver makes that ends what it began.
const MOST_CALLS: u32 = 400_000;
/// Bytes of the window of doorbells.
const WINDOW: usize = 16 << 10;

/// What answers Identify, Get Log Page and the like: the status, DW0, and the data, which is
/// zeroes before.
pub type Answers = dyn FnMut(&Sqe, &mut [u8]) -> (Status, u32) + Send;

/// How registers read. The default is the truth.
#[derive(Clone, Copy, Debug, Default)]
pub struct Registers {
    /// As those of a device that was pulled out.
    pub gone: bool,
    /// They cannot be read, nor written.
    pub broken: bool,
    pub fatal: bool,
    /// CSTS.RDY, whatever CC.EN is.
    pub ready: Option<bool>,
    /// For so many accesses; 0 is for ever.
    pub left: u16,
}

/// What becomes of one admin command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduct {
    Honest,
    /// It is refused with this status, if that is an error.
    Refuse(Status),
    /// It is done, and never answered.
    Silent,
    /// It is done, and answered so much later.
    Late(Duration),
    /// It is done, and another is answered.
    Other(u16),
    /// It is done, and answered twice.
    Twice,
    /// It is done, and its result is this.
    Result(u32),
}

/// A queue pair, as the device knows it.
#[derive(Clone, Debug)]
pub struct Queue {
    pub sq: Option<u64>,
    pub cq: u64,
    pub sq_entries: u32,
    pub cq_entries: u32,
    /// Which of all queues ever this is.
    pub number: u64,
    /// Commands fetched and not answered.
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

    /// The memory that it may access.
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
    /// How much the clock moves each time it is read.
    pub tick: Duration,
    /// What becomes of the next admin commands; honest when it is empty.
    pub conduct: VecDeque<Conduct>,
    /// Status that a command is answered with when its Abort comes.
    pub aborts: Option<Status>,
    /// What was mapped, to be looked at also when it is not any more.
    pub memory: Option<Memory>,
    pub mapped: bool,
    pub running: bool,
    /// I/O queues.
    pub queues: BTreeMap<u16, Queue>,
    pub admin: Option<Queue>,
    /// Event requests that were not answered.
    pub events: VecDeque<u16>,
    /// Identifiers in the admin queue that were answered before they were asked.
    pub foretold: BTreeSet<u16>,
    /// Shadow doorbells and event indices.
    pub shadow: Option<(u64, u64)>,
    /// Whether anything was done that leaves memory with the device.
    pub dishonest: bool,
    pub(super) answers: Box<Answers>,
    pub(super) late: Vec<(Duration, Cqe)>,
    pub(super) created: u64,
    pub(super) clock: Duration,
    cap: u64,
    cc: Cc,
    /// Whether CC.EN was set, and the device is not ready yet.
    starting: bool,
    written: BTreeMap<u64, u32>,
    calls: u32,
    doorbells: Arc<Mmio>,
}

impl Device {
    /// A device with these capabilities.
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

    /// Begins to count the calls that the driver makes until it returns.
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

    /// Every call ends up here: the device works when it is looked at.
    fn enter(&mut self) {
        self.calls += 1;
        assert!(self.calls < MOST_CALLS, "the driver does not come to an end");
        self.serve();
    }

    /// From here on, memory is left alone: the driver was told so.
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

    /// The doorbell of a submission queue, or of a completion queue: a register, or its shadow.
    pub fn doorbell_at(&self, qid: u16, completion: bool, shadow: Option<(u64, u64)>) -> u32 {
        let offset = self.doorbell_offset(qid, completion);
        match shadow.filter(|_| qid != 0) {
            Some((values, _)) => self.memory().read32(values + (offset - DOORBELLS)),
            None => self.doorbells.read32(offset).unwrap(),
        }
    }

    /// Sets the shadows of a queue pair to what they are when it is created.
    pub fn clear_shadow(&self, qid: u16, shadow: Option<(u64, u64)>) {
        let Some((values, events)) = shadow else { return };
        for offset in [false, true].map(|it| self.doorbell_offset(qid, it) - DOORBELLS) {
            self.memory().write32(values + offset, 0);
            self.memory().write32(events + offset, 0);
        }
    }

    /// As when a queue is created.
    pub fn clear_doorbells(&self, qid: u16) {
        for offset in [false, true].map(|it| self.doorbell_offset(qid, it)) {
            // One that does not exist is not rung.
            self.doorbells.write32(offset, 0).unwrap_or(());
        }
    }

    /// Which queue this is; 0 if there is none.
    pub fn number(&self, qid: u16) -> u64 {
        self.queues.get(&qid).map_or(0, |queue| queue.number)
    }

    /// Commands that the driver has shown, and that were not fetched yet.
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

    /// Fetches what there is of I/O commands.
    pub fn fetch_all(&mut self) {
        for qid in self.queues.keys().copied().collect::<Vec<_>>() {
            self.fetch(qid);
        }
    }

    /// Posts a completion, at the tail and with the right phase.
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

/// The driver's way to a device.
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
// running. It is not after a reset, after the end of its mapping, or after CSTS was read with RDY
// clear.
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
        // Those who sleep may sleep too long.
        device.clock += time.max(Duration::from_millis(10));
        device.enter();
    }
}
