//! Reads and overwrites as futures on the embedded controller: many in flight on one file, and
//! dropped before completion.

use crate::common;

use std::fs;
use std::future::poll_fn;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use common::{Rng, assert_clean, mke2fs, pattern, run};
use futures_util::future::join_all;
use nvio_driver::{Arena, DmaBuf, DmaMemory, Options, Wait};
use nvio_emulator::{Backing, Emulator, NamespaceConfig, Service};
use nvio_ext4::{
    AsyncFile, AsyncFileQueue, Error, FileQueue, Filesystem, QueueSource, WritableFile,
};
use nvio_iomap::{DiskQueue, DiskReader, IoArgs, IoFlags, WritableDisk};
use nvio_testkit::controller;

const SIZE: usize = 4_000_000;
const DEPTH: u16 = 16;

struct Served {
    queue: AsyncFileQueue<WritableDisk>,
    file: AsyncFile<WritableFile>,
    fs: Filesystem,
    /// A separate arena, so that lost memory is detected.
    arena: Arena,
    _served: controller::Served,
}

impl Served {
    fn new(image: &Path) -> Self {
        Self::with(image, Options::default(), Service::new())
    }

    fn with(image: &Path, options: Options, service: Service) -> Self {
        let namespace = NamespaceConfig::new(Backing::image(image, false));
        let builder = Emulator::builder().namespace(namespace).mdts(Some(3)).service(service);
        let served = controller::Served::start(builder, Options { writable: true, ..options });
        let controller = &served.controller;
        let arena = controller.register(DmaMemory::new(8 << 20).unwrap()).unwrap();
        let namespace = served.writable_namespace();
        let disk = WritableDisk::whole(&namespace);
        let source = QueueSource::new(DiskReader::new(controller, &disk, 16).unwrap());
        let fs = Filesystem::open(source).unwrap();
        let writable = fs.writable().unwrap();
        let file = writable.writable_file(&fs.lookup(b"/file").unwrap()).unwrap();
        let queue = FileQueue::new(DiskQueue::new(controller, &disk, DEPTH).unwrap());
        Self {
            queue: AsyncFileQueue::new(queue),
            file: AsyncFile::new(file),
            fs,
            arena,
            _served: served,
        }
    }

    fn buf(&self, bytes: usize) -> DmaBuf {
        self.arena.alloc(bytes).unwrap()
    }

    fn in_flight(&self) -> usize {
        self.file.file().borrow().in_flight()
    }

    fn has_all_memory(&self) -> bool {
        self.arena.alloc(self.arena.size()).is_ok()
    }
}

/// Creates an image with one file.
fn image(dir: &Path) -> (std::path::PathBuf, Vec<u8>) {
    let (source, image) = (dir.join("source"), dir.join("image"));
    fs::create_dir(&source).unwrap();
    let content = pattern(5, SIZE);
    fs::write(source.join("file"), &content).unwrap();
    mke2fs(&image, "32M", &["-t", "ext4", "-b", "1024"], Some(&source));
    (image, content)
}

#[test]
fn many_reads_and_writes_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (image, mut content) = image(dir.path());
    let served = Served::new(&image);
    let (here, queue, file) = (&served, &served.queue, &served.file);
    let mut random = Rng::new(99);
    for round in 0..20 {
        // Several pieces of the file, each written and read back by one future.
        let piece = 512 << random.below(7);
        let mut pieces: Vec<(usize, Vec<u8>)> = (0..SIZE / piece)
            .filter(|_| random.below(3) == 0)
            .map(|at| (at * piece, pattern(round * 100_000 + at as u64, piece)))
            .take(300)
            .collect();
        for at in (1..pieces.len()).rev() {
            pieces.swap(at, random.below(at as u64 + 1) as usize);
        }
        let both = pieces.iter().enumerate().map(|(index, (pos, data))| async move {
            let flags = [IoFlags::empty(), IoFlags::BOUNCE, IoFlags::DSYNC][index % 3];
            let io = IoArgs::at(*pos as u64).flags(flags);
            let n = if index % 2 == 0 {
                let mut buf = here.buf(data.len());
                buf.copy_from_slice(data);
                file.write(queue, io, buf).await.unwrap().1
            } else {
                file.write(queue, io, data.clone()).await.unwrap().1
            };
            assert_eq!(n, data.len());
            let io = IoArgs::at(*pos as u64 + 1);
            let (memory, n) = file.read(queue, io, vec![0; data.len() - 1]).await.unwrap();
            assert_eq!(n, data.len() - 1);
            assert!(memory.into_bytes().unwrap() == data[1..]);
        });
        queue.block_on(join_all(both));
        for (pos, data) in &pieces {
            content[*pos..*pos + data.len()].copy_from_slice(data);
        }
        let all = queue.block_on(file.read(queue, IoArgs::at(0), vec![0; SIZE])).unwrap();
        assert!(all.1 == SIZE && all.0.into_bytes().unwrap() == content);
    }
    assert_eq!((served.in_flight(), queue.in_flight(), served.fs.io_errors()), (0, 0, 0));
    assert!(served.has_all_memory());
    drop(served);
    assert_clean(&image);
    let dump = dir.path().join("dump");
    run("debugfs", &["-R", &format!("dump /file {}", dump.display()), image.to_str().unwrap()]);
    assert!(fs::read(dump).unwrap() == content);
}

#[test]
fn dropped_futures_give_their_memory_back() {
    let dir = tempfile::tempdir().unwrap();
    let (image, content) = image(dir.path());
    let served = Served::new(&image);
    let (queue, file) = (&served.queue, &served.file);
    let mut random = Rng::new(7);
    for round in 0..200 {
        let count = 1 + random.below(3 * u64::from(DEPTH));
        let mut reads: Vec<_> = (0..count)
            .map(|_| {
                let bytes = 512 << random.below(8);
                let pos = random.below((SIZE / 512) as u64) * 512;
                (pos, Box::pin(file.read(queue, IoArgs::at(pos), served.buf(bytes))))
            })
            .collect();
        let rounds = random.below(4);
        let mut polled = 0;
        let some = poll_fn(|context| {
            reads.retain_mut(|(pos, read)| match read.as_mut().poll(context) {
                Poll::Pending => true,
                Poll::Ready(done) => {
                    let (memory, n) = done.unwrap();
                    let start = *pos as usize;
                    assert!(memory.into_dma().unwrap()[..n] == content[start..start + n]);
                    false
                }
            });
            polled += 1;
            if polled > rounds { Poll::Ready(()) } else { Poll::Pending }
        });
        queue.block_on(some);
        drop(reads);
        while queue.in_flight() > 0 {
            queue.poll();
        }
        assert_eq!(served.in_flight(), 0, "{round}");
        assert!(served.has_all_memory(), "{round}");
    }
}

#[test]
fn refusals_come_with_the_memory() {
    let dir = tempfile::tempdir().unwrap();
    let (image, _) = image(dir.path());
    let served = Served::new(&image);
    let (queue, file) = (&served.queue, &served.file);
    let past = IoArgs::at(SIZE as u64 / 512 * 512);
    let failed = queue.block_on(file.write(queue, past, served.buf(512))).unwrap_err();
    assert!(matches!(failed.error, Error::PastEnd { .. }), "{failed}");
    assert_eq!(failed.payload.unwrap().len(), 512);
    let unaligned = queue.block_on(file.write(queue, IoArgs::at(1), vec![0; 512])).unwrap_err();
    assert!(unaligned.error.to_string().contains("multiples of the device's 512 bytes"));
    let reader = AsyncFile::new(served.fs.file(file.file().borrow().inode()).unwrap());
    let refused = queue.block_on(queue.write(reader.file(), IoArgs::at(0), served.buf(512)));
    assert!(matches!(refused.unwrap_err().error, Error::ReadOnly { .. }));
    let (_, n) = queue.block_on(reader.read(queue, past, served.buf(512))).unwrap();
    assert_eq!(n, SIZE % 512);
    assert!(served.has_all_memory());
}

#[test]
fn an_event_loop_sleeps_until_a_read_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (image, content) = image(dir.path());
    let wait = Wait::Interrupt { spin: Duration::ZERO };
    let slow = Service::new().latency(Duration::from_millis(20));
    let served = Served::with(&image, Options { wait, ..Options::default() }, slow);
    let queue = &served.queue;
    let event = queue.event_fd().unwrap();
    for pos in [0, 8192, 1 << 20] {
        let mut read = pin!(served.file.read(queue, IoArgs::at(pos as u64), served.buf(4096)));
        let mut context = Context::from_waker(Waker::noop());
        let (mut sleeps, mut polls) = (0, 0);
        let (memory, n) = loop {
            if let Poll::Ready(result) = read.as_mut().poll(&mut context) {
                break result.unwrap();
            }
            if queue.prepare_to_sleep() {
                let mut events = [rustix::event::PollFd::new(&event, rustix::event::PollFlags::IN)];
                let limit = rustix::event::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
                rustix::event::poll(&mut events, Some(&limit)).unwrap();
                sleeps += 1;
            }
            queue.poll();
            polls += 1;
        };
        assert_eq!((n, &memory.into_dma().unwrap()[..]), (4096, &content[pos..pos + 4096]));
        assert!(sleeps > 0 && polls < 10, "{sleeps} sleeps, {polls} polls");
    }
}
