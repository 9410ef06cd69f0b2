//! The queue that files are read and written through: results, waiting, deferred work.

use std::fmt;
use std::mem::ManuallyDrop;
use std::os::fd::BorrowedFd;

use nvio_driver::{DmaBuf, Handler};

use crate::contract::io_args::{Done, Failed, Memory, Rejected};
use crate::contract::open_file::{InFlight, OpenFile};
use crate::device::bio::{Bio, BioDone, Queue};
use crate::error::{BioError, Error};
use crate::memory::borrowed::{BorrowedMemory, NoBorrowedMemory};
use crate::queue::counters::Counters;
use crate::queue::request::{Failure, Request};
use crate::queue::state::{Mode, QueueState, QuickDone, Work};
use crate::queue::tag::Tag;

/// A queue for requests on any number of files, for one thread.
///
/// Requests are submitted by [`submit_read`](Self::submit_read) and others, shown to the device by
/// [`ring`](Self::ring) once for a batch, and returned by [`poll`](Self::poll). Calls that wait can
/// be made while requests are in flight: results of other requests are kept for the next poll.
///
/// # Busy
/// At least [`in_flight_max`](Self::in_flight_max) requests fit, of any size and alignment: a
/// command that finds the device's queue full waits in a backlog, which the next poll submits.
/// Further requests may fail with [`Error::Busy`] and return their memory: poll, then submit again.
/// A request with [`IoFlags::NOWAIT`](crate::IoFlags::NOWAIT) fails with it whenever the device's
/// queue is full. A request of more commands than fit into device and backlog waits for room.
///
/// # Examples
/// ```
/// # use nvio_iomap::{Error, FileRef, Mapper, Mapping, Op, OpenFile};
/// # struct NoState;
/// # impl OpenFile for NoState {
/// #     type Error = Error;
/// # }
/// # struct OneExtent(FileRef<NoState>);
/// # impl Mapper for OneExtent {
/// #     type OpenFile = NoState;
/// #     fn open_file(&self) -> &FileRef<NoState> {
/// #         &self.0
/// #     }
/// #     fn size(&self) -> u64 {
/// #         1 << 20
/// #     }
/// #     fn block_size(&self) -> u32 {
/// #         4096
/// #     }
/// #     fn begin(&mut self, _pos: u64, _length: u64, _op: Op) -> Result<Mapping, Error> {
/// #         Ok(Mapping::mapped(0, 1 << 20, 0))
/// #     }
/// # }
/// # let mut file = OneExtent(FileRef::new(NoState));
/// use nvio_iomap::{Cursor, Done, FileQueue, ImageQueue, IoArgs, IoFlags, Memory};
///
/// let mut queue = FileQueue::new(ImageQueue::new(vec![7; 1 << 20], 32)?);
/// assert!(queue.in_flight_max() >= 32);
///
/// // Without waiting, for DMA memory or any other; `poll` returns the results.
/// let buf = queue.alloc(4096)?;
/// queue.submit_read(&mut file, 0, buf, 1)?;
/// queue.submit_read_with(&mut file, IoArgs::at(4096).token(2), Memory::from(vec![0; 512]))?;
/// assert_eq!(queue.in_flight(), 2);
/// queue.ring();
/// let mut tokens = Vec::new();
/// while queue.poll(usize::MAX, |done| tokens.push(done.token)) > 0 {}
/// tokens.sort();
/// assert_eq!(tokens, [1, 2]);
///
/// // An event loop sleeps on the queue's file descriptor, if there is one.
/// assert!(!queue.prepare_to_sleep() && queue.event_fd().is_none());
///
/// // Waiting: into a slice, or from the cursor's position on, or into memory that is passed on.
/// let mut bytes = [0; 1000];
/// assert_eq!(queue.read_at(&mut file, 10, &mut bytes)?, 1000);
/// let mut cursor = Cursor::new(&mut bytes[..]);
/// assert_eq!(queue.read_into(&mut file, IoArgs::at(10), &mut cursor)?, 1000);
/// let (memory, read) = queue.read_with(&mut file, IoArgs::at(0), Memory::from(vec![0; 8192]))?;
/// assert_eq!(read, 8192);
///
/// // Writing, if the device is writable.
/// queue.write_with(&mut file, IoArgs::at(0).flags(IoFlags::DSYNC), memory)?;
/// queue.write_at(&mut file, 512, &[8; 512])?;
/// queue.write_from(&mut file, IoArgs::at(1024), &mut Cursor::new(&[9; 512][..]))?;
/// let buf = queue.alloc(4096)?;
/// queue.submit_write(&mut file, 4096, buf, 3)?;
/// queue.submit_write_with(&mut file, IoArgs::at(8192).token(4), Memory::from(vec![0; 512]))?;
/// let mut handler = |done: Done<Error>| assert!(done.into_result().is_ok());
/// while queue.in_flight() > 0 {
///     queue.poll_with(usize::MAX, &mut handler);
/// }
///
/// // The device, and the paths that requests took.
/// assert_eq!(queue.device().image().len(), 1 << 20);
/// println!("{:?}", queue.counters());
/// // For measurements and tests: the generic path only, and the log level of now.
/// queue.set_simple(false);
/// queue.follow_log_level();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A retry when the queue is busy:
///
/// ```
/// # use nvio_iomap::{Error, FileQueue, FileRef, ImageQueue, Mapper, Mapping, Op, OpenFile};
/// # struct NoState;
/// # impl OpenFile for NoState {
/// #     type Error = Error;
/// # }
/// # struct OneExtent(FileRef<NoState>);
/// # impl Mapper for OneExtent {
/// #     type OpenFile = NoState;
/// #     fn open_file(&self) -> &FileRef<NoState> {
/// #         &self.0
/// #     }
/// #     fn size(&self) -> u64 {
/// #         1 << 20
/// #     }
/// #     fn block_size(&self) -> u32 {
/// #         4096
/// #     }
/// #     fn begin(&mut self, _pos: u64, _length: u64, _op: Op) -> Result<Mapping, Error> {
/// #         Ok(Mapping::mapped(0, 1 << 20, 0))
/// #     }
/// # }
/// # fn main() -> Result<(), Error> {
/// # let mut file = OneExtent(FileRef::new(NoState));
/// # let mut queue = FileQueue::new(ImageQueue::new(vec![7; 1 << 20], 32)?);
/// let mut done = 0;
/// for block in 0..256 {
///     let mut buf = queue.alloc(4096)?;
///     while let Err(rejected) = queue.submit_read(&mut file, block * 4096, buf, block) {
///         if !rejected.error.is_busy() {
///             return Err(rejected.error);
///         }
///         // The buffer comes back. A wait returns results, and so makes room.
///         done += queue.wait(|done| assert_eq!(done.result.unwrap(), 4096))?;
///         buf = rejected.payload.into_dma().expect("the DMA buffer that was submitted");
///     }
/// }
/// while done < 256 {
///     done += queue.wait(|done| assert_eq!(done.result.unwrap(), 4096))?;
/// }
/// # Ok(())
/// # }
/// ```
pub struct FileQueue<Q, I: OpenFile> {
    pub(crate) queue: Q,
    pub(crate) state: QueueState<I>,
}

impl<Q, I: OpenFile> fmt::Debug for FileQueue<Q, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileQueue")
            .field("in_flight", &self.state.in_flight())
            .field("counters", &self.state.counters)
            .finish_non_exhaustive()
    }
}

impl<Q: Queue<Tag<I>>, I: OpenFile> FileQueue<Q, I> {
    /// Creates a queue over a queue of bios that has nothing in flight.
    ///
    /// See the [example](Self#examples).
    pub fn new(queue: Q) -> Self {
        let mut state = QueueState::new(queue.capacity(), queue.block_shift());
        state.set_mode(Mode::INTEGRITY, queue.has_integrity() || queue.must_bounce());
        state.set_mode(Mode::PAGELESS, !queue.has_pages());
        let mut this = Self { queue, state };
        this.follow_log_level();
        this
    }

    /// Returns the queue of bios.
    ///
    /// See the [example](Self#examples).
    pub fn device(&self) -> &Q {
        &self.queue
    }

    /// Counts of requests and commands since the queue was created.
    ///
    /// See the [example](Self#examples).
    pub fn counters(&self) -> Counters {
        self.state.counters
    }

    /// Requests that were submitted and whose results were not returned yet.
    ///
    /// See the [example](Self#examples).
    pub fn in_flight(&self) -> usize {
        self.state.in_flight()
    }

    /// Requests that fit at least: while fewer are in flight, a submission without
    /// [`IoFlags::NOWAIT`](crate::IoFlags::NOWAIT) does not fail with [`Error::Busy`]. It is the
    /// number of commands that the device's queue has room for.
    ///
    /// See the [example](Self#examples).
    pub fn in_flight_max(&self) -> usize {
        self.queue.capacity()
    }

    /// Switches the simple path on, as it is at first, or off, so that both paths can be compared.
    ///
    /// See the [example](Self#examples).
    pub fn set_simple(&mut self, on: bool) {
        self.state.set_mode(Mode::OFF, !on);
    }

    /// Adapts the simple path's trace points to the log's current level. Queues do so when they are
    /// created, so that trace points cost nothing while they are off.
    ///
    /// See the [example](Self#examples).
    pub fn follow_log_level(&mut self) {
        self.state.set_mode(Mode::TRACED, log::log_enabled!(log::Level::Trace));
    }

    /// Allocates a zeroed DMA buffer of `bytes`.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// If the arena is full.
    pub fn alloc(&mut self, bytes: usize) -> Result<DmaBuf, Error> {
        self.queue.alloc(bytes)
    }

    /// Returns the eventfd that becomes readable with a completion, for an event loop, if the queue
    /// of bios has one: see [`QueuePair::event_fd`](nvio_driver::QueuePair::event_fd). Call
    /// [`prepare_to_sleep`](Self::prepare_to_sleep) before each wait for it, and do not read it.
    ///
    /// See the [example](Self#examples).
    pub fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.queue.event_fd()
    }

    /// Rings, and returns true if the caller may sleep until [`event_fd`](Self::event_fd) is
    /// readable: the next completion makes it so. Returns false if there is something to
    /// [`poll`](Self::poll) now, or no eventfd.
    ///
    /// While requests are in flight, sleep for 100 ms at most, and poll afterwards: polls notice a
    /// controller that is gone and a command that is overdue.
    ///
    /// See the [example](Self#examples).
    pub fn prepare_to_sleep(&mut self) -> bool {
        !self.state.is_waiting() && self.queue.prepare_to_sleep()
    }

    /// Shows the device the commands that were submitted since the last call.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn ring(&mut self) {
        self.queue.ring();
    }

    /// Passes at most `limit` results to `done`, and returns their number. Does not wait.
    ///
    /// A request that succeeded is passed on at once. One that failed, or whose end needs the
    /// filesystem or a flush, is passed on by a later call.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn poll(&mut self, limit: usize, mut done: impl FnMut(Done<I::Error>)) -> usize {
        self.poll_with(limit, &mut done)
    }

    /// Polls as [`poll`](Self::poll) does, with a handler whose method the compiler inlines.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn poll_with(&mut self, limit: usize, handler: &mut impl Handler<Done<I::Error>>) -> usize {
        let mut stuck = None;
        if self.state.is_waiting() {
            self.work(usize::MAX);
            let count = self.state.hand_out(limit, handler);
            if count > 0 || limit == 0 {
                return count;
            }
            // Commands that found no room.
            stuck = self.state.is_waiting().then_some(self.state.deferred.len());
        }
        let Self { queue, state } = self;
        let count = match state.mode.0 & Mode::POLLED {
            0 => {
                let mut settling = Settling { state, kept: 0, handler };
                let taken = queue.poll(limit, &mut settling);
                taken - settling.kept
            }
            _ => {
                queue.poll(limit, &mut Keeping { state });
                0
            }
        };
        self.state.returned += count as u64;
        if let Some(deferred) = stuck {
            // Before new requests take the room.
            self.work(deferred);
        }
        match self.state.ready.is_empty() {
            true => count,
            false => count + self.state.hand_out(limit - count.min(limit), handler),
        }
    }

    /// Rings, waits for a result, passes all there are to `done`, and returns their number: 0 if
    /// nothing is in flight.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// If the device fails.
    pub fn wait(&mut self, mut done: impl FnMut(Done<I::Error>)) -> Result<usize, Error> {
        loop {
            self.work(usize::MAX);
            let count = self.state.hand_out(usize::MAX, &mut done);
            if count > 0 {
                return Ok(count);
            }
            let completed = self.wait_some(None, &mut NoBorrowedMemory)?;
            if completed == 0 && !self.state.is_waiting() {
                return Ok(0);
            }
        }
    }

    /// Waits for completions, and returns their number: 0 if nothing is in flight. `own` is the
    /// request that is being submitted, and `borrowed` the memory of the caller that waits.
    pub(crate) fn wait_some(
        &mut self,
        mut own: Option<&mut Request<I>>,
        borrowed: &mut dyn BorrowedMemory,
    ) -> Result<usize, Error> {
        if !self.state.backlog.is_empty() {
            self.submit_backlog(own.as_deref_mut());
        }
        let Self { queue, state } = self;
        queue.wait(|bio| state.complete(bio, own.as_deref_mut(), borrowed))
    }

    /// Waits until a request ends, so that the table of requests has room. Returns false if none can.
    #[cold]
    pub(crate) fn wait_for_any(&mut self) -> bool {
        let before = self.state.ready.len();
        self.work(usize::MAX);
        self.state.ready.len() > before
            || matches!(self.wait_some(None, &mut NoBorrowedMemory), Ok(1..))
    }

    /// Waits for the result of the request that was submitted last, with the number of
    /// [`begin_wait`](QueueState::begin_wait). Results of other requests are kept for the next poll.
    ///
    /// # Errors
    /// If the device fails. The memory of the request does not come back.
    pub(crate) fn wait_for(
        &mut self,
        borrowed: &mut dyn BorrowedMemory,
    ) -> Result<Done<I::Error>, Failed<I::Error>> {
        self.state.returned += 1;
        loop {
            self.work(usize::MAX);
            if let Some(done) = self.state.waited.take() {
                return Ok(done);
            }
            let error = match self.wait_some(None, borrowed) {
                Ok(0) if self.state.deferred.is_empty() && self.state.waited.is_none() => {
                    Error::LostBuffer { length: 0 }
                }
                Ok(_) => continue,
                Err(error) => error,
            };
            self.state.give_up();
            return Err(Failed { error: error.into(), payload: None });
        }
    }

    /// Submits the backlog, and does the first `most` pieces of deferred work.
    #[cold]
    fn work(&mut self, most: usize) {
        let mut submitted = self.submit_backlog(None);
        for _ in 0..self.state.deferred.len().min(most) {
            match self.state.deferred.pop_front() {
                Some(Work::Simple { in_flight, id, at, buf, error }) => {
                    self.state.fail_simple(in_flight, (id, at), buf, error);
                }
                Some(Work::Request(index)) => submitted |= self.end(index),
                None => break,
            }
        }
        self.state.count_results();
        if submitted {
            self.queue.ring();
        }
    }

    /// Submits the bios of the backlog as far as the device's queue has room. Returns true if it
    /// accepted any.
    fn submit_backlog(&mut self, mut own: Option<&mut Request<I>>) -> bool {
        let mut submitted = false;
        while let Some(bio) = self.state.backlog.pop_front() {
            match self.queue.submit(bio) {
                Ok(()) => submitted = true,
                Err(Rejected { error: Error::Busy, payload: bio }) => {
                    self.state.backlog.push_front(bio);
                    break;
                }
                Err(Rejected { error, payload: Bio { tag, buf, .. } }) => {
                    let (failure, own) = (Some(Failure::Rejected(error)), own.as_deref_mut());
                    // Reporting it is work, so that there is no result yet.
                    self.state.end_command(tag, buf, failure, own, &mut NoBorrowedMemory);
                }
            }
        }
        submitted
    }

    /// Ends a request of the table as far as possible. Returns true if a command was submitted.
    fn end(&mut self, index: u32) -> bool {
        let Self { queue, state } = self;
        let Some(request) = state.requests.get_mut(index.into()) else { return false };
        request.end();
        if request.wants_flush() {
            request.flush = false;
            match queue.flush(Tag::flush(index)) {
                Ok(()) => {
                    request.refs = 1;
                    return true;
                }
                Err(Rejected { error: Error::Busy, .. }) => {
                    request.flush = true;
                    state.deferred.push_back(Work::Request(index));
                    return false;
                }
                Err(Rejected { error, .. }) => request.fail(error),
            }
        }
        if let Some((wait, done)) = state.finish(index) {
            state.keep(wait, done);
        }
        false
    }
}

/// Passes results that need no work to the caller of a poll, and keeps the others.
struct Settling<'c, I: OpenFile, H> {
    state: &'c mut QueueState<I>,
    /// Completions that were kept.
    kept: usize,
    handler: &'c mut H,
}

impl<I: OpenFile, H: Handler<Done<I::Error>>> Handler<BioDone<Tag<I>>> for Settling<'_, I, H> {
    #[inline(always)]
    fn completed(&mut self, bio: BioDone<Tag<I>>) {
        // Words, because values of several words would be copied through the stack.
        let BioDone { tag: Tag { in_flight, id, at }, buf, result } = bio;
        let QuickDone { in_flight, token, bytes, buf } = match (result, in_flight) {
            (Err(error), in_flight) => {
                self.kept += 1;
                return keep(self.state, (in_flight, id, at), buf, Err(error));
            }
            (Ok(()), Some(in_flight)) => {
                QuickDone { in_flight: Some(in_flight), token: id, bytes: buf.len(), buf }
            }
            (Ok(()), None) => match self.state.end_data(id, buf) {
                Ok(Some(done)) => done,
                Ok(None) => {
                    self.kept += 1;
                    return;
                }
                Err(buf) => {
                    self.kept += 1;
                    return keep(self.state, (None, id, at), buf, Ok(()));
                }
            },
        };
        // Otherwise an unwind would find `buf` in memory, and each completion would store it.
        let buf = ManuallyDrop::new(buf);
        // Before the handler runs, which then finds the file's count of requests lowered.
        if let Some(in_flight) = in_flight {
            in_flight.end();
        }
        let memory = Some(Memory::Dma(ManuallyDrop::into_inner(buf)));
        self.handler.completed(Done { token, result: Ok(bytes), memory });
    }
}

/// Ends a command whose result is not passed on at once.
#[cold]
#[inline(never)]
fn keep<I: OpenFile>(
    state: &mut QueueState<I>,
    (in_flight, id, at): (Option<InFlight<I>>, u64, u64),
    buf: DmaBuf,
    result: Result<(), BioError>,
) {
    let bio = BioDone { tag: Tag { in_flight, id, at }, buf, result };
    state.complete(bio, None, &mut NoBorrowedMemory);
}

/// Keeps all results.
struct Keeping<'c, I: OpenFile> {
    state: &'c mut QueueState<I>,
}

impl<I: OpenFile> Handler<BioDone<Tag<I>>> for Keeping<'_, I> {
    fn completed(&mut self, bio: BioDone<Tag<I>>) {
        self.state.complete(bio, None, &mut NoBorrowedMemory);
    }
}
