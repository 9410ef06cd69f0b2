//! Hosts that do anything: random registers, doorbells, commands and data pointers. Whatever they
//! do, the controller neither panics nor hangs, and a reset makes it good again.

use nvio_testkit::random::Rng;

use crate::stepped;

use nvio_emulator::{Backing, Config, NamespaceConfig};
use nvio_spec::namespace::ControllerList;
use nvio_spec::protection::ProtectionType;
use nvio_spec::register::{CC, Cc};
use nvio_spec::sgl::Descriptor;
use nvio_spec::{IdentifyController, IdentifyNamespace, NSID_ALL, Sqe, Status, cns};
use stepped::{BASE, DATA, Pair, SIZE, Stepped, with_data};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// Draws the commands and registers of a hostile host.
struct Random(Rng);

/// Where the data of Namespace Management and of Namespace Attachment are.
const NAMESPACE: u64 = DATA + (1 << 20);
const CONTROLLERS: u64 = NAMESPACE + 4096;

/// Opcodes that do something, in one queue or the other.
const OPCODES: [u8; 16] = [0, 1, 2, 4, 5, 6, 8, 9, 0x0a, 0x0c, 0x19, 0x7f, 0x0d, 0x15, 0x80, 0x19];

impl Random {
    fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0.below(limit)
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        *self.0.pick(of)
    }

    /// An address: usually of memory, often at a page, sometimes anywhere.
    fn address(&mut self) -> u64 {
        let inside = BASE + self.below(SIZE as u64);
        match self.below(8) {
            0 => self.next(),
            1 => inside,
            2 => BASE + SIZE as u64 - 8 * self.below(4),
            3 => u64::MAX - self.below(5000),
            _ => inside & !0xfff,
        }
    }

    /// A command that is right in most fields.
    fn command(&mut self) -> Sqe {
        if self.below(10) == 0 {
            let bytes: Vec<u8> = (0..64).map(|_| self.next() as u8).collect();
            return Sqe::read_from_bytes(&bytes).unwrap();
        }
        let opcode = self.pick(&OPCODES);
        let mut sqe = Sqe::new(opcode, self.pick(&[0, 1, 2, 3, u32::MAX]));
        let any = self.next() as u32;
        sqe.cdw10 = self.pick(&[0, 1, 2, 3, 7, 15 << 16 | 1, 15 << 16 | 2, any]).into();
        sqe.cdw11 = self.pick(&[0, 1, 3, 4, 1 << 16 | 1, 2 << 16 | 1, any]).into();
        // Sometimes with checks, or with PRACT.
        let checks = self.pick(&[0, 0, 0, 1 << 29, 0xf << 26, 1 << 28]);
        sqe.cdw12 = (self.pick(&[0, 1, 7, 31, 255, any]) | checks).into();
        sqe.cdw14 = self.pick(&[0, 1, sqe.cdw10.get(), any]).into();
        sqe.cdw15 = self.pick(&[0, u32::MAX, any]).into();
        sqe.mptr = (self.address() & !self.pick(&[0, 3])).into();
        sqe.flags = if self.below(30) == 0 { self.next() as u8 } else { 0 };
        let mut sqe = with_data(sqe, self.address(), self.address());
        if self.below(4) == 0 {
            sqe.set_sgl(self.descriptor());
        }
        sqe
    }

    /// A descriptor of an SGL, often of a segment.
    fn descriptor(&mut self) -> Descriptor {
        let any = self.next() as u32;
        let length = self.pick(&[0, 16, 32, 512, 496, 4096, 1 << 20, any]);
        let mut descriptor = match self.below(3) {
            0 => Descriptor::data_block(self.address(), length),
            1 => Descriptor::bit_bucket(length),
            _ => Descriptor::last_segment(self.address(), length / 16),
        };
        if descriptor.is_segment() && self.below(2) == 0 {
            descriptor.identifier = Descriptor::SEGMENT;
        }
        descriptor.identifier ^= self.pick(&[0, 0, 0, 0, 0, 0, 0, 0x40, 0x01]);
        descriptor
    }
}

fn config() -> Config {
    let namespace = || NamespaceConfig::new(Backing::memory(1 << 20));
    Config::new()
        .namespace(namespace())
        .namespace(namespace().nsid(3).block_size(4096))
        .mdts(None)
        .max_queues(3)
        .max_queue_entries(64)
        .sgl(true)
}

/// The same with everything that blocks and namespaces can have.
fn rich_config() -> Config {
    let protected = |extended, kind, first| {
        let namespace = NamespaceConfig::new(Backing::memory(1 << 20));
        namespace.metadata(16, extended).protection(kind, first)
    };
    Config::new()
        .namespace(protected(false, ProtectionType::ONE, false))
        .namespace(protected(true, ProtectionType::TWO, true).copy_limits(64, 128, 16))
        .namespace(NamespaceConfig::new(Backing::null(1 << 30)).metadata(8, true))
        .mdts(None)
        .max_queues(3)
        .max_queue_entries(64)
        .sgl(true)
        .format_nvm(true)
        .namespace_management(8 << 20)
        .write_cache(64 << 10)
        .atomic_writes(16, 8)
}

/// A fresh start: the admin queues and two pairs.
fn start(host: &mut Stepped) -> [Pair; 3] {
    host.controller.function_reset();
    host.enable();
    let first = host.create(1, 64);
    let second = host.create(2, 16);
    [std::mem::replace(&mut host.admin, Pair::new(0, 2)), first, second]
}

/// One round of anything; gives how many commands succeeded and how many failed.
fn attack(host: &mut Stepped, random: &mut Random, pairs: &mut [Pair]) -> (u32, u32) {
    match random.below(40) {
        0 => {
            let any = random.below(0x1040) & !3;
            let register = random.pick(&[any, 0x0c, 0x10, 0x14, 0x20, 0x24, 0x28, 0x2c, 0x34]);
            host.set(register, random.next() as u32);
        }
        1 => host.set(0x1000 + 4 * random.below(12), random.below(80) as u32),
        2 => {
            let (qid, value) = (random.below(5) as u16, random.next() as u32);
            host.controller.doorbells().ring_sq(qid, value);
            host.controller.doorbells().ring_cq(qid, value >> 8);
        }
        3 => host.write(DATA, &random.next().to_le_bytes()),
        4 if random.below(10) == 0 => host.controller.power_cut(random.next()),
        _ => {}
    }
    let mut namespace = IdentifyNamespace::new_zeroed();
    namespace.nsze = random.pick(&[0, 1, 8, 100, 1 << 20, u64::MAX]).into();
    namespace.ncap = namespace.nsze;
    namespace.flbas = random.pick(&[0, 1, 2, 3, 4, 0x11, 0x13, 0x14, 5]);
    namespace.dps = random.pick(&[0, 0, 1, 2, 3, 8, 9, 7]);
    host.write(NAMESPACE, namespace.as_bytes());
    host.write(CONTROLLERS, ControllerList::new(&[0]).as_bytes());
    // PRP lists: addresses in memory, and some that are not.
    for slot in 0..4 {
        let at = BASE + ((random.below(SIZE as u64) & !0xfff) | (0xfe0 + 8 * slot));
        host.write(at, &random.address().to_le_bytes());
    }
    // SGLs: pieces anywhere in memory.
    for _ in 0..4 {
        let at = BASE + (random.below(SIZE as u64 - 64) & !15);
        let list: Vec<Descriptor> = (0..4).map(|_| random.descriptor()).collect();
        host.write(at, list.as_bytes());
    }
    for pair in pairs.iter_mut() {
        for _ in 0..random.below(4) {
            let mut sqe = random.command();
            // Often with data that is right.
            match (sqe.opcode, random.below(2)) {
                (0x0d, 0) => sqe = with_data(Sqe::create_namespace(), NAMESPACE, 0),
                (0x15, 0) => sqe.prp1 = CONTROLLERS.into(),
                _ => {}
            }
            host.push(pair, sqe);
        }
        host.ring(pair);
    }
    for _ in 0..4 {
        assert!(host.controller.process(&host.memory, 64) <= 64 + 4);
    }
    let (mut succeeded, mut failed) = (0, 0);
    for pair in pairs.iter_mut() {
        for _ in 0..8 {
            match host.take(pair) {
                Some(cqe) if cqe.status().is_success() => succeeded += 1,
                Some(_) => failed += 1,
                None => break,
            }
        }
    }
    (succeeded, failed)
}

/// Attacks a controller; at the end of each run `recover` leaves namespace 1 with blocks of 512
/// bytes, and it works.
fn attack_all(config: &Config, recover: impl Fn(&mut Stepped)) {
    let (mut succeeded, mut failed, mut restarts) = (0, 0, 0);
    for seed in 1..=40 {
        let mut random = Random(Rng::new(seed));
        let mut host = Stepped::new(config);
        let mut pairs = start(&mut host);
        for _ in 0..250 {
            let (good, bad) = attack(&mut host, &mut random, &mut pairs);
            succeeded += good;
            failed += bad;
            if !host.controller.is_running() {
                restarts += 1;
                pairs = start(&mut host);
            }
        }
        // Whatever state that is, this ends it.
        host.controller.function_reset();
        host.enable();
        recover(&mut host);
        let mut pair = host.create(1, 16);
        host.write(DATA, &[seed as u8; 512]);
        let write = host.run(&mut pair, with_data(Sqe::write(1, 5, 1), DATA, 0));
        assert_eq!(write.status(), Status::SUCCESS, "seed {seed}");
        let read = host.run(&mut pair, with_data(Sqe::read(1, 5, 1), DATA + 512, 0));
        assert_eq!(read.status(), Status::SUCCESS, "seed {seed}");
        assert_eq!(host.read(DATA + 512, 512), [seed as u8; 512]);
        host.set(CC, Cc::enabled(12).disabled().0);
        assert_eq!(host.csts().0, 0);
    }
    println!("{succeeded} commands succeeded, {failed} failed, {restarts} restarts");
    assert!(succeeded > 1000 && failed > 1000 && restarts > 10, "the attack does not bite");
}

#[test]
fn nothing_a_host_does_makes_the_controller_panic_or_stay_broken() {
    attack_all(&config(), |_| {});
}

#[test]
fn nor_with_metadata_and_namespaces_that_come_and_go() {
    attack_all(&rich_config(), |host| {
        assert_eq!(host.admin_status(Sqe::delete_namespace(NSID_ALL)), Status::SUCCESS);
        let mut namespace = IdentifyNamespace::new_zeroed();
        (namespace.nsze, namespace.ncap) = (64.into(), 64.into());
        host.write(DATA, namespace.as_bytes());
        let cqe = host.admin(with_data(Sqe::create_namespace(), DATA, 0));
        assert_eq!((cqe.status(), cqe.dw0.get()), (Status::SUCCESS, 1));
        host.write(DATA, ControllerList::new(&[0]).as_bytes());
        let attach = with_data(Sqe::attach_namespace(1), DATA, 0);
        assert_eq!(host.admin_status(attach), Status::SUCCESS);
        // All that there was is there again.
        assert!(
            host.admin(with_data(Sqe::identify(cns::CONTROLLER, 0), DATA, 0)).status().is_success()
        );
        let controller = IdentifyController::read_from_bytes(&host.read(DATA, 4096)).unwrap();
        assert_eq!(controller.tnvmcap.get(), (2 << 20) + (1 << 30) + (8 << 20));
        assert_eq!(controller.tnvmcap.get() - controller.unvmcap.get(), 64 * 512);
    });
}
