//! All of a queue for files but the device: what is in flight, what is left to do, what is done.

use std::collections::VecDeque;

use nvio_driver::{BouncePool, DmaBuf, Handler, Pool};

use crate::contract::io_args::{Done, Memory};
use crate::contract::open_file::{InFlight, OpenFile};
use crate::device::bio::{BioDone, BioError, PAGE};
use crate::error::Error;
use crate::memory::borrowed::BorrowedMemory;
use crate::queue::counters::Counters;
use crate::queue::request;
use crate::queue::request::Request;
use crate::queue::tag::{Part, Tag, WAITED};

/// All but the device.
pub(crate) struct QueueState<I: OpenFile> {
    pub(crate) requests: Pool<Request<I>>,
    /// Ends that are not for a poll's completions.
    pub(crate) deferred: VecDeque<Work<I>>,
    /// What is to be handed out.
    pub(crate) ready: VecDeque<Done<I::Error>>,
    /// The number of the last wait. Results of others are dropped: their submitter gave up.
    pub(crate) wait: u64,
    /// The result of what is waited for.
    pub(crate) waited: Option<Done<I::Error>>,
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
pub(crate) struct Mode(pub(crate) u8);

impl Mode {
    pub(crate) const OFF: u8 = 1;
    pub(crate) const TRACED: u8 = 2;
    pub(crate) const INTEGRITY: u8 = 4;
    pub(crate) const PAGELESS: u8 = 8;
    /// A submitter gave up waiting.
    pub(crate) const LOST: u8 = 16;
    /// Results were left to pile up.
    pub(crate) const FULL: u8 = 32;
    /// What a poll has to know.
    pub(crate) const POLLED: u8 = Self::TRACED | Self::LOST;

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

pub(crate) enum Work<I: OpenFile> {
    /// A request of the simple path that failed.
    Simple { failed: FailedSimple<I>, error: Error },
    /// A request of the generic path.
    Request(u32),
}

pub(crate) struct FailedSimple<I> {
    in_flight: InFlight<I>,
    waited: bool,
    token: u64,
    pos: u64,
    buf: DmaBuf,
}

impl<I: OpenFile> QueueState<I> {
    pub(crate) fn set_mode(&mut self, bit: u8, on: bool) {
        self.mode = self.mode.with(bit, on);
        self.page = if self.mode == Mode(0) { u64::from(PAGE) } else { u64::MAX };
    }

    #[inline]
    pub(crate) fn is_waiting(&self) -> bool {
        !self.ready.is_empty() || !self.deferred.is_empty()
    }

    /// Looks whether results were left to pile up.
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
        self.deferred.push_back(work);
        self.count_results();
    }

    /// Hands out what was kept.
    #[inline(never)]
    pub(crate) fn hand_out(
        &mut self,
        limit: usize,
        handler: &mut impl Handler<Done<I::Error>>,
    ) -> usize {
        let ready = std::iter::from_fn(|| self.ready.pop_front());
        let count = ready.take(limit).map(|done| handler.completed(done)).count();
        self.count_results();
        count
    }

    /// Takes what the device has done, and keeps the result.
    #[inline(never)]
    pub(crate) fn keep(&mut self, bio: BioDone<Tag<I>>, user: &mut impl BorrowedMemory) {
        if let Some(ended) = self.settle(bio, user) {
            self.push(ended);
        }
    }

    /// Takes what the device has done; gives a result if there is nothing left to do for it.
    pub(crate) fn settle(
        &mut self,
        bio: BioDone<Tag<I>>,
        user: &mut impl BorrowedMemory,
    ) -> Option<Done<I::Error>> {
        let BioDone { tag, buf, result } = bio;
        let (request, part) = tag.part();
        let Tag { in_flight, id, at } = tag;
        if let Some(in_flight) = in_flight {
            let (waited, at) = (at & WAITED != 0, at & !WAITED);
            log::trace!("simple read at {at} is done");
            if result.is_err() {
                self.defer_simple(
                    FailedSimple { in_flight, waited, token: id, pos: at, buf },
                    result,
                );
                return None;
            }
            drop(in_flight);
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

    pub(crate) fn fail_simple(&mut self, failed: FailedSimple<I>, error: Error) {
        let FailedSimple { in_flight, waited, token, pos, buf } = failed;
        let error = error.into();
        request::report(in_flight.state(), pos, buf.len() as u64, false, &error);
        drop(in_flight);
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

    pub(crate) fn finish(&mut self, index: u32) {
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
