//! Futures of requests, for any executor of one thread.

mod permits;
mod request;
mod table;

use std::cell::{RefCell, RefMut};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use nvio_driver::DmaBuf;

use self::permits::Permits;
use self::request::Request;
use self::table::{Outcome, Table};
use crate::contract::io_args::{Done, Failed, IoArgs, IoFlags, Memory};
use crate::contract::mapper::Mapper;
use crate::contract::open_file::OpenFile;
use crate::device::bio::{Queue, WriteQueue};
use crate::error::Error;
use crate::queue::counters::Counters;
use crate::queue::file_queue::FileQueue;
use crate::queue::tag::Tag;

/// Futures that can wait for room, unless it is said otherwise.
const WAITING: usize = 4096;

/// Polls without a result after which [`AsyncFileQueue::block_on`] lets other threads run.
const PATIENCE: u32 = 1 << 12;

/// A [`FileQueue`] whose requests are futures. Cheap to clone; it stays on one thread.
///
/// A future submits its request when it is first polled. [`poll`](Self::poll) shows the device what
/// was submitted, takes what is done, and wakes the futures of it: it is called between the rounds
/// of an executor, or by [`drive`](Self::drive), a future that does both. There is no executor
/// here, and none is needed: [`block_on`](Self::block_on) is for tests, and for programs with
/// nothing else to do.
///
/// As many requests are in flight as the queue has room for commands. Further futures wait in a
/// line, first come, first served. There are as many places in it as were asked for at first; a
/// future that finds none ends with [`Error::Busy`] and its memory, as does one with
/// [`IoFlags::NOWAIT`] that would have to wait.
///
/// A future can be dropped at any time. A request that was submitted is executed all the same; its
/// memory is free again, and its place, when it has ended.
///
/// A request that needs more commands than there is room for at that moment has its submission wait
/// for the device, as [`FileQueue::submit_read_with`] does, and so do calls for metadata that is not in
/// memory: futures of large or cold ranges hold the thread up for as long.
pub struct AsyncFileQueue<Q, I: OpenFile>(Rc<Inner<Q, I>>);

impl<Q, I: OpenFile> Clone for AsyncFileQueue<Q, I> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

struct Inner<Q, I: OpenFile> {
    /// Borrowed while a request is submitted, and by [`AsyncFileQueue::poll`].
    queue: RefCell<FileQueue<Q, I>>,
    /// Never borrowed while code that is not of this module runs.
    state: RefCell<State<I::Error>>,
}

struct State<E> {
    permits: Permits,
    table: Table<E>,
    /// Room for the wakers of a poll.
    wakers: Vec<Waker>,
}

impl<Q: Queue<Tag<I>>, I: OpenFile> AsyncFileQueue<Q, I> {
    /// Takes a queue in which nothing is in flight. 4,096 futures can wait for room.
    pub fn over(queue: FileQueue<Q, I>) -> Self {
        Self::with_waiting(queue, WAITING)
    }

    /// The same, with places for so many futures that wait for room.
    pub fn with_waiting(queue: FileQueue<Q, I>, waiting: usize) -> Self {
        let capacity = queue.device().capacity();
        let state = State {
            permits: Permits::new(capacity, waiting),
            table: Table::new(capacity),
            wakers: Vec::new(),
        };
        Self(Rc::new(Inner { queue: RefCell::new(queue), state: RefCell::new(state) }))
    }

    /// Requests that are in flight, those of futures that were dropped included.
    pub fn in_flight(&self) -> usize {
        self.state().table.in_flight()
    }

    /// What was done since the queue was made.
    pub fn counters(&self) -> Counters {
        self.0.queue.try_borrow().map_or_else(|_| Counters::default(), |queue| queue.counters())
    }

    /// Size in bytes of the device that the queue is to.
    pub fn device_size(&self) -> u64 {
        self.0.queue.try_borrow().map_or(0, |queue| queue.device().size())
    }

    /// A zeroed DMA buffer of `bytes`.
    ///
    /// # Errors
    /// When the arena is full.
    pub fn alloc(&self, bytes: usize) -> Result<DmaBuf, Error> {
        self.0.queue.try_borrow_mut().map_err(|_| Error::Busy)?.alloc(bytes)
    }

    /// Shows the device what was submitted, takes what is done, wakes the futures of it, and tells
    /// how many requests there were. Never waits.
    pub fn poll(&self) -> usize {
        self.take(|queue, done| {
            queue.ring();
            queue.poll(usize::MAX, done)
        })
    }

    /// The same, but waits until a request is done, as [`FileQueue::wait`] does. For an executor
    /// that has nothing else to do. 0 when nothing is in flight.
    ///
    /// # Errors
    /// When the device fails.
    pub fn wait(&self) -> Result<usize, Error> {
        let mut result = Ok(());
        let count = self.take(|queue, done| match queue.wait(done) {
            Ok(count) => count,
            Err(error) => {
                result = Err(error);
                0
            }
        });
        result.map(|()| count)
    }

    /// Takes what `how` finds, and wakes the futures of it.
    fn take(
        &self,
        how: impl FnOnce(&mut FileQueue<Q, I>, &mut dyn FnMut(Done<I::Error>)) -> usize,
    ) -> usize {
        // From inside of the filesystem, there is nothing to take.
        let Ok(mut queue) = self.0.queue.try_borrow_mut() else { return 0 };
        let mut wakers = std::mem::take(&mut self.state().wakers);
        let count = how(&mut queue, &mut |done| {
            let mut state = self.state();
            let outcome = state.table.end(done);
            if let Outcome::Free(_) = outcome {
                wakers.extend(state.permits.give());
            }
            drop(state);
            match outcome {
                Outcome::Wake(waker) => wakers.push(waker),
                Outcome::Free(_) => {}
                Outcome::Unknown(_) => log::warn!("a request ended that no future has submitted"),
            }
        });
        self.state().table.wake_stalled(&mut wakers);
        drop(queue);
        // Whatever they do, nothing is borrowed.
        wakers.drain(..).for_each(Waker::wake);
        self.state().wakers = wakers;
        count
    }

    /// Runs `future` and polls the queue whenever it is pending: for a task of an executor, which
    /// then has no other way to poll. The task is awake all the time.
    pub async fn drive<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        std::future::poll_fn(|context| {
            let polled = future.as_mut().poll(context);
            if polled.is_pending() {
                self.poll();
                context.waker().wake_by_ref();
            }
            polled
        })
        .await
    }

    /// Runs `future` to its end on this thread, polling the queue in between. For one future; many
    /// can be joined into one.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(self.drive(future));
        let mut context = Context::from_waker(Waker::noop());
        let mut idle = 0;
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return output;
            }
            idle += 1;
            match idle {
                PATIENCE => {
                    idle = 0;
                    std::thread::yield_now();
                }
                _ => std::hint::spin_loop(),
            }
        }
    }

    /// Reads at `io.pos` of a file into all of `memory`, with `io.flags`, and gives the memory back
    /// with the number of bytes; see [`FileQueue::submit_read_with`]. `file` is borrowed while the
    /// request is submitted; `io.token` is of no use here.
    ///
    /// # Errors
    /// As [`FileQueue::submit_read_with`], and what the device fails with; [`Error::Busy`] when too many
    /// futures wait.
    pub async fn read<M: Mapper<OpenFile = I>>(
        &self,
        file: &RefCell<M>,
        io: IoArgs,
        memory: impl Into<Memory>,
    ) -> Result<(Memory, usize), Failed<I::Error>> {
        self.request(file, &io, memory.into(), |queue, file, token, memory| {
            queue.submit_read_with(file, io.token(token), memory)
        })
        .await
    }

    /// Writes all of `memory` at `io.pos` of a file, with `io.flags`, and gives the memory back with
    /// the number of bytes; see [`FileQueue::submit_write_with`].
    ///
    /// # Errors
    /// As [`FileQueue::submit_write_with`], and what the device fails with; [`Error::Busy`] when too
    /// many futures wait.
    pub async fn write<M: Mapper<OpenFile = I>>(
        &self,
        file: &RefCell<M>,
        io: IoArgs,
        memory: impl Into<Memory>,
    ) -> Result<(Memory, usize), Failed<I::Error>>
    where
        Q: WriteQueue<Tag<I>>,
    {
        self.request(file, &io, memory.into(), |queue, file, token, memory| {
            queue.submit_write_with(file, io.token(token), memory)
        })
        .await
    }

    async fn request<M: Mapper<OpenFile = I>>(
        &self,
        file: &RefCell<M>,
        io: &IoArgs,
        memory: Memory,
        mut submit: impl FnMut(
            &mut FileQueue<Q, I>,
            &mut M,
            u64,
            Memory,
        ) -> Result<(), crate::Rejected<I::Error>>,
    ) -> Result<(Memory, usize), Failed<I::Error>> {
        let nowait = io.flags.contains(IoFlags::NOWAIT);
        let mut request = Request::new(self, memory, nowait, |queue, token, memory| {
            match file.try_borrow_mut() {
                Ok(mut file) => submit(queue, &mut file, token, memory),
                // It is being used for something else; that can end while others are in flight.
                Err(_) => Err(crate::Rejected { error: Error::Busy.into(), payload: memory }),
            }
        });
        std::future::poll_fn(|context| request.poll(context)).await
    }
}

impl<Q, I: OpenFile> AsyncFileQueue<Q, I> {
    fn state(&self) -> RefMut<'_, State<I::Error>> {
        self.0.state.borrow_mut()
    }

    /// Gives a permit back, and wakes whom it goes to.
    fn give_permit(&self) {
        let next = self.state().permits.give();
        next.into_iter().for_each(Waker::wake);
    }

    /// Has nobody wait for a request any more.
    fn abandon(&self, at: u32) {
        let (entry, free) = self.state().table.abandon(at);
        drop(entry);
        if free {
            self.give_permit();
        }
    }
}

#[cfg(test)]
mod tests;
