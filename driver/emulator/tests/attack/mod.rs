//! A hostile host that does what bytes say: the body of a fuzz target, and of the test that
//! replays its corpus.
//!
//! The bytes are a program over a stepped controller and a small memory: commands, lists of data
//! pointers, doorbells, registers, resets and faults. Whatever they are, the controller does not
//! panic or hang, accesses no memory that is not mapped for it, and works again after a reset.

use std::sync::Arc;
use std::time::Duration;

use nvio_emulator::{
    Access, Backing, Config, Controller, DeviceFault, Dma, Faults, HostMemory, NamespaceConfig,
    Rates, Service,
};
use nvio_spec::protection::ProtectionType;
use nvio_spec::register::{ACQ, AQA, ASQ, CC, CMBMSC, CSTS, Cc, Cmbmsc, Csts, INTMC, INTMS, NSSR};
use nvio_spec::sgl::Descriptor;
use nvio_spec::{Cqe, EventType, Sqe, cns};
use vm_memory::mmap::MmapRegion;
use vm_memory::{Bytes, VolatileMemory};
use zerocopy::{FromBytes, IntoBytes};

/// The host's memory, which the controller may read and write.
const BASE: u64 = 0x10_0000;
const SIZE: usize = 256 << 10;
/// Memory that the controller may only read, and that is right after the other.
const FIXED: u64 = BASE + SIZE as u64;
const FIXED_SIZE: usize = 16 << 10;
/// Where the controller memory buffer is, if it is.
const WINDOW: u64 = 0x4000_0000;
const WINDOW_SIZE: u64 = 16 << 10;
/// Bytes of each queue's place in memory: a submission queue and a completion queue of up to 64
/// entries.
const QUEUE: u64 = 8 << 10;
/// Most steps of a program; what follows is left out.
const MOST_STEPS: usize = 256;
/// Most commands handled in one go.
const BUDGET: usize = 64;

/// The program: bytes, and zeroes after their end.
struct Program<'a>(&'a [u8]);

impl Program<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn half(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    fn word(&mut self) -> u32 {
        u32::from(self.half()) | u32::from(self.half()) << 16
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let count = usize::from(self.byte()).min(most);
        (0..count).map(|_| self.byte()).collect()
    }

    /// An address: any of memory in units of 16, a page, somewhere special, or anywhere.
    fn address(&mut self) -> u64 {
        let value = u64::from(self.half());
        let low = value & 0x3fff;
        match value >> 14 {
            0 => BASE + low * 16,
            1 => BASE + (low & 0x7f) * 4096 + (low >> 7) * 4,
            2 => {
                let places = [FIXED, FIXED + FIXED_SIZE as u64, WINDOW, WINDOW + WINDOW_SIZE, 0];
                let at = places[usize::from(low as u8) % places.len()];
                at.wrapping_add(low >> 8).wrapping_sub(16)
            }
            _ => low.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        }
    }

    /// A number that a field is likely to have, or any.
    fn number(&mut self) -> u32 {
        match self.byte() {
            small @ 0..=0x7f => small.into(),
            0x80..=0xbf => self.half().into(),
            _ => self.word(),
        }
    }

    fn descriptor(&mut self) -> Descriptor {
        let (kind, address, length) = (self.byte(), self.address(), self.number());
        Descriptor {
            // Usually one of those that there are.
            identifier: if kind < 0xf0 { (kind % 4) << 4 } else { kind },
            ..Descriptor::data_block(address, length)
        }
    }

    /// A command: right in most fields, or any 64 bytes.
    fn command(&mut self) -> Sqe {
        let kind = self.byte();
        if kind == 0xff {
            let mut raw = [0; 64];
            raw.fill_with(|| self.byte());
            return Sqe::read_from_bytes(&raw).unwrap();
        }
        let mut sqe = Sqe::new(self.byte(), u32::from(kind & 7));
        if kind & 0x10 != 0 {
            sqe.nsid = u32::MAX.into();
        }
        (sqe.prp1, sqe.prp2) = (self.address().into(), self.address().into());
        sqe.mptr = self.address().into();
        sqe.cdw10 = self.number().into();
        sqe.cdw11 = self.number().into();
        sqe.cdw12 = self.number().into();
        if kind & 0x20 != 0 {
            sqe.set_sgl(self.descriptor());
            sqe.flags <<= kind >> 3 & 1;
        }
        if kind & 0x40 != 0 {
            // A length in the upper half, as queues and log pages have it.
            sqe.cdw10 = (sqe.cdw10.get() | u32::from(self.byte()) << 16).into();
            sqe.cdw12 = (sqe.cdw12.get() | u32::from(self.half()) << 16).into();
        }
        if kind & 0x80 != 0 {
            sqe.cdw13 = self.number().into();
            sqe.cdw14 = self.number().into();
            sqe.cdw15 = self.number().into();
        }
        sqe
    }
}

/// A queue pair as the host keeps it.
#[derive(Clone, Copy, Default)]
struct Pair {
    tail: u32,
    head: u32,
    phase: bool,
    cid: u16,
}

struct Host {
    controller: Controller,
    memory: HostMemory,
    region: Arc<MmapRegion>,
    fixed: Arc<MmapRegion>,
    /// What the host itself has in the memory that the controller may not write.
    kept: Vec<u8>,
    pairs: [Pair; 4],
}

/// Where in memory of `size` bytes at `start` a range begins, and how much of it is inside.
fn overlap(iova: u64, len: usize, start: u64, size: usize) -> Option<(usize, usize)> {
    let at = usize::try_from(iova.checked_sub(start)?).ok().filter(|&at| at < size)?;
    Some((at, len.min(size - at)))
}

/// Runs a program.
pub fn run(bytes: &[u8]) {
    let mut program = Program(bytes);
    let settings = program.half();
    let mut host = Host::new(&config(settings));
    if settings & 1 == 0 {
        host.start();
    }
    for _ in 0..MOST_STEPS {
        if program.0.is_empty() {
            break;
        }
        host.step(&mut program);
    }
    host.check();
}

/// The controller that the first bytes ask for.
fn config(settings: u16) -> Config {
    let bit = |n: u16| settings >> n & 1 != 0;
    let namespace = |bytes| NamespaceConfig::new(Backing::memory(bytes));
    let tagged = namespace(64 << 10).block_size(4096).metadata(8, bit(1));
    let mut config = Config::new()
        .namespace(namespace(64 << 10))
        .namespace(tagged.protection(ProtectionType::ONE, bit(2)))
        .namespace(namespace(64 << 10).metadata(16, !bit(1)).nsid(4))
        .max_queues(3)
        .max_queue_entries(64)
        .sgl(bit(3))
        .shadow_doorbells(bit(4))
        .format_nvm(bit(5));
    config = match settings >> 6 & 3 {
        1 => config.controller_memory(WINDOW_SIZE),
        2 => config.legacy_controller_memory(WINDOW_SIZE),
        _ => config,
    };
    if bit(8) {
        config = config.write_cache(64 << 10);
    }
    if bit(9) {
        config = config.namespace_management(64 << 10);
    }
    if bit(10) {
        config = config.service(Service::new().latency(Controller::STEP * 2));
    }
    if bit(11) {
        let often = 100_000;
        let rates = Rates {
            status: often,
            late: often,
            lost: often,
            not_abortable: often,
            duplicate: often,
            stale_id: often,
            unknown_id: often,
            fatal: often / 10,
            stuck_ready: often / 10,
            stuck_not_ready: often / 10,
            removed: often / 10,
            event: often,
            late_up_to: Controller::STEP * 10,
            stuck_up_to: Controller::STEP * 10,
        };
        config = config.faults(Faults::new().seeded(u64::from(settings), rates));
    }
    config
}

impl Host {
    fn new(config: &Config) -> Self {
        let controller = Controller::new(config).expect("settings that are allowed");
        let mut memory = HostMemory::new();
        let region = Arc::new(MmapRegion::new(SIZE).unwrap());
        let fixed = Arc::new(MmapRegion::new(FIXED_SIZE).unwrap());
        memory.map_region(BASE, region.clone(), Access::READ_WRITE).unwrap();
        memory.map_region(FIXED, fixed.clone(), Access::READ).unwrap();
        memory.observe(|dma: Dma| {
            let end = dma.iova.checked_add(dma.len).expect("an access that wraps");
            let inside = |start: u64, size: usize| start <= dma.iova && end <= start + size as u64;
            let allowed = inside(BASE, SIZE) || !dma.access.write && inside(FIXED, FIXED_SIZE);
            assert!(allowed && dma.len > 0, "{dma:x?}");
        });
        let (kept, pairs) = (vec![0; FIXED_SIZE], Default::default());
        Self { controller, memory, region, fixed, kept, pairs }
    }

    /// Writes as the host does: anywhere in its memory; what is elsewhere is left out.
    fn write(&mut self, iova: u64, bytes: &[u8]) {
        if let Some((at, count)) = overlap(iova, bytes.len(), BASE, SIZE) {
            self.region.as_volatile_slice().write_slice(&bytes[..count], at).unwrap();
            // The next memory begins where this ends.
            return self.write_fixed(iova.wrapping_add(count as u64), &bytes[count..]);
        }
        self.write_fixed(iova, bytes);
    }

    fn write_fixed(&mut self, iova: u64, bytes: &[u8]) {
        if let Some((at, count)) = overlap(iova, bytes.len(), FIXED, FIXED_SIZE) {
            self.fixed.as_volatile_slice().write_slice(&bytes[..count], at).unwrap();
            self.kept[at..at + count].copy_from_slice(&bytes[..count]);
        }
    }

    fn register(&mut self, offset: u64, value: u64) {
        self.controller.write_register(offset, (value & 0xffff_ffff) as u32);
        if value >> 32 != 0 {
            self.controller.write_register(offset + 4, (value >> 32) as u32);
        }
    }

    /// Enables the controller, with queue pairs 1 and 2.
    fn start(&mut self) {
        self.controller.reinsert();
        self.register(CC, 0);
        self.controller.function_reset();
        self.controller.place_controller_memory(None);
        self.write(BASE, &vec![0; 4 * QUEUE as usize]);
        self.pairs = [Pair { phase: true, ..Pair::default() }; 4];
        self.register(AQA, 63 << 16 | 63);
        self.register(ASQ, BASE);
        self.register(ACQ, BASE + QUEUE / 2);
        self.register(CC, Cc::enabled(12).0.into());
        for qid in 1..3 {
            let at = BASE + u64::from(qid) * QUEUE;
            for sqe in [
                Sqe::create_io_cq(qid, 64, at + QUEUE / 2, Some(qid)),
                Sqe::create_io_sq(qid, 64, at, qid),
            ] {
                self.push(0, sqe);
            }
        }
        self.ring(0);
        self.work();
        self.take(0);
    }

    /// Writes a command where the queue is, or would be.
    fn push(&mut self, qid: u16, mut sqe: Sqe) {
        let pair = &mut self.pairs[usize::from(qid & 3)];
        pair.cid = pair.cid.wrapping_add(1);
        sqe.cid = pair.cid.into();
        let at = BASE + u64::from(qid & 3) * QUEUE + u64::from(pair.tail) * 64;
        pair.tail = (pair.tail + 1) % 64;
        self.write(at, sqe.as_bytes());
    }

    fn ring(&self, qid: u16) {
        self.controller.doorbells().ring_sq(qid, self.pairs[usize::from(qid & 3)].tail);
    }

    fn work(&mut self) {
        let done = self.controller.process(&self.memory, BUDGET);
        // Events, and what is due, come on top.
        assert!(done <= 8192, "{done} commands with a budget of {BUDGET}");
        assert!(self.controller.take_interrupts().all(|vector| vector < 4));
    }

    /// Takes completions, as far as their phase says, and releases them.
    fn take(&mut self, qid: u16) -> Vec<Cqe> {
        let pair = &mut self.pairs[usize::from(qid & 3)];
        let at = (u64::from(qid & 3) * QUEUE + QUEUE / 2) as usize;
        let mut taken = Vec::new();
        while taken.len() < 64 {
            let mut bytes = [0; 16];
            let at = at + pair.head as usize * 16;
            self.region.as_volatile_slice().read_slice(&mut bytes, at).unwrap();
            let cqe = Cqe::read_from_bytes(&bytes).unwrap();
            if cqe.phase() != pair.phase {
                break;
            }
            taken.push(cqe);
            pair.head = (pair.head + 1) % 64;
            pair.phase ^= pair.head == 0;
        }
        self.controller.doorbells().ring_cq(qid, pair.head);
        taken
    }

    /// One step of a program.
    fn step(&mut self, program: &mut Program<'_>) {
        let op = program.byte();
        let qid = u16::from(op >> 4 & 3);
        match op & 0xf {
            // The usual: a command, rung and worked on.
            0..=3 => {
                let sqe = program.command();
                self.push(qid, sqe);
                self.ring(qid);
                self.work();
                self.take(qid);
            }
            4 => {
                let sqe = program.command();
                self.push(qid, sqe);
            }
            5 => {
                self.ring(qid);
                self.work();
            }
            6 => drop(self.take(qid)),
            7 => {
                let (at, entries) = (program.address(), program.byte() % 32);
                for entry in 0..u64::from(entries) {
                    let value = program.address();
                    self.write(at.wrapping_add(8 * entry), &value.to_le_bytes());
                }
            }
            8 => {
                let (at, entries) = (program.address(), program.byte() % 32);
                for entry in 0..u64::from(entries) {
                    let descriptor = program.descriptor();
                    self.write(at.wrapping_add(16 * entry), descriptor.as_bytes());
                }
            }
            9 => {
                let (at, bytes) = (program.address(), program.bytes(64));
                self.write(at, &bytes);
            }
            10 => {
                let any = u64::from(program.byte()) * 4;
                let known = [CC, CSTS, AQA, ASQ, ACQ, INTMS, INTMC, NSSR, CMBMSC, any];
                let offset = known[usize::from(op >> 4) % known.len()];
                let value = u64::from(program.word());
                self.register(offset, value);
            }
            11 => {
                let (which, value) = (program.byte(), program.number());
                let doorbells = self.controller.doorbells();
                match which & 1 {
                    0 => doorbells.ring_sq(u16::from(which >> 1), value),
                    _ => doorbells.ring_cq(u16::from(which >> 1), value),
                }
                // As a message, which is looked at.
                self.controller.write_register(0x1000 + 4 * u64::from(which), value);
            }
            12 => {
                for _ in 0..1 + (op >> 4) {
                    self.controller.step(&self.memory);
                }
            }
            13 => match program.byte() % 8 {
                0 => self.start(),
                1 => self.controller.power_cut(u64::from(op)),
                2 => self.controller.function_reset(),
                3 => self.controller.inject(DeviceFault::Fatal),
                4 => self.controller.inject(DeviceFault::StuckReady(Controller::STEP * 9)),
                5 => self.controller.inject(DeviceFault::StuckNotReady(Duration::MAX)),
                6 => self.controller.inject(DeviceFault::Removed),
                _ => self.controller.inject(DeviceFault::Event {
                    kind: EventType(op >> 4),
                    info: 1,
                    log: 2,
                }),
            },
            14 => {
                let base = if op & 0x10 == 0 { WINDOW } else { program.address() };
                self.register(CMBMSC, Cmbmsc::enabled(base).0);
                self.controller.place_controller_memory(Some(base));
                self.in_controller_memory(program);
            }
            _ => {
                for qid in 0..4 {
                    self.ring(qid);
                }
                self.work();
                for qid in 0..4 {
                    self.take(qid);
                }
            }
        }
    }

    /// Writes commands to the controller's memory, and creates a queue there.
    fn in_controller_memory(&mut self, program: &mut Program<'_>) {
        use std::os::unix::fs::FileExt;
        let Some(memory) = self.controller.controller_memory() else { return };
        let file = std::fs::File::from(memory.file().try_clone_to_owned().unwrap());
        let commands = program.byte() % 4;
        for at in 0..u64::from(commands) {
            file.write_all_at(program.command().as_bytes(), at * 64).unwrap();
        }
        self.push(0, Sqe::create_io_sq(3, 64, WINDOW, 1));
        self.ring(0);
        self.work();
        self.controller.doorbells().ring_sq(3, commands.into());
        self.work();
    }

    /// Whatever was done, a reset makes it good again, and nothing was written where it may not.
    fn check(mut self) {
        let mut found = vec![0; FIXED_SIZE];
        self.fixed.as_volatile_slice().read_slice(&mut found, 0).unwrap();
        assert!(found == self.kept, "memory was written that is only for reading");
        self.start();
        let csts = Csts(self.controller.read_register(CSTS));
        assert!(csts.ready() && !csts.fatal() && self.controller.is_running(), "{csts:?}");
        let mut identify = Sqe::identify(cns::CONTROLLER, 0);
        identify.prp1 = (BASE + 8 * QUEUE).into();
        self.push(0, identify);
        self.ring(0);
        self.work();
        let last = self.take(0).pop().expect("a completion");
        assert!(last.status().is_success() && last.cid.get() == self.pairs[0].cid, "{last:?}");
        let mut vendor = [0; 2];
        let at = 8 * QUEUE as usize;
        self.region.as_volatile_slice().read_slice(&mut vendor, at).unwrap();
        assert_eq!(&vendor, b"VN");
    }
}
