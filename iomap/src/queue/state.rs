//! The state of a file queue apart from the device: requests in flight, deferred work, results.

use std::collections::VecDeque;

use nvio_driver::{BouncePool, DmaBuf, Handler, Pool};

use crate::contract::io_args::{Done, Memory};
use crate::contract::mapper::PAGE;
use crate::contract::open_file::{InFlight, OpenFile};
use crate::device::bio::{Bio, BioDone};
use crate::error::{BioError, Error};
use crate::memory::borrowed::{BorrowedMemory, NoBorrowedMemory};
use crate::queue::counters::Counters;
use crate::queue::request::{Request, Serving, report};
use crate::queue::tag::{Part, Tag, WAITED};

/// All of a file queue but the device.
pub(crate) struct QueueState<I: OpenFile> {
    /// Requests of the generic path that have commands in flight.
    pub(crate) requests: Pool<Request<I>>,
    /// Bios of submitted requests that found the device's queue full, in order.
    pub(crate) backlog: VecDeque<Bio<Tag<I>>>,
    /// Work that may not run inside the poll that found it.
    pub(crate) deferred: VecDeque<Work<I>>,
    /// Results that the next poll returns.
    pub(crate) ready: VecDeque<Done<I::Error>>,
    /// Number of the last wait. A result with another number is dropped: its submitter gave up.
    pub(crate) wait: u64,
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

/// Work that may not run inside the poll that found it.
pub(crate) enum Work<I: OpenFile> {
    /// A read of one command that failed.
    Simple { failed: FailedSimple<I>, error: Error },
    /// The end of a request in the pool.
    Request(u32),
}

/// A read of one command that failed.
pub(crate) struct FailedSimple<I> {
    in_flight: InFlight<I>,
    waited: bool,
    token: u64,
    pos: u64,
    buf: DmaBuf,
}

impl<I: OpenFile> QueueState<I> {
    /// Creates the state of a queue to a device with room for `depth` bios.
    pub(crate) fn new(depth: usize, block_shift: u32) -> Self {
        // A request of holes needs an entry but no command.
        let requests = u32::try_from(2 * depth).unwrap_or(u32::MAX);
        Self {
            requests: Pool::new(requests),
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
            block_mask: (1 << block_shift) - 1,
        }
    }

    pub(crate) fn set_mode(&mut self, bit: u8, on: bool) {
        self.mode = self.mode.with(bit, on);
        self.page = if self.mode == Mode(0) { u64::from(PAGE) } else { u64::MAX };
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

    /// Keeps a result for the next poll.
    pub(crate) fn push(&mut self, done: Done<I::Error>) {
        self.ready.push_back(done);
        self.count_results();
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

    /// Handles a completion, and keeps the result if the request is done.
    #[inline(never)]
    pub(crate) fn keep(&mut self, bio: BioDone<Tag<I>>, serving: Option<&mut Serving<'_, I>>) {
        if let Some(done) = self.complete(bio, serving) {
            self.push(done);
        }
    }

    /// Handles a completion, during the submission of `serving` or the wait for it. Returns the
    /// result of a request that is done. The result of `serving` is for its submitter.
    fn complete(
        &mut self,
        bio: BioDone<Tag<I>>,
        serving: Option<&mut Serving<'_, I>>,
    ) -> Option<Done<I::Error>> {
        let BioDone { tag, buf, result } = bio;
        let (index, part) = tag.part();
        let Tag { in_flight, id, at } = tag;
        if let Some(in_flight) = in_flight {
            return self.complete_simple(in_flight, (id, at), buf, result);
        }
        let Self { requests, bounce, .. } = self;
        if let Some(Serving { index: own, request, borrowed }) = serving
            && *own == index
        {
            end_command(request, (part, at), buf, result, bounce, *borrowed);
            return None;
        }
        let request = requests.get_mut(index)?;
        end_command(request, (part, at), buf, result, bounce, &mut NoBorrowedMemory);
        if request.refs > 0 {
            return None;
        }
        if request.has_work() {
            self.defer(Work::Request(index));
            return None;
        }
        self.finish(index)
    }

    /// Handles the completion of a read of one command.
    fn complete_simple(
        &mut self,
        in_flight: InFlight<I>,
        (token, at): (u64, u64),
        buf: DmaBuf,
        result: Result<(), BioError>,
    ) -> Option<Done<I::Error>> {
        let (waited, pos) = (at & WAITED != 0, at & !WAITED);
        log::trace!("simple read at {pos} is done");
        if let Err(error) = result {
            let error = Error::Bio { what: "read", pos, length: buf.len(), error };
            self.defer_simple(in_flight, (token, at), buf, error);
            return None;
        }
        drop(in_flight);
        let result = Ok(buf.len());
        let done = Done { token, result, memory: Some(Memory::Dma(buf)) };
        if !waited {
            return Some(done);
        }
        self.deliver_waited(done);
        None
    }

    /// Defers the failure of a read of one command.
    #[cold]
    pub(crate) fn defer_simple(
        &mut self,
        in_flight: InFlight<I>,
        (token, at): (u64, u64),
        buf: DmaBuf,
        error: Error,
    ) {
        let (waited, pos) = (at & WAITED != 0, at & !WAITED);
        let failed = FailedSimple { in_flight, waited, token, pos, buf };
        self.defer(Work::Simple { failed, error });
    }

    /// Reports the failure of a read of one command, and keeps the result.
    pub(crate) fn fail_simple(&mut self, failed: FailedSimple<I>, error: Error) {
        let FailedSimple { in_flight, waited, token, pos, buf } = failed;
        let error = error.into();
        report(in_flight.state(), pos, buf.len() as u64, false, &error);
        drop(in_flight);
        log::trace!("simple read at {pos} failed: {error}");
        let memory = (!buf.is_empty()).then_some(Memory::Dma(buf));
        let done = Done { token, result: Err(error), memory };
        match waited {
            true => self.deliver_waited(done),
            false => self.push(done),
        }
    }

    /// Handles a bio of the backlog that the device rejected.
    #[cold]
    pub(crate) fn fail_backlogged(
        &mut self,
        bio: Bio<Tag<I>>,
        error: Error,
        serving: Option<&mut Serving<'_, I>>,
    ) {
        let Bio { tag, buf, .. } = bio;
        let (index, part) = tag.part();
        let Tag { in_flight, id, at } = tag;
        if let Some(in_flight) = in_flight {
            return self.defer_simple(in_flight, (id, at), buf, error);
        }
        let Self { requests, bounce, .. } = self;
        let own = serving.filter(|serving| serving.index == index);
        let (request, own) = match own {
            Some(serving) => (&mut serving.request, true),
            None => match requests.get_mut(index) {
                Some(request) => (request, false),
                None => return,
            },
        };
        request.fail(error);
        put_buf(request, (part, at), buf, false, bounce, &mut NoBorrowedMemory);
        request.refs = request.refs.saturating_sub(1);
        if !own && request.refs == 0 {
            self.defer(Work::Request(index));
        }
    }

    /// Removes a request that is done from the pool. Returns its result, unless its submitter gave
    /// up.
    pub(crate) fn finish(&mut self, index: u32) -> Option<Done<I::Error>> {
        let request = self.requests.remove(index)?;
        let waited = request.waited;
        let done = request.finish();
        if waited {
            log::warn!("a request ended after its submitter gave up");
            return None;
        }
        Some(done)
    }

    /// Stores the result of a read that the submitter waits for.
    fn deliver_waited(&mut self, done: Done<I::Error>) {
        match done.token == self.wait {
            true => self.waited = Some(done),
            false => log::warn!("a request ended after its submitter gave up"),
        }
    }

    /// Starts a wait, and returns its number.
    pub(crate) fn begin_wait(&mut self) -> u64 {
        self.wait = self.wait.wrapping_add(1);
        self.waited = None;
        self.wait
    }
}

/// Ends a command of a request.
#[inline]
fn end_command<I: OpenFile>(
    request: &mut Request<I>,
    (part, at): (Part, u64),
    buf: DmaBuf,
    result: Result<(), BioError>,
    bounce: &mut BouncePool,
    borrowed: &mut dyn BorrowedMemory,
) {
    let arrived = result.is_ok();
    if let Err(error) = result {
        match part {
            Part::Data { .. } => request.fail_bio(at, buf.len(), error),
            Part::Pad => request.fail_bio(request.count, 0, error),
            Part::Flush => request.fail(Error::Flush { error }),
        }
    }
    put_buf(request, (part, at), buf, arrived, bounce, borrowed);
    request.refs = request.refs.saturating_sub(1);
}

/// Puts the buffer of a command back to where it came from.
#[inline]
fn put_buf<I: OpenFile>(
    request: &mut Request<I>,
    (part, at): (Part, u64),
    buf: DmaBuf,
    arrived: bool,
    bounce: &mut BouncePool,
    borrowed: &mut dyn BorrowedMemory,
) {
    let bounced = match part {
        Part::Data { skip } => request.put_data((skip, at), buf, arrived, borrowed),
        Part::Pad => Some(buf),
        Part::Flush => None,
    };
    if let Some(buf) = bounced {
        bounce.put(buf);
    }
}
