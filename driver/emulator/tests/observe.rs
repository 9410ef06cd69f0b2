//! What the controller does to client memory, seen access by access.

use crate::stepped;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, channel};

use nvio_emulator::{
    Access, Backing, Config, Controller, Dma, Fault, Faults, HostMemory, NamespaceConfig, Rule,
};
use nvio_spec::opcode::{admin, nvm};
use nvio_spec::register::{ACQ, AQA, ASQ, CC, Cc, DOORBELLS};
use nvio_spec::{Sqe, Status, cns, status};
use stepped::{BASE, DATA, Pair, SIZE, Stepped, with_data};

/// A PRP list, above the data.
const LIST: u64 = DATA + (1 << 20);

fn observed(config: &Config) -> (Stepped, Receiver<Dma>) {
    let mut host = Stepped::new(config);
    let (sender, accesses) = channel();
    host.memory.observe(move |dma| sender.send(dma).unwrap());
    (host, accesses)
}

fn config(backing: Backing) -> Config {
    Config::new().namespace(NamespaceConfig::new(backing))
}

fn reads(iova: u64, len: u64) -> Dma {
    Dma { iova, len, access: Access::READ }
}

fn writes(iova: u64, len: u64) -> Dma {
    Dma { iova, len, access: Access::WRITE }
}

/// What has been seen since the last look.
fn seen(accesses: &Receiver<Dma>) -> Vec<Dma> {
    accesses.try_iter().collect()
}

/// Runs one command; what was accessed between its entry and its completion, which are checked.
fn inside(
    host: &mut Stepped,
    accesses: &Receiver<Dma>,
    pair: &mut Pair,
    sqe: Sqe,
) -> (Status, Vec<Dma>) {
    let entry = reads(pair.at + u64::from(pair.tail) * 64, 64);
    let completion = writes(pair.cq() + u64::from(pair.head) * 16, 16);
    seen(accesses);
    let status = host.run(pair, sqe).status().bare();
    let all = seen(accesses);
    assert_eq!((all.first(), all.last()), (Some(&entry), Some(&completion)), "{all:?}");
    (status, all[1..all.len() - 1].to_vec())
}

#[test]
fn entries_data_and_lists_are_seen_in_the_order_of_their_access() {
    let (mut host, accesses) = observed(&config(Backing::memory(1 << 20)));
    let mut pair = host.create(1, 16);
    let mut run = |sqe| {
        let (status, all) = inside(&mut host, &accesses, &mut pair, sqe);
        assert_eq!(status, Status::SUCCESS);
        all
    };
    assert_eq!(run(with_data(Sqe::read(1, 0, 1), DATA, 0)), [writes(DATA, 512)]);
    assert_eq!(run(with_data(Sqe::write(1, 0, 1), DATA + 4, 0)), [reads(DATA + 4, 512)]);
    assert_eq!(run(Sqe::flush(1)), []);
    // Pages that are not contiguous, then a list of two entries.
    let two = with_data(Sqe::read(1, 0, 12), DATA + 0x800, DATA + 0x4000);
    assert_eq!(run(two), [writes(DATA + 0x800, 0x800), writes(DATA + 0x4000, 0x1000)]);
    host.write(LIST, &[(DATA + 0x4000).to_le_bytes(), (DATA + 0x8000).to_le_bytes()].concat());
    let listed = with_data(Sqe::write(1, 0, 17), DATA + 0x800, LIST);
    let (status, all) = inside(&mut host, &accesses, &mut pair, listed);
    let pages = [reads(DATA + 0x800, 0x800), reads(DATA + 0x4000, 0x1000)];
    let expected = [&[reads(LIST, 16)], &pages[..], &[reads(DATA + 0x8000, 0xa00)]].concat();
    assert_eq!((status, all), (Status::SUCCESS, expected));

    let compare = with_data(Sqe { opcode: nvm::COMPARE, ..Sqe::read(1, 0, 1) }, DATA + 0x800, 0);
    let (status, all) = inside(&mut host, &accesses, &mut pair, compare);
    assert_eq!((status, all), (Status::SUCCESS, vec![reads(DATA + 0x800, 512)]));
    let deallocate = with_data(Sqe::new(nvm::DATASET_MANAGEMENT, 1), DATA + 0x9000, 0);
    let (status, all) = inside(&mut host, &accesses, &mut pair, deallocate);
    assert_eq!((status, all), (Status::SUCCESS, vec![reads(DATA + 0x9000, 16)]));
}

#[test]
fn admin_commands_and_batches_are_seen() {
    let (mut host, accesses) = observed(&config(Backing::memory(1 << 20)));
    let mut admin = std::mem::replace(&mut host.admin, Pair::new(0, 2));
    let identify = with_data(Sqe::identify(cns::CONTROLLER, 0), DATA + 0x800, DATA + 0x2000);
    let (status, all) = inside(&mut host, &accesses, &mut admin, identify);
    assert_eq!(status, Status::SUCCESS);
    assert_eq!(all, [writes(DATA + 0x800, 0x800), writes(DATA + 0x2000, 0x800)]);
    host.admin = admin;

    // Entries are fetched together up to the end of the ring; completions are posted one by one.
    let mut pair = host.create(1, 4);
    pair.tail = 2;
    host.ring(&pair);
    host.step();
    while host.take(&mut pair).is_some() {}
    seen(&accesses);
    for _ in 0..3 {
        host.push(&mut pair, Sqe::flush(1));
    }
    host.ring(&pair);
    host.step();
    let entry = |at: u64| pair.at + at * 64;
    let completion = |at: u64| writes(pair.cq() + at * 16, 16);
    let all = seen(&accesses);
    let expected =
        [reads(entry(2), 128), reads(entry(0), 64), completion(2), completion(3), completion(0)];
    assert_eq!(all, expected);
}

#[test]
fn shadow_doorbells_are_seen() {
    let (mut host, accesses) = observed(&config(Backing::memory(1 << 20)).shadow_doorbells(true));
    let lend = with_data(Sqe::new(admin::DOORBELL_BUFFER_CONFIG, 0), LIST, LIST + 4096);
    let mut admin = std::mem::replace(&mut host.admin, Pair::new(0, 2));
    // That they are looked up is no access.
    assert_eq!(inside(&mut host, &accesses, &mut admin, lend), (Status::SUCCESS, vec![]));
    host.admin = admin;
    let pair = host.create(1, 16);
    seen(&accesses);
    host.step();
    // The queue goes to sleep: the tail, EventIdx, the tail again.
    assert_eq!(
        seen(&accesses),
        [reads(LIST + 8, 4), writes(LIST + 4096 + 8, 4), reads(LIST + 8, 4)]
    );
    host.ring(&pair);
    host.write(LIST + 8, &1u32.to_le_bytes());
    host.write(pair.at, zerocopy::IntoBytes::as_bytes(&Sqe::flush(1)));
    host.step();
    // The tail; the head, as there is something to complete.
    let before = [reads(LIST + 8, 4), reads(LIST + 12, 4)];
    assert_eq!(seen(&accesses)[..2], before);
}

#[test]
fn commands_without_a_transfer_are_not_observed() {
    // Nothing is moved for the null backing.
    let (mut host, accesses) = observed(&config(Backing::null(1 << 20)));
    let mut pair = host.create(1, 16);
    let read = with_data(Sqe::read(1, 0, 1), DATA, 0);
    assert_eq!(inside(&mut host, &accesses, &mut pair, read), (Status::SUCCESS, vec![]));

    let late = Rule::new(Fault::Late(Controller::STEP * 3)).opcode(nvm::READ).nth(2);
    let config = config(Backing::memory(1 << 20)).faults(Faults::new().rule(late));
    let (mut host, accesses) = observed(&config);
    let mut pair = host.create(1, 16);
    for (refused, expected) in [
        (with_data(Sqe::read(1, 0, 1), BASE + SIZE as u64, 0), status::DATA_TRANSFER_ERROR),
        (with_data(Sqe::write(1, u64::MAX, 1), DATA, 0), status::LBA_OUT_OF_RANGE),
        (with_data(Sqe::write(1, 0, 1), DATA + 1, 0), status::PRP_OFFSET_INVALID),
    ] {
        assert_eq!(inside(&mut host, &accesses, &mut pair, refused), (expected, vec![]));
    }
    // A late command accesses memory when it is executed, not when it is fetched.
    seen(&accesses);
    host.push(&mut pair, read);
    host.ring(&pair);
    let mut steps = Vec::new();
    for _ in 0..5 {
        host.controller.step(&host.memory);
        steps.push(seen(&accesses));
    }
    let end = vec![writes(DATA, 512), writes(pair.cq() + 3 * 16, 16)];
    assert_eq!(steps, [vec![reads(pair.at + 3 * 64, 64)], vec![], vec![], end, vec![]]);
}

/// What a driver in this process does: its memory and the doorbells are files that both map.
#[test]
fn a_driver_shares_memory_and_doorbells_by_file() {
    let mut controller = Controller::new(&config(Backing::memory(1 << 20))).unwrap();
    let arena = tempfile::tempfile_in("/dev/shm").unwrap();
    arena.set_len(64 << 10).unwrap();
    let mut memory = HostMemory::new();
    memory.map_file(BASE, 64 << 10, arena.try_clone().unwrap(), 0, Access::READ_WRITE).unwrap();
    let (sender, accesses) = channel();
    memory.observe(move |dma| sender.send(dma).unwrap());
    for (register, value) in [(AQA, 3 << 16 | 3), (ASQ, BASE as u32), (ACQ, BASE as u32 + 4096)] {
        controller.write_register(register, value);
    }
    controller.write_register(CC, Cc::enabled(12).0);
    let identify = with_data(Sqe::identify(cns::CONTROLLER, 0), BASE + 8192, 0);
    arena.write_all_at(zerocopy::IntoBytes::as_bytes(&identify), 0).unwrap();
    let doorbells = File::from(controller.doorbells().file().try_clone_to_owned().unwrap());
    assert_eq!(doorbells.metadata().unwrap().len(), controller.doorbells().bar_size());
    doorbells.write_all_at(&1u32.to_le_bytes(), DOORBELLS).unwrap();
    assert_eq!(controller.step(&memory), 1);
    let mut phase = [0; 2];
    arena.read_exact_at(&mut phase, 4096 + 14).unwrap();
    assert_eq!(phase, [1, 0]);
    let expected = [reads(BASE, 64), writes(BASE + 8192, 4096), writes(BASE + 4096, 16)];
    assert_eq!(seen(&accesses), expected);
}
