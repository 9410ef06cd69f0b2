//! The I/O path asks for no memory, whichever way a request goes.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use nvio_driver::DmaBuf;
use nvio_iomap::{
    Cursor, Disk, DiskQueue, Error, FileQueue, FileRef, IoArgs, IoFlags, Mapper, Mapping, Memory,
    Op, OpenFile, WritableDisk,
};
use nvio_testkit::controller::Served;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting for each thread.
struct Counting;

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct NoState;

impl OpenFile for NoState {
    type Error = Error;
}

/// Extents of 64 KiB, in reverse.
struct Extents(FileRef<NoState>);

const EXTENT: u64 = 64 << 10;
const SIZE: u64 = 4 << 20;

impl Mapper for Extents {
    type OpenFile = NoState;

    fn open_file(&self) -> &FileRef<NoState> {
        &self.0
    }

    fn size(&self) -> u64 {
        SIZE
    }

    fn block_size(&self) -> u32 {
        4096
    }

    fn begin(&mut self, pos: u64, _length: u64, _op: Op) -> Result<Mapping, Error> {
        let offset = pos & !(EXTENT - 1);
        Ok(Mapping::mapped(offset, EXTENT, SIZE - EXTENT - offset))
    }
}

/// Allocations of the round with the fewest, when what is kept is there. A look at a controller
/// that is slow to answer, which goes over a socket here, is not of the path.
fn allocations(rounds: u64, mut one: impl FnMut(u64)) -> u64 {
    (0..rounds).for_each(&mut one);
    let mut count = |round| {
        let before = COUNT.get();
        one(round);
        COUNT.get() - before
    };
    (0..rounds).map(&mut count).min().unwrap_or(u64::MAX)
}

#[test]
fn reads_allocate_nothing() {
    let Served { controller, emulator: _emulator } = Served::memory(8 << 20);
    let disk = Disk::whole(&controller.namespace(1).unwrap());
    let mut queue = FileQueue::new(DiskQueue::new(&controller, &disk, 32).unwrap());
    let mut file = Extents(FileRef::new(NoState));
    let (none, hooks) = (IoFlags::empty(), IoFlags::HOOKS);
    for (bytes, flags, simple) in [
        (4096, none, true),
        (4096, IoFlags::GENERIC, false),
        (4096, IoFlags::BOUNCE, false),
        (128 << 10, none, false),
        (128 << 10, IoFlags::BOUNCE | hooks, false),
    ] {
        let mut bufs: Vec<Option<DmaBuf>> =
            (0..8).map(|_| Some(controller.alloc(bytes).unwrap())).collect();
        let before = queue.counters();
        let count = allocations(20, |round| {
            for (token, buf) in (0..).zip(&mut bufs) {
                let io =
                    IoArgs::at((round * 8 + token) * 12288 % (SIZE / 2)).token(token).flags(flags);
                let memory = Memory::Dma(buf.take().unwrap());
                queue.submit_read_with(&mut file, io, memory).unwrap();
            }
            queue.ring();
            let mut done = 0;
            while done < 8 {
                done += queue.poll(8, |done| {
                    assert_eq!(done.result.unwrap(), bytes);
                    bufs[done.token as usize] = done.memory.and_then(Memory::into_dma);
                });
            }
        });
        assert_eq!(count, 0, "{bytes} {flags:?}");
        let after = queue.counters();
        assert_eq!(after.simple - before.simple, if simple { 320 } else { 0 });
    }
}

#[test]
fn reads_into_ordinary_memory_allocate_nothing() {
    let Served { controller, emulator: _emulator } = Served::memory(8 << 20);
    let disk = Disk::whole(&controller.namespace(1).unwrap());
    let mut queue = FileQueue::new(DiskQueue::new(&controller, &disk, 32).unwrap());
    let mut file = Extents(FileRef::new(NoState));
    let mut out = vec![0; 100_000];
    let count = allocations(20, |round| {
        assert_eq!(queue.read_at(&mut file, round * 7001, &mut out).unwrap(), 100_000);
    });
    assert_eq!(count, 0);
}

#[test]
fn overwrites_allocate_nothing() {
    let Served { controller, emulator: _emulator } = Served::memory(8 << 20);
    let disk = WritableDisk::whole(&controller.writable().unwrap().writable_namespace(1).unwrap());
    let mut queue = FileQueue::new(DiskQueue::new(&controller, &disk, 32).unwrap());
    let mut file = Extents(FileRef::new(NoState));
    let data = vec![7; 96 << 10];
    for flags in [IoFlags::empty(), IoFlags::DSYNC] {
        let count = allocations(20, |round| {
            let io = IoArgs::at(round * 12288).flags(flags);
            queue.write_from(&mut file, io, &mut Cursor::new(&data[..])).unwrap();
        });
        assert_eq!(count, 0, "{flags:?}");
        let mut buf = Some(Memory::Dma(controller.alloc(96 << 10).unwrap()));
        let count = allocations(20, |round| {
            let io = IoArgs::at(round * 12288).flags(flags);
            let (back, _) = queue.write_with(&mut file, io, buf.take().unwrap()).unwrap();
            buf = Some(back);
        });
        assert_eq!(count, 0, "{flags:?}");
    }
}
