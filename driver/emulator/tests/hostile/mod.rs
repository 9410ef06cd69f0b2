//! Hosts that do anything: random registers, doorbells, commands and data pointers. Whatever they
//! do, the controller neither panics nor hangs, and a reset makes it good again. The host is
//! [`program`]; the corpus is that of the fuzz target `emulator_commands` (see `fuzz/README.md`).

mod program;

use std::path::Path;

use nvio_testkit::random::{Rng, pattern};
use program::{Outcome, setting};

/// Opcodes that do something, in one queue or the other.
const OPCODES: [u8; 16] = [0, 1, 2, 4, 5, 6, 8, 9, 0x0a, 0x0c, 0x19, 0x7f, 0x0d, 0x15, 0x80, 0x19];

/// Writes a program whose commands are right in most fields.
struct Writer {
    random: Rng,
    bytes: Vec<u8>,
}

impl Writer {
    fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    fn below(&mut self, limit: u64) -> u8 {
        u8::try_from(self.random.below(limit)).unwrap()
    }

    /// A number of [`program`]: a byte below 128, or a mark and two or four bytes.
    fn number(&mut self, value: u32) {
        match value {
            0..=0x7f => self.byte(value as u8),
            0x80..=0xffff => {
                self.byte(0x80);
                self.bytes.extend((value as u16).to_le_bytes());
            }
            _ => {
                self.byte(0xc0);
                self.bytes.extend(value.to_le_bytes());
            }
        }
    }

    /// One of these numbers, or any.
    fn one_of(&mut self, numbers: &[u32]) {
        let any = self.random.next_u64() as u32;
        let at = usize::from(self.below(numbers.len() as u64 + 1));
        self.number(numbers.get(at).copied().unwrap_or(any));
    }

    /// An address: usually of a page, sometimes anywhere.
    fn address(&mut self) {
        let value = match self.below(8) {
            0 => self.random.next_u64() as u16,
            1 => 0x3fff & self.random.next_u64() as u16,
            _ => 0x4000 | u16::from(self.below(64)),
        };
        self.bytes.extend(value.to_le_bytes());
    }

    fn descriptor(&mut self) {
        let kind = self.below(4);
        let kind = if self.below(8) == 0 { 0xf0 | kind } else { kind };
        self.byte(kind);
        self.address();
        self.one_of(&[0, 16, 32, 512, 496, 4096, 1 << 20]);
    }

    fn command(&mut self) {
        if self.below(10) == 0 {
            self.byte(0xff);
            let raw = self.random.bytes(64);
            return self.bytes.extend(raw);
        }
        let nsid = *self.random.pick(&[0, 1, 2, 3, 0x10]);
        let is_sgl = self.below(4) == 0;
        self.byte(nsid | 0x80 | if is_sgl { 0x20 } else { 0 });
        let opcode = *self.random.pick(&OPCODES);
        self.byte(opcode);
        for _ in 0..3 {
            self.address();
        }
        self.one_of(&[0, 1, 2, 3, 7, 15 << 16 | 1, 15 << 16 | 2]);
        self.one_of(&[0, 1, 3, 4, 1 << 16 | 1, 2 << 16 | 1]);
        // Sometimes with checks, or with PRACT.
        let checks = *self.random.pick(&[0, 0, 0, 1 << 29, 0xf << 26, 1 << 28]);
        self.one_of(&[0, 1, 7, 31, 255].map(|blocks: u32| blocks | checks));
        if is_sgl {
            self.descriptor();
        }
        for _ in 0..3 {
            self.one_of(&[0, 1, u32::MAX]);
        }
    }

    /// A step: mostly commands, and everything else that a host can do.
    fn step(&mut self) {
        let queue = self.below(3) << 4;
        match self.below(60) {
            0 => {
                let register = self.below(16) << 4;
                self.byte(10 | register);
                self.byte(0x40);
                let value = self.random.next_u64() as u32;
                self.bytes.extend(value.to_le_bytes());
            }
            1 => {
                let which = self.below(12);
                self.bytes.extend([11, which]);
                self.one_of(&[0, 1, 5, 70]);
            }
            2 if self.below(10) == 0 => self.bytes.extend([13 | queue, 1]),
            3..=5 => {
                self.byte(6 | 0x40);
                self.one_of(&[0, 1, 8, 100, 1 << 20]);
                let format = *self.random.pick(&[0, 1, 2, 3, 4, 0x11, 0x13, 0x14, 5]);
                let protection = *self.random.pick(&[0, 0, 1, 2, 3, 8, 9, 7]);
                self.bytes.extend([format, protection]);
            }
            6..=8 => {
                let nsid = self.below(5);
                self.bytes.extend([6 | 0x80, nsid]);
            }
            9..=12 => {
                self.byte(7);
                self.address();
                self.byte(4);
                for _ in 0..4 {
                    self.address();
                }
            }
            13..=16 => {
                self.byte(8);
                self.address();
                self.byte(4);
                for _ in 0..4 {
                    self.descriptor();
                }
            }
            17..=20 => self.byte(15),
            21..=40 => {
                self.byte(4 | queue);
                self.command();
            }
            _ => {
                self.byte(queue);
                self.command();
            }
        }
    }
}

/// Runs programs with these settings, each of 250 steps, and others by seed.
fn attack(settings: u16) {
    let mut all = Outcome::default();
    for seed in 1..=400 {
        let bytes = settings.to_le_bytes().to_vec();
        let mut writer = Writer { random: Rng::new(seed), bytes };
        for _ in 0..250 {
            writer.step();
        }
        let Outcome { succeeded, failed, stops } = program::run(&writer.bytes);
        all.succeeded += succeeded;
        all.failed += failed;
        all.stops += stops;
    }
    println!("{all:?}");
    let bites = all.succeeded > 5000 && all.failed > 10_000 && all.stops > 100;
    assert!(bites, "the attack does not bite");
}

#[test]
fn nothing_a_host_does_makes_the_controller_panic_or_stay_broken() {
    attack(setting::SGL | setting::NO_MDTS | setting::RESTARTS);
}

#[test]
fn nor_with_metadata_and_namespaces_that_come_and_go() {
    attack(
        setting::RICH
            | setting::SGL
            | setting::NO_MDTS
            | setting::FORMAT_NVM
            | setting::NAMESPACE_MANAGEMENT
            | setting::WRITE_CACHE
            | setting::RESTARTS,
    );
}

#[test]
fn nothing_in_the_corpus_breaks_the_controller() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/emulator_commands");
    let mut replayed = 0;
    for entry in std::fs::read_dir(&corpus).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        program::run(&std::fs::read(path).unwrap());
        replayed += 1;
    }
    assert!(replayed > 50, "only {replayed} files in {}", corpus.display());
}

#[test]
fn random_programs_do_not_break_it_either() {
    program::run(&[]);
    for seed in 1..=2000 {
        program::run(&pattern(seed, 1024));
    }
}
