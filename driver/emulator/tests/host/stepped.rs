//! A host in the same thread as the controller, which works only when it is stepped.

use std::sync::Arc;

use nvio_emulator::{Access, Config, Controller, HostMemory};
use nvio_spec::register::{ACQ, AQA, ASQ, CC, CSTS, Cc, Csts};
use nvio_spec::{Cqe, Sqe, Status};
use vm_memory::mmap::MmapRegion;
use vm_memory::{Bytes, VolatileMemory};
use zerocopy::{FromBytes, IntoBytes};

/// Where the host's memory is for the controller.
pub const BASE: u64 = 0x10_0000;
/// Its size.
pub const SIZE: usize = 4 << 20;
/// Where data may be, above the queues.
pub const DATA: u64 = BASE + (1 << 20);

/// A queue pair: submission queue at `at`, completion queue 64 KiB above.
pub struct Pair {
    pub qid: u16,
    pub entries: u32,
    pub at: u64,
    pub tail: u32,
    pub head: u32,
    pub phase: bool,
    pub cid: u16,
}

impl Pair {
    pub fn new(qid: u16, entries: u32) -> Self {
        let at = BASE + u64::from(qid) * (128 << 10);
        Self { qid, entries, at, tail: 0, head: 0, phase: true, cid: 0 }
    }

    pub fn cq(&self) -> u64 {
        self.at + (64 << 10)
    }
}

pub struct Stepped {
    pub controller: Controller,
    pub memory: HostMemory,
    region: Arc<MmapRegion>,
    pub admin: Pair,
}

impl Stepped {
    /// A controller that has been enabled, with 32-entry admin queues.
    pub fn new(config: &Config) -> Self {
        let mut host = Self::disabled(config);
        host.enable();
        host
    }

    /// A controller at power on.
    pub fn disabled(config: &Config) -> Self {
        let controller = Controller::new(config).unwrap();
        let region = Arc::new(MmapRegion::new(SIZE).unwrap());
        let mut memory = HostMemory::new();
        memory.map_region(BASE, region.clone(), Access::READ_WRITE).unwrap();
        Self { controller, memory, region, admin: Pair::new(0, 32) }
    }

    pub fn enable(&mut self) {
        self.admin = Pair::new(0, 32);
        self.write(self.admin.at, &[0; 128 << 10]);
        self.set(AQA, 31 << 16 | 31);
        self.set(ASQ, self.admin.at as u32);
        self.set(ACQ, self.admin.cq() as u32);
        self.set(CC, Cc::enabled(12).0);
        assert_eq!(self.csts(), Csts(Csts::READY));
    }

    pub fn csts(&self) -> Csts {
        Csts(self.controller.read_register(CSTS))
    }

    pub fn set(&mut self, register: u64, value: u32) {
        self.controller.write_register(register, value);
    }

    pub fn write(&self, iova: u64, bytes: &[u8]) {
        let at = (iova - BASE) as usize;
        self.region.as_volatile_slice().write_slice(bytes, at).unwrap();
    }

    pub fn read(&self, iova: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let at = (iova - BASE) as usize;
        self.region.as_volatile_slice().read_slice(&mut bytes, at).unwrap();
        bytes
    }

    /// Writes a command and moves the tail, without ringing.
    pub fn push(&self, pair: &mut Pair, mut sqe: Sqe) {
        pair.cid = pair.cid.wrapping_add(1);
        sqe.cid = pair.cid.into();
        self.write(pair.at + u64::from(pair.tail) * 64, sqe.as_bytes());
        pair.tail = (pair.tail + 1) % pair.entries;
    }

    pub fn ring(&self, pair: &Pair) {
        self.controller.doorbells().ring_sq(pair.qid, pair.tail);
    }

    pub fn step(&mut self) -> usize {
        self.controller.process(&self.memory, 1024)
    }

    /// Takes a completion and releases its entry.
    pub fn take(&mut self, pair: &mut Pair) -> Option<Cqe> {
        let bytes = self.read(pair.cq() + u64::from(pair.head) * 16, 16);
        let cqe = Cqe::read_from_bytes(&bytes).unwrap();
        if cqe.phase() != pair.phase {
            return None;
        }
        pair.head += 1;
        if pair.head == pair.entries {
            pair.head = 0;
            pair.phase = !pair.phase;
        }
        self.controller.doorbells().ring_cq(pair.qid, pair.head);
        Some(cqe)
    }

    /// One command, to its completion.
    pub fn run(&mut self, pair: &mut Pair, sqe: Sqe) -> Cqe {
        self.push(pair, sqe);
        self.ring(pair);
        self.step();
        let cqe = self.take(pair).expect("a completion");
        assert_eq!(cqe.cid.get(), pair.cid);
        assert_eq!(cqe.sqid.get(), pair.qid);
        assert_eq!(u32::from(cqe.sqhd.get()), pair.tail);
        cqe
    }

    /// One admin command.
    pub fn admin(&mut self, sqe: Sqe) -> Cqe {
        let mut pair = std::mem::replace(&mut self.admin, Pair::new(0, 2));
        let cqe = self.run(&mut pair, sqe);
        self.admin = pair;
        cqe
    }

    /// The status of one admin command, without its Do Not Retry bit.
    pub fn admin_status(&mut self, sqe: Sqe) -> Status {
        self.admin(sqe).status().bare()
    }

    /// Creates a queue pair.
    pub fn create(&mut self, qid: u16, entries: u32) -> Pair {
        let pair = Pair::new(qid, entries);
        self.write(pair.at, &[0; 128 << 10]);
        let cq = Sqe::create_io_cq(qid, entries, pair.cq(), None);
        assert_eq!(self.admin_status(cq), Status::SUCCESS);
        let sq = Sqe::create_io_sq(qid, entries, pair.at, qid);
        assert_eq!(self.admin_status(sq), Status::SUCCESS);
        pair
    }
}

/// The command with its data pointer set.
pub fn with_data(mut sqe: Sqe, prp1: u64, prp2: u64) -> Sqe {
    sqe.prp1 = prp1.into();
    sqe.prp2 = prp2.into();
    sqe
}
