//! nvio and peers that use vfio-user as SPDK does, on both ends: the same bytes, no refusal and no
//! reset.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nvio_driver::spec::{IdentifyController, IdentifyNamespace, Sqe, Status, cns, status};
use nvio_driver::{Controller, Options, QueuePair, Wait};
use nvio_emulator::{Backing, Config, Emulator, NamespaceConfig, Service};
use nvio_testkit::controller;
use nvio_testkit::host::{DATA, Host, LIST};
use nvio_testkit::random::pattern;
use nvio_testkit::spdk::{self, SpdkClient};
use nvio_tests::nvio;
use zerocopy::FromBytes;

const BLOCK: u64 = 4096;
/// Bytes of one transfer: 32 blocks, and a PRP list.
const LENGTH: usize = 128 << 10;
/// Memory space, bus mastering and Interrupt Disable: the bits that SPDK's client sets.
const COMMAND: u16 = 0x0406;

fn builder(bytes: u64) -> Config {
    Emulator::builder().namespace(NamespaceConfig::new(Backing::memory(bytes)).block_size(4096))
}

/// Brings the controller up as SPDK's client does, identifies it, checks that `before` is at block
/// 32 and leaves `after` there.
fn use_as_spdk(socket: &Path, before: &[u8], after: &[u8]) {
    let mut host = Host::new(SpdkClient::connect(socket), COMMAND);
    let identify = |host: &mut Host<SpdkClient>, cns, nsid| {
        let cqe = host.admin(with_data(Sqe::identify(cns, nsid), 0));
        assert_eq!(cqe.status(), Status::SUCCESS);
        host.read(DATA, 4096)
    };
    let page = identify(&mut host, cns::CONTROLLER, 0);
    assert_eq!(IdentifyController::read_from_bytes(&page).unwrap().nn.get(), 1);
    let page = identify(&mut host, cns::NAMESPACE, 1);
    assert_eq!(IdentifyNamespace::read_from_bytes(&page).unwrap().format().lbads, 12);
    let pages = (1..32).flat_map(|page: u64| (DATA + page * BLOCK).to_le_bytes());
    host.write(LIST, &pages.collect::<Vec<u8>>());
    let mut queue = host.create_queue(1, 64, None);
    let read = with_data(Sqe::read(1, 32, 32), LIST);
    let write = with_data(Sqe::write(1, 32, 32), LIST);
    assert_eq!(host.run(&mut queue, read).status(), Status::SUCCESS);
    assert!(host.read(DATA, LENGTH) == before);
    host.write(DATA, after);
    assert_eq!(host.run(&mut queue, write).status(), Status::SUCCESS);
    host.clear(DATA, LENGTH);
    assert_eq!(host.run(&mut queue, read).status(), Status::SUCCESS);
    assert!(host.read(DATA, LENGTH) == after);
    assert!(host.admin(Sqe::delete_io_sq(1)).status().is_success());
    assert!(host.admin(Sqe::delete_io_cq(1)).status().is_success());
    host.disable();
}

fn with_data(mut sqe: Sqe, prp2: u64) -> Sqe {
    (sqe.prp1, sqe.prp2) = (DATA.into(), prp2.into());
    sqe
}

/// One client after another on one endpoint. The next connects at once.
fn use_several_times(socket: &Path) {
    let mut before = vec![0; LENGTH];
    for client in 0..5 {
        let after = pattern(client, LENGTH);
        use_as_spdk(socket, &before, &after);
        before = after;
    }
}

#[test]
fn spdk_clients_use_the_emulator_one_after_another() {
    use_several_times(builder(1 << 20).start().unwrap().socket());
    // They disable INTx before the first completion, as SPDK's target requires.
    use_several_times(spdk::target(builder(1 << 20)).socket());
}

/// `nvio emulate`; killed when it is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn spdk_clients_use_nvio_emulate_one_after_another() {
    let folder = tempfile::tempdir().unwrap();
    for option in [None, Some("--intx")] {
        let socket = folder.path().join("nvme");
        let child = Command::new(nvio::binary())
            .args(["emulate", "memory:1M", "--lba-size", "4096", "--writable", "--socket"])
            .arg(&socket)
            .args(option)
            .stdout(Stdio::piped())
            .spawn();
        let mut server = Server(child.unwrap());
        let mut ready = String::new();
        BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert!(ready.starts_with("serving 1 namespace"), "{ready:?}");
        use_several_times(&socket);
    }
}

/// Writes every block and reads it back several times, with every slot of a queue pair in use.
fn use_as_nvio(controller: &Controller, seed: u64) {
    let namespace = controller.writable().unwrap().writable_namespace(1).unwrap();
    let mut queue: QueuePair<u64> = controller.queue_pair(32).unwrap();
    let blocks = namespace.blocks();
    let content = |lba: u64| pattern(seed + lba, BLOCK as usize);
    for lba in 0..blocks {
        let mut buf = controller.alloc(BLOCK as usize).unwrap();
        buf.copy_from_slice(&content(lba));
        queue.write(&namespace, lba, buf, lba).unwrap();
        if queue.in_flight() == queue.capacity() {
            queue.wait(|done| assert!(done.status.is_success())).unwrap();
        }
    }
    while queue.in_flight() > 0 {
        queue.wait(|done| assert!(done.status.is_success())).unwrap();
    }
    let (mut submitted, mut completed) = (0, 0);
    while completed < 4 * blocks {
        while submitted < 4 * blocks && queue.in_flight() < queue.capacity() {
            let (lba, buf) = (submitted * 7 % blocks, controller.alloc(BLOCK as usize).unwrap());
            queue.read(&namespace, lba, buf, lba).unwrap();
            submitted += 1;
        }
        let wait = queue.wait(|done| {
            assert!(done.status.is_success());
            assert!(done.buf[..] == content(done.context), "block {}", done.context);
        });
        completed += wait.unwrap() as u64;
    }
    let counters = queue.counters();
    assert_eq!((counters.resets, counters.errors, counters.stale), (0, 0, 0));
}

#[test]
fn nvio_uses_an_spdk_target_without_a_reset() {
    let target = spdk::target(builder(1 << 20));
    for client in 0..5 {
        use_as_nvio(&controller::open_with(&target, controller::writable()), client << 32);
    }
    assert_eq!(target.fault_counts().device, 0);
}

/// Reads block 0 asleep, until 20 waits have slept. Each command takes 2 ms, so only a thread that
/// waits for the machine longer than that does not sleep.
fn read_asleep(controller: &Controller, queue: &mut QueuePair<u64>) {
    let namespace = controller.namespace(1).unwrap();
    let before = queue.counters();
    let mut reads = 0;
    while queue.counters().sleeps - before.sleeps < 20 {
        assert!(reads < 1000, "{:?}", queue.counters());
        queue.read(&namespace, 0, controller.alloc(BLOCK as usize).unwrap(), reads).unwrap();
        assert_eq!(queue.wait(|done| assert!(done.status.is_success())).unwrap(), 1);
        reads += 1;
    }
    assert_eq!(queue.counters().missed_interrupts, 0);
}

#[test]
fn nvio_sleeps_on_the_interrupts_of_an_spdk_target() {
    let slow = Service::new().latency(Duration::from_millis(2));
    let target = spdk::target(builder(1 << 20).service(slow));
    // A client that polls finds interrupts disabled after one that has slept.
    for wait in [Wait::Interrupt { spin: Duration::ZERO }, Wait::Poll] {
        let options = Options { wait, ..controller::writable() };
        let controller = controller::open_with(&target, options);
        if wait == Wait::Poll {
            use_as_nvio(&controller, 1);
            continue;
        }
        let mut queue: QueuePair<u64> = controller.queue_pair(4).unwrap();
        assert!(queue.event_fd().is_some());
        read_asleep(&controller, &mut queue);
        // A command that the queue submits before it notices the reset is aborted.
        controller.reset().unwrap();
        let namespace = controller.namespace(1).unwrap();
        queue.read(&namespace, 0, controller.alloc(BLOCK as usize).unwrap(), 0).unwrap();
        queue.wait(|done| assert_eq!(done.status, status::ABORTED_BY_HOST)).unwrap();
        read_asleep(&controller, &mut queue);
    }
    assert_eq!(target.fault_counts().device, 0);
}

#[test]
fn each_thread_uses_a_fresh_spdk_target() {
    thread::scope(|scope| {
        for seed in 0..2 {
            scope.spawn(move || {
                let target = spdk::target(builder(1 << 20));
                use_as_nvio(&controller::open_with(&target, controller::writable()), seed << 40);
            });
        }
    });
}

#[test]
fn a_client_that_leaves_intx_enabled_fails_an_spdk_target() {
    use nvio_driver::spec::register::{CSTS, Csts};
    let target = spdk::target(builder(1 << 20));
    let mut host = Host::new(SpdkClient::connect(target.socket()), 0x0006);
    assert!(!Csts(host.read_register(CSTS)).fatal());
    host.admin(with_data(Sqe::identify(cns::CONTROLLER, 0), 0));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !Csts(host.read_register(CSTS)).fatal() {
        assert!(std::time::Instant::now() < deadline, "CSTS.CFS stays clear");
    }
    drop(host);
    // The next client, which disables INTx, finds a good controller.
    use_as_spdk(target.socket(), &vec![0; LENGTH], &pattern(1, LENGTH));
}
