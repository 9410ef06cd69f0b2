//! The emulator over its real socket, driven by a client that was not written for it.
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nvio_emulator::{Backing, DeviceFault, Emulator, Fault, Faults, NamespaceConfig, Rule};
use nvio_spec::register::{CC, CSTS, Cc, Csts, sq_tail_doorbell};
use nvio_spec::{IdentifyController, IdentifyNamespace, Sqe, Status, cns, status};
use nvio_testkit::host::{self, DATA, Host, IOVA, LIST};
use zerocopy::FromBytes;

fn memory(bytes: u64) -> Emulator {
    let namespace = NamespaceConfig::new(Backing::memory(bytes)).block_size(4096);
    Emulator::builder().namespace(namespace).start().unwrap()
}

fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| seed.wrapping_add((i as u8).wrapping_mul(31)) ^ (i >> 8) as u8).collect()
}

fn with_data(mut sqe: Sqe, prp1: u64, prp2: u64) -> Sqe {
    sqe.prp1 = prp1.into();
    sqe.prp2 = prp2.into();
    sqe
}

#[test]
fn a_host_identifies_writes_and_reads() {
    let emulator = memory(8 << 20);
    let mut host = Host::connect(emulator.socket());
    let cqe = host.admin(with_data(Sqe::identify(cns::CONTROLLER, 0), DATA, 0));
    assert_eq!(cqe.status(), Status::SUCCESS);
    let bytes = host.read(DATA, 4096);
    let identify = IdentifyController::read_from_bytes(&bytes).unwrap();
    assert_eq!(identify.model(), "nvio embedded controller");
    assert_eq!((identify.nn.get(), identify.max_transfer(12)), (1, Some(128 << 10)));
    // An offset in the first page: the structure ends in the second.
    let namespace = Sqe::identify(cns::NAMESPACE, 1);
    let cqe = host.admin(with_data(namespace, DATA + 0x800, DATA + 0x3000));
    assert_eq!(cqe.status(), Status::SUCCESS);
    let bytes = [host.read(DATA + 0x800, 2048), host.read(DATA + 0x3000, 2048)].concat();
    let identify = IdentifyNamespace::read_from_bytes(&bytes).unwrap();
    assert_eq!((identify.nsze.get(), identify.format().lbads), (2048, 12));

    let mut queue = host.create_queue(1, 64, None);
    let data = pattern(1, 128 << 10);
    host.write(DATA, &data);
    let pages = |at: u64| (1..32).flat_map(move |i| (at + i * 4096).to_le_bytes());
    host.write(LIST, &pages(DATA).collect::<Vec<u8>>());
    let cqe = host.run(&mut queue, with_data(Sqe::write(1, 100, 32), DATA, LIST));
    assert_eq!(cqe.status(), Status::SUCCESS);
    let back = DATA + (1 << 20);
    host.write(LIST, &pages(back).collect::<Vec<u8>>());
    let cqe = host.run(&mut queue, with_data(Sqe::read(1, 100, 32), back, LIST));
    assert_eq!(cqe.status(), Status::SUCCESS);
    assert!(host.read(back, 128 << 10) == data);
    let cqe = host.run(&mut queue, with_data(Sqe::read(1, 2047, 2), back, back + 4096));
    assert_eq!(cqe.status().bare(), status::LBA_OUT_OF_RANGE);
    assert_eq!(host.run(&mut queue, Sqe::flush(1)).status(), Status::SUCCESS);
}

#[test]
fn an_image_is_read_and_written_through() {
    let mut image = tempfile::NamedTempFile::new().unwrap();
    let content = pattern(9, 1 << 20);
    image.write_all(&content).unwrap();
    let namespace = NamespaceConfig::new(Backing::image(image.path(), false));
    let emulator = Emulator::builder().namespace(namespace).start().unwrap();
    let mut host = Host::connect(emulator.socket());
    let mut queue = host.create_queue(1, 64, None);
    for block in [0u64, 2000, 7, 8, 2047] {
        let cqe = host.run(&mut queue, with_data(Sqe::read(1, block, 1), DATA + 512, 0));
        assert_eq!(cqe.status(), Status::SUCCESS);
        let at = block as usize * 512;
        assert!(host.read(DATA + 512, 512) == content[at..at + 512], "block {block}");
    }
    host.write(DATA, &[0xee; 512]);
    let cqe = host.run(&mut queue, with_data(Sqe::write(1, 2047, 1), DATA, 0));
    assert_eq!(cqe.status(), Status::SUCCESS);
    drop((host, emulator));
    let after = std::fs::read(image.path()).unwrap();
    assert_eq!(after[..2047 * 512], content[..2047 * 512]);
    assert_eq!(after[2047 * 512..], [0xee; 512]);
}

#[test]
fn queues_wrap_many_times_with_many_commands_in_flight() {
    let emulator = memory(4 << 20);
    let mut host = Host::connect(emulator.socket());
    let mut queue = host.create_queue(1, 16, None);
    let (mut submitted, mut completed) = (0u32, 0u32);
    let deadline = Instant::now() + Duration::from_secs(60);
    while completed < 5000 {
        while submitted < 5000 && submitted - completed < 15 {
            let lba = u64::from(submitted % 1024);
            host.push(&mut queue, with_data(Sqe::read(1, lba, 1), DATA, 0));
            submitted += 1;
        }
        host.ring(&queue);
        while let Some(cqe) = host.poll(&mut queue) {
            completed += 1;
            assert_eq!(u32::from(cqe.cid.get()), completed);
            assert_eq!(cqe.status(), Status::SUCCESS);
        }
        host.release(&queue);
        assert!(Instant::now() < deadline);
    }
}

#[test]
fn a_full_completion_queue_holds_commands_back() {
    let emulator = memory(1 << 20);
    let mut host = Host::connect(emulator.socket());
    // A completion queue of 4 entries below a submission queue of 64.
    let mut queue = host.create_queue(1, 64, None);
    assert!(host.admin(Sqe::delete_io_sq(1)).status().is_success());
    assert!(host.admin(Sqe::delete_io_cq(1)).status().is_success());
    let (sq, cq) = (IOVA + (256 << 10), IOVA + (384 << 10));
    assert!(host.admin(Sqe::create_io_cq(1, 4, cq, None)).status().is_success());
    assert!(host.admin(Sqe::create_io_sq(1, 64, sq, 1)).status().is_success());
    for _ in 0..10 {
        host.push(&mut queue, Sqe::flush(1));
    }
    host.ring(&queue);
    std::thread::sleep(Duration::from_millis(50));
    let filled = host.read(cq, 64).chunks(16).filter(|entry| entry[14] & 1 != 0).count();
    assert_eq!(filled, 3);
}

#[test]
fn doorbells_work_as_messages_too() {
    let emulator = memory(1 << 20);
    let mut host = Host::connect(emulator.socket());
    let mut queue = host.create_queue(1, 64, None);
    host.push(&mut queue, Sqe::flush(1));
    host.write_register(sq_tail_doorbell(1, 4), 1);
    assert_eq!(host.wait(&mut queue).status(), Status::SUCCESS);
    assert_eq!(host.read_register(sq_tail_doorbell(1, 4)), 1);
}

#[test]
fn interrupts_reach_the_vector_of_the_queue() {
    let emulator = memory(1 << 20);
    let mut host = Host::connect(emulator.socket());
    let event =
        File::from(rustix::event::eventfd(0, rustix::event::EventfdFlags::empty()).unwrap());
    assert_eq!(host.client.get_irq_info(2).unwrap().count, 65);
    // Data eventfd, action trigger.
    host.client.set_irqs(2, 1 << 2 | 1 << 5, 3, 1, &[event.as_raw_fd()]).unwrap();
    let mut queue = host.create_queue(1, 64, Some(3));
    host.push(&mut queue, Sqe::flush(1));
    host.ring(&queue);
    let mut count = [0; 8];
    (&event).read_exact(&mut count).unwrap();
    assert_eq!(u64::from_ne_bytes(count), 1);
    assert!(host.poll(&mut queue).is_some());
}

#[test]
fn a_second_client_is_refused_and_the_first_does_not_notice() {
    let emulator = memory(1 << 20);
    let mut host = Host::connect(emulator.socket());
    for _ in 0..3 {
        assert!(vfio_user::Client::new(emulator.socket()).is_err());
    }
    let mut queue = host.create_queue(1, 64, None);
    assert_eq!(host.run(&mut queue, Sqe::flush(1)).status(), Status::SUCCESS);
}

#[test]
fn a_client_may_come_after_one_that_left_in_any_state() {
    let emulator = memory(1 << 20);
    for round in 0..10 {
        let mut host = Host::connect(emulator.socket());
        let mut queue = host.create_queue(1, 64, None);
        let block = pattern(round, 4096);
        if round > 0 {
            // What is stored outlives the client.
            let cqe = host.run(&mut queue, with_data(Sqe::read(1, 7, 1), DATA, 0));
            assert_eq!(cqe.status(), Status::SUCCESS);
            assert!(host.read(DATA, 4096) == pattern(round - 1, 4096));
        }
        host.write(DATA, &block);
        let cqe = host.run(&mut queue, with_data(Sqe::write(1, 7, 1), DATA, 0));
        assert_eq!(cqe.status(), Status::SUCCESS);
        // Commands are in flight when the connection goes.
        for _ in 0..20 {
            host.push(&mut queue, with_data(Sqe::read(1, 0, 1), DATA + 8192, 0));
        }
        host.ring(&queue);
    }
    let mut host = vfio_user::Client::new(emulator.socket()).unwrap();
    let mut registers = [0; 8];
    host.region_read(0, CC, &mut registers[..4]).unwrap();
    host.region_read(0, CSTS, &mut registers[4..]).unwrap();
    assert_eq!(registers, [0; 8]);
}

/// Set for a copy of this program that is a client to be killed.
const VICTIM: &str = "NVIO_TEST_VICTIM_SOCKET";

#[test]
fn a_client_may_come_after_one_that_was_killed() {
    let emulator = memory(1 << 20);
    for _ in 0..3 {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "socket::victim", "--nocapture"])
            .env(VICTIM, emulator.socket())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("busy")));
        // The first client is connected, with I/O in flight.
        assert!(vfio_user::Client::new(emulator.socket()).is_err());
        victim.kill().unwrap();
        victim.wait().unwrap();
        let mut host = Host::connect(emulator.socket());
        let mut queue = host.create_queue(1, 64, None);
        assert_eq!(host.run(&mut queue, Sqe::flush(1)).status(), Status::SUCCESS);
    }
}

/// Not a test of its own: the client of the test above, in a process of its own. Without the
/// variable there is nothing to do.
#[test]
fn victim() {
    let Some(socket) = std::env::var_os(VICTIM) else { return };
    let mut host = Host::connect(socket.as_ref());
    let mut queue = host.create_queue(1, 64, None);
    println!("busy");
    loop {
        host.run(&mut queue, with_data(Sqe::read(1, 0, 1), DATA, 0));
    }
}

/// Processor time that the polling thread of this process has used, in clock ticks.
fn polling_ticks() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let stats =
        tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).ok());
    let polling = stats.filter(|stat| stat.contains("(nvio-emu-poll)"));
    let ticks = polling.map(|stat| {
        let fields = stat.rsplit(')').next().unwrap().split_whitespace();
        fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>()
    });
    ticks.sum()
}

#[test]
fn an_idle_controller_leaves_the_processor_alone() {
    // In a process of its own, as other tests have emulators that are busy.
    let Some(socket) = std::env::var_os(IDLER) else {
        let test = "socket::an_idle_controller_leaves_the_processor_alone";
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(IDLER, "1")
            .status();
        return assert!(status.unwrap().success());
    };
    assert_eq!(socket, "1");
    let emulator = memory(1 << 20);
    let mut host = Host::connect(emulator.socket());
    let mut queue = host.create_queue(1, 64, None);
    assert_eq!(host.run(&mut queue, Sqe::flush(1)).status(), Status::SUCCESS);
    std::thread::sleep(Duration::from_millis(50));
    let before = polling_ticks();
    std::thread::sleep(Duration::from_secs(2));
    let used = polling_ticks() - before;
    println!("enabled and idle: {used} ticks of 10 ms in 2 s");
    assert!(used < 40, "{used} of 200 ticks");
    host.disable();
    let before = polling_ticks();
    std::thread::sleep(Duration::from_millis(500));
    assert!(polling_ticks() - before <= 1, "a disabled controller is not polled");
}

/// Set for a copy of this program that measures an idle emulator.
const IDLER: &str = "NVIO_TEST_IDLER";

#[test]
fn bus_mastering_is_needed() {
    let emulator = memory(1 << 20);
    let mut host = Host::connect(emulator.socket());
    let mut queue = host.create_queue(1, 64, None);
    host.client.region_write(7, 4, &0x0002u16.to_le_bytes()).unwrap();
    host.push(&mut queue, Sqe::flush(1));
    host.ring(&queue);
    std::thread::sleep(Duration::from_millis(20));
    assert!(host.poll(&mut queue).is_none());
    host.client.region_write(7, 4, &0x0006u16.to_le_bytes()).unwrap();
    assert_eq!(host.wait(&mut queue).status(), Status::SUCCESS);
}

#[test]
fn memory_unmapped_under_a_queue_is_fatal_until_a_reset() {
    let emulator = memory(1 << 20);
    let mut host = Host::connect(emulator.socket());
    let mut queue = host.create_queue(1, 64, None);
    host.client.dma_unmap(IOVA, host::ARENA as u64).unwrap();
    host.push(&mut queue, Sqe::flush(1));
    host.ring(&queue);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !Csts(host.read_register(CSTS)).fatal() {
        assert!(Instant::now() < deadline);
    }
    let fd = host.file().as_raw_fd();
    host.client.dma_map(0, IOVA, host::ARENA as u64, fd).unwrap();
    host.disable();
    host.enable();
    let mut queue = host.create_queue(1, 64, None);
    assert_eq!(host.run(&mut queue, Sqe::flush(1)).status(), Status::SUCCESS);
    let cc = Cc(host.read_register(CC)).shutdown();
    host.write_register(CC, cc.0);
    assert!(Csts(host.read_register(CSTS)).shutdown_complete());
}

#[test]
fn a_mapping_over_another_is_refused_with_its_errno() {
    let emulator = memory(1 << 20);
    let stream = UnixStream::connect(emulator.socket()).unwrap();
    exchange(&stream, 1, b"\0\0\x01\0{\"capabilities\":{}}\0");
    // No descriptor: EINVAL, in the reply and not 0.
    let (flags, errno, _) = exchange(&stream, 2, &[0; 32]);
    assert_eq!((flags, errno), (1 | 1 << 5, 22));
    // A mapping that is not there: ENOENT.
    let (flags, errno, _) = exchange(&stream, 3, &sized(24));
    assert_eq!((flags, errno), (1 | 1 << 5, 2));
    let (flags, _, info) = exchange(&stream, 4, &sized(16));
    assert_eq!((flags, info.len()), (1, 16));
}

/// A body of `bytes` bytes that are zero but for argsz, which is their number.
fn sized(bytes: u32) -> Vec<u8> {
    let mut body = bytes.to_ne_bytes().to_vec();
    body.resize(bytes as usize, 0);
    body
}

/// Sends one message and receives its reply: flags, errno and body.
fn exchange(mut stream: &UnixStream, command: u16, body: &[u8]) -> (u32, u32, Vec<u8>) {
    let mut message = [7u16.to_ne_bytes(), command.to_ne_bytes()].concat();
    message.extend_from_slice(&(16 + body.len() as u32).to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(body);
    stream.write_all(&message).unwrap();
    let mut header = [0; 16];
    stream.read_exact(&mut header).unwrap();
    let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
    let mut body = vec![0; word(4) as usize - 16];
    stream.read_exact(&mut body).unwrap();
    (word(8), word(12), body)
}

#[test]
fn malformed_messages_end_that_connection_only() {
    let emulator = memory(1 << 20);
    let version = b"\0\0\x01\0{\"capabilities\":{}}\0";
    let attacks: [&dyn Fn(&mut UnixStream); 6] = [
        // A version without its NUL, which panics the server of the crate.
        &|stream| drop(exchange(stream, 1, b"\0\0\x01\0{}")),
        // Not JSON.
        &|stream| drop(exchange(stream, 1, b"\0\0\x01\0nonsense\0")),
        // A size below that of the header, and one of 4 GiB.
        &|stream| stream.write_all(&[1, 0, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap(),
        &|stream| {
            stream.write_all(&[1, 0, 1, 0, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        },
        // A read of 4 GiB, a write with less data than it says, an access to no region.
        &|stream| {
            exchange(stream, 1, version);
            for (region, count) in [(0u32, u32::MAX), (7, 8), (9, 4), (u32::MAX, 0)] {
                let mut body = vec![0; 8];
                body.extend_from_slice(&region.to_ne_bytes());
                body.extend_from_slice(&count.to_ne_bytes());
                for command in [9, 10] {
                    if (command, region) != (9, 7) {
                        let (flags, errno, _) = exchange(stream, command, &body);
                        assert_eq!((flags, errno), (1 | 1 << 5, 22), "{command} {region}");
                    }
                }
            }
            // The connection is still good.
            assert_eq!(exchange(stream, 4, &sized(16)).0, 1);
        },
        // Half a message.
        &|stream| {
            exchange(stream, 1, version);
            stream.write_all(&[1, 0, 9, 0, 32, 0]).unwrap();
        },
    ];
    for attack in attacks {
        let mut stream = UnixStream::connect(emulator.socket()).unwrap();
        attack(&mut stream);
        drop(stream);
        Host::connect(emulator.socket());
    }
}

#[test]
fn dropping_the_emulator_closes_the_connection_and_removes_the_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nvme.sock");
    let namespace = || NamespaceConfig::new(Backing::null(1 << 30));
    let start = || Emulator::builder().namespace(namespace()).socket(&path).start();
    let emulator = start().unwrap();
    assert_eq!(emulator.socket(), path);
    assert!(start().is_err());
    let mut stream = UnixStream::connect(&path).unwrap();
    exchange(&stream, 1, b"\0\0\x01\0{\"capabilities\":{}}\0");
    let began = Instant::now();
    drop(emulator);
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
    assert!(!path.exists());
    start().unwrap();
}

/// The cost of a command without its data: commands a second on the null backing at depth 128,
/// one doorbell for each batch. The figure is printed; what is asserted is only that all of them
/// complete, since machines differ.
#[test]
fn null_backing_throughput_at_depth_128() {
    let namespace = NamespaceConfig::new(Backing::null(1 << 30)).block_size(4096);
    let emulator = Emulator::builder().namespace(namespace).start().unwrap();
    let mut host = Host::connect(emulator.socket());
    let mut queue = host.create_queue(1, 256, None);
    let total = if cfg!(debug_assertions) { 200_000u32 } else { 4_000_000 };
    let (mut submitted, mut completed) = (0u32, 0u32);
    let began = Instant::now();
    while completed < total {
        let batch = (128 - (submitted - completed)).min(total - submitted);
        if batch >= 32 || submitted + batch == total {
            for _ in 0..batch {
                let lba = u64::from(submitted) & 0x3_ffff;
                host.push(&mut queue, with_data(Sqe::read(1, lba, 1), DATA, 0));
                submitted += 1;
            }
            host.ring(&queue);
        }
        let before = completed;
        while let Some(cqe) = host.poll(&mut queue) {
            assert!(cqe.status().is_success());
            completed += 1;
        }
        if completed != before {
            host.release(&queue);
        } else {
            assert!(began.elapsed() < Duration::from_secs(120));
            std::hint::spin_loop();
        }
    }
    let rate = f64::from(total) / began.elapsed().as_secs_f64();
    println!("null backing, 4 KiB reads, depth 128: {rate:.0} commands a second");
}

#[test]
fn faults_happen_in_real_time_and_on_demand() {
    let late = Rule::new(Fault::Late(Duration::from_millis(30))).nth(2);
    let namespace = NamespaceConfig::new(Backing::memory(1 << 20));
    let faults = Faults::new().rule(late);
    let emulator = Emulator::builder().namespace(namespace).faults(faults).start().unwrap();
    let mut host = Host::connect(emulator.socket());
    let mut queue = host.create_queue(1, 64, None);
    for (least, most) in [(0, 10_000), (30, 10_000), (0, 10_000)] {
        let started = Instant::now();
        let cqe = host.run(&mut queue, with_data(Sqe::read(1, 0, 1), DATA, 0));
        assert_eq!(cqe.status(), Status::SUCCESS);
        let took = started.elapsed().as_millis();
        assert!((least..most).contains(&took), "{took} ms");
    }
    emulator.inject(DeviceFault::StuckReady(Duration::from_millis(30)));
    let started = Instant::now();
    host.write_register(CC, 0);
    assert!(Csts(host.read_register(CSTS)).ready());
    while Csts(host.read_register(CSTS)).ready() {
        assert!(started.elapsed() < Duration::from_secs(10));
    }
    assert!(started.elapsed() >= Duration::from_millis(30));
    host.enable();
    emulator.inject(DeviceFault::Removed);
    assert!(Csts(host.read_register(CSTS)).gone());
    let mut config = [0; 4];
    host.client.region_read(7, 0, &mut config).unwrap();
    assert_eq!(config, [0xff; 4]);
    assert_eq!(emulator.fault_counts().device, 2);
    // The next client finds it there.
    drop(host);
    Host::connect(emulator.socket());
}

#[test]
fn a_power_cut_under_a_client_loses_unflushed_blocks() {
    let namespace = NamespaceConfig::new(Backing::memory(1 << 20));
    let emulator = Emulator::builder().namespace(namespace).write_cache(64 << 10).start().unwrap();
    let mut host = Host::connect(emulator.socket());
    let mut queue = host.create_queue(1, 64, None);
    host.write(DATA, &[7; 8192]);
    for (lba, flush) in [(0, true), (8, false)] {
        let write = with_data(Sqe::write(1, lba, 8), DATA, 0);
        assert_eq!(host.run(&mut queue, write).status(), Status::SUCCESS);
        if flush {
            assert_eq!(host.run(&mut queue, Sqe::flush(1)).status(), Status::SUCCESS);
        }
    }
    emulator.power_cut(11);
    assert_eq!(host.read_register(CSTS), 0);
    host.enable();
    let mut queue = host.create_queue(1, 64, None);
    let read = with_data(Sqe::read(1, 0, 16), DATA, DATA + 4096);
    assert_eq!(host.run(&mut queue, read).status(), Status::SUCCESS);
    let data = host.read(DATA, 8192);
    assert!(data[..4096] == [7; 4096], "flushed");
    let kept = data[4096..].chunks(512).filter(|block| **block == [7; 512]).count();
    let lost = data[4096..].chunks(512).filter(|block| **block == [0; 512]).count();
    assert!(kept + lost == 8 && kept > 0 && lost > 0, "{kept} kept, {lost} lost");
}
