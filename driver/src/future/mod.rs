//! Futures of commands, for any executor of one thread.

mod command;
mod permits;
mod table;
mod transfer;

use std::cell::{RefCell, RefMut};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use nvio_spec::DsmRange;

use self::command::Command;
use self::permits::Permits;
use self::table::{Outcome, Table};
use crate::dma::DmaBuf;
use crate::namespace::{Namespace, WritableNamespace};
use crate::queue::{
    CommandOptions, Completion, Counters, Failed, QueuePair, Rejected, SplitTransfer,
};
use crate::{Controller, Error, Result};

/// Futures that can wait for a slot of a queue, unless it is said otherwise.
const WAITING: usize = 4096;

/// Most blocks of a command that transfers none of them.
const MOST_BLOCKS: u64 = 0xffff;

/// Polls without a completion after which [`AsyncQueue::block_on`] lets other threads run.
const PATIENCE: u32 = 1 << 12;

/// A queue pair whose commands are futures. Cheap to clone; it stays on one thread.
///
/// A future queues its command when it is first polled. [`poll`](Self::poll) shows the controller
/// what was queued, takes what has ended, and wakes the futures of it: it is called between the
/// rounds of an executor, or by [`drive`](Self::drive), a future that does both. There is no
/// executor here, and none is needed: [`block_on`](Self::block_on) is for tests, and for programs
/// with nothing else to do.
///
/// When every slot of the queue is taken, futures wait for one in a line, first come, first
/// served. There are as many places in the line as were asked for at first; a future that finds
/// none ends with [`Error::QueueFull`] and its buffer. A slot is taken until its future has seen
/// the end of its command, or was dropped.
///
/// A future can be dropped at any time. A command that was queued is executed all the same; its
/// buffer is free again, and its slot, when it has ended.
///
/// ```
/// use nvio_driver::{Address, AsyncQueue, Controller};
/// use nvio_emulator::{Backing, Emulator, NamespaceConfig};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let disk = NamespaceConfig::new(Backing::memory(16 << 20));
/// let emulator = Emulator::builder().namespace(disk).start()?;
/// let controller = Controller::open(&Address::VfioUser(emulator.socket().to_owned()))?;
/// let namespace = controller.namespace(1)?;
/// let queue = AsyncQueue::new(&controller, 64)?;
///
/// let both = async {
///     // Of any size: as many commands as it takes.
///     let large = queue.read(&namespace, 0, controller.alloc(4 << 20)?).await?;
///     let small = queue.read(&namespace, 8, controller.alloc(4096)?).await?;
///     Ok::<_, nvio_driver::Error>(large.len() + small.len())
/// };
/// assert_eq!(queue.block_on(both)?, (4 << 20) + 4096);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct AsyncQueue(Rc<Inner>);

struct Inner {
    /// Borrowed while a command is queued, and by [`AsyncQueue::poll`].
    pair: RefCell<QueuePair<Ticket>>,
    /// Never borrowed while code that is not of this module runs.
    state: RefCell<State>,
}

struct State {
    permits: Permits,
    table: Table,
    /// Room for the wakers of a poll.
    wakers: Vec<Waker>,
}

/// What a command of an [`AsyncQueue`] has as its context; see [`AsyncQueue::command`].
#[derive(Debug)]
pub struct Ticket(u32);

impl AsyncQueue {
    /// A queue pair of its own with room for `depth` commands; see [`Controller::queue_pair`].
    /// 4,096 futures can wait for a slot.
    ///
    /// # Errors
    /// As [`Controller::queue_pair`].
    pub fn new(controller: &Controller, depth: u16) -> Result<Self> {
        Self::with_waiting(controller, depth, WAITING)
    }

    /// The same, with room for so many futures that wait for a slot.
    ///
    /// # Errors
    /// As [`Controller::queue_pair`].
    pub fn with_waiting(controller: &Controller, depth: u16, waiting: usize) -> Result<Self> {
        let pair = controller.queue_pair(depth)?;
        let capacity = pair.capacity();
        let state = State {
            permits: Permits::new(capacity, waiting),
            table: Table::new(capacity),
            wakers: Vec::new(),
        };
        Ok(Self(Rc::new(Inner { pair: RefCell::new(pair), state: RefCell::new(state) })))
    }

    /// Commands that are in flight, those of futures that were dropped included.
    pub fn in_flight(&self) -> usize {
        self.0.pair.try_borrow().map_or(0, |pair| pair.in_flight())
    }

    /// What the queue pair did since it was made.
    pub fn counters(&self) -> Counters {
        self.0.pair.try_borrow().map_or_else(|_| Counters::default(), |pair| pair.counters())
    }

    /// Shows the controller what was queued, takes what has ended, wakes the futures of it, and
    /// tells how many commands there were. Never waits, but looks after commands that are overdue
    /// every so often, as [`QueuePair::poll`] does.
    pub fn poll(&self) -> usize {
        self.take(|pair, done| {
            pair.ring();
            pair.poll(usize::MAX, done)
        })
    }

    /// The same, but waits until a command has ended, as [`QueuePair::wait`] does: polling, or, with
    /// [`Wait::Interrupt`](crate::Wait::Interrupt), asleep after a while. For an executor that has
    /// nothing else to do. 0 when nothing is in flight.
    ///
    /// # Errors
    /// As [`QueuePair::wait`].
    pub fn wait(&self) -> Result<usize> {
        let mut result = Ok(());
        let count = self.take(|pair, done| match pair.wait(done) {
            Ok(count) => count,
            Err(error) => {
                result = Err(error);
                0
            }
        });
        result.map(|()| count)
    }

    /// What becomes readable with a completion, for an event loop; see [`QueuePair::event_fd`].
    /// It is to be waited for only after [`prepare_to_sleep`](Self::prepare_to_sleep), with a call
    /// of [`poll`](Self::poll) afterwards.
    pub fn event_fd(&self) -> Option<OwnedFd> {
        let pair = self.0.pair.try_borrow().ok()?;
        pair.event_fd()?.try_clone_to_owned().ok()
    }

    /// Whether an event loop may sleep now; see [`QueuePair::prepare_to_sleep`].
    pub fn prepare_to_sleep(&self) -> bool {
        self.0.pair.try_borrow_mut().is_ok_and(|mut pair| pair.prepare_to_sleep())
    }

    /// Takes what `how` finds, and wakes the futures of it.
    fn take(
        &self,
        how: impl FnOnce(&mut QueuePair<Ticket>, &mut dyn FnMut(Completion<Ticket>)) -> usize,
    ) -> usize {
        // From inside of a command's closure, there is nothing to take.
        let Ok(mut pair) = self.0.pair.try_borrow_mut() else { return 0 };
        let mut wakers = std::mem::take(&mut self.state().wakers);
        let count = how(&mut pair, &mut |done| {
            let mut state = self.state();
            match state.table.end(done) {
                Outcome::Wake(waker) => wakers.push(waker),
                Outcome::Free => wakers.extend(state.permits.give()),
                Outcome::Unknown => log::warn!("a command ended that no future has queued"),
            }
        });
        drop(pair);
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

    /// Reads all of `buf`, which may be of any size, from block `lba` on, in as many commands as it
    /// takes; see [`Blocking::read`](crate::Blocking::read).
    ///
    /// # Errors
    /// [`Error::Misaligned`] and [`Error::OutOfRange`] before anything is read; [`Error::Io`] with
    /// the blocks and the status of the command that failed; [`Error::QueueFull`] when too many
    /// futures wait; what a failed controller failed with. What is in the buffer then is not
    /// defined.
    pub async fn read(
        &self,
        namespace: &Namespace,
        lba: u64,
        buf: DmaBuf,
    ) -> Result<DmaBuf, Failed> {
        let split = SplitTransfer::new("Read", namespace, lba, buf)?;
        transfer::run(self, namespace, split, |lba| {
            move |pair: &mut QueuePair<Ticket>, piece, ticket| {
                pair.read(namespace, lba, piece, ticket)
            }
        })
        .await
    }

    /// Writes all of `buf`, which may be of any size, from block `lba` on. It is durable after a
    /// [`flush`](Self::flush) that begins when this has ended.
    ///
    /// # Errors
    /// As [`read`](Self::read). Blocks behind those of the error may be written, too.
    pub async fn write(
        &self,
        namespace: &WritableNamespace,
        lba: u64,
        buf: DmaBuf,
    ) -> Result<DmaBuf, Failed> {
        let split = SplitTransfer::new("Write", namespace, lba, buf)?;
        transfer::run(self, namespace, split, |lba| {
            move |pair: &mut QueuePair<Ticket>, piece, ticket| {
                pair.write(namespace, lba, piece, ticket)
            }
        })
        .await
    }

    /// Makes what was written durable (Base 7.1).
    ///
    /// # Errors
    /// [`Error::Command`]; [`Error::QueueFull`] when too many futures wait; what a failed
    /// controller failed with.
    pub async fn flush(&self, namespace: &Namespace) -> Result<()> {
        let flush = self.command((), |pair, (), ticket| pair.flush(namespace, ticket));
        match flush.await {
            Ok(done) if done.status.is_success() => Ok(()),
            Ok(done) => Err(Error::Command { command: "Flush", status: done.status }),
            Err(rejected) => Err(rejected.error),
        }
    }

    /// Zeroes `blocks` from block `lba` on (NVM 3.2.8), in as many commands as it takes, one after
    /// the other; with `deallocate`, the controller may free them, if they read as zeroes then.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn write_zeroes(
        &self,
        namespace: &WritableNamespace,
        lba: u64,
        blocks: u64,
        deallocate: bool,
    ) -> Result<()> {
        namespace.check_block_range(lba, blocks)?;
        let (mut lba, end) = (lba, lba + blocks);
        while lba < end {
            let count = (end - lba).min(MOST_BLOCKS);
            let range = (lba, u32::try_from(count).unwrap_or(u32::MAX));
            let zero = self.command((), |pair, (), ticket| {
                pair.write_zeroes(namespace, range, deallocate, CommandOptions::default(), ticket)
            });
            let done = zero.await.map_err(|rejected| rejected.error)?;
            if !done.status.is_success() {
                let (command, nsid) = ("Write Zeroes", namespace.id());
                return Err(Error::Io { command, nsid, lba, blocks: count, status: done.status });
            }
            lba += count;
        }
        Ok(())
    }

    /// Deallocates ranges, at most 256; see [`QueuePair::deallocate`]. The list is written into
    /// `buf`, which comes back.
    ///
    /// # Errors
    /// [`Error::Command`]; as [`QueuePair::deallocate`]; [`Error::QueueFull`] when too many
    /// futures wait.
    pub async fn deallocate(
        &self,
        namespace: &WritableNamespace,
        ranges: &[DsmRange],
        buf: DmaBuf,
    ) -> Result<DmaBuf, Failed> {
        let command =
            self.command(buf, |pair, buf, ticket| pair.deallocate(namespace, ranges, buf, ticket));
        match command.await {
            Ok(Completion { buf, status, .. }) if status.is_success() => Ok(buf),
            Ok(Completion { buf, status, .. }) => {
                let error = Error::Command { command: "Dataset Management", status };
                Err(Failed { error, buf: Some(buf) })
            }
            Err(Rejected { error, buf, .. }) => Err(Failed { error, buf: Some(buf) }),
        }
    }

    /// Any command of [`QueuePair`]: `submit` queues one, with the memory and the ticket that it is
    /// given, and does nothing else with the pair. It is called when there is room.
    ///
    /// ```
    /// # use nvio_driver::{Address, AsyncQueue, Controller, ScatterList, CommandOptions};
    /// # use nvio_emulator::{Backing, Emulator, NamespaceConfig};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = NamespaceConfig::new(Backing::memory(16 << 20));
    /// # let emulator = Emulator::builder().namespace(disk).start()?;
    /// # let controller = Controller::open(&Address::VfioUser(emulator.socket().to_owned()))?;
    /// # let namespace = controller.namespace(1)?;
    /// # let queue = AsyncQueue::new(&controller, 64)?;
    /// let parts = ScatterList::new(vec![controller.alloc(4096)?, controller.alloc(4096)?], None);
    /// let compare = queue.command(parts, |pair, parts, ticket| {
    ///     pair.compare(&namespace, (0, 16), parts, CommandOptions::default(), ticket)
    /// });
    /// let done = queue.block_on(compare).map_err(|rejected| rejected.error)?;
    /// assert!(done.status.is_success(), "all zeroes");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As the method that `submit` calls; [`Error::QueueFull`] when too many futures wait.
    pub async fn command<M>(
        &self,
        memory: M,
        submit: impl FnOnce(&mut QueuePair<Ticket>, M, Ticket) -> Result<(), Rejected<Ticket, M>>,
    ) -> Result<Completion<()>, Rejected<(), M>> {
        let mut command = Command::new(self, memory, submit);
        match std::future::poll_fn(|context| command.poll(context)).await {
            Ok(table::Ended { buf, status, result }) => {
                Ok(Completion { context: (), buf, status, result })
            }
            Err((error, buf)) => Err(Rejected { error, buf, context: () }),
        }
    }

    fn state(&self) -> RefMut<'_, State> {
        self.0.state.borrow_mut()
    }

    /// Gives a permit back, and wakes whom it goes to.
    fn give_permit(&self) {
        let next = self.state().permits.give();
        next.into_iter().for_each(Waker::wake);
    }

    /// The error of a future that finds no place to wait.
    fn full(&self) -> Error {
        Error::QueueFull { capacity: self.state().permits.places() }
    }
}

#[cfg(test)]
mod tests;
