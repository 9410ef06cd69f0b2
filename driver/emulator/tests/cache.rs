//! The volatile write cache and what a power cut leaves of it.

use crate::stepped;

use std::io::Write;

use nvio_emulator::{Backing, Config, NamespaceConfig};
use nvio_spec::opcode::nvm;
use nvio_spec::register::{CC, Cc, Csts};
use nvio_spec::{IdentifyController, Sqe, Status, cns, feature_id};
use stepped::{BASE, DATA, Pair, Stepped, with_data};
use zerocopy::FromBytes;

/// Blocks of 512 bytes.
const BLOCKS: u64 = 512;
/// Where a PRP list may be.
const LIST: u64 = BASE + (3 << 20);

fn host(backing: Backing) -> (Stepped, Pair) {
    let config = Config::new().namespace(NamespaceConfig::new(backing)).write_cache(64 << 10);
    let mut host = Stepped::new(&config);
    let pair = host.create(1, 64);
    (host, pair)
}

fn memory() -> (Stepped, Pair) {
    host(Backing::memory(BLOCKS * 512))
}

fn done(host: &mut Stepped, pair: &mut Pair, sqe: Sqe) {
    assert_eq!(host.run(pair, sqe).status(), Status::SUCCESS, "{sqe:?}");
}

/// Fills one block with one value.
fn write(host: &mut Stepped, pair: &mut Pair, lba: u64, value: u8, flags: u32) {
    host.write(DATA, &[value; 512]);
    let mut sqe = with_data(Sqe::write(1, lba, 1), DATA, 0);
    sqe.cdw12 = (sqe.cdw12.get() | flags).into();
    done(host, pair, sqe);
}

/// The value that fills each block; no block may be mixed.
fn values(host: &mut Stepped, pair: &mut Pair) -> Vec<u8> {
    (0..BLOCKS)
        .map(|lba| {
            done(host, pair, with_data(Sqe::read(1, lba, 1), DATA, 0));
            let block = host.read(DATA, 512);
            assert!(block.iter().all(|&byte| byte == block[0]), "LBA {lba} is torn");
            block[0]
        })
        .collect()
}

fn cut(host: &mut Stepped, seed: u64) -> Pair {
    host.controller.power_cut(seed);
    assert_eq!(host.csts(), Csts(0));
    host.enable();
    host.create(1, 64)
}

#[test]
fn a_cache_is_announced_and_written_only_by_a_flush() {
    let mut image = tempfile::NamedTempFile::new().unwrap();
    image.write_all(&[1; BLOCKS as usize * 512]).unwrap();
    let (mut host, mut pair) = self::host(Backing::image(image.path(), false));
    done_admin(&mut host, with_data(Sqe::identify(cns::CONTROLLER, 0), DATA, 0));
    let identify = IdentifyController::read_from_bytes(&host.read(DATA, 4096)).unwrap();
    assert!(identify.has_write_cache());
    assert_eq!(host.admin(Sqe::get_features(feature_id::VOLATILE_WRITE_CACHE)).dw0.get(), 1);
    write(&mut host, &mut pair, 5, 9, 0);
    assert_eq!(values(&mut host, &mut pair)[4..7], [1, 9, 1]);
    let stored = || std::fs::read(image.path()).unwrap()[5 * 512];
    assert_eq!(stored(), 1);
    done(&mut host, &mut pair, Sqe::flush(1));
    assert_eq!(stored(), 9);
}

fn done_admin(host: &mut Stepped, sqe: Sqe) {
    assert!(host.admin(sqe).status().is_success());
}

/// Blocks 0 to 99 are flushed as 1 and then written as 2, of which 40 to 49 with FUA; what a power
/// cut leaves.
fn scene(seed: u64) -> Vec<u8> {
    let (mut host, mut pair) = memory();
    for lba in 0..100 {
        write(&mut host, &mut pair, lba, 1, 0);
    }
    done(&mut host, &mut pair, Sqe::flush(1));
    for lba in 0..100 {
        let fua = if (40..50).contains(&lba) { Sqe::FUA } else { 0 };
        write(&mut host, &mut pair, lba, 2, fua);
    }
    assert_eq!(values(&mut host, &mut pair)[..100], [2; 100]);
    let mut pair = cut(&mut host, seed);
    values(&mut host, &mut pair)
}

#[test]
fn a_power_cut_loses_only_what_was_not_flushed() {
    let first = scene(1);
    assert_eq!(first[40..50], [2; 10]);
    assert!(first[..100].iter().all(|&value| value == 1 || value == 2));
    assert!(first[100..].iter().all(|&value| value == 0));
    let kept = first[..100].iter().filter(|&&value| value == 2).count();
    assert!((30..=80).contains(&kept), "{kept}");
    assert!(first == scene(1));
    assert!(first != scene(2));
}

#[test]
fn one_command_is_torn_at_its_blocks_and_nowhere_else() {
    // 16 KiB at an odd offset: pages cut blocks in two.
    let (mut host, mut pair) = memory();
    host.write(DATA + 100, &[3; 16 << 10]);
    let pages: Vec<u8> = (1..5).flat_map(|page| (DATA + page * 4096).to_le_bytes()).collect();
    host.write(LIST, &pages);
    done(&mut host, &mut pair, with_data(Sqe::write(1, 8, 32), DATA + 100, LIST));
    host.write(DATA, &[0; 32 << 10]);
    done(&mut host, &mut pair, with_data(Sqe::read(1, 8, 32), DATA + 100, LIST));
    assert!(host.read(DATA + 100, 16 << 10) == [3; 16 << 10]);
    let mut pair = cut(&mut host, 5);
    let values = values(&mut host, &mut pair);
    assert!(values[8..40].contains(&3) && values[8..40].contains(&0));
    assert!(values[..8].iter().chain(&values[40..]).all(|&value| value == 0));
}

#[test]
fn zeroes_are_as_volatile_as_other_writes() {
    let (mut host, mut pair) = memory();
    for lba in 0..64 {
        write(&mut host, &mut pair, lba, 4, 0);
    }
    done(&mut host, &mut pair, Sqe::flush(1));
    let zeroes = Sqe { opcode: nvm::WRITE_ZEROES, ..Sqe::write(1, 0, 32) };
    done(&mut host, &mut pair, zeroes);
    assert_eq!(values(&mut host, &mut pair)[31..33], [0, 4]);
    let mut pair = cut(&mut host, 3);
    let values = values(&mut host, &mut pair);
    assert!(values[..32].contains(&0) && values[..32].contains(&4));
    assert_eq!(values[32..64], [4; 32]);
}

#[test]
fn a_cache_that_is_off_and_a_shutdown_leave_nothing_to_lose() {
    let (mut host, mut pair) = memory();
    for lba in 0..50 {
        write(&mut host, &mut pair, lba, 5, 0);
    }
    done_admin(&mut host, Sqe::set_features(feature_id::VOLATILE_WRITE_CACHE, 0));
    for lba in 50..60 {
        write(&mut host, &mut pair, lba, 5, 0);
    }
    let mut pair = cut(&mut host, 1);
    assert_eq!(values(&mut host, &mut pair)[..61], [[5; 60].as_slice(), &[0]].concat());
    // On again after the reset.
    assert_eq!(host.admin(Sqe::get_features(feature_id::VOLATILE_WRITE_CACHE)).dw0.get(), 1);
    for lba in 0..60 {
        write(&mut host, &mut pair, lba, 6, 0);
    }
    host.set(CC, Cc::enabled(12).shutdown().0);
    assert!(host.csts().shutdown_complete());
    let mut pair = cut(&mut host, 2);
    assert_eq!(values(&mut host, &mut pair)[..60], [6; 60]);
    // A reset of the controller loses nothing.
    write(&mut host, &mut pair, 0, 7, 0);
    host.set(CC, 0);
    host.enable();
    let mut pair = host.create(1, 64);
    assert_eq!(values(&mut host, &mut pair)[0], 7);
}

#[test]
fn a_full_cache_stores_what_was_written_first() {
    // 128 blocks fit.
    for seed in 0..8 {
        let (mut host, mut pair) = memory();
        for lba in (0..300).rev() {
            write(&mut host, &mut pair, lba, 8, 0);
        }
        let mut pair = cut(&mut host, seed);
        let values = values(&mut host, &mut pair);
        assert_eq!(values[128..300], [8; 172], "seed {seed}");
        assert!(values[..128].contains(&0) && values[..128].contains(&8), "seed {seed}");
    }
}
