//! The state of a file queue apart from the device: requests in flight, deferred work, results.

use std::collections::VecDeque;

use nvio_driver::{BouncePool, DmaBuf, Handler, PageSpan};

use crate::contract::bytes::to_usize;
use crate::contract::io_args::{Done, Memory};
use crate::contract::mapper::PAGE;
use crate::contract::open_file::{InFlight, OpenFile};
use crate::device::bio::{Bio, BioDone};
use crate::error::Error;
use crate::memory::borrowed::{BorrowedMemory, NoBorrowedMemory};
use crate::queue::counters::Counters;
use crate::queue::request::{Failure, Request, report};
use crate::queue::requests::Requests;
use crate::queue::tag::{Part, Tag, WAITED};

/// All of a file queue but the device.
pub(crate) struct QueueState<I: OpenFile> {
    /// Requests of the generic path.
    pub(crate) requests: Requests<I>,
    /// Bios of submitted requests that found the device's queue full, in order.
    pub(crate) backlog: VecDeque<Bio<Tag<I>>>,
    /// Work that may not run inside the poll that found it.
    pub(crate) deferred: VecDeque<Work<I>>,
    /// Results that the next poll returns.
    pub(crate) ready: VecDeque<Done<I::Error>>,
    /// Number of the last wait. A result with another number is dropped: its submitter gave up.
    wait: u64,
    /// The result that the submitter waits for.
    pub(crate) waited: Option<Done<I::Error>>,
    pub(crate) bounce: BouncePool,
    pub(crate) counters: Counters,
    /// Results that were returned, and those that were waited for and are returned by a poll.
    pub(crate) returned: u64,
    pub(crate) forced: u64,
    pub(crate) mode: Mode,
    /// Bytes of a read that the page path serves: [`PAGE`], or a length that no buffer has while
    /// a mode is set. The page path tests the length instead of the mode.
    pub(crate) page: u64,
    /// `page`, or the length of no buffer.
    pub(crate) page_span: PageSpan,
    /// The device's logical block minus one.
    pub(crate) block_mask: u64,
}

/// Conditions that turn the page path off, as bits of one word.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mode(pub(crate) u8);

impl Mode {
    /// The simple path is switched off.
    pub(crate) const OFF: u8 = 1;
    /// The log's level asks for trace points.
    pub(crate) const TRACED: u8 = 2;
    /// The device protects data by checksums, or every transfer is bounced.
    pub(crate) const INTEGRITY: u8 = 4;
    /// The device has no page path.
    pub(crate) const PAGELESS: u8 = 8;
    /// A submitter gave up waiting: its completion may still arrive.
    pub(crate) const LOST: u8 = 16;
    /// Too many results were not polled.
    pub(crate) const FULL: u8 = 32;
    /// Modes that a poll must handle.
    pub(crate) const POLLED: u8 = Self::TRACED | Self::LOST;

    #[inline]
    pub(crate) fn has_integrity(self) -> bool {
        self.0 & Self::INTEGRITY != 0
    }

    /// Returns true if too many results were not polled. Submissions then fail with `Busy`, unless
    /// the submitter waits.
    pub(crate) fn is_full(self) -> bool {
        self.0 & Self::FULL != 0
    }

    pub(crate) fn is_off(self) -> bool {
        self.0 & Self::OFF != 0
    }

    #[inline]
    pub(crate) fn is_traced(self) -> bool {
        self.0 & Self::TRACED != 0
    }

    fn with(self, bit: u8, on: bool) -> Self {
        Self(if on { self.0 | bit } else { self.0 & !bit })
    }
}

/// The result of a request that needs no work.
pub(crate) struct QuickDone<I> {
    /// The file, until the result is passed on.
    pub(crate) in_flight: Option<InFlight<I>>,
    pub(crate) token: u64,
    pub(crate) bytes: usize,
    pub(crate) buf: DmaBuf,
}

/// Work that may not run inside the poll that found it.
pub(crate) enum Work<I: OpenFile> {
    /// The end of a read of one command that failed.
    Simple { in_flight: InFlight<I>, id: u64, at: u64, buf: DmaBuf, error: Error },
    /// The end of a request of the table.
    Request(u32),
}

impl<I: OpenFile> QueueState<I> {
    /// Creates the state of a queue to a device with room for `depth` bios.
    pub(crate) fn new(depth: usize, block_shift: u32) -> Self {
        // A request of holes needs an entry but no command.
        let requests = u32::try_from(2 * depth).unwrap_or(u32::MAX);
        Self {
            requests: Requests::new(requests),
            backlog: VecDeque::with_capacity(4 * depth),
            deferred: VecDeque::with_capacity(4 * depth),
            ready: VecDeque::with_capacity(4 * depth),
            wait: 0,
            waited: None,
            bounce: BouncePool::default(),
            counters: Counters::default(),
            returned: 0,
            forced: 0,
            mode: Mode::default(),
            page: u64::from(PAGE),
            page_span: PageSpan::new(PAGE),
            block_mask: (1 << block_shift) - 1,
        }
    }

    pub(crate) fn set_mode(&mut self, bit: u8, on: bool) {
        self.mode = self.mode.with(bit, on);
        (self.page, self.page_span) = match self.mode {
            Mode(0) => (u64::from(PAGE), PageSpan::new(PAGE)),
            _ => (u64::MAX, PageSpan::NONE),
        };
    }

    /// Returns the number of requests whose results were not returned yet.
    pub(crate) fn in_flight(&self) -> usize {
        let Counters { simple, generic, .. } = self.counters;
        let submitted = simple.wrapping_add(generic).wrapping_add(self.forced);
        usize::try_from(submitted.wrapping_sub(self.returned)).unwrap_or(0)
    }

    /// Returns true if there is work or a result for the next poll.
    #[inline]
    pub(crate) fn is_waiting(&self) -> bool {
        !self.ready.is_empty() || !self.deferred.is_empty() || !self.backlog.is_empty()
    }

    /// Returns true if a bio that found the device's queue full may wait for room.
    pub(crate) fn has_backlog_room(&self) -> bool {
        self.backlog.len() < self.backlog.capacity()
    }

    /// Updates [`Mode::FULL`].
    pub(crate) fn count_results(&mut self) {
        let full = self.ready.len() + self.deferred.len() >= self.ready.capacity() / 4;
        self.set_mode(Mode::FULL, full);
    }

    pub(crate) fn defer(&mut self, work: Work<I>) {
        self.counters.deferred += 1;
        self.deferred.push_back(work);
        self.count_results();
    }

    /// Passes at most `limit` results that were kept to `handler`, and returns their number.
    #[inline(never)]
    pub(crate) fn hand_out(
        &mut self,
        limit: usize,
        handler: &mut impl Handler<Done<I::Error>>,
    ) -> usize {
        let ready = std::iter::from_fn(|| self.ready.pop_front());
        let count = ready.take(limit).map(|done| handler.completed(done)).count();
        self.returned += count as u64;
        self.count_results();
        count
    }

    /// Starts a wait, and returns its number, which is not 0.
    pub(crate) fn begin_wait(&mut self) -> u64 {
        self.wait += 1;
        self.waited = None;
        self.wait
    }

    /// Ends the wait without a result. Completions may still arrive.
    #[cold]
    pub(crate) fn give_up(&mut self) {
        self.set_mode(Mode::LOST, true);
        self.wait += 1;
    }

    /// Keeps a result for the next poll, or for the wait of that number.
    pub(crate) fn keep(&mut self, wait: u64, done: Done<I::Error>) {
        match wait {
            0 => {
                self.ready.push_back(done);
                self.count_results();
            }
            wait if wait == self.wait => self.waited = Some(done),
            _ => log::warn!("a request ended after its submitter gave up"),
        }
    }

    /// Takes a request whose submission ended: into the table, or its result if it is done.
    #[inline(always)]
    pub(crate) fn submitted(&mut self, mut request: Box<Request<I>>) {
        self.counters.generic += 1;
        self.counters.commands += u64::from(request.commands);
        request.refs -= 1;
        let (index, done) = (request.index, request.refs == 0);
        self.requests.put(request);
        if done {
            self.end_request(index);
        }
    }

    /// Ends a request without commands in flight, or defers its work.
    #[cold]
    #[inline(never)]
    fn end_request(&mut self, index: u32) {
        match self.requests.get_mut(index.into()).is_some_and(|request| request.has_work()) {
            true => self.defer(Work::Request(index)),
            false => {
                if let Some((wait, done)) = self.finish(index) {
                    self.keep(wait, done);
                }
            }
        }
    }

    /// Handles a completion, and keeps the result if the request is done. `own` is the request that
    /// is being submitted, and `borrowed` the memory of the caller that waits.
    #[inline(never)]
    pub(crate) fn complete(
        &mut self,
        bio: BioDone<Tag<I>>,
        own: Option<&mut Request<I>>,
        borrowed: &mut dyn BorrowedMemory,
    ) {
        let BioDone { tag, buf, result } = bio;
        let failure = result.err().map(Failure::Bio);
        if let Some((wait, done)) = self.end_command(tag, buf, failure, own, borrowed) {
            self.keep(wait, done);
        }
    }

    /// Ends a command. Returns the result if its request is done and needs no work, with the number
    /// of the wait for it.
    pub(crate) fn end_command(
        &mut self,
        tag: Tag<I>,
        buf: DmaBuf,
        failure: Option<Failure>,
        own: Option<&mut Request<I>>,
        borrowed: &mut dyn BorrowedMemory,
    ) -> Option<(u64, Done<I::Error>)> {
        let (index, part) = tag.part();
        let Tag { in_flight, id, at: pos } = tag;
        if let Some(in_flight) = in_flight {
            return self.end_simple(in_flight, (id, pos), buf, failure);
        }
        let Self { requests, bounce, .. } = self;
        let (request, submitting) = match own {
            Some(own) if own.index == index => (own, true),
            _ => (requests.get_mut(index.into())?, false),
        };
        request.slow_down();
        let at = request.offset(pos);
        if let Some(failure) = failure {
            request.fail_command(part, at, buf.len(), failure);
        } else if let Part::Data { skip } = part
            && !(request.memory.is_direct() || request.is_write())
        {
            // The memory of a submitter that gave up is gone.
            let borrowed: &mut dyn BorrowedMemory =
                if request.wait == self.wait { borrowed } else { &mut NoBorrowedMemory };
            request.copy_back((skip, at), &buf, borrowed);
        }
        request.put_buf(part, at, buf, bounce);
        request.refs = request.refs.wrapping_sub(1);
        if submitting || request.refs > 0 {
            return None;
        }
        if request.has_work() {
            self.defer(Work::Request(index));
            return None;
        }
        self.finish(index)
    }

    /// Ends a data command that succeeded, of a request that is [`quick`](Request::quick): the most
    /// frequent completion of the generic path. Its `id` is the index of its request; other commands
    /// have larger ones. Returns the request's result if it is done.
    ///
    /// # Errors
    /// The buffer if the command is another.
    #[inline(always)]
    pub(crate) fn end_data(
        &mut self,
        id: u64,
        buf: DmaBuf,
    ) -> Result<Option<QuickDone<I>>, DmaBuf> {
        let Some(entry) = self.requests.get(id) else { return Err(buf) };
        let request = &mut *entry.request;
        let Some(memory) = &mut request.quick else { return Err(buf) };
        memory.put(buf)?;
        request.refs -= 1;
        if request.refs > 0 {
            return Ok(None);
        }
        let Some((in_flight, buf)) = request.finish_quick() else {
            let index = request.index;
            self.end_request(index);
            return Ok(None);
        };
        let (token, bytes) = (request.io.token, to_usize(request.moved));
        entry.recycle();
        Ok(Some(QuickDone { in_flight, token, bytes, buf }))
    }

    /// Ends a read of one command.
    fn end_simple(
        &mut self,
        in_flight: InFlight<I>,
        (id, at): (u64, u64),
        buf: DmaBuf,
        failure: Option<Failure>,
    ) -> Option<(u64, Done<I::Error>)> {
        let pos = at & !WAITED;
        log::trace!("simple read at {pos} is done");
        let error = match failure {
            None => {
                drop(in_flight);
                let (wait, token) = Tag::<I>::wait_and_token(id, at);
                let result = Ok(buf.len());
                return Some((wait, Done { token, result, memory: Some(Memory::Dma(buf)) }));
            }
            Some(Failure::Bio(error)) => Error::Bio { what: "read", pos, length: buf.len(), error },
            Some(Failure::Rejected(error)) => error,
        };
        self.defer(Work::Simple { in_flight, id, at, buf, error });
        None
    }

    /// Reports the failure of a read of one command, and keeps the result.
    pub(crate) fn fail_simple(
        &mut self,
        in_flight: InFlight<I>,
        (id, at): (u64, u64),
        buf: DmaBuf,
        error: Error,
    ) {
        let (error, pos) = (error.into(), at & !WAITED);
        report(in_flight.state(), pos, buf.len() as u64, false, &error);
        drop(in_flight);
        log::trace!("simple read at {pos} failed: {error}");
        let memory = (!buf.is_empty()).then_some(Memory::Dma(buf));
        let (wait, token) = Tag::<I>::wait_and_token(id, at);
        self.keep(wait, Done { token, result: Err(error), memory });
    }

    /// Ends a request of the table that is done, and returns its result with the number of the
    /// wait for it.
    #[inline(never)]
    pub(crate) fn finish(&mut self, index: u32) -> Option<(u64, Done<I::Error>)> {
        let request = self.requests.get_mut(index.into())?;
        let (wait, done) = (request.wait, request.finish(self.block_mask));
        self.requests.recycle(index);
        Some((wait, done))
    }
}
