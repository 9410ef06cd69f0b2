//! Atomic writes (NVM 2.1.4): what is promised, and what a power cut leaves of them.

use nvio_testkit::random::Rng;

use crate::stepped;

use nvio_emulator::{Backing, Config, Controller, Error, NamespaceConfig};
use nvio_spec::opcode::nvm;
use nvio_spec::protection::ProtectionType;
use nvio_spec::{IdentifyController, IdentifyNamespace, Sqe, Status, cns};
use stepped::{BASE, DATA, Pair, Stepped, with_data};
use zerocopy::FromBytes;

const BLOCKS: u64 = 256;
/// Where a PRP list may be.
const LIST: u64 = BASE + (3 << 20);

fn namespace() -> NamespaceConfig {
    NamespaceConfig::new(Backing::memory(BLOCKS * 512))
}

fn config() -> Config {
    Config::new().write_cache(64 << 10)
}

fn start(config: &Config) -> (Stepped, Pair) {
    let mut host = Stepped::new(config);
    let pages: Vec<u8> = (1..16).flat_map(|page| (DATA + page * 4096).to_le_bytes()).collect();
    host.write(LIST, &pages);
    let pair = host.create(1, 64);
    (host, pair)
}

fn run(host: &mut Stepped, pair: &mut Pair, sqe: Sqe) {
    let second = if sqe.nlb() > 16 { LIST } else { DATA + 4096 };
    let sqe = Sqe { mptr: (DATA + (1 << 20)).into(), ..with_data(sqe, DATA, second) };
    assert_eq!(host.run(pair, sqe).status(), Status::SUCCESS, "{sqe:?}");
}

/// Writes blocks that all say which write they are of.
fn write(host: &mut Stepped, pair: &mut Pair, slba: u64, blocks: u32, version: u32, flags: u32) {
    host.write(DATA, &version.to_le_bytes().repeat(blocks as usize * 128));
    let mut sqe = Sqe::write(1, slba, blocks);
    sqe.cdw12 = (sqe.cdw12.get() | flags).into();
    run(host, pair, sqe);
}

/// Which write each block is of.
fn versions(host: &mut Stepped, pair: &mut Pair) -> Vec<u32> {
    (0..BLOCKS)
        .step_by(32)
        .flat_map(|slba| {
            run(host, pair, Sqe::read(1, slba, 32));
            let bytes = host.read(DATA, 32 * 512);
            let blocks = bytes.chunks(512).map(|block| {
                assert!(block.chunks(4).all(|word| word == &block[..4]), "a torn block");
                u32::from_le_bytes(block[..4].try_into().unwrap())
            });
            blocks.collect::<Vec<_>>()
        })
        .collect()
}

fn cut(host: &mut Stepped, seed: u64) -> Pair {
    host.controller.power_cut(seed);
    host.enable();
    host.create(1, 64)
}

#[test]
fn identify_says_what_is_promised() {
    let identify = |config: &Config| {
        let (mut host, _) = start(config);
        let sqe = with_data(Sqe::identify(cns::CONTROLLER, 0), DATA, 0);
        assert!(host.admin(sqe).status().is_success());
        let controller = IdentifyController::read_from_bytes(&host.read(DATA, 4096)).unwrap();
        let sqe = with_data(Sqe::identify(cns::NAMESPACE, 1), DATA, 0);
        assert!(host.admin(sqe).status().is_success());
        (controller, IdentifyNamespace::read_from_bytes(&host.read(DATA, 4096)).unwrap())
    };
    let (controller, plain) = identify(&config().namespace(namespace()).atomic_writes(64, 16));
    assert_eq!((controller.awun.get(), controller.awupf.get()), (63, 15));
    assert_eq!((plain.nsfeat >> 1 & 1, plain.nawun.get(), plain.nabsn.get()), (0, 0, 0));
    let own = namespace().atomic_writes(32, 8).atomic_boundary(256, 5);
    let (controller, own) = identify(&config().namespace(own));
    assert_eq!((controller.awun.get(), controller.awupf.get()), (0, 0));
    assert_eq!((own.nsfeat >> 1 & 1, own.nawun.get(), own.nawupf.get()), (1, 31, 7));
    assert_eq!((own.nabsn.get(), own.nabspf.get(), own.nabo.get()), (255, 255, 5));
}

/// Random writes, larger and smaller than the unit; what a power cut leaves of them. Gives how
/// many of those that are atomic were stored, and how many lost.
fn scene(config: &Config, seed: u64, unit: u32, boundary: Option<(u64, u64)>) -> (usize, usize) {
    let (mut host, mut pair) = start(config);
    let mut rng = Rng::new(seed);
    let mut atomic = Vec::new();
    for version in 1..60 {
        let blocks = 1 + rng.below(20) as u32;
        let slba = rng.below(BLOCKS - u64::from(blocks));
        match rng.below(12) {
            0 => run(&mut host, &mut pair, Sqe::flush(1)),
            1 => write(&mut host, &mut pair, slba, 1, version, Sqe::FUA),
            2 if blocks <= unit => {
                // It is version 0 again: nothing can be said of writes before it.
                let sqe = Sqe { opcode: nvm::WRITE_ZEROES, ..Sqe::write(1, slba, blocks) };
                run(&mut host, &mut pair, sqe);
                atomic.retain(|&(_, at, len): &(u32, u64, u32)| {
                    at + u64::from(len) <= slba || slba + u64::from(blocks) <= at
                });
            }
            _ => {
                write(&mut host, &mut pair, slba, blocks, version, 0);
                let last = slba + u64::from(blocks) - 1;
                let crosses = boundary.is_some_and(|(size, offset)| {
                    (slba + 1..=last).any(|lba| lba >= offset && (lba - offset) % size == 0)
                });
                if blocks <= unit && !crosses {
                    atomic.push((version, slba, blocks));
                }
            }
        }
    }
    let mut pair = cut(&mut host, seed);
    let found = versions(&mut host, &mut pair);
    let (mut stored, mut lost) = (0, 0);
    for (version, slba, blocks) in atomic {
        let range = &found[slba as usize..slba as usize + blocks as usize];
        let is_here = range.contains(&version);
        // What is not of a later write is all of this one, or none of it.
        let has_older = range.iter().any(|&other| other < version);
        assert!(!(is_here && has_older), "seed {seed}: {version} at {slba}: {range:?}");
        stored += usize::from(is_here);
        lost += usize::from(has_older);
    }
    (stored, lost)
}

#[test]
fn writes_up_to_the_unit_are_stored_or_lost_as_a_whole() {
    let plain = || config().namespace(namespace()).atomic_writes(16, 8);
    let own = namespace().atomic_writes(16, 16);
    let bound = namespace().atomic_writes(16, 12).atomic_boundary(16, 3);
    let tagged = namespace().metadata(16, false).protection(ProtectionType::TWO, false);
    let configs = [
        (plain(), 8, None),
        (config().namespace(own), 16, None),
        (config().namespace(bound), 12, Some((16, 3))),
        (config().namespace(tagged).atomic_writes(8, 8), 8, None),
    ];
    for (config, unit, boundary) in configs {
        let (mut stored, mut lost) = (0, 0);
        for seed in 0..60 {
            let counts = scene(&config, seed, unit, boundary);
            (stored, lost) = (stored + counts.0, lost + counts.1);
        }
        // Both happen, or nothing was tested.
        assert!(stored > 200 && lost > 50, "{stored} stored, {lost} lost");
    }
}

#[test]
fn larger_writes_and_those_across_a_boundary_are_torn() {
    let torn = |namespace: NamespaceConfig, slba, blocks| {
        (0..10).any(|seed| {
            let (mut host, mut pair) = start(&config().namespace(namespace.clone()));
            write(&mut host, &mut pair, slba, blocks, 7, 0);
            let mut pair = cut(&mut host, seed);
            let found = versions(&mut host, &mut pair);
            let found = &found[slba as usize..slba as usize + blocks as usize];
            found.contains(&7) && found.contains(&0)
        })
    };
    let own = || namespace().atomic_writes(16, 16);
    assert!(!torn(own(), 10, 16) && torn(own(), 10, 17));
    let bound = || own().atomic_boundary(16, 0);
    assert!(!torn(bound(), 16, 16) && !torn(bound(), 20, 12) && torn(bound(), 20, 13));
    assert!(torn(namespace(), 0, 8));
}

#[test]
fn a_cache_that_is_full_stores_whole_writes() {
    // 128 blocks fit, 32 writes of 8 blocks follow each other; the unit is all of the cache.
    let namespace = namespace().atomic_writes(128, 128);
    for seed in 0..10 {
        let (mut host, mut pair) = start(&config().namespace(namespace.clone()));
        for number in 0..32u32 {
            write(&mut host, &mut pair, u64::from(number) * 8, 8, number + 1, 0);
        }
        // One that needs all the room there is, in pieces of a page.
        let pages: Vec<u8> = (1..17).flat_map(|page| (DATA + page * 4096).to_le_bytes()).collect();
        host.write(LIST, &pages);
        write(&mut host, &mut pair, 100, 128, 99, 0);
        let mut pair = cut(&mut host, seed);
        let found = versions(&mut host, &mut pair);
        let new = found.iter().filter(|&&version| version == 99).count();
        assert!(new == 0 || new == 128, "seed {seed}: {new}");
        for (number, blocks) in found.chunks(8).enumerate() {
            let version = number as u32 + 1;
            assert!(blocks.iter().all(|&found| found == version || found == 99), "seed {seed}");
        }
    }
}

#[test]
fn promises_that_cannot_be_kept_are_refused() {
    let setting = |config: Config| match Controller::new(&config) {
        Err(Error::Setting { setting, .. }) => setting,
        other => panic!("{other:?}"),
    };
    let one = || config().namespace(namespace());
    assert_eq!(setting(one().atomic_writes(4, 8)), "atomic_writes power_fail");
    assert_eq!(setting(one().atomic_writes(0, 0)), "atomic_writes normal");
    let bytes = "bytes of atomic_writes power_fail";
    assert_eq!(setting(one().atomic_writes(129, 129)), bytes);
    let bound = namespace().atomic_boundary(1, 0);
    assert_eq!(setting(config().namespace(bound)), "atomic_boundary");
}
