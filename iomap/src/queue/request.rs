//! The state of a request of the generic path.

use std::mem::{forget, replace};

use nvio_driver::{BouncePool, DmaBuf, SplitBuffer};

use crate::contract::bytes::to_usize;
use crate::contract::io_args::{Done, IoArgs, IoFlags};
use crate::contract::open_file::{EndIo, InFlight, OpenFile, Report};
use crate::device::bio::{Bio, BioOp};
use crate::error::{BioError, Error, FileError};
use crate::memory::borrowed::BorrowedMemory;
use crate::memory::request_memory::RequestMemory;
use crate::queue::tag::{Part, Tag};

/// A request of the generic path. Its submitter owns it until all of it is submitted; then the
/// table of requests has it until its last command completes.
pub(crate) struct Request<I: OpenFile> {
    /// Its number in the table of requests, which its commands carry.
    pub(crate) index: u32,
    /// The number of the next idle request, if this one is idle.
    pub(crate) next_idle: u32,
    /// Commands in flight, plus one until the submission ends.
    pub(crate) refs: u32,
    /// Commands that were submitted.
    pub(crate) commands: u32,
    /// True after an error or a fault: no further data is submitted.
    pub(crate) failed: bool,
    pub(crate) op: BioOp,
    /// True if part of a write goes to unwritten blocks.
    pub(crate) unwritten: bool,
    /// True if the write needs a flush to be durable.
    pub(crate) flush: bool,
    /// True after the filesystem's end hook was called.
    ended: bool,
    /// The file, until the request is done.
    in_flight: Option<InFlight<I>>,
    pub(crate) memory: RequestMemory,
    /// The memory of a request whose result a poll may return at once: a read of whole blocks into
    /// one buffer, without hooks and not waited for, that did not fail.
    pub(crate) quick: Option<SplitBuffer>,
    pub(crate) io: IoArgs,
    /// Bytes of the file from `io.pos`; a read is clipped to the end of the file.
    pub(crate) count: u64,
    /// Size of the file at submission, in bytes.
    pub(crate) size: u64,
    /// Bytes that were served without a command, or submitted.
    pub(crate) moved: u64,
    /// Number of the wait for the result; 0 if a poll returns it.
    pub(crate) wait: u64,
    /// The first error.
    error: Option<I::Error>,
    /// Offset in the request of the first byte of the caller's memory that could not be accessed.
    fault: Option<u64>,
}

/// The failure of a command.
pub(crate) enum Failure {
    /// On the device.
    Bio(BioError),
    /// When it was submitted from the backlog.
    Rejected(Error),
}

/// A request that is being submitted.
pub(crate) struct Serving<'b, I: OpenFile> {
    pub(crate) request: Box<Request<I>>,
    /// The caller's memory, for a request of borrowed memory.
    pub(crate) borrowed: &'b mut dyn BorrowedMemory,
}

impl<I: OpenFile> Request<I> {
    /// A request that is not in use.
    pub(crate) fn idle(index: u32) -> Self {
        Self {
            index,
            next_idle: index + 1,
            refs: 0,
            commands: 0,
            failed: false,
            op: BioOp::Read,
            unwritten: false,
            flush: false,
            ended: false,
            in_flight: None,
            memory: RequestMemory::Borrowed(0),
            quick: None,
            io: IoArgs::at(0),
            count: 0,
            size: 0,
            moved: 0,
            wait: 0,
            error: None,
            fault: None,
        }
    }

    /// Begins to submit a request that was idle: what is not set here is as [`idle`](Self::idle)
    /// made it.
    #[inline(always)]
    pub(crate) fn begin(
        &mut self,
        in_flight: InFlight<I>,
        (op, io): (BioOp, IoArgs),
        (count, size): (u64, u64),
        memory: RequestMemory,
        wait: u64,
    ) {
        (self.refs, self.commands, self.moved) = (1, 0, 0);
        (self.op, self.io, self.count, self.size, self.wait) = (op, io, count, size, wait);
        // An idle request has neither, so that there is nothing to drop.
        forget(self.in_flight.replace(in_flight));
        forget(replace(&mut self.memory, memory));
    }

    /// Begins a [`quick`](Self::quick) request that was idle, after its `commands` were submitted.
    #[inline(always)]
    pub(crate) fn begin_quick(
        &mut self,
        in_flight: InFlight<I>,
        io: IoArgs,
        count: u64,
        memory: SplitBuffer,
        commands: u32,
    ) {
        (self.refs, self.commands, self.moved) = (1 + commands, commands, count);
        (self.io, self.count) = (io, count);
        forget(self.in_flight.replace(in_flight));
        forget(self.quick.replace(memory));
    }

    /// Makes a [`quick`](Self::quick) request one that needs work.
    pub(crate) fn slow_down(&mut self) {
        if let Some(memory) = self.quick.take() {
            self.memory = RequestMemory::One(memory);
        }
    }

    pub(crate) fn is_write(&self) -> bool {
        self.op == BioOp::Write
    }

    #[inline]
    pub(crate) fn has(&self, flag: IoFlags) -> bool {
        self.io.flags.contains(flag)
    }

    /// Returns the offset in the request of position `pos` of the file.
    #[inline]
    pub(crate) fn offset(&self, pos: u64) -> u64 {
        pos.saturating_sub(self.io.pos)
    }

    /// The state of the file.
    #[inline]
    pub(crate) fn file(&self) -> Option<&I> {
        self.in_flight.as_ref().map(InFlight::state)
    }

    /// Records an error, unless there is one.
    #[cold]
    pub(crate) fn fail(&mut self, error: impl Into<I::Error>) {
        self.failed = true;
        if self.error.is_none() {
            self.error = Some(error.into());
        }
    }

    /// Records the failure of a command of `length` bytes at byte `at` of the request.
    #[cold]
    pub(crate) fn fail_command(&mut self, part: Part, at: u64, length: usize, failure: Failure) {
        let error = match failure {
            Failure::Rejected(error) => return self.fail(error),
            Failure::Bio(error) => error,
        };
        let what = if self.is_write() { "write" } else { "read" };
        let (at, length) = match part {
            Part::Data { .. } => (at, length),
            Part::Pad => (self.count, 0),
            Part::Flush => return self.fail(Error::Flush { error }),
        };
        let pos = self.io.pos.saturating_add(at);
        self.fail(Error::Bio { what, pos, length, error });
    }

    /// Records that byte `at` of the caller's memory could not be accessed.
    #[cold]
    pub(crate) fn fault_at(&mut self, at: usize) {
        self.failed = true;
        self.fault = Some(self.fault.map_or(at as u64, |before| before.min(at as u64)));
    }

    /// Returns the bytes of a range of `n` bytes at `pos` that were served, after its submission.
    #[inline]
    pub(crate) fn served(&self, pos: u64, n: u64) -> u64 {
        match (self.failed, &self.error, self.fault) {
            (false, ..) => n,
            (true, None, Some(fault)) => fault.saturating_sub(pos - self.io.pos).min(n),
            (true, ..) => 0,
        }
    }

    /// Calls the filesystem's hook for a bio at position `pos`, before it is submitted. Returns
    /// false if the hook fails the request.
    #[cold]
    pub(crate) fn show(&mut self, bio: &Bio<Tag<I>>, pos: u64) -> bool {
        let shown = self.file().map(|file| file.submit_io(pos, bio.addr, bio.buf.len()));
        let Some(Err(error)) = shown else { return true };
        self.fail(error);
        false
    }

    /// Puts the buffer of a command back to where it came from.
    #[inline]
    pub(crate) fn put_buf(&mut self, part: Part, at: u64, buf: DmaBuf, bounce: &mut BouncePool) {
        let length = buf.len();
        match part {
            Part::Flush => {}
            Part::Data { .. } if self.memory.is_direct() => {
                if !self.memory.put(to_usize(at), buf) {
                    self.fail(Error::LostBuffer { length });
                }
            }
            Part::Data { .. } | Part::Pad => bounce.put(buf),
        }
    }

    /// Copies the data of a command that arrived to the caller's memory. It is for byte `at` of the
    /// request, and begins at byte `skip` of `buf`.
    pub(crate) fn copy_back(
        &mut self,
        (skip, at): (u32, u64),
        buf: &DmaBuf,
        borrowed: &mut dyn BorrowedMemory,
    ) {
        let data = buf.get(skip as usize..).unwrap_or(&[]);
        let n = data.len().min(to_usize(self.count.saturating_sub(at)));
        let (at, nofault) = (to_usize(at), self.has(IoFlags::NOFAULT));
        let copied = self.memory.copy_to(borrowed, at, &data[..n], nofault);
        if copied < n {
            self.fault_at(at + copied);
        }
    }

    /// Returns the bytes moved, or `None` after a failure. With [`IoFlags::PARTIAL`] a fault ends
    /// the request where it occurred, unless that is its first byte.
    fn outcome(&self) -> Option<u64> {
        match self.fault {
            _ if self.error.is_some() => None,
            None => Some(self.moved),
            Some(fault) if fault > 0 && self.has(IoFlags::PARTIAL) => Some(self.moved.min(fault)),
            Some(_) => None,
        }
    }

    /// Returns true if the end of the request needs deferred work: an error to report, a hook of
    /// the filesystem, cached data to invalidate, or a flush.
    #[inline]
    pub(crate) fn has_work(&self) -> bool {
        let cached = || self.is_write() && self.file().is_some_and(OpenFile::is_cached);
        let ended = self.ended && self.error.is_none();
        (self.failed || self.flush || self.is_hooked() || cached()) && !ended
    }

    /// Returns true if the filesystem's end hook must be called: on request, or because blocks
    /// must be converted or the size of the file must grow before the write is complete.
    #[inline]
    fn is_hooked(&self) -> bool {
        let grows = self.is_write() && self.io.pos.saturating_add(self.count) > self.size;
        self.has(IoFlags::HOOKS) || self.unwritten || grows
    }

    /// Calls the filesystem's end hook and invalidates cached data, once.
    pub(crate) fn end(&mut self) {
        if replace(&mut self.ended, true) {
            return;
        }
        let (write, unwritten) = (self.is_write(), self.unwritten);
        let (pos, outcome) = (self.io.pos, self.outcome());
        let bytes = outcome.unwrap_or(self.moved);
        let failed = outcome.is_none();
        let end = EndIo { pos, bytes, write, unwritten, failed, durable: false, private: 0 };
        let hooked = self.file().filter(|_| self.is_hooked());
        if let Some(Err(error)) = hooked.map(|file| file.end_io(&end)) {
            self.fail(error);
        }
        // Data that was cached while the write was in flight.
        let written = self.outcome().filter(|&bytes| write && bytes > 0);
        if let (Some(bytes), Some(file)) = (written, self.file())
            && !file.invalidate(pos, bytes)
        {
            log::warn!("cached data at position {pos} is stale: a write went past it");
        }
    }

    /// Returns true if a flush must be submitted.
    pub(crate) fn wants_flush(&self) -> bool {
        self.flush && self.outcome().is_some_and(|bytes| bytes > 0)
    }

    /// Ends a [`quick`](Self::quick) request, and returns its file and its buffer. Returns `None`,
    /// and nothing changes, if a piece is missing.
    #[inline(always)]
    pub(crate) fn finish_quick(&mut self) -> Option<(Option<InFlight<I>>, DmaBuf)> {
        match self.quick.take()?.finish() {
            Ok(buf) => Some((self.in_flight.take(), buf)),
            Err(memory) => {
                self.quick = Some(memory);
                None
            }
        }
    }

    /// Ends the request after all work is done, and returns its result.
    pub(crate) fn finish(&mut self, block_mask: u64) -> Done<I::Error> {
        self.slow_down();
        let file = self.in_flight.take();
        let memory = replace(&mut self.memory, RequestMemory::Borrowed(0));
        let (direct, owned) = (memory.is_direct(), !matches!(memory, RequestMemory::Borrowed(_)));
        let mut memory = memory.into_memory();
        let past_end = self.count.wrapping_neg() & block_mask;
        if past_end > 0 && direct && !self.is_write() {
            // Bytes of the last block past the end of the file must not show.
            let (at, n) = (to_usize(self.count), to_usize(past_end));
            memory.as_mut().map(|memory| memory.visit(at, n, |_, run| run.fill(0)));
        }
        let lost = owned && memory.is_none();
        let result = match self.failed || lost {
            false => Ok(to_usize(self.moved.saturating_add(self.io.done_before))),
            true => self.failed_result(file.as_ref(), lost),
        };
        log::trace!("request at {} is done: {result:?}", self.io.pos);
        Done { token: self.io.token, result, memory }
    }

    /// Returns the result of a request after an error or a fault, or if its memory is `lost`.
    /// Reports an error.
    #[cold]
    #[inline(never)]
    fn failed_result(&mut self, file: Option<&InFlight<I>>, lost: bool) -> Result<usize, I::Error> {
        let (pos, before) = (self.io.pos, self.io.done_before);
        let partial = self.has(IoFlags::PARTIAL);
        let error = match (self.error.take(), self.fault) {
            (Some(error), _) => error,
            // A retry without progress.
            (None, Some(0)) if partial && before > 0 => Error::FallBack { pos }.into(),
            (None, Some(at)) if at == 0 || !partial => Error::Fault { at }.into(),
            (None, _) if lost => Error::LostBuffer { length: to_usize(self.count) }.into(),
            (None, fault) => {
                let moved = self.moved.min(fault.unwrap_or(u64::MAX));
                return Ok(to_usize(moved.saturating_add(before)));
            }
        };
        if let Some(file) = file {
            report(file.state(), pos, self.count, self.is_write(), &error);
        }
        Err(error)
    }

    /// Returns the memory of a request that was not accepted, and releases the file.
    pub(crate) fn abandon(&mut self) -> RequestMemory {
        self.in_flight = None;
        replace(&mut self.memory, RequestMemory::Borrowed(0))
    }

    /// Returns the error of a request of which no command was submitted.
    #[inline]
    pub(crate) fn take_early_error(&mut self) -> Option<I::Error> {
        if self.failed && self.commands == 0 { self.error.take() } else { None }
    }
}

/// Reports an error to the filesystem, unless a retry or buffered I/O may succeed.
#[cold]
pub(crate) fn report<I: OpenFile>(file: &I, pos: u64, bytes: u64, write: bool, error: &I::Error) {
    if !error.is_again() && !error.is_fall_back() {
        file.report(&Report { pos, bytes, write, error });
    }
}
