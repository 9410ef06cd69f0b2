//! Futures on a mock device, with an executor that polls only tasks that were woken.

use std::cell::Cell;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use super::*;
use crate::contract::mapper::Mapping;
use crate::error::FileError;
use crate::tests::mock::{Fail, MockInode, MockQueue, Script};

type MockAsync = AsyncFileQueue<MockQueue<Tag<MockInode>>, MockInode>;

const BLOCKS: usize = 2048;

/// A queue with room for `depth` commands, and for `waiting` futures that wait.
fn queue(
    depth: usize,
    waiting: usize,
    change: impl FnOnce(&mut MockQueue<Tag<MockInode>>),
) -> MockAsync {
    let mut mock = MockQueue::new(BLOCKS);
    mock.depth = depth;
    change(&mut mock);
    AsyncFileQueue::with_waiting(FileQueue::new(mock), waiting)
}

/// A file that maps the whole device, for `requests` requests.
fn file(requests: usize) -> RefCell<Script> {
    let mappings = vec![Mapping::mapped(0, (BLOCKS * 512) as u64, 0); requests];
    let mut script = Script::new(mappings);
    script.size = (BLOCKS * 512) as u64;
    RefCell::new(script)
}

fn content(pos: u64, len: usize) -> Vec<u8> {
    (pos as usize..pos as usize + len).map(|i| (i / 7 % 251) as u8 + 1).collect()
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

type Task<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Polls tasks that were woken, until all have ended.
fn run<'a>(queue: &MockAsync, tasks: impl IntoIterator<Item = Task<'a>>) {
    let woken = || Arc::new(Flag(AtomicBool::new(true)));
    let mut tasks: Vec<_> = tasks.into_iter().map(|task| (woken(), task)).collect();
    let mut rounds = 0;
    while !tasks.is_empty() {
        rounds += 1;
        assert!(rounds < 100_000, "{} tasks were never woken", tasks.len());
        tasks.retain_mut(|(flag, task)| {
            if !flag.0.swap(false, Ordering::Relaxed) {
                return true;
            }
            let waker = Arc::clone(flag).into();
            task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending()
        });
        queue.poll();
    }
}

/// Polls a future once. It is pending afterwards.
fn start<F: Future>(future: Pin<&mut F>) {
    assert!(future.poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

#[test]
fn many_more_futures_than_room_all_end_in_turn() {
    let queue = queue(3, 4096, |_| {});
    let file = file(1000);
    let order = Cell::new(0u64);
    let tasks = (0..1000u64).map(|i| {
        let (queue, file, order) = (&queue, &file, &order);
        Box::pin(async move {
            let pos = i % 500 * 512;
            let memory: Memory = match i % 3 {
                0 => queue.alloc(512).unwrap().into(),
                1 => vec![0; 700].into(),
                _ => queue.alloc(1024).unwrap().into(),
            };
            let (memory, n) = queue.read(file, IoArgs::at(pos).token(77), memory).await.unwrap();
            assert!(order.replace(order.get() + 1).abs_diff(i) <= 6, "first come, first served");
            assert_eq!(n, memory.len());
            let expected = content(pos, n);
            match memory {
                Memory::Dma(buf) => assert_eq!(*buf, *expected),
                Memory::Bytes(bytes) => assert_eq!(bytes, expected),
                other => panic!("{other:?}"),
            }
        }) as Task
    });
    run(&queue, tasks);
    assert_eq!((order.get(), queue.in_flight()), (1000, 0));
    assert_eq!(file.borrow().inode.in_flight(), 0);
    file.borrow().assert_balanced();
}

#[test]
fn requests_of_many_commands_stall_others_but_not_for_ever() {
    // One request fills the queue, so that the next finds no room although it has a permit.
    let queue = queue(3, 100, |mock| mock.max_transfer = 512);
    let file = file(20_000);
    let tasks = (0..100u64).map(|i| {
        let (queue, file) = (&queue, &file);
        Box::pin(async move {
            let bytes = 512 * (1 + i as usize % 9);
            let buf = queue.alloc(bytes).unwrap();
            let (memory, n) = queue.read(file, IoArgs::at(i * 512), buf).await.unwrap();
            assert_eq!((n, memory.into_dma().unwrap().to_vec()), (bytes, content(i * 512, bytes)));
        }) as Task
    });
    run(&queue, tasks);
    assert_eq!(queue.in_flight(), 0);
    assert_eq!(file.borrow().begins(), 100, "the backlog has room: no request tries again");
}

#[test]
fn future_that_may_not_wait_is_refused_with_its_memory() {
    let queue = queue(2, 1, |_| {});
    let file = file(10);
    let read = |flags| queue.read(&file, IoArgs::at(0).flags(flags), queue.alloc(512).unwrap());
    let mut taken = [pin!(read(IoFlags::empty())), pin!(read(IoFlags::NOWAIT))];
    for future in &mut taken {
        start(future.as_mut());
    }
    let refused = |failed: Failed<Fail>| {
        assert!(failed.error.is_busy());
        assert_eq!(failed.payload.map(|memory| memory.len()), Some(512));
    };
    let Poll::Ready(done) =
        pin!(read(IoFlags::NOWAIT)).poll(&mut Context::from_waker(Waker::noop()))
    else {
        panic!("it waits")
    };
    refused(done.unwrap_err());
    let mut waiting = pin!(read(IoFlags::empty()));
    start(waiting.as_mut());
    refused(queue.block_on(read(IoFlags::empty())).unwrap_err());
    // The future that waits is served.
    let [a, b] = &mut taken;
    queue.block_on(a.as_mut()).unwrap();
    queue.block_on(waiting).unwrap();
    queue.block_on(b.as_mut()).unwrap();
}

#[test]
fn futures_can_be_dropped_at_any_time() {
    for polls in 0..4 {
        let queue = queue(2, 10, |mock| mock.max_transfer = 512);
        let file = file(100);
        let read = |pos| queue.read(&file, IoArgs::at(pos), queue.alloc(1024).unwrap());
        let mut futures: Vec<_> = (0..6).map(|i| Box::pin(read(i * 1024))).collect();
        futures.iter_mut().for_each(|future| start(future.as_mut()));
        for _ in 0..polls {
            queue.poll();
        }
        // Futures in flight, waiting, and ended without being polled.
        drop([futures.remove(3), futures.remove(0)]);
        for future in &mut futures {
            let (_, n) = queue.block_on(future.as_mut()).unwrap();
            assert_eq!(n, 1024);
        }
        for _ in 0..10 {
            queue.poll();
        }
        assert_eq!((queue.in_flight(), file.borrow().inode.in_flight()), (0, 0), "{polls}");
        // All places are free again.
        let mut futures = [0, 1].map(|i| Box::pin(read(i)));
        futures[0] = Box::pin(read(512));
        drop(futures);
        queue.block_on(read(0)).unwrap();
    }
}

#[test]
fn errors_come_with_the_memory() {
    let queue = queue(4, 10, |mock| mock.failing = vec![0, 2]);
    let file = file(3);
    let read = || queue.read(&file, IoArgs::at(512), queue.alloc(512).unwrap());
    let failed = queue.block_on(read()).unwrap_err();
    assert_eq!(failed.payload.unwrap().len(), 512);
    queue.block_on(read()).unwrap();
    let failed = queue.block_on(read()).unwrap_err();
    assert!(matches!(failed.error, Fail::Iomap(Error::Bio { pos: 512, .. })));
    // No mapping is left: the request fails before a command is submitted.
    let failed = queue.block_on(read()).unwrap_err();
    assert!(matches!(failed.error, Fail::Begin) && failed.payload.is_some());
    assert_eq!((queue.in_flight(), file.borrow().inode.in_flight()), (0, 0));
}

#[test]
fn writes_are_futures_too() {
    let queue = queue(3, 100, |_| {});
    let file = file(100);
    let tasks = (0..40u64).map(|i| {
        let (queue, file) = (&queue, &file);
        Box::pin(async move {
            let flags = if i % 2 == 0 { IoFlags::DSYNC } else { IoFlags::BOUNCE };
            let io = IoArgs::at(i * 1024).flags(flags);
            let (memory, n) = queue.write(file, io, vec![i as u8; 1024]).await.unwrap();
            assert_eq!((memory.len(), n), (1024, 1024));
            let (memory, _) = queue.read(file, IoArgs::at(i * 1024), memory).await.unwrap();
            assert_eq!(memory.into_bytes().unwrap(), [i as u8; 1024]);
        }) as Task
    });
    run(&queue, tasks);
}

#[test]
fn a_file_that_is_in_use_is_waited_for() {
    let queue = queue(3, 10, |_| {});
    let file = file(10);
    let other = self::file(10);
    let borrowed = file.borrow_mut();
    let failed = queue.block_on(queue.read(&file, IoArgs::at(0), vec![0; 512])).unwrap_err();
    assert!(failed.error.is_busy(), "nothing is in flight, so that nothing will change");
    let mut first = pin!(queue.read(&other, IoArgs::at(0), vec![0; 512]));
    start(first.as_mut());
    let mut second = pin!(queue.read(&file, IoArgs::at(0), vec![0; 512]));
    start(second.as_mut());
    drop(borrowed);
    queue.block_on(second).unwrap();
    queue.block_on(first).unwrap();
}

#[test]
fn waiting_ends_when_nothing_is_in_flight() {
    let queue = queue(3, 10, |_| {});
    let file = file(10);
    assert_eq!(queue.wait().unwrap(), 0);
    let mut read = pin!(queue.read(&file, IoArgs::at(0), vec![0; 512]));
    start(read.as_mut());
    assert_eq!(queue.wait().unwrap(), 1);
    assert!(read.poll(&mut Context::from_waker(Waker::noop())).is_ready());
    assert_eq!((queue.wait().unwrap(), queue.device_size()), (0, (BLOCKS * 512) as u64));
}
