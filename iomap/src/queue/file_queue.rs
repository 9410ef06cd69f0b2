//! The queue that files are read and written through.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;

use nvio_driver::{BouncePool, DmaBuf, Handler, Pool, Rejected};

use crate::contract::io_args::{Done, Memory};
use crate::contract::open_file::OpenFile;
use crate::device::bio::{BioDone, PAGE, Queue};
use crate::error::Error;
use crate::memory::borrowed::{BorrowedMemory, NoBorrowedMemory};
use crate::queue::counters::Counters;
use crate::queue::state::{Mode, QueueState, Work};
use crate::queue::tag::Tag;

/// A queue for files: it takes requests, of any number of files, and gives results.
///
/// It is for one thread. Requests are submitted by [`submit_read`](Self::submit_read) and others, shown to the
/// device by [`ring`](Self::ring) once for a batch, and come back through [`poll`](Self::poll).
/// Calls that wait can be made while requests are in flight: what ends meanwhile is kept for the
/// next poll.
pub struct FileQueue<Q, I: OpenFile> {
    pub(crate) queue: Q,
    pub(crate) state: QueueState<I>,
}

impl<Q: Queue<Tag<I>>, I: OpenFile> FileQueue<Q, I> {
    /// Takes a queue of bios, in which nothing is in flight.
    pub fn new(queue: Q) -> Self {
        let depth = queue.capacity();
        // Requests that need no command, as those of holes, are done at once.
        let requests = u32::try_from(2 * depth).unwrap_or(u32::MAX);
        let state = QueueState {
            requests: Pool::new(requests),
            deferred: VecDeque::with_capacity(4 * depth),
            ready: VecDeque::with_capacity(4 * depth),
            wait: 0,
            waited: None,
            bounce: BouncePool::default(),
            counters: Counters::default(),
            mode: Mode::default(),
            page: u64::from(PAGE),
            block_mask: (1 << queue.block_shift()) - 1,
        };
        let mut this = Self { queue, state };
        let integrity = this.queue.has_integrity() || this.queue.must_bounce();
        this.state.set_mode(Mode::INTEGRITY, integrity);
        this.state.set_mode(Mode::PAGELESS, !this.queue.has_pages());
        this.follow_log_level();
        this
    }

    /// The queue of bios.
    pub fn device(&self) -> &Q {
        &self.queue
    }

    /// What was done since the queue was made.
    pub fn counters(&self) -> Counters {
        self.state.counters
    }

    /// Switches the simple path on, as it is at first, or off, so that both paths can be compared.
    pub fn set_simple(&mut self, on: bool) {
        self.state.set_mode(Mode::OFF, !on);
    }

    /// Has the simple path write its trace points, or not, as the log's level is now. That is
    /// looked at when the queue is made, so that it costs nothing when it is off.
    pub fn follow_log_level(&mut self) {
        self.state.set_mode(Mode::TRACED, log::log_enabled!(log::Level::Trace));
    }

    /// A zeroed DMA buffer of `bytes`.
    ///
    /// # Errors
    /// When the arena is full.
    pub fn alloc(&mut self, bytes: usize) -> Result<DmaBuf, Error> {
        self.queue.alloc(bytes)
    }

    /// The eventfd that becomes readable with a completion, for an event loop, if the queue of bios
    /// has one: see [`QueuePair::event_fd`](nvio_driver::QueuePair::event_fd). Call
    /// [`prepare_to_sleep`](Self::prepare_to_sleep) before each wait for it, and do not read it.
    pub fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.queue.event_fd()
    }

    /// Rings, and returns true if the caller may sleep until [`event_fd`](Self::event_fd) is
    /// readable: the next completion makes it so. Returns false if there is something to
    /// [`poll`](Self::poll) now, or no eventfd.
    ///
    /// While requests are in flight, sleep for 100 ms at most, and poll afterwards: polls notice a
    /// controller that is gone and a command that is overdue.
    pub fn prepare_to_sleep(&mut self) -> bool {
        !self.state.is_waiting() && self.queue.prepare_to_sleep()
    }

    /// Shows the device what was submitted since the last time.
    #[inline]
    pub fn ring(&mut self) {
        self.queue.ring();
    }

    /// Hands at most `limit` results to `done`, and tells how many there were. Does not wait.
    ///
    /// What is done and succeeded is handed out at once; the rest, and what needs work of the
    /// filesystem or a flush, by the next call.
    #[inline]
    pub fn poll(&mut self, limit: usize, mut done: impl FnMut(Done<I::Error>)) -> usize {
        self.poll_with(limit, &mut done)
    }

    /// The same as [`poll`](Self::poll), for a handler whose method is to be inlined for certain.
    #[inline]
    pub fn poll_with(&mut self, limit: usize, handler: &mut impl Handler<Done<I::Error>>) -> usize {
        let mut stuck = 0;
        if self.state.is_waiting() {
            self.work(usize::MAX);
            let count = self.state.hand_out(limit, handler);
            if count > 0 || limit == 0 {
                return count;
            }
            // Flushes that found no room.
            stuck = self.state.deferred.len();
        }
        let Self { queue, state } = self;
        let count = match state.mode.0 & Mode::POLLED {
            0 => {
                let mut settling = Settling { state, kept: 0, handler };
                let taken = queue.poll(limit, &mut settling);
                taken - settling.kept
            }
            _ => {
                queue.poll(limit, &mut Keeping { state, user: &mut NoBorrowedMemory });
                0
            }
        };
        if stuck > 0 {
            // Before others take the room that there is now.
            self.work(stuck);
        }
        match self.state.ready.is_empty() {
            true => count,
            false => count + self.state.hand_out(limit - count.min(limit), handler),
        }
    }

    /// Rings, waits until there is a result, hands all there are to `done`, and tells how many
    /// there were; 0 when nothing is in flight.
    ///
    /// # Errors
    /// When the device fails.
    pub fn wait(&mut self, mut done: impl FnMut(Done<I::Error>)) -> Result<usize, Error> {
        loop {
            self.work(usize::MAX);
            let ready = std::iter::from_fn(|| self.state.ready.pop_front());
            let count = ready.map(&mut done).count();
            self.state.count_results();
            if count > 0
                || (self.take_some(&mut NoBorrowedMemory)? == 0 && !self.state.is_waiting())
            {
                return Ok(count);
            }
        }
    }

    /// Waits for the device to have done something, and keeps the results; 0 when nothing is in
    /// flight, so that waiting brings neither room nor memory, whatever results are kept.
    pub(crate) fn take_some(&mut self, user: &mut impl BorrowedMemory) -> Result<usize, Error> {
        let Self { queue, state } = self;
        queue.wait(|bio| state.keep(bio, user))
    }

    /// Has a request end, if one can: for room in their table.
    #[cold]
    pub(crate) fn has_ended(&mut self, user: &mut impl BorrowedMemory) -> bool {
        let before = self.state.ready.len();
        self.work(usize::MAX);
        self.state.ready.len() > before || matches!(self.take_some(user), Ok(1..))
    }

    /// Waits for the request whose submitter waits.
    pub(crate) fn take_waited(
        &mut self,
        user: &mut impl BorrowedMemory,
    ) -> Result<Done<I::Error>, Error> {
        loop {
            self.work(usize::MAX);
            if let Some(done) = self.state.waited.take() {
                return Ok(done);
            }
            let before = self.state.deferred.len();
            let Self { queue, state } = self;
            let taken = match queue.wait(|bio| state.keep(bio, user)) {
                Ok(taken) => taken,
                Err(error) => {
                    state.set_mode(Mode::LOST, true);
                    return Err(error);
                }
            };
            if taken == 0 && before == 0 && self.state.deferred.is_empty() {
                return match self.state.waited.take() {
                    Some(done) => Ok(done),
                    None => Err(Error::LostBuffer { length: 0 }),
                };
            }
        }
    }

    /// Does the deferred work that there is now, but the first `most` of it.
    #[cold]
    fn work(&mut self, most: usize) {
        let mut flushes = false;
        for _ in 0..self.state.deferred.len().min(most) {
            match self.state.deferred.pop_front() {
                Some(Work::Simple { failed, error }) => self.state.fail_simple(failed, error),
                Some(Work::Request(index)) => flushes |= self.end(index),
                None => break,
            }
        }
        self.state.count_results();
        if flushes {
            self.queue.ring();
        }
    }

    /// Ends a request as far as it goes; true if that took a command.
    fn end(&mut self, index: u32) -> bool {
        let Self { queue, state } = self;
        let Some(request) = state.requests.get_mut(index) else { return false };
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
        state.finish(index);
        false
    }
}

/// Gives the caller of a poll what needs no work, and keeps the rest.
struct Settling<'c, I: OpenFile, H> {
    state: &'c mut QueueState<I>,
    /// What was not handed out at once.
    kept: usize,
    handler: &'c mut H,
}

impl<I: OpenFile, H: Handler<Done<I::Error>>> Handler<BioDone<Tag<I>>> for Settling<'_, I, H> {
    #[inline(always)]
    fn completed(&mut self, bio: BioDone<Tag<I>>) {
        // Those that are waited for do not end here, unless their submitter gave up.
        if bio.result.is_err() || bio.tag.in_flight.is_none() {
            self.kept += 1;
            return self.state.keep(bio, &mut NoBorrowedMemory);
        }
        let BioDone { tag, buf, .. } = bio;
        // First, so that who is told finds it lowered.
        drop(tag.in_flight);
        let memory = Some(Memory::Dma(buf));
        let result = Ok(memory.as_ref().map_or(0, Memory::len));
        self.handler.completed(Done { token: tag.id, result, memory });
    }
}

/// Keeps everything.
struct Keeping<'c, I: OpenFile, U> {
    state: &'c mut QueueState<I>,
    user: &'c mut U,
}

impl<I: OpenFile, U: BorrowedMemory> Handler<BioDone<Tag<I>>> for Keeping<'_, I, U> {
    fn completed(&mut self, bio: BioDone<Tag<I>>) {
        self.state.keep(bio, self.user);
    }
}
