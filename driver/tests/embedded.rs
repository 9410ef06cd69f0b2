//! The driver on the emulator: block sizes, namespaces, transfer limits, queues of every depth,
//! threads, and shutdown.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nvio_driver::{Completion, Controller, Error, Options, QueuePair};
use nvio_emulator::{Backing, Config, Emulator, NamespaceConfig};
use nvio_testkit::controller::{open, open_with};
use nvio_testkit::random::Rng;
use tempfile::TempDir;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// Size of the image of [`Content`].
const SIZE: usize = 4 * MIB;

/// An image of random bytes, and the same bytes in memory.
struct Content {
    _folder: TempDir,
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Content {
    fn new(seed: u64) -> Self {
        let folder = tempfile::Builder::new().prefix("nvio-embedded-").tempdir().unwrap();
        let path = folder.path().join("disk.img");
        let bytes = Rng::new(seed).bytes(SIZE as u64);
        fs::write(&path, &bytes).unwrap();
        Self { _folder: folder, path, bytes }
    }

    fn namespace(&self) -> NamespaceConfig {
        NamespaceConfig::new(Backing::image(&self.path, true))
    }
}

/// Makes random reads from one namespace with a full queue pair, and compares.
fn read_at_random(controller: &Controller, nsid: u32, depth: u16, expected: &[u8], reads: u64) {
    let namespace = controller.namespace(nsid).unwrap();
    let mut queue: QueuePair<u64> = controller.queue_pair(depth).unwrap();
    let block = u64::from(namespace.block_size());
    // The buffers use at most half of the arena.
    let most = (namespace.max_transfer() as u64).min((32 * MIB / usize::from(depth)) as u64);
    let most = (most.min(64 * KIB as u64) / block).max(1);
    let mut rng = Rng::new(u64::from(depth) << 32 | u64::from(nsid));
    let (mut started, mut finished) = (0, 0);
    while finished < reads {
        while started < reads && queue.in_flight() < queue.capacity() {
            let blocks = rng.range(1, most + 1);
            let lba = rng.range(0, namespace.blocks() - blocks + 1);
            let buf = controller.alloc((blocks * block) as usize).unwrap();
            queue.read(&namespace, lba, buf, lba).unwrap();
            started += 1;
        }
        finished += queue
            .wait(|done| {
                assert!(done.status.is_success(), "{:?} at block {}", done.status, done.context);
                let buf = done.buf;
                let start = (done.context * block) as usize;
                assert!(buf[..] == expected[start..start + buf.len()], "block {}", done.context);
            })
            .unwrap() as u64;
    }
    assert_eq!(queue.in_flight(), 0);
    assert_eq!(queue.counters().stale, 0);
}

#[test]
fn every_block_size_gives_the_same_bytes() {
    let content = Content::new(1);
    let sizes = [512, 1024, 2048, 4096, 65_536];
    let builder = sizes.iter().fold(Emulator::builder(), |builder, &size| {
        builder.namespace(content.namespace().block_size(size))
    });
    let emulator = builder.start().unwrap();
    let controller = open(&emulator);
    for (nsid, size) in (1..).zip(sizes) {
        let namespace = controller.namespace(nsid).unwrap();
        assert_eq!((namespace.block_size(), namespace.bytes()), (size, SIZE as u64));
        read_at_random(&controller, nsid, 16, &content.bytes, 200);
    }
}

#[test]
fn namespaces_with_gaps_between_their_ids() {
    let contents = [Content::new(2), Content::new(3), Content::new(4)];
    let ids = [2, 5, 1024];
    let builder = contents.iter().zip(ids).fold(Emulator::builder(), |builder, (content, nsid)| {
        builder.namespace(content.namespace().nsid(nsid))
    });
    let emulator = builder.start().unwrap();
    let controller = open(&emulator);
    assert_eq!(controller.namespace_ids().unwrap(), ids);
    for (content, nsid) in contents.iter().zip(ids) {
        read_at_random(&controller, nsid, 8, &content.bytes, 100);
    }
    for nsid in [1, 3, 1023, 1025] {
        assert!(
            matches!(controller.namespace(nsid), Err(Error::NoNamespace { .. })),
            "namespace {nsid}: {:?}",
            controller.namespace(nsid)
        );
    }
}

#[test]
fn queues_of_every_depth() {
    let content = Content::new(6);
    let emulator = Emulator::builder().namespace(content.namespace()).start().unwrap();
    let controller = open(&emulator);
    for depth in [1, 2, 3, 5, 7, 64, 127, 255, 1000, 4095] {
        read_at_random(&controller, 1, depth, &content.bytes, 3 * u64::from(depth).max(20));
    }
}

#[test]
fn a_controller_with_short_queues() {
    let content = Content::new(7);
    for (entries, capacity) in [(2, 1), (3, 1), (5, 3), (31, 15), (32, 31)] {
        let emulator = Emulator::builder()
            .namespace(content.namespace())
            .max_queue_entries(entries)
            .start()
            .unwrap();
        let controller = open(&emulator);
        let queue: QueuePair<u64> = controller.queue_pair(64).unwrap();
        // The size of a ring is a power of two, and one entry is always free.
        assert_eq!(queue.capacity(), capacity);
        drop(queue);
        read_at_random(&controller, 1, 64, &content.bytes, 200);
    }
}

#[test]
fn a_full_queue_gives_the_command_back() {
    let content = Content::new(8);
    let emulator = Emulator::builder().namespace(content.namespace()).start().unwrap();
    let controller = open(&emulator);
    let namespace = controller.namespace(1).unwrap();
    let mut queue: QueuePair<u64> = controller.queue_pair(4).unwrap();
    for index in 0..queue.capacity() as u64 {
        queue.read(&namespace, index, controller.alloc(512).unwrap(), index).unwrap();
    }
    let refused = queue.read(&namespace, 0, controller.alloc(512).unwrap(), 99).unwrap_err();
    assert!(matches!(refused.error, Error::QueueFull { .. }), "{:?}", refused.error);
    assert_eq!((refused.payload.1, refused.payload.0.len()), (99, 512));
    let mut contexts = Vec::new();
    while queue.in_flight() > 0 {
        queue.wait(|done| contexts.push(done.context)).unwrap();
    }
    contexts.sort_unstable();
    assert_eq!(contexts, [0, 1, 2, 3]);
}

#[test]
fn doorbells_with_a_stride_and_large_host_pages() {
    let content = Content::new(9);
    let configure = |builder: Config| builder.namespace(content.namespace());
    for stride in [4, 8, 64, 4096] {
        let emulator =
            configure(Emulator::builder()).doorbell_stride(stride).max_queues(8).start().unwrap();
        read_at_random(&open(&emulator), 1, 32, &content.bytes, 200);
    }
    for page in [8 * KIB, 64 * KIB] {
        let page = u32::try_from(page).unwrap();
        let emulator = configure(Emulator::builder()).page_sizes(page, page).start().unwrap();
        read_at_random(&open(&emulator), 1, 32, &content.bytes, 200);
    }
}

#[test]
fn queue_pairs_in_threads() {
    let content = Content::new(10);
    let emulator = Emulator::builder()
        .namespace(content.namespace())
        .namespace(content.namespace().block_size(4096))
        .start()
        .unwrap();
    let controller = open(&emulator);
    thread::scope(|scope| {
        for index in 0..6_u16 {
            let (controller, bytes) = (controller.clone(), &content.bytes);
            scope.spawn(move || {
                let nsid = u32::from(index % 2) + 1;
                read_at_random(&controller, nsid, 8 + index, bytes, 1_000);
            });
        }
    });
}

#[test]
fn queue_pairs_run_out_and_come_back() {
    let content = Content::new(11);
    let emulator =
        Emulator::builder().namespace(content.namespace()).max_queues(3).start().unwrap();
    let controller = open(&emulator);
    assert_eq!(controller.granted_queues(), 3);
    for _ in 0..20 {
        let pairs: Vec<QueuePair<u64>> =
            (0..3).map(|_| controller.queue_pair(16).unwrap()).collect();
        assert!(matches!(controller.queue_pair::<u64>(16), Err(Error::NoQueue { .. })));
        drop(pairs);
    }
    read_at_random(&controller, 1, 16, &content.bytes, 100);
}

#[test]
fn commands_that_the_namespace_lacks_are_refused() {
    let content = Content::new(12);
    let emulator = Emulator::builder().namespace(content.namespace()).start().unwrap();
    let controller = open(&emulator);
    let namespace = controller.namespace(1).unwrap();
    let mut queue: QueuePair<u64> = controller.queue_pair(4).unwrap();
    let mut refuse = |lba: u64, bytes: usize| {
        queue.read(&namespace, lba, controller.alloc(bytes).unwrap(), 0).unwrap_err().error
    };
    let blocks = namespace.blocks();
    assert!(matches!(refuse(blocks, 512), Error::OutOfRange { .. }));
    assert!(matches!(refuse(blocks - 1, 1024), Error::OutOfRange { .. }));
    assert!(matches!(refuse(u64::MAX, 512), Error::OutOfRange { .. }));
    assert!(matches!(refuse(0, 100), Error::Misaligned { .. }));
}

#[test]
fn the_arena_is_a_limit_and_gives_back() {
    let content = Content::new(13);
    let emulator = Emulator::builder().namespace(content.namespace()).start().unwrap();
    let options = Options { arena_bytes: 4 * MIB, ..Options::default() };
    let controller = open_with(&emulator, options);
    assert!(matches!(controller.alloc(64 * MIB), Err(Error::ArenaFull { .. })));
    for _ in 0..100 {
        let half = controller.alloc(2 * MIB).unwrap();
        assert!(matches!(controller.alloc(3 * MIB), Err(Error::ArenaFull { .. })));
        drop(half);
    }
    read_at_random(&controller, 1, 4, &content.bytes, 100);
}

#[test]
fn shutdown_and_open_again_many_times() {
    let content = Content::new(14);
    let emulator = Emulator::builder().namespace(content.namespace()).start().unwrap();
    let count = |folder: &str| fs::read_dir(folder).unwrap().count();
    read_at_random(&open(&emulator), 1, 4, &content.bytes, 8);
    for round in 0..50 {
        let controller = open(&emulator);
        read_at_random(&controller, 1, 4, &content.bytes, 8);
        if round % 3 == 0 {
            // Drop the controller with reads in flight.
            let namespace = controller.namespace(1).unwrap();
            let mut queue: QueuePair<u64> = controller.queue_pair(8).unwrap();
            for lba in 0..8 {
                queue.read(&namespace, lba, controller.alloc(4096).unwrap(), lba).unwrap();
            }
            queue.ring();
        }
    }
    drop(emulator);
    // The limits are generous, because other tests of this process open controllers, too. They
    // detect one leak per round.
    let (files, threads) = (count("/proc/self/fd"), count("/proc/self/task"));
    assert!(files < 400 && threads < 60, "{files} descriptors, {threads} threads");
}

#[test]
fn a_controller_that_goes_away_ends_every_wait() {
    let content = Content::new(15);
    let emulator = Emulator::builder().namespace(content.namespace()).start().unwrap();
    let options = Options { io_timeout: Duration::from_secs(2), ..Options::default() };
    let controller = open_with(&emulator, options);
    let namespace = controller.namespace(1).unwrap();
    let mut queue: QueuePair<u64> = controller.queue_pair(4).unwrap();
    drop(emulator);
    let begin = Instant::now();
    queue.read(&namespace, 0, controller.alloc(512).unwrap(), 0).unwrap();
    let mut statuses = vec![];
    assert_eq!(queue.wait(|done| statuses.push(done.status)).unwrap(), 1);
    // Path related: the status is set by the host.
    assert!(matches!(statuses[..], [status] if status.kind() == 3), "{statuses:?}");
    assert!(queue.read(&namespace, 0, controller.arena().alloc(512).unwrap(), 1).is_err());
    drop(queue);
    drop(controller);
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(30), "{took:?}");
}

#[test]
fn a_waiting_call_lets_a_device_of_its_process_work_in_its_thread() {
    let content = Content::new(7);
    let (emulator, stream) = Config::new().namespace(content.namespace()).connect().unwrap();
    let (helper, runs) = (emulator.helper(), Arc::new(AtomicUsize::new(0)));
    let run = {
        let runs = Arc::clone(&runs);
        move || {
            runs.fetch_add(1, Ordering::Relaxed);
            helper.run()
        }
    };
    let controller = Controller::open_local(stream, run, Options::default()).unwrap();
    let namespace = controller.namespace(1).unwrap();
    let mut queue: QueuePair<u64> = controller.queue_pair(8).unwrap();
    let mut read = |lba: u64| {
        queue.read(&namespace, lba, controller.alloc(4 * KIB).unwrap(), lba).unwrap();
        let before = runs.load(Ordering::Relaxed);
        let from = lba as usize * namespace.block_size() as usize;
        let check = |done: Completion<u64>| {
            assert!(done.status.is_success() && done.buf[..] == content.bytes[from..][..4 * KIB]);
        };
        assert_eq!(queue.wait(check).unwrap(), 1);
        runs.load(Ordering::Relaxed) - before
    };
    // The device's own thread may be first, but not each time.
    let helped = (0..1000).filter(|lba| read(*lba) > 0).count();
    assert!(helped > 0, "no call has run the device");
}
