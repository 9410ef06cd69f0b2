//! The Controller Memory Buffer: its registers, queues in it, and what may not be in it.

use crate::stepped;

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::channel;

use nvio_emulator::{Access, Backing, Config, DeviceFault, Dma, Emulator, NamespaceConfig};
use nvio_spec::register::{
    ACQ, AQA, ASQ, CAP, CC, CMBLOC, CMBMSC, CMBSTS, CMBSZ, Cap, Cc, Cmbloc, Cmbmsc, Cmbsz, GONE,
};
use nvio_spec::sgl::Descriptor;
use nvio_spec::{Cqe, Sqe, Status, status};
use nvio_testkit::host::{self, Host};
use stepped::{BASE, DATA, Pair, Stepped, with_data};
use vm_memory::mmap::MmapRegion;
use vm_memory::{Bytes, FileOffset, VolatileMemory};
use zerocopy::{FromBytes, IntoBytes};

/// Size of the buffer: no power of two.
const BYTES: u64 = 48 << 10;
/// Where the host has it, far from its memory.
const WINDOW: u64 = 0x70_0000_0000;

fn config() -> Config {
    let namespace = NamespaceConfig::new(Backing::memory(1 << 20));
    Config::new().namespace(namespace).sgl(true)
}

fn enable_window(host: &mut Stepped, base: u64) {
    let control = Cmbmsc::enabled(base).0;
    host.set(CMBMSC, control as u32);
    host.set(CMBMSC + 4, (control >> 32) as u32);
}

fn dword(host: &Stepped, offset: u64) -> u32 {
    host.controller.read_register(offset)
}

fn cap(host: &Stepped) -> Cap {
    Cap(u64::from(dword(host, CAP + 4)) << 32 | u64::from(dword(host, CAP)))
}

/// A pair whose submission queue is at `sq`, its completion queue at `cq`; the statuses of both
/// commands that create it.
fn create(host: &mut Stepped, sq: u64, cq: u64, entries: u32) -> (Status, Status) {
    let cq = host.admin_status(Sqe::create_io_cq(1, entries, cq, None));
    (cq, host.admin_status(Sqe::create_io_sq(1, entries, sq, 1)))
}

/// Stores a command in the buffer as a driver does: through the file.
fn push(host: &Stepped, offset: u64, pair: &mut Pair, mut sqe: Sqe) {
    pair.cid += 1;
    sqe.cid = pair.cid.into();
    let memory = host.controller.controller_memory().unwrap();
    let file = std::fs::File::from(memory.file().try_clone_to_owned().unwrap());
    file.write_all_at(sqe.as_bytes(), offset + u64::from(pair.tail) * 64).unwrap();
    pair.tail = (pair.tail + 1) % pair.entries;
}

#[test]
fn registers_say_what_there_is_once_they_are_enabled() {
    let mut host = Stepped::disabled(&config().controller_memory(BYTES));
    assert!(cap(&host).controller_memory());
    assert_eq!((dword(&host, CMBLOC), dword(&host, CMBSZ)), (0, 0));
    host.set(CMBMSC, Cmbmsc::CAPABILITIES as u32);
    let size = Cmbsz(dword(&host, CMBSZ));
    assert_eq!((size.bytes(), size.0 & 0x1f), (Some(BYTES), Cmbsz::SUBMISSION_QUEUES));
    let location = Cmbloc(dword(&host, CMBLOC));
    assert_eq!((location.bar(), location.offset(size)), (2, Some(0)));
    let memory = host.controller.controller_memory().unwrap();
    assert_eq!(memory.bar_size(), 64 << 10);
    // What is written stays, but for reserved bits, and other registers are read-only.
    for offset in [CMBMSC, CMBMSC + 4, CMBSZ, CMBLOC, CMBSTS] {
        host.set(offset, 0x1234_5fff);
    }
    let control = (dword(&host, CMBMSC), dword(&host, CMBMSC + 4));
    assert_eq!(control, (0x1234_5003, 0x1234_5fff));
    assert_eq!((dword(&host, CMBSZ), dword(&host, CMBSTS)), (size.0, 0));
    // Addresses that wrap.
    enable_window(&mut host, u64::MAX - 0xfff);
    assert_eq!(dword(&host, CMBSTS), 1);
    enable_window(&mut host, WINDOW);
    assert_eq!(dword(&host, CMBSTS), 0);
    // A reset of the controller leaves it; one of the function does not.
    host.enable();
    host.set(CC, 0);
    assert_eq!(dword(&host, CMBMSC + 4), 0x70);
    host.controller.function_reset();
    assert_eq!((dword(&host, CMBMSC), dword(&host, CMBSZ)), (0, 0));
    host.controller.inject(DeviceFault::Removed);
    assert_eq!((dword(&host, CMBMSC), dword(&host, CMBSZ)), (GONE, GONE));

    let mut without = Stepped::disabled(&config());
    enable_window(&mut without, WINDOW);
    assert!(!cap(&without).controller_memory());
    for offset in [CMBLOC, CMBSZ, CMBMSC, CMBMSC + 4, CMBSTS] {
        assert_eq!(dword(&without, offset), 0, "{offset:#x}");
    }
}

#[test]
fn commands_are_fetched_from_the_buffer_and_from_nowhere_else() {
    let mut host = Stepped::new(&config().controller_memory(BYTES));
    enable_window(&mut host, WINDOW);
    let mut pair = Pair::new(1, 128);
    let success = (Status::SUCCESS, Status::SUCCESS);
    assert_eq!(create(&mut host, WINDOW + 0x2000, pair.cq(), 128), success);
    let (sender, accesses) = channel();
    host.memory.observe(move |dma: Dma| sender.send(dma).unwrap());
    // More than once around the ring.
    for round in 0..300u32 {
        let content = [round as u8; 512];
        host.write(DATA, &content);
        push(&host, 0x2000, &mut pair, with_data(Sqe::write(1, round.into(), 1), DATA, 0));
        push(&host, 0x2000, &mut pair, with_data(Sqe::read(1, round.into(), 1), DATA + 4096, 0));
        host.ring(&pair);
        host.step();
        for _ in 0..2 {
            let cqe = host.take(&mut pair).unwrap();
            assert_eq!((cqe.status(), cqe.sqid.get()), (Status::SUCCESS, 1), "round {round}");
        }
        assert_eq!(host.read(DATA + 4096, 512), content);
    }
    let seen: Vec<Dma> = accesses.try_iter().collect();
    // Data and a completion for each command: no entry is read from the client's memory.
    assert_eq!(seen.len(), 4 * 300);
    assert!(seen.iter().all(|dma| dma.len == 512 || dma.access == Access::WRITE));

    // A queue that was made stays where it is when the window goes elsewhere.
    enable_window(&mut host, WINDOW * 2);
    push(&host, 0x2000, &mut pair, Sqe::flush(1));
    host.ring(&pair);
    host.step();
    assert_eq!(host.take(&mut pair).unwrap().status(), Status::SUCCESS);
}

#[test]
fn only_whole_submission_queues_can_be_in_the_buffer() {
    let mut host = Stepped::new(&config().controller_memory(BYTES));
    let good = Pair::new(1, 128).cq();
    let misuse = status::INVALID_USE_OF_CMB;
    // Not enabled: an address like any other, which is not looked at before the queue is used.
    assert_eq!(create(&mut host, WINDOW, good, 128), (Status::SUCCESS, Status::SUCCESS));
    host.set(CC, 0);
    host.enable();
    enable_window(&mut host, WINDOW);
    let end = WINDOW + BYTES;
    for (sq, cq, expected) in [
        (WINDOW, WINDOW, (misuse, status::COMPLETION_QUEUE_INVALID)),
        (WINDOW, end - 4096, (misuse, status::COMPLETION_QUEUE_INVALID)),
        (WINDOW, WINDOW - 4096, (Status::SUCCESS, status::INVALID_USE_OF_CMB)),
    ] {
        // 512 entries: 32 KiB and 8 KiB.
        let sq = if expected.0 == Status::SUCCESS { end - 4096 } else { sq };
        let cq = if expected.0 == Status::SUCCESS { good } else { cq };
        assert_eq!(create(&mut host, sq, cq, 512), expected, "{sq:#x} {cq:#x}");
    }
    for (sq, expected) in [
        (WINDOW - 4096, misuse),
        (WINDOW + 0x5000, misuse),
        (WINDOW + 8, status::PRP_OFFSET_INVALID),
        (WINDOW + 0x4000, Status::SUCCESS),
    ] {
        let created = host.admin_status(Sqe::create_io_sq(1, 512, sq, 1));
        assert_eq!(created, expected, "{sq:#x}");
    }
    // Data and lists.
    host.set(CC, 0);
    host.enable();
    let mut pair = host.create(1, 16);
    host.write(DATA + 0x8000, &(WINDOW + 4096).to_le_bytes());
    let sgl = |descriptor| {
        let mut sqe = Sqe::read(1, 0, 17);
        sqe.set_sgl(descriptor);
        sqe
    };
    for sqe in [
        with_data(Sqe::read(1, 0, 1), WINDOW, 0),
        with_data(Sqe::write(1, 0, 1), end - 512, 0),
        with_data(Sqe::read(1, 0, 9), DATA, WINDOW),
        with_data(Sqe::read(1, 0, 17), DATA, WINDOW),
        with_data(Sqe::read(1, 0, 17), DATA, DATA + 0x8000),
        sgl(Descriptor::data_block(WINDOW + 1, 17 * 512)),
        sgl(Descriptor::last_segment(WINDOW, 2)),
    ] {
        assert_eq!(host.run(&mut pair, sqe).status().bare(), misuse, "{sqe:?}");
    }
    let beyond = with_data(Sqe::read(1, 0, 1), end, 0);
    assert_eq!(host.run(&mut pair, beyond).status().bare(), status::DATA_TRANSFER_ERROR);
    let identify = with_data(Sqe::identify(1, 0), WINDOW, 0);
    assert_eq!(host.admin_status(identify), misuse);
}

#[test]
fn the_admin_submission_queue_may_be_in_it_and_its_completion_queue_not() {
    // The admin queues have 128 entries: two pages and half a page.
    for (asq, acq, works) in
        [(WINDOW, BASE, true), (BASE, WINDOW, false), (WINDOW + BYTES - 4096, BASE, false)]
    {
        let mut host = Stepped::disabled(&config().controller_memory(BYTES));
        enable_window(&mut host, WINDOW);
        host.set(AQA, 127 << 16 | 127);
        for (register, base) in [(ASQ, asq), (ACQ, acq)] {
            host.set(register, base as u32);
            host.set(register + 4, (base >> 32) as u32);
        }
        host.set(CC, Cc::enabled(12).0);
        assert_eq!((host.csts().ready(), host.csts().fatal()), (works, !works), "{asq:#x}");
        if works {
            let mut pair = Pair::new(0, 128);
            push(&host, 0, &mut pair, with_data(Sqe::identify(1, 0), DATA, 0));
            host.ring(&pair);
            host.step();
            let cqe = Cqe::read_from_bytes(&host.read(BASE, 16)).unwrap();
            assert!(cqe.phase() && cqe.status().is_success());
        }
    }
}

#[test]
fn controller_memory_is_empty_after_a_function_reset() {
    let mut host = Stepped::new(&config().controller_memory(BYTES));
    push(&host, 0, &mut Pair::new(1, 16), Sqe::read(1, 2, 3));
    let first = |host: &Stepped| {
        let memory = host.controller.controller_memory().unwrap();
        let file = std::fs::File::from(memory.file().try_clone_to_owned().unwrap());
        let mut bytes = [0; 64];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    assert_ne!(first(&host), [0; 64]);
    host.set(CC, 0);
    assert_ne!(first(&host), [0; 64]);
    host.controller.function_reset();
    assert_eq!(first(&host), [0; 64]);
}

/// BAR 2 as a client of vfio-user maps it.
fn map_bar2(host: &Host) -> MmapRegion {
    let bar2 = host.client.region(2).unwrap();
    assert_eq!((bar2.size, bar2.sparse_areas[0].size), (64 << 10, 64 << 10));
    let backing = bar2.file_offset.as_ref().unwrap();
    let file = backing.file().try_clone().unwrap();
    MmapRegion::from_file(FileOffset::new(file, backing.start()), 64 << 10).unwrap()
}

fn served(config: Config) -> (Emulator, Host) {
    let emulator = config.start().unwrap();
    let host = Host::connect(emulator.socket());
    (emulator, host)
}

/// Runs commands of a queue in the mapped BAR, at `window` for the controller.
fn exercise(host: &mut Host, bar2: &MmapRegion, window: u64) {
    let mut queue = host.create_queue(1, 16, None);
    assert_eq!(host.admin(Sqe::delete_io_sq(1)).status(), Status::SUCCESS);
    let create = Sqe::create_io_sq(1, 16, window + 0x1000, 1);
    assert_eq!(host.admin(create).status(), Status::SUCCESS);
    for round in 0..40u16 {
        // What goes to the queue in memory is copied, at the place it has there.
        let at = u64::from(round % 16) * 64;
        let cid = host.push(&mut queue, with_data(Sqe::read(1, 0, 1), host::DATA, 0));
        let sqe = host.read(host::IOVA + (256 << 10) + at, 64);
        bar2.as_volatile_slice().write_slice(&sqe, 0x1000 + at as usize).unwrap();
        host.ring(&queue);
        let cqe = host.wait(&mut queue);
        assert_eq!((cqe.cid.get(), cqe.status()), (cid, Status::SUCCESS));
    }
}

#[test]
fn a_client_maps_bar_2_and_submits_there() {
    let (_emulator, mut host) = served(config().controller_memory(BYTES));
    let bar2 = map_bar2(&host);
    let control = Cmbmsc::enabled(WINDOW).0.to_le_bytes();
    host.client.region_write(0, CMBMSC, &control).unwrap();
    exercise(&mut host, &bar2, WINDOW);
    // Messages reach the same memory, up to its end.
    host.client.region_write(2, 0xfffd, b"end").unwrap();
    let mut end = [0; 3];
    bar2.as_volatile_slice().read_slice(&mut end, 0xfffd).unwrap();
    assert_eq!(&end, b"end");
    host.client.region_read(2, 0xfffd, &mut end).unwrap();
    assert_eq!(&end, b"end");
    drop(host);
    // The next client finds nothing of it.
    let mut host = Host::connect(_emulator.socket());
    host.client.region_read(2, 0xfffd, &mut end).unwrap();
    assert_eq!(end, [0; 3]);
    assert_eq!(host.read_register(CMBMSC), 0);
}

#[test]
fn a_legacy_buffer_is_where_the_client_puts_bar_2() {
    let (_emulator, mut host) = served(config().legacy_controller_memory(BYTES));
    assert_eq!(Cmbsz(host.read_register(CMBSZ)).bytes(), Some(BYTES));
    host.client.region_write(0, CMBMSC, &Cmbmsc::enabled(WINDOW).0.to_le_bytes()).unwrap();
    assert_eq!((host.read_register(CMBMSC), host.read_register(CAP + 4) >> 25 & 1), (0, 0));
    let bar2 = map_bar2(&host);
    // Nowhere yet: a queue there is one that cannot be reached.
    host.client.region_write(7, 0x18, &(WINDOW | 0xc).to_le_bytes()).unwrap();
    exercise(&mut host, &bar2, WINDOW);
    let moved = 3 * WINDOW;
    host.client.region_write(7, 0x18, &moved.to_le_bytes()).unwrap();
    host.disable();
    host.enable();
    exercise(&mut host, &bar2, moved);
}

#[test]
fn a_controller_without_one_has_no_bar_2() {
    let (_emulator, host) = served(config());
    // The region is there, of no size, as VFIO has it.
    assert!(host.client.region(2).is_none_or(|region| region.size == 0));
}

#[test]
fn addresses_of_the_buffer_are_no_client_memory_even_if_a_mapping_touches_them() {
    let mut host = Stepped::new(&config().controller_memory(BYTES));
    enable_window(&mut host, WINDOW);
    let region = Arc::new(MmapRegion::new(4096).unwrap());
    host.memory.map_region(WINDOW + BYTES, region, Access::READ_WRITE).unwrap();
    let mut pair = host.create(1, 16);
    let mut read = Sqe::read(1, 0, 2);
    read.set_sgl(Descriptor::data_block(WINDOW + BYTES - 512, 1024));
    assert_eq!(host.run(&mut pair, read).status().bare(), status::INVALID_USE_OF_CMB);
    let after = with_data(Sqe::read(1, 0, 2), WINDOW + BYTES, 0);
    assert_eq!(host.run(&mut pair, after).status(), Status::SUCCESS);
}
