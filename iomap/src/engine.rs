//! The queue that files are read and written through.

use std::collections::VecDeque;

use nvio_driver::DmaBuf;

use crate::bounce::BouncePool;
use crate::inode::{InFlight, Inode};
use crate::pool::Pool;
use crate::request::{self, Request};
use crate::user::{Borrowed, Nobody};
use crate::{BioDone, BioError, Counters, Done, Error, Memory, PAGE, Queue, Settle};

/// What this layer has a [`Queue`] carry along with each command.
///
/// It is made for one cache line: the queue's table of commands in flight has it beside the bio.
// Words rather than variants with fields: those would be copied around as a whole.
#[derive(Debug)]
pub struct Tag<I> {
    /// Of a request of the simple path; what is without it is of one of the generic path.
    inode: Option<InFlight<I>>,
    /// The caller's token, or the number of a wait; or what [`Part`] says.
    id: u64,
    /// Position in the file, with [`WAITED`] if the submitter waits; or position in the request.
    at: u64,
}

/// No file has a position as high.
const WAITED: u64 = 1 << 63;

/// What a command of the generic path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// A piece of the request's data, which begins so many bytes before what it is for.
    Piece { skip: u32 },
    /// Zeroes beside what a request writes.
    Pad,
    /// A request's flush.
    Flush,
}

impl<I> Tag<I> {
    const PAD: u64 = 1 << 62;
    const FLUSH: u64 = 1 << 63;

    #[inline(always)]
    pub(crate) fn simple(inode: InFlight<I>, token: u64, pos: u64) -> Self {
        Self { inode: Some(inode), id: token, at: pos }
    }

    #[inline(always)]
    pub(crate) fn waited(inode: InFlight<I>, wait: u64, pos: u64) -> Self {
        Self { inode: Some(inode), id: wait, at: pos | WAITED }
    }

    /// `skip` is less than a block.
    #[inline(always)]
    pub(crate) fn piece(request: u32, skip: u32, at: u64) -> Self {
        Self { inode: None, id: u64::from(request) | u64::from(skip & 0xff_ffff) << 32, at }
    }

    pub(crate) fn pad(request: u32) -> Self {
        Self { inode: None, id: u64::from(request) | Self::PAD, at: 0 }
    }

    fn flush(request: u32) -> Self {
        Self { inode: None, id: u64::from(request) | Self::FLUSH, at: 0 }
    }

    pub(crate) fn is_pad(&self) -> bool {
        self.inode.is_none() && self.id & Self::PAD != 0
    }

    /// The request in the pool, and what of it this is.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "made of numbers of that size")]
    fn part(&self) -> (u32, Part) {
        let part = match self.id & (Self::PAD | Self::FLUSH) {
            0 => Part::Piece { skip: (self.id >> 32) as u32 & 0xff_ffff },
            Self::PAD => Part::Pad,
            _ => Part::Flush,
        };
        (self.id as u32, part)
    }
}

/// A queue for files: it takes requests, of any number of files, and gives results.
///
/// It is for one thread. Requests are submitted by [`read`](Self::read) and others, shown to the
/// device by [`ring`](Self::ring) once for a batch, and come back through [`poll`](Self::poll).
/// Calls that wait can be made while requests are in flight: what ends meanwhile is kept for the
/// next poll.
pub struct FileQueue<Q, I: Inode> {
    pub(crate) queue: Q,
    pub(crate) core: Core<I>,
}

/// All but the device.
pub(crate) struct Core<I: Inode> {
    pub(crate) requests: Pool<Request<I>>,
    /// Ends that are not for a poll's completions.
    deferred: VecDeque<Work<I>>,
    /// What is to be handed out.
    pub(crate) ready: VecDeque<Done<I::Error>>,
    /// The number of the last wait. Results of others are dropped: their submitter gave up.
    pub(crate) wait: u64,
    /// The result of what is waited for.
    waited: Option<Done<I::Error>>,
    pub(crate) bounce: BouncePool,
    pub(crate) counters: Counters,
    pub(crate) mode: Mode,
    /// Bytes of what the shortest way serves: [`PAGE`], or what no buffer has when the mode is not
    /// the usual one. So the mode is not asked for.
    pub(crate) page: u64,
    /// The device's logical block less one.
    pub(crate) block_mask: u64,
}

/// What makes the simple path leave its shortest way, in one word.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mode(u8);

impl Mode {
    const OFF: u8 = 1;
    const TRACED: u8 = 2;
    const INTEGRITY: u8 = 4;
    const PAGELESS: u8 = 8;
    /// A submitter gave up waiting.
    const LOST: u8 = 16;
    /// Results were left to pile up.
    const FULL: u8 = 32;
    /// What a poll has to know.
    const POLLED: u8 = Self::TRACED | Self::LOST;

    #[inline]
    pub(crate) fn has_integrity(self) -> bool {
        self.0 & Self::INTEGRITY != 0
    }

    /// Whether results were left to pile up: then no more may be added, but for who waits.
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

enum Work<I: Inode> {
    /// A request of the simple path that failed.
    Simple { failed: FailedSimple<I>, error: Error },
    /// A request of the generic path.
    Request(u32),
}

struct FailedSimple<I> {
    inode: InFlight<I>,
    waited: bool,
    token: u64,
    pos: u64,
    buf: DmaBuf,
}

impl<Q: Queue<Tag<I>>, I: Inode> FileQueue<Q, I> {
    /// Takes a queue of bios, in which nothing is in flight.
    pub fn over(queue: Q) -> Self {
        let depth = queue.capacity();
        // Requests that need no command, as those of holes, are done at once.
        let requests = u32::try_from(2 * depth).unwrap_or(u32::MAX);
        let core = Core {
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
        let mut this = Self { queue, core };
        let integrity = this.queue.has_integrity() || this.queue.must_bounce();
        this.core.set_mode(Mode::INTEGRITY, integrity);
        this.core.set_mode(Mode::PAGELESS, !this.queue.has_pages());
        this.follow_log_level();
        this
    }

    /// The queue of bios.
    pub fn device(&self) -> &Q {
        &self.queue
    }

    /// What was done since the queue was made.
    pub fn counters(&self) -> Counters {
        self.core.counters
    }

    /// Switches the simple path on, as it is at first, or off, so that both paths can be compared.
    pub fn set_simple(&mut self, on: bool) {
        self.core.set_mode(Mode::OFF, !on);
    }

    /// Has the simple path write its trace points, or not, as the log's level is now. That is
    /// looked at when the queue is made, so that it costs nothing when it is off.
    pub fn follow_log_level(&mut self) {
        self.core.set_mode(Mode::TRACED, log::log_enabled!(log::Level::Trace));
    }

    /// A zeroed DMA buffer of `bytes`.
    ///
    /// # Errors
    /// When the arena is full.
    pub fn alloc(&mut self, bytes: usize) -> Result<DmaBuf, Error> {
        self.queue.alloc(bytes)
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
    pub fn poll(&mut self, limit: usize, done: impl FnMut(Done<I::Error>)) -> usize {
        self.poll_with(limit, &mut Closure(done))
    }

    /// The same as [`poll`](Self::poll), for a handler whose method is to be inlined for certain.
    #[inline]
    pub fn poll_with(&mut self, limit: usize, handler: &mut impl Handler<I::Error>) -> usize {
        let mut stuck = 0;
        if self.core.is_waiting() {
            self.work(usize::MAX);
            let count = self.core.hand_out(limit, handler);
            if count > 0 || limit == 0 {
                return count;
            }
            // Flushes that found no room.
            stuck = self.core.deferred.len();
        }
        let Self { queue, core } = self;
        let count = match core.mode.0 & Mode::POLLED {
            0 => {
                let mut settling = Settling { core, kept: 0, handler };
                let taken = queue.poll(limit, &mut settling);
                taken - settling.kept
            }
            _ => {
                queue.poll(limit, &mut Keeping { core, user: &mut Nobody });
                0
            }
        };
        if stuck > 0 {
            // Before others take the room that there is now.
            self.work(stuck);
        }
        match self.core.ready.is_empty() {
            true => count,
            false => count + self.core.hand_out(limit - count.min(limit), handler),
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
            let ready = std::iter::from_fn(|| self.core.ready.pop_front());
            let count = ready.map(&mut done).count();
            self.core.count_results();
            if count > 0 || (self.take_some(&mut Nobody)? == 0 && !self.core.is_waiting()) {
                return Ok(count);
            }
        }
    }

    /// Waits for the device to have done something, and keeps the results; 0 when nothing is in
    /// flight, so that waiting brings neither room nor memory, whatever results are kept.
    pub(crate) fn take_some(&mut self, user: &mut impl Borrowed) -> Result<usize, Error> {
        let Self { queue, core } = self;
        queue.wait(|bio| core.keep(bio, user))
    }

    /// Has a request end, if one can: for room in their table.
    #[cold]
    pub(crate) fn has_ended(&mut self, user: &mut impl Borrowed) -> bool {
        let before = self.core.ready.len();
        self.work(usize::MAX);
        self.core.ready.len() > before || matches!(self.take_some(user), Ok(1..))
    }

    /// Waits for the request whose submitter waits.
    pub(crate) fn take_waited(
        &mut self,
        user: &mut impl Borrowed,
    ) -> Result<Done<I::Error>, Error> {
        loop {
            self.work(usize::MAX);
            if let Some(done) = self.core.waited.take() {
                return Ok(done);
            }
            let before = self.core.deferred.len();
            let Self { queue, core } = self;
            let taken = match queue.wait(|bio| core.keep(bio, user)) {
                Ok(taken) => taken,
                Err(error) => {
                    core.set_mode(Mode::LOST, true);
                    return Err(error);
                }
            };
            if taken == 0 && before == 0 && self.core.deferred.is_empty() {
                return match self.core.waited.take() {
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
        for _ in 0..self.core.deferred.len().min(most) {
            match self.core.deferred.pop_front() {
                Some(Work::Simple { failed, error }) => self.core.fail_simple(failed, error),
                Some(Work::Request(index)) => flushes |= self.end(index),
                None => break,
            }
        }
        self.core.count_results();
        if flushes {
            self.queue.ring();
        }
    }

    /// Ends a request as far as it goes; true if that took a command.
    fn end(&mut self, index: u32) -> bool {
        let Self { queue, core } = self;
        let Some(request) = core.requests.get_mut(index) else { return false };
        request.end();
        if request.wants_flush() {
            request.flush = false;
            match queue.flush(Tag::flush(index)) {
                Ok(()) => {
                    request.refs = 1;
                    return true;
                }
                Err((Error::Busy, _)) => {
                    request.flush = true;
                    core.deferred.push_back(Work::Request(index));
                    return false;
                }
                Err((error, _)) => request.fail(error),
            }
        }
        core.finish(index);
        false
    }
}

/// Takes results; see [`FileQueue::poll_with`]. The compiler decides whether a closure is called or
/// inlined; the method of this can be marked `#[inline(always)]`.
pub trait Handler<E> {
    /// A request is done.
    fn done(&mut self, done: Done<E>);
}

struct Closure<F>(F);

impl<E, F: FnMut(Done<E>)> Handler<E> for Closure<F> {
    #[inline]
    fn done(&mut self, done: Done<E>) {
        (self.0)(done);
    }
}

/// Gives the caller of a poll what needs no work, and keeps the rest.
struct Settling<'c, I: Inode, H> {
    core: &'c mut Core<I>,
    /// What was not handed out at once.
    kept: usize,
    handler: &'c mut H,
}

impl<I: Inode, H: Handler<I::Error>> Settle<Tag<I>> for Settling<'_, I, H> {
    #[inline(always)]
    fn settle(&mut self, bio: BioDone<Tag<I>>) {
        let BioDone { tag, buf, result } = bio;
        // Those that are waited for do not end here, unless their submitter gave up.
        if result.is_err() || tag.inode.is_none() {
            self.kept += 1;
            return self.core.keep(BioDone { tag, buf, result }, &mut Nobody);
        }
        // First, so that who is told finds it lowered.
        drop(tag.inode);
        let memory = Some(Memory::Dma(buf));
        let result = Ok(memory.as_ref().map_or(0, Memory::len));
        self.handler.done(Done { token: tag.id, result, memory });
    }
}

/// Keeps everything.
struct Keeping<'c, I: Inode, U> {
    core: &'c mut Core<I>,
    user: &'c mut U,
}

impl<I: Inode, U: Borrowed> Settle<Tag<I>> for Keeping<'_, I, U> {
    fn settle(&mut self, bio: BioDone<Tag<I>>) {
        self.core.keep(bio, self.user);
    }
}

impl<I: Inode> Core<I> {
    fn set_mode(&mut self, bit: u8, on: bool) {
        self.mode = self.mode.with(bit, on);
        self.page = if self.mode == Mode(0) { u64::from(PAGE) } else { u64::MAX };
    }

    #[inline]
    fn is_waiting(&self) -> bool {
        !self.ready.is_empty() || !self.deferred.is_empty()
    }

    /// Looks whether results were left to pile up.
    fn count_results(&mut self) {
        let full = self.ready.len() + self.deferred.len() >= self.ready.capacity() / 4;
        self.set_mode(Mode::FULL, full);
    }

    /// Keeps a result for the next poll.
    fn push(&mut self, done: Done<I::Error>) {
        self.ready.push_back(done);
        self.count_results();
    }

    fn defer(&mut self, work: Work<I>) {
        self.deferred.push_back(work);
        self.count_results();
    }

    /// Hands out what was kept.
    #[inline(never)]
    fn hand_out(&mut self, limit: usize, handler: &mut impl Handler<I::Error>) -> usize {
        let ready = std::iter::from_fn(|| self.ready.pop_front());
        let count = ready.take(limit).map(|done| handler.done(done)).count();
        self.count_results();
        count
    }

    /// Takes what the device has done, and keeps the result.
    #[inline(never)]
    pub(crate) fn keep(&mut self, bio: BioDone<Tag<I>>, user: &mut impl Borrowed) {
        if let Some(ended) = self.settle(bio, user) {
            self.push(ended);
        }
    }

    /// Takes what the device has done; gives a result if there is nothing left to do for it.
    pub(crate) fn settle(
        &mut self,
        bio: BioDone<Tag<I>>,
        user: &mut impl Borrowed,
    ) -> Option<Done<I::Error>> {
        let BioDone { tag, buf, result } = bio;
        let (request, part) = tag.part();
        let Tag { inode, id, at } = tag;
        if let Some(inode) = inode {
            let (waited, at) = (at & WAITED != 0, at & !WAITED);
            log::trace!("simple read at {at} is done");
            if result.is_err() {
                self.defer_simple(FailedSimple { inode, waited, token: id, pos: at, buf }, result);
                return None;
            }
            drop(inode);
            let memory = Some(Memory::Dma(buf));
            let result = Ok(memory.as_ref().map_or(0, Memory::len));
            let done = Done { token: id, result, memory };
            if !waited {
                return Some(done);
            }
            self.deliver(true, done);
            return None;
        }
        match part {
            Part::Piece { skip } => {
                if !self.piece(request, skip, at, buf, result, user) {
                    return None;
                }
            }
            Part::Pad => {
                self.bounce.put(buf);
                let entry = self.requests.get_mut(request)?;
                if let Err(error) = result {
                    entry.fail_bio(entry.count, 0, error);
                }
            }
            Part::Flush => {
                if let Err(error) = result {
                    self.requests.get_mut(request)?.fail(Error::Flush { error });
                }
            }
        }
        self.release(request)
    }

    #[cold]
    fn defer_simple(&mut self, failed: FailedSimple<I>, result: Result<(), BioError>) {
        let (pos, length) = (failed.pos, failed.buf.len());
        let error = match result {
            Err(error) => Error::Bio { what: "read", pos, length, error },
            Ok(()) => Error::LostBuffer { length },
        };
        self.counters.deferred += 1;
        self.defer(Work::Simple { failed, error });
    }

    fn fail_simple(&mut self, failed: FailedSimple<I>, error: Error) {
        let FailedSimple { inode, waited, token, pos, buf } = failed;
        let error = error.into();
        request::report(inode.inode(), pos, buf.len() as u64, false, &error);
        drop(inode);
        log::trace!("simple read at {pos} failed: {error}");
        let memory = (!buf.is_empty()).then_some(Memory::Dma(buf));
        self.deliver(waited, Done { token, result: Err(error), memory });
    }

    /// Drops a reference of a request; its result, if that was the last and nothing is left.
    #[inline]
    pub(crate) fn release(&mut self, index: u32) -> Option<Done<I::Error>> {
        let request = self.requests.get_mut(index)?;
        request.refs = request.refs.saturating_sub(1);
        if request.refs > 0 {
            return None;
        }
        if request.has_work() && !(request.ended && request.error.is_none()) {
            self.counters.deferred += 1;
            self.defer(Work::Request(index));
            return None;
        }
        let (waited, done) = self.requests.remove(index)?.finish();
        if waited {
            self.deliver(true, done);
            return None;
        }
        Some(done)
    }

    fn finish(&mut self, index: u32) {
        if let Some(request) = self.requests.remove(index) {
            let (waited, done) = request.finish();
            self.deliver(waited, done);
        }
    }

    pub(crate) fn deliver(&mut self, waited: bool, done: Done<I::Error>) {
        match waited {
            true if done.token == self.wait => self.waited = Some(done),
            true => log::warn!("a request ended that nobody waits for any more"),
            false => self.push(done),
        }
    }

    /// Begins a wait; gives its number.
    pub(crate) fn begin_wait(&mut self) -> u64 {
        self.wait = self.wait.wrapping_add(1);
        self.waited = None;
        self.wait
    }
}
