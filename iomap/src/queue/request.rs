//! The state of a request of the generic path.

use nvio_driver::DmaBuf;

use crate::contract::io_args::{Done, IoArgs, IoFlags, Memory};
use crate::contract::open_file::{EndIo, InFlight, OpenFile, Report};
use crate::device::bio::BioOp;
use crate::error::{BioError, Error, FileError};
use crate::memory::borrowed::BorrowedMemory;
use crate::memory::request_memory::RequestMemory;

/// A request of the generic path.
pub(crate) struct Request<I: OpenFile> {
    pub(crate) in_flight: InFlight<I>,
    pub(crate) io: IoArgs,
    pub(crate) op: BioOp,
    /// True if the submitter waits for the result.
    pub(crate) waited: bool,
    /// Commands in flight, plus one until the submission ends.
    pub(crate) refs: u32,
    /// Commands that were submitted.
    pub(crate) commands: u32,
    /// Bytes of the file from `io.pos`; a read is clipped to the end of the file.
    pub(crate) count: u64,
    /// Size of the file at submission, in bytes.
    pub(crate) size: u64,
    /// Bytes that were served without a command, or submitted.
    pub(crate) moved: u64,
    /// The first error.
    pub(crate) error: Option<I::Error>,
    /// Offset in the request of the first byte of the caller's memory that could not be accessed.
    pub(crate) fault: Option<u64>,
    /// True if part of a write goes to unwritten blocks.
    pub(crate) unwritten: bool,
    /// True if the write needs a flush to be durable.
    pub(crate) flush: bool,
    /// True after the filesystem's end hook was called.
    pub(crate) ended: bool,
    pub(crate) memory: RequestMemory,
}

/// A request while it is submitted or waited for: a local variable of the submitter. It moves to
/// the pool if it has commands in flight when the submitter returns.
pub(crate) struct Serving<'b, I: OpenFile> {
    /// The entry of the pool that is reserved for the request. Its commands carry the number.
    pub(crate) index: u32,
    pub(crate) request: Request<I>,
    /// The caller's memory, for a request of borrowed memory.
    pub(crate) borrowed: &'b mut dyn BorrowedMemory,
}

/// The request has failed, so its submission stops. The error or fault is in the request.
pub(crate) struct Stop;

impl<I: OpenFile> Request<I> {
    pub(crate) fn is_write(&self) -> bool {
        self.op == BioOp::Write
    }

    /// Records an error, unless there is one.
    pub(crate) fn fail(&mut self, error: impl Into<I::Error>) {
        if self.error.is_none() {
            self.error = Some(error.into());
        }
    }

    /// Records an error and returns the sign to stop.
    #[cold]
    pub(crate) fn stop(&mut self, error: impl Into<I::Error>) -> Stop {
        self.fail(error);
        Stop
    }

    /// Records the failure of a command of `length` bytes at byte `at` of the request.
    #[cold]
    pub(crate) fn fail_bio(&mut self, at: u64, length: usize, error: BioError) {
        let what = if self.is_write() { "write" } else { "read" };
        let pos = self.io.pos.saturating_add(at);
        self.fail(Error::Bio { what, pos, length, error });
    }

    /// Records that byte `at` of the caller's memory could not be accessed.
    pub(crate) fn fault_at(&mut self, at: u64) {
        self.fault = Some(self.fault.map_or(at, |before| before.min(at)));
    }

    /// Returns true if no further command may be submitted.
    pub(crate) fn has_failed(&self) -> bool {
        self.error.is_some() || self.fault.is_some()
    }

    pub(crate) fn has(&self, flag: IoFlags) -> bool {
        self.io.flags.contains(flag)
    }

    /// Returns the bytes of a range of `n` bytes at `pos` that were served, after its submission.
    pub(crate) fn served(&self, (pos, n): (u64, u64), served: Result<(), Stop>) -> u64 {
        match (served, self.fault) {
            (Err(Stop), _) if self.error.is_some() => 0,
            (_, Some(fault)) => fault.saturating_sub(pos - self.io.pos).min(n),
            (Ok(()), None) => n,
            (Err(Stop), None) => 0,
        }
    }

    /// Puts the buffer of a data command back, whose data `arrived` or not. Returns a buffer that
    /// was bounced through, after a read's data was copied to the caller's memory.
    #[inline]
    pub(crate) fn put_data(
        &mut self,
        (skip, at): (u32, u64),
        mut buf: DmaBuf,
        arrived: bool,
        borrowed: &mut dyn BorrowedMemory,
    ) -> Option<DmaBuf> {
        let length = buf.len();
        let (write, left) = (self.is_write(), to_usize(self.count - at.min(self.count)));
        if let RequestMemory::Direct(direct) = &mut self.memory {
            // Bytes past the end of the file must not show.
            if !write && length > left {
                buf[left..].fill(0);
            }
            if !direct.put(to_usize(at), buf) {
                self.fail(Error::LostBuffer { length });
            }
            return None;
        }
        if !write && arrived {
            let skip = skip as usize;
            let n = left.min(length.saturating_sub(skip));
            let data = buf.get(skip..skip + n).unwrap_or(&[]);
            let nofault = self.has(IoFlags::NOFAULT);
            let copied = self.memory.copy_to(borrowed, to_usize(at), data, nofault);
            if copied < n {
                self.fault_at(at + copied as u64);
            }
        }
        Some(buf)
    }

    /// Returns the bytes moved, or `None` after a failure. With [`IoFlags::PARTIAL`] a fault ends
    /// the request where it occurred, unless that is its first byte.
    fn outcome(&self) -> Option<u64> {
        let fault = self.fault.unwrap_or(u64::MAX);
        let moved = fault > 0 && (self.fault.is_none() || self.has(IoFlags::PARTIAL));
        (moved && self.error.is_none()).then(|| self.moved.min(fault))
    }

    /// Returns true if the end of the request needs deferred work: an error to report, a hook of
    /// the filesystem, cached data to invalidate, or a flush.
    pub(crate) fn has_work(&self) -> bool {
        let ended = self.ended && self.error.is_none();
        let cached = self.is_write() && self.in_flight.state().is_cached();
        !ended && (self.has_failed() || self.flush || self.is_hooked() || cached)
    }

    /// Returns true if the filesystem's end hook must be called: on request, or because blocks
    /// must be converted or the size of the file must grow before the write is complete.
    fn is_hooked(&self) -> bool {
        let end = self.io.pos.saturating_add(self.count);
        self.has(IoFlags::HOOKS) || self.unwritten || (self.is_write() && end > self.size)
    }

    /// Calls the filesystem's end hook and invalidates cached data, once.
    pub(crate) fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let (write, unwritten) = (self.is_write(), self.unwritten);
        let (pos, outcome) = (self.io.pos, self.outcome());
        if self.is_hooked() {
            let bytes = outcome.unwrap_or(self.moved);
            let end = EndIo { pos, bytes, write, unwritten, failed: outcome.is_none() };
            if let Err(error) = self.in_flight.state().end_io(&end) {
                self.fail(error);
            }
        }
        let written = self.outcome().filter(|&bytes| write && bytes > 0);
        // Data that was cached while the write was in flight.
        if written.is_some_and(|bytes| !self.in_flight.state().invalidate(pos, bytes)) {
            log::warn!("cached data at position {pos} is stale: a write went past it");
        }
    }

    /// Returns true if a flush must be submitted.
    pub(crate) fn wants_flush(&self) -> bool {
        self.flush && self.outcome().is_some_and(|bytes| bytes > 0)
    }

    /// Returns the result, after all work is done.
    pub(crate) fn finish(self) -> Done<I::Error> {
        let token = self.io.token;
        let borrowed = matches!(self.memory, RequestMemory::Borrowed(_));
        let (pos, count, write, before) =
            (self.io.pos, self.count, self.is_write(), self.io.done_before);
        let (partial, outcome) = (self.has(IoFlags::PARTIAL), self.outcome());
        let error = self.error.or_else(|| {
            self.fault.filter(|&at| at == 0 || !partial).map(|at| match partial && before > 0 {
                // A retry without progress.
                true => Error::FallBack { pos }.into(),
                false => Error::Fault { at }.into(),
            })
        });
        let memory = self.memory.into_memory();
        let error = match &memory {
            None if error.is_none() && !borrowed => {
                Some(Error::LostBuffer { length: to_usize(count) }.into())
            }
            _ => error,
        };
        let result = match error {
            None => Ok(to_usize(outcome.unwrap_or(0).saturating_add(before))),
            Some(error) => {
                report(self.in_flight.state(), pos, count, write, &error);
                Err(error)
            }
        };
        log::trace!("request at {pos} is done: {result:?}");
        Done { token, result, memory }
    }

    /// Returns the memory of a request that has no command in flight.
    pub(crate) fn into_memory(self) -> Memory {
        self.memory.into_memory().unwrap_or(Memory::Bytes(Vec::new()))
    }
}

/// Reports an error to the filesystem, unless a retry or buffered I/O may succeed.
#[cold]
pub(crate) fn report<I: OpenFile>(file: &I, pos: u64, bytes: u64, write: bool, error: &I::Error) {
    if !error.is_again() && !error.is_fall_back() {
        file.report(&Report { pos, bytes, write, error });
    }
}

/// Converts a number of bytes in memory. The crate is for hosts of 64 bits.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "checked below")]
pub(crate) fn to_usize(bytes: u64) -> usize {
    const _: () = assert!(size_of::<usize>() == size_of::<u64>());
    bytes as usize
}
