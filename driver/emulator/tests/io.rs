//! I/O commands, with the controller stepped by the test.

use crate::stepped;

use std::io::Write;
use std::time::Instant;

use nvio_emulator::{Backing, Config, NamespaceConfig};
use nvio_spec::opcode::nvm;
use nvio_spec::register::Csts;
use nvio_spec::{NSID_ALL, Sqe, Status, feature_id, status};
use stepped::{BASE, DATA, Pair, SIZE, Stepped, with_data};

/// Namespace 1 of 2048 blocks of 512 bytes, namespace 3 of 256 blocks of 4096.
fn host() -> (Stepped, Pair) {
    let namespace = || NamespaceConfig::new(Backing::memory(1 << 20));
    let config = Config::new()
        .namespace(namespace())
        .namespace(namespace().nsid(3).block_size(4096))
        .mdts(Some(2));
    let mut host = Stepped::new(&config);
    let pair = host.create(1, 64);
    (host, pair)
}

fn status_of(host: &mut Stepped, pair: &mut Pair, sqe: Sqe) -> Status {
    host.run(pair, sqe).status().bare()
}

fn list(host: &Stepped, at: u64, entries: &[u64]) {
    for (i, entry) in entries.iter().enumerate() {
        host.write(at + 8 * i as u64, &entry.to_le_bytes());
    }
}

#[test]
fn blocks_are_where_they_were_written() {
    let (mut host, mut pair) = host();
    let block = |seed: u32| (0..512u32).map(|i| (i * seed / 8) as u8).collect::<Vec<u8>>();
    for (lba, seed) in [(0, 3), (1, 5), (1024, 7), (2047, 11)] {
        host.write(DATA + 100, &block(seed));
        let write = with_data(Sqe::write(1, lba, 1), DATA + 100, 0);
        assert_eq!(status_of(&mut host, &mut pair, write), Status::SUCCESS);
    }
    for (lba, seed) in [(0, 3), (1, 5), (1024, 7), (2047, 11)] {
        let read = with_data(Sqe::read(1, lba, 1), DATA, 0);
        assert_eq!(status_of(&mut host, &mut pair, read), Status::SUCCESS);
        assert!(host.read(DATA, 512) == block(seed), "LBA {lba}");
    }
    // Another namespace is other blocks.
    assert_eq!(
        status_of(&mut host, &mut pair, with_data(Sqe::read(3, 0, 1), DATA, 0)),
        Status::SUCCESS
    );
    assert!(host.read(DATA, 4096) == [0; 4096]);
}

#[test]
fn data_is_scattered_over_prp_lists() {
    let (mut host, mut pair) = host();
    let data: Vec<u8> = (0..16384u32).map(|i| (i * 7 / 16) as u8).collect();
    // An offset in the first page, so five pages; each elsewhere.
    let pages = [DATA + 0x200, DATA + 0x9000, DATA + 0x3000, DATA + 0x6000, DATA + 0x1000];
    let mut done = 0;
    for page in pages {
        let now = (4096 - (page & 0xfff) as usize).min(data.len() - done);
        host.write(page, &data[done..done + now]);
        done += now;
    }
    let at = DATA + 0x1_0000;
    // The list begins near the end of its page: two entries, one a pointer to the next.
    list(&host, at + 4096 - 16, &[pages[1], at + 0x2000]);
    list(&host, at + 0x2000, &pages[2..]);
    let write = with_data(Sqe::write(3, 10, 4), pages[0], at + 4096 - 16);
    assert_eq!(status_of(&mut host, &mut pair, write), Status::SUCCESS);
    let back = DATA + 0x2_0000;
    list(&host, at, &[back + 4096, back + 8192, back + 12288]);
    let read = with_data(Sqe::read(3, 10, 4), back, at);
    assert_eq!(status_of(&mut host, &mut pair, read), Status::SUCCESS);
    assert!(host.read(back, 16384) == data);
    // Compare agrees, and stops agreeing.
    let mut compare = read;
    compare.opcode = nvm::COMPARE;
    assert_eq!(status_of(&mut host, &mut pair, compare), Status::SUCCESS);
    host.write(back + 16383, &[!data[16383]]);
    assert_eq!(status_of(&mut host, &mut pair, compare), status::COMPARE_FAILURE);
}

#[test]
fn ranges_are_checked_without_overflow() {
    let (mut host, mut pair) = host();
    for (slba, blocks) in [(2048, 1), (2047, 2), (u64::MAX, 1), (u64::MAX - 7, 8), (1 << 40, 1)] {
        for opcode in [nvm::READ, nvm::WRITE, nvm::COMPARE, nvm::WRITE_ZEROES, nvm::VERIFY] {
            let mut sqe = with_data(Sqe::read(1, slba, blocks), DATA, DATA + 4096);
            sqe.opcode = opcode;
            let found = status_of(&mut host, &mut pair, sqe);
            assert_eq!(found, status::LBA_OUT_OF_RANGE, "{opcode:#x} {slba} {blocks}");
        }
    }
    // 16 KiB is the limit: 32 blocks of one, 4 of the other.
    for (nsid, good) in [(1, 32), (3, 4)] {
        let at = DATA + 0x10_0000;
        list(&host, at, &[DATA, DATA, DATA]);
        let read = |blocks| with_data(Sqe::read(nsid, 0, blocks), DATA, at);
        assert_eq!(status_of(&mut host, &mut pair, read(good)), Status::SUCCESS);
        assert_eq!(status_of(&mut host, &mut pair, read(good + 1)), status::INVALID_FIELD);
    }
    // Write Zeroes and Verify transfer nothing, and may be longer.
    let mut zeroes = Sqe::write(1, 0, 2048);
    zeroes.opcode = nvm::WRITE_ZEROES;
    assert_eq!(status_of(&mut host, &mut pair, zeroes), Status::SUCCESS);
    zeroes.opcode = nvm::VERIFY;
    assert_eq!(status_of(&mut host, &mut pair, zeroes), Status::SUCCESS);
}

#[test]
fn namespaces_are_checked() {
    let (mut host, mut pair) = host();
    for (nsid, expected) in [
        (0, status::INVALID_NAMESPACE),
        (2, status::INVALID_FIELD),
        (4, status::INVALID_NAMESPACE),
        (NSID_ALL, status::INVALID_NAMESPACE),
    ] {
        let read = with_data(Sqe::read(nsid, 0, 1), DATA, 0);
        assert_eq!(status_of(&mut host, &mut pair, read), expected, "namespace {nsid}");
    }
    for (nsid, expected) in [
        (1, Status::SUCCESS),
        (NSID_ALL, Status::SUCCESS),
        (2, status::INVALID_FIELD),
        (9, status::INVALID_NAMESPACE),
    ] {
        assert_eq!(status_of(&mut host, &mut pair, Sqe::flush(nsid)), expected);
    }
}

#[test]
fn fields_and_opcodes_that_are_not_supported_are_refused() {
    let (mut host, mut pair) = host();
    for flags in [1, 2, 1 << 6, 2 << 6, 3 << 6, 1 << 2] {
        let mut sqe = with_data(Sqe::read(1, 0, 1), DATA, 0);
        sqe.flags = flags;
        assert_eq!(status_of(&mut host, &mut pair, sqe), status::INVALID_FIELD, "{flags:#x}");
    }
    for opcode in [nvm::WRITE_UNCORRECTABLE, 0x0d, 0x7f, 0xff] {
        let cqe = host.run(&mut pair, Sqe::new(opcode, 1));
        assert_eq!(cqe.status(), status::INVALID_OPCODE.do_not_retry(), "{opcode:#x}");
    }
}

#[test]
fn data_pointers_are_checked() {
    let (mut host, mut pair) = host();
    let read = |prp1, prp2, blocks| with_data(Sqe::read(1, 0, blocks), prp1, prp2);
    let offset = status::PRP_OFFSET_INVALID;
    let transfer = status::DATA_TRANSFER_ERROR;
    let end = BASE + SIZE as u64;
    let far = 1 << 50;
    list(&host, DATA + 0x8000, &[DATA + 8, DATA]);
    list(&host, DATA + 0x9000, &[DATA, far]);
    for (sqe, expected) in [
        (read(DATA + 1, 0, 1), offset),
        (read(DATA + 2, 0, 1), offset),
        (read(DATA + 4, 0, 1), Status::SUCCESS),
        (read(DATA + 0xf00, DATA + 0x1004, 1), offset),
        (read(DATA, DATA + 0x8004, 24), offset),
        (read(DATA, DATA + 0x8000, 24), offset),
        (read(DATA, DATA + 0x9000, 24), transfer),
        (read(DATA, far, 24), transfer),
        (read(far, 0, 1), transfer),
        (read(end - 512, 0, 1), Status::SUCCESS),
        (read(end, 0, 1), transfer),
        (read(end - 512, end, 2), transfer),
        (read(u64::MAX - 3, 0, 1), transfer),
        (read(BASE - 256, BASE, 1), transfer),
    ] {
        assert_eq!(status_of(&mut host, &mut pair, sqe), expected, "{sqe:?}");
        let mut write = sqe;
        write.opcode = nvm::WRITE;
        assert_eq!(status_of(&mut host, &mut pair, write), expected, "{write:?}");
    }
    assert_eq!(host.csts(), Csts(Csts::READY));
}

#[test]
fn zeroes_and_deallocation_leave_zeroes() {
    let (mut host, mut pair) = host();
    host.write(DATA, &[0x5a; 4096]);
    for lba in (0..64).step_by(8) {
        let write = with_data(Sqe::write(1, lba, 8), DATA, 0);
        assert_eq!(status_of(&mut host, &mut pair, write), Status::SUCCESS);
    }
    let mut zeroes = Sqe::write(1, 3, 2);
    zeroes.opcode = nvm::WRITE_ZEROES;
    assert_eq!(status_of(&mut host, &mut pair, zeroes), Status::SUCCESS);
    // Two ranges across a page border: 10..12 and 20..21.
    let range = |blocks: u32, slba: u64| {
        [&0u32.to_le_bytes()[..], &blocks.to_le_bytes(), &slba.to_le_bytes()].concat()
    };
    host.write(DATA + 0x1ff0, &range(2, 10));
    host.write(DATA + 0x4000, &range(1, 20));
    let mut trim = with_data(Sqe::new(nvm::DATASET_MANAGEMENT, 1), DATA + 0x1ff0, DATA + 0x4000);
    trim.cdw10 = 1.into();
    // Without the attribute it is a hint, and changes nothing.
    assert_eq!(status_of(&mut host, &mut pair, trim), Status::SUCCESS);
    let zero_blocks = |host: &mut Stepped, pair: &mut Pair| {
        (0..64)
            .filter(|&lba| {
                let read = with_data(Sqe::read(1, lba, 1), DATA, 0);
                assert_eq!(host.run(pair, read).status(), Status::SUCCESS);
                host.read(DATA, 512) == [0; 512]
            })
            .collect::<Vec<u64>>()
    };
    assert_eq!(zero_blocks(&mut host, &mut pair), [3, 4]);
    trim.cdw11 = (1 << 2).into();
    assert_eq!(status_of(&mut host, &mut pair, trim), Status::SUCCESS);
    assert_eq!(zero_blocks(&mut host, &mut pair), [3, 4, 10, 11, 20]);
    // A range beyond the end: none is deallocated.
    host.write(DATA + 0x1ff0, &range(1, 30));
    host.write(DATA + 0x4000, &range(2, 2047));
    assert_eq!(status_of(&mut host, &mut pair, trim), status::LBA_OUT_OF_RANGE);
    assert_eq!(zero_blocks(&mut host, &mut pair), [3, 4, 10, 11, 20]);
}

#[test]
fn a_read_only_image_is_write_protected() {
    let mut image = tempfile::NamedTempFile::new().unwrap();
    image.write_all(&[7; 8192 + 100]).unwrap();
    let namespace = NamespaceConfig::new(Backing::image(image.path(), true));
    let mut host = Stepped::new(&Config::new().namespace(namespace));
    let mut pair = host.create(1, 64);
    let read = |lba| with_data(Sqe::read(1, lba, 1), DATA, 0);
    assert_eq!(status_of(&mut host, &mut pair, read(15)), Status::SUCCESS);
    assert_eq!(host.read(DATA, 512), [7; 512]);
    // The 100 bytes left over are no block.
    assert_eq!(status_of(&mut host, &mut pair, read(16)), status::LBA_OUT_OF_RANGE);
    for opcode in [nvm::WRITE, nvm::WRITE_ZEROES] {
        let mut write = read(0);
        write.opcode = opcode;
        let found = status_of(&mut host, &mut pair, write);
        assert_eq!(found, status::NAMESPACE_WRITE_PROTECTED);
    }
    let mut trim = with_data(Sqe::new(nvm::DATASET_MANAGEMENT, 1), DATA, 0);
    trim.cdw11 = (1 << 2).into();
    assert_eq!(status_of(&mut host, &mut pair, trim), status::NAMESPACE_WRITE_PROTECTED);
    assert_eq!(status_of(&mut host, &mut pair, Sqe::flush(1)), Status::SUCCESS);
    // The image shrinks under the controller: an error of the media, for that block only.
    image.as_file().set_len(4096).unwrap();
    let failed = host.run(&mut pair, read(15)).status();
    assert_eq!(failed, status::UNRECOVERED_READ_ERROR);
    assert_eq!(status_of(&mut host, &mut pair, read(0)), Status::SUCCESS);
}

#[test]
fn the_write_cache_of_an_image_can_be_switched_off() {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(1 << 20).unwrap();
    let namespace = NamespaceConfig::new(Backing::image(image.path(), false));
    let mut host = Stepped::new(&Config::new().namespace(namespace));
    let mut pair = host.create(1, 64);
    let get = Sqe::get_features(feature_id::VOLATILE_WRITE_CACHE);
    assert_eq!(host.admin(get).dw0.get(), 1);
    let set = Sqe::set_features(feature_id::VOLATILE_WRITE_CACHE, 0);
    assert_eq!(host.admin_status(set), Status::SUCCESS);
    assert_eq!(host.admin(get).dw0.get(), 0);
    host.write(DATA, &[0x42; 512]);
    let mut write = with_data(Sqe::write(1, 9, 1), DATA, 0);
    assert_eq!(status_of(&mut host, &mut pair, write), Status::SUCCESS);
    write.cdw12 = (write.cdw12.get() | Sqe::FUA).into();
    assert_eq!(status_of(&mut host, &mut pair, write), Status::SUCCESS);
    assert_eq!(std::fs::read(image.path()).unwrap()[9 * 512..10 * 512], [0x42; 512]);
}

#[test]
fn queues_take_turns_within_the_budget() {
    let (mut host, mut first) = host();
    let mut second = host.create(2, 64);
    for _ in 0..60 {
        host.push(&mut first, Sqe::flush(1));
        host.push(&mut second, Sqe::flush(1));
    }
    host.ring(&first);
    host.ring(&second);
    assert_eq!(host.controller.process(&host.memory, 20), 20);
    assert_eq!(host.controller.process(&host.memory, 20), 20);
    let count =
        |host: &mut Stepped, pair: &mut Pair| std::iter::from_fn(|| host.take(pair)).count();
    assert_eq!((count(&mut host, &mut first), count(&mut host, &mut second)), (20, 20));
    assert_eq!(host.controller.process(&host.memory, 0), 0);
    while host.step() > 0 {}
    assert_eq!((count(&mut host, &mut first), count(&mut host, &mut second)), (40, 40));
}

#[test]
fn a_full_completion_queue_waits_for_the_host() {
    let (mut host, mut pair) = host();
    for _ in 0..63 {
        host.push(&mut pair, Sqe::flush(1));
    }
    host.ring(&pair);
    while host.step() > 0 {}
    // All 63 entries are taken; the host has released none of them.
    for _ in 0..2 {
        host.push(&mut pair, Sqe::flush(1));
    }
    host.ring(&pair);
    assert_eq!(host.step(), 0);
    assert!(host.take(&mut pair).is_some());
    assert_eq!(host.step(), 1);
    assert_eq!(host.step(), 0);
    assert!(host.take(&mut pair).is_some());
    assert!(host.step() > 0);
}

/// What a command costs the controller, with no thread but this. The figure is printed.
#[test]
fn cost_of_a_command_on_the_null_backing() {
    let namespace = NamespaceConfig::new(Backing::null(1 << 30)).block_size(4096);
    let mut host = Stepped::new(&Config::new().namespace(namespace));
    let mut pair = host.create(1, 256);
    let rounds = if cfg!(debug_assertions) { 200 } else { 20_000 };
    let mut spent = std::time::Duration::ZERO;
    for _ in 0..rounds {
        for lba in 0..128 {
            host.push(&mut pair, with_data(Sqe::read(1, lba, 1), DATA, 0));
        }
        host.ring(&pair);
        let began = Instant::now();
        let mut done = 0;
        while done < 128 {
            done += host.step();
        }
        spent += began.elapsed();
        assert_eq!(std::iter::from_fn(|| host.take(&mut pair)).count(), 128);
    }
    let each = spent.as_nanos() / (rounds * 128);
    println!("null backing, 4 KiB reads: {each} ns a command in the controller");
}
