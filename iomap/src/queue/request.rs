//! A request of the generic path: what is known of it while its commands are in flight.

use crate::contract::io_args::{Done, IoArgs, IoFlags};
use crate::contract::open_file::{EndIo, InFlight, OpenFile, Report};
use crate::device::bio::BioError;
use crate::error::{Error, FileError};
use crate::memory::request_memory::RequestMemory;

/// A request of the generic path.
pub(crate) struct Request<I: OpenFile> {
    pub(crate) in_flight: InFlight<I>,
    pub(crate) io: IoArgs,
    pub(crate) write: bool,
    /// Whether its submitter waits for it.
    pub(crate) waited: bool,
    /// Commands in flight, and one while it is being submitted.
    pub(crate) refs: u32,
    /// Commands that were taken by the queue, ever.
    pub(crate) commands: u32,
    /// Bytes of the file that it is of, from its position on: a read's are clipped to the file.
    pub(crate) count: u64,
    /// Size of the file when it was submitted.
    pub(crate) size: u64,
    /// Bytes that were served or submitted.
    pub(crate) moved: u64,
    /// The first error.
    pub(crate) error: Option<I::Error>,
    /// The first byte that could not be copied from or to the caller's memory.
    pub(crate) fault: Option<u64>,
    /// Some of a write goes to unwritten blocks.
    pub(crate) unwritten: bool,
    /// A flush makes it durable.
    pub(crate) flush: bool,
    /// The filesystem was told of the end.
    pub(crate) ended: bool,
    pub(crate) held: RequestMemory,
}

impl<I: OpenFile> Request<I> {
    /// Notes an error, unless there is one.
    pub(crate) fn fail(&mut self, error: impl Into<I::Error>) {
        if self.error.is_none() {
            self.error = Some(error.into());
        }
    }

    /// Notes the failure of a command for `length` bytes at byte `at` of the request.
    pub(crate) fn fail_bio(&mut self, at: u64, length: usize, error: BioError) {
        let what = if self.write { "write" } else { "read" };
        let pos = self.io.pos.saturating_add(at);
        self.fail(Error::Bio { what, pos, length, error });
    }

    /// Notes that byte `at` of the caller's memory could not be accessed.
    pub(crate) fn fault_at(&mut self, at: u64) {
        self.fault = Some(self.fault.map_or(at, |before| before.min(at)));
    }

    /// Whether no further command is to be submitted.
    pub(crate) fn has_failed(&self) -> bool {
        self.error.is_some() || self.fault.is_some()
    }

    /// Whether it must be one command.
    pub(crate) fn is_atomic(&self) -> bool {
        self.flag(IoFlags::ATOMIC)
    }

    fn flag(&self, flag: IoFlags) -> bool {
        self.io.flags.contains(flag)
    }

    /// Bytes that it has moved; `None` if it failed. With [`IoFlags::PARTIAL`], a fault is the end
    /// of what was moved, if anything was.
    fn outcome(&self) -> Option<u64> {
        let fault = self.fault.unwrap_or(u64::MAX);
        let moved = fault > 0 && (self.fault.is_none() || self.flag(IoFlags::PARTIAL));
        (moved && self.error.is_none()).then(|| self.moved.min(fault))
    }

    /// Whether its end must wait for deferred work: errors, what the filesystem has to be told,
    /// and what is to be made durable.
    pub(crate) fn has_work(&self) -> bool {
        self.has_failed()
            || self.flush
            || self.is_hooked()
            || (self.write && self.in_flight.state().is_cached())
    }

    /// Whether the filesystem is to be told of the end: because it asks for it, or because there
    /// are blocks to be converted or a size to be moved, without which the write is not done.
    fn is_hooked(&self) -> bool {
        let end = self.io.pos.saturating_add(self.count);
        self.flag(IoFlags::HOOKS) || self.unwritten || (self.write && end > self.size)
    }

    /// Tells the filesystem of the end, once.
    pub(crate) fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let Self { write, unwritten, .. } = *self;
        let (pos, outcome) = (self.io.pos, self.outcome());
        if self.is_hooked() {
            let bytes = outcome.unwrap_or(self.moved);
            let end = EndIo { pos, bytes, write, unwritten, failed: outcome.is_none() };
            if let Err(error) = self.in_flight.state().end_io(&end) {
                self.fail(error);
            }
        }
        let written = self.outcome().filter(|&bytes| write && bytes > 0);
        // What stays is stale, but was brought in while the write was in flight.
        if written.is_some_and(|bytes| !self.in_flight.state().invalidate(pos, bytes)) {
            log::warn!("cached data at position {pos} is not what was written under it");
        }
    }

    /// Whether a flush is to be submitted.
    pub(crate) fn wants_flush(&self) -> bool {
        self.flush && self.outcome().is_some_and(|bytes| bytes > 0)
    }

    /// The result, when nothing is left to be done.
    pub(crate) fn finish(self) -> (bool, Done<I::Error>) {
        let token = self.io.token;
        let waited = self.waited;
        let borrowed = matches!(self.held, RequestMemory::Borrowed);
        let (pos, count, write, before) =
            (self.io.pos, self.count, self.write, self.io.done_before);
        let (partial, outcome) = (self.flag(IoFlags::PARTIAL), self.outcome());
        let error = self.error.or_else(|| {
            self.fault.filter(|&at| at == 0 || !partial).map(|at| match partial && before > 0 {
                // A retry that brings nothing.
                true => Error::FallBack { pos }.into(),
                false => Error::Fault { at }.into(),
            })
        });
        let memory = self.held.into_memory();
        let error = match &memory {
            None if error.is_none() && !borrowed => {
                Some(Error::LostBuffer { length: usize::try_from(count).unwrap_or(0) }.into())
            }
            _ => error,
        };
        let result = match error {
            None => {
                let moved = outcome.unwrap_or(0).saturating_add(before);
                Ok(usize::try_from(moved).unwrap_or(usize::MAX))
            }
            Some(error) => {
                report(self.in_flight.state(), pos, count, write, &error);
                Err(error)
            }
        };
        log::trace!("request at {pos} is done: {result:?}");
        (waited, Done { token, result, memory })
    }
}

/// Tells the filesystem of an error, except of those after which the same may succeed.
#[cold]
pub(crate) fn report<I: OpenFile>(
    open_file: &I,
    pos: u64,
    bytes: u64,
    write: bool,
    error: &I::Error,
) {
    if !error.is_again() && !error.is_fall_back() {
        open_file.report(&Report { pos, bytes, write, error });
    }
}
