//! A hostile host that does what bytes say: the body of a fuzz target, and of the tests that replay
//! its corpus and programs drawn by seed.
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
use nvio_spec::namespace::ControllerList;
use nvio_spec::protection::ProtectionType;
use nvio_spec::register::{ACQ, AQA, ASQ, CC, CMBMSC, CSTS, Cc, Cmbmsc, Csts, INTMC, INTMS, NSSR};
use nvio_spec::sgl::Descriptor;
use nvio_spec::{Cqe, EventType, IdentifyController, IdentifyNamespace, NSID_ALL, Sqe, cns};
use vm_memory::mmap::MmapRegion;
use vm_memory::{Bytes, VolatileMemory};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

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
/// Where the data of Namespace Management and of Namespace Attachment are.
const NAMESPACE: u64 = BASE + 10 * QUEUE;
const CONTROLLERS: u64 = NAMESPACE + 4096;
/// Where the data of the last commands are.
const DATA: u64 = BASE + 8 * QUEUE;
/// Most steps of a program; what follows is left out.
const MOST_STEPS: usize = 256;
/// Bytes in which namespaces can be created.
const UNALLOCATED: u64 = 64 << 10;
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

/// The ends of a program's commands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    pub succeeded: u32,
    pub failed: u32,
    /// How often the controller stopped.
    pub stops: u32,
}

struct Host {
    outcome: Outcome,
    /// Most commands and completions of one go.
    most: usize,
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

/// Settings of a program, in its first two bytes: the bits of [`config`], and these.
pub mod setting {
    /// The controller is disabled when the program begins.
    pub const DISABLED: u16 = 1;
    pub const SGL: u16 = 1 << 3;
    pub const FORMAT_NVM: u16 = 1 << 5;
    pub const WRITE_CACHE: u16 = 1 << 8;
    pub const NAMESPACE_MANAGEMENT: u16 = 1 << 9;
    pub const LATENCY: u16 = 1 << 10;
    pub const FAULTS: u16 = 1 << 11;
    /// Namespaces have everything that they can have.
    pub const RICH: u16 = 1 << 12;
    /// Transfers have no limit but the number of blocks.
    pub const NO_MDTS: u16 = 1 << 13;
    /// The host begins again whenever the controller has stopped.
    pub const RESTARTS: u16 = 1 << 14;
}

/// Runs a program.
pub fn run(bytes: &[u8]) -> Outcome {
    let mut program = Program(bytes);
    let settings = program.half();
    let mut host = Host::new(&config(settings), settings);
    if settings & setting::DISABLED == 0 {
        host.start();
    }
    for _ in 0..MOST_STEPS {
        if program.0.is_empty() {
            break;
        }
        let ran = host.controller.is_running();
        host.step(&mut program);
        if !host.controller.is_running() {
            host.outcome.stops += u32::from(ran);
            if settings & setting::RESTARTS != 0 {
                host.start();
            }
        }
    }
    host.check(settings)
}

/// The controller that the first bytes ask for.
fn config(settings: u16) -> Config {
    let bit = |n: u16| settings >> n & 1 != 0;
    let namespace = |bytes| NamespaceConfig::new(Backing::memory(bytes));
    let protected =
        |extended, kind, first| namespace(64 << 10).metadata(16, extended).protection(kind, first);
    let tagged = namespace(64 << 10).block_size(4096).metadata(8, bit(1));
    let plain = [
        namespace(64 << 10),
        tagged.protection(ProtectionType::ONE, bit(2)),
        namespace(64 << 10).metadata(16, !bit(1)).nsid(4),
    ];
    let rich = [
        protected(false, ProtectionType::ONE, false),
        protected(true, ProtectionType::TWO, true).copy_limits(64, 128, 16),
        NamespaceConfig::new(Backing::null(1 << 30)).metadata(8, true),
    ];
    let namespaces = if settings & setting::RICH != 0 { rich } else { plain };
    let mut config = namespaces
        .into_iter()
        .fold(Config::new(), Config::namespace)
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
    if settings & setting::RICH != 0 {
        config = config.atomic_writes(16, 8);
    }
    if settings & setting::NO_MDTS != 0 {
        config = config.mdts(None);
    }
    if settings & setting::WRITE_CACHE != 0 {
        config = config.write_cache(64 << 10);
    }
    if settings & setting::NAMESPACE_MANAGEMENT != 0 {
        config = config.namespace_management(UNALLOCATED);
    }
    if settings & setting::LATENCY != 0 {
        config = config.service(Service::new().latency(Controller::STEP * 2));
    }
    if settings & setting::FAULTS != 0 {
        let often = 100_000;
        let rates = Rates {
            status: often,
            late: often,
            lost: often,
            not_abortable: often,
            duplicate: often,
            stale_id: often,
            unknown_id: often,
            old_version: often,
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
    fn new(config: &Config, settings: u16) -> Self {
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
        let is_delayed = settings & (setting::LATENCY | setting::FAULTS) != 0;
        // Events, and commands that are due, come on top.
        let most = if is_delayed { 8192 } else { BUDGET + 4 };
        let outcome = Outcome::default();
        Self { outcome, most, controller, memory, region, fixed, kept, pairs }
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
        assert!(done <= self.most, "{done} commands with a budget of {BUDGET}");
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
            match cqe.status().is_success() {
                true => self.outcome.succeeded += 1,
                false => self.outcome.failed += 1,
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
            6 => match op >> 6 {
                1 => self.create_namespace(program),
                2 => {
                    let nsid = program.byte().into();
                    self.attach_namespace(nsid);
                }
                _ => drop(self.take(qid)),
            },
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

    /// Creates a namespace, usually one that can be created.
    fn create_namespace(&mut self, program: &mut Program<'_>) {
        let mut data = IdentifyNamespace::new_zeroed();
        let blocks = u64::from(program.number());
        (data.nsze, data.ncap) = (blocks.into(), blocks.into());
        (data.flbas, data.dps) = (program.byte() & 0x1f, program.byte() & 0xf);
        self.write(NAMESPACE, data.as_bytes());
        self.run(0, Sqe { prp1: NAMESPACE.into(), ..Sqe::create_namespace() });
    }

    fn attach_namespace(&mut self, nsid: u32) -> Option<Cqe> {
        self.write(CONTROLLERS, ControllerList::new(&[0]).as_bytes());
        self.run(0, Sqe { prp1: CONTROLLERS.into(), ..Sqe::attach_namespace(nsid) })
    }

    /// Runs a command, for as long as delayed ones take. Gives the last completion.
    fn run(&mut self, qid: u16, sqe: Sqe) -> Option<Cqe> {
        self.push(qid, sqe);
        self.ring(qid);
        for _ in 0..8 {
            self.controller.step(&self.memory);
        }
        self.take(qid).pop()
    }

    /// Runs a command that has to succeed.
    fn succeed(&mut self, qid: u16, sqe: Sqe) -> Cqe {
        let cqe = self.run(qid, sqe).expect("a completion");
        let cid = self.pairs[usize::from(qid)].cid;
        assert!(cqe.status().is_success() && cqe.cid.get() == cid, "{cqe:?} of {sqe:?}");
        cqe
    }

    fn read(&self, iova: u64, bytes: &mut [u8]) {
        let at = usize::try_from(iova - BASE).unwrap();
        self.region.as_volatile_slice().read_slice(bytes, at).unwrap();
    }

    fn identify_controller(&mut self) -> IdentifyController {
        self.succeed(0, Sqe { prp1: DATA.into(), ..Sqe::identify(cns::CONTROLLER, 0) });
        let mut bytes = [0; 4096];
        self.read(DATA, &mut bytes);
        IdentifyController::read_from_bytes(&bytes).unwrap()
    }

    /// Whatever was done, a reset makes it good again, and nothing was written where it may not.
    fn check(mut self, settings: u16) -> Outcome {
        let mut found = vec![0; FIXED_SIZE];
        self.fixed.as_volatile_slice().read_slice(&mut found, 0).unwrap();
        assert!(found == self.kept, "memory was written that is only for reading");
        let outcome = self.outcome;
        self.start();
        let csts = Csts(self.controller.read_register(CSTS));
        assert!(csts.ready() && !csts.fatal() && self.controller.is_running(), "{csts:?}");
        assert_eq!(self.identify_controller().vid.to_bytes(), *b"VN");
        self.controller.set_faults(&Faults::new()).unwrap();
        let manages = settings & setting::NAMESPACE_MANAGEMENT != 0;
        if manages {
            self.make_one_namespace(settings);
        }
        if manages || settings & (setting::FORMAT_NVM | setting::RICH) == 0 {
            self.check_block(settings as u8);
        }
        self.register(CC, Cc::enabled(12).disabled().0.into());
        assert_eq!(self.controller.read_register(CSTS), 0);
        outcome
    }

    /// Leaves one namespace, of 64 blocks of 512 bytes. All capacity that there was is there again.
    fn make_one_namespace(&mut self, settings: u16) {
        self.succeed(0, Sqe::delete_namespace(NSID_ALL));
        let mut data = IdentifyNamespace::new_zeroed();
        (data.nsze, data.ncap) = (64.into(), 64.into());
        self.write(NAMESPACE, data.as_bytes());
        let create = Sqe { prp1: NAMESPACE.into(), ..Sqe::create_namespace() };
        assert_eq!(self.succeed(0, create).dw0.get(), 1);
        let attached = self.attach_namespace(1).expect("a completion");
        assert!(attached.status().is_success(), "{attached:?}");
        let configured =
            if settings & setting::RICH != 0 { (128 << 10) + (1 << 30) } else { 192 << 10 };
        let controller = self.identify_controller();
        assert_eq!(controller.tnvmcap.get(), configured + u128::from(UNALLOCATED));
        assert_eq!(controller.tnvmcap.get() - controller.unvmcap.get(), 64 * 512);
    }

    /// A block of namespace 1 is read as it was written.
    fn check_block(&mut self, seed: u8) {
        self.write(DATA, &[seed; 512]);
        self.succeed(1, Sqe { prp1: DATA.into(), ..Sqe::write(1, 5, 1) });
        self.succeed(1, Sqe { prp1: (DATA + 512).into(), ..Sqe::read(1, 5, 1) });
        let mut found = [0; 512];
        self.read(DATA + 512, &mut found);
        assert_eq!(found, [seed; 512]);
    }
}
