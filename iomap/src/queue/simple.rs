//! Reads of one command. The command carries all of their state: the simple path for one block or
//! less, and the generic path for anything that turns out to be one command.

use nvio_driver::DmaBuf;

use crate::contract::io_args::{IoArgs, IoFlags, Rejected};
use crate::contract::mapper::{ErrorOf, Mapper, Mapping, PAGE};
use crate::contract::open_file::{InFlight, OpenFile};
use crate::device::bio::{Bio, BioOp, Queue};
use crate::error::Error;
use crate::queue::counters::Reason;
use crate::queue::file_queue::FileQueue;
use crate::queue::generic::{NewRequest, op_of};
use crate::queue::request::report;
use crate::queue::route::{one_range, why_split};
use crate::queue::tag::Tag;

/// The step at which a read of one command stopped.
pub(crate) enum Stopped<I: OpenFile> {
    /// Before anything was done.
    Early(DmaBuf),
    /// At the cache or at `begin`.
    Filesystem(I::Error, DmaBuf),
    /// At the mapping, which needs more than one command. `end` was not called.
    Mapping(Mapping, InFlight<I>, DmaBuf),
    /// At the device.
    Device(Rejected<Error, Bio<Tag<I>>>),
}

impl<Q: Queue<Tag<I>>, I: OpenFile> FileQueue<Q, I> {
    /// Submits a read of a page, the most frequent request. It asks fewer questions than
    /// [`one_command`](Self::one_command), each of which answers several.
    ///
    /// # Errors
    /// The step that stopped it, with the buffer.
    #[inline(always)]
    pub(crate) fn page<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        pos: u64,
        buf: DmaBuf,
        token: u64,
    ) -> Result<(), Stopped<I>> {
        let usual = buf.is_page(self.state.page);
        if !usual || pos >= file.page_end() || pos & self.state.block_mask != 0 {
            return Err(Stopped::Early(buf));
        }
        let count = u64::from(PAGE);
        let in_flight = file.open_file().begin_io();
        if let Err(error) = file.open_file().state().write_back(pos, count, false) {
            return Err(Stopped::Filesystem(error, buf));
        }
        let op = op_of(BioOp::Read, IoFlags::empty());
        let mapping = match file.begin(pos, count, op) {
            Ok(mapping) => mapping,
            Err(error) => return Err(Stopped::Filesystem(error, buf)),
        };
        let Some(addr) = one_range(&mapping, pos, count) else {
            return Err(Stopped::Mapping(mapping, in_flight, buf));
        };
        let _ = file.end(&mapping, pos, count, count, op);
        match self.queue.read_page(addr, buf, Tag::simple(in_flight, token, pos)) {
            Ok(()) => Ok(()),
            Err((buf, tag)) => self.page_refused(addr, buf, tag),
        }
    }

    /// Submits a page that the device's page path did not accept, for the reason.
    #[cold]
    #[inline(never)]
    fn page_refused(&mut self, addr: u64, buf: DmaBuf, tag: Tag<I>) -> Result<(), Stopped<I>> {
        self.queue.submit(Bio::read(addr, buf, tag)).map_err(Stopped::Device)
    }

    /// Submits a read of all of `buf` as one command, after [`route`](Self::route). `tag` makes the
    /// state that the command carries.
    ///
    /// # Errors
    /// The step that stopped it, with the buffer.
    #[inline(always)]
    pub(crate) fn one_command<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        (pos, flags): (u64, IoFlags),
        buf: DmaBuf,
        tag: impl FnOnce(InFlight<I>) -> Tag<I>,
    ) -> Result<(), Stopped<I>> {
        let count = buf.len() as u64;
        let in_flight = file.open_file().begin_io();
        let nowait = flags.contains(IoFlags::NOWAIT);
        if let Err(error) = file.open_file().state().write_back(pos, count, nowait) {
            return Err(Stopped::Filesystem(error, buf));
        }
        let op = op_of(BioOp::Read, flags);
        let mapping = match file.begin(pos, count, op) {
            Ok(mapping) => mapping,
            Err(error) => return Err(Stopped::Filesystem(error, buf)),
        };
        let addr = match one_range(&mapping, pos, count) {
            Some(addr) if self.queue.fits(addr, count) => addr,
            _ => return Err(Stopped::Mapping(mapping, in_flight, buf)),
        };
        // An error of `end` counts only if nothing was processed.
        let _ = file.end(&mapping, pos, count, count, op);
        self.submit_read_bio(addr, buf, tag(in_flight)).map_err(Stopped::Device)
    }

    /// Submits a read, by the device's page path if that serves.
    #[inline(always)]
    pub(crate) fn submit_read_bio(
        &mut self,
        addr: u64,
        buf: DmaBuf,
        tag: Tag<I>,
    ) -> Result<(), Rejected<Error, Bio<Tag<I>>>> {
        if !buf.is_page(self.state.page) {
            return self.queue.submit(Bio::read(addr, buf, tag));
        }
        match self.queue.read_page(addr, buf, tag) {
            Ok(()) => Ok(()),
            Err((buf, tag)) => self.queue.submit(Bio::read(addr, buf, tag)),
        }
    }

    /// Continues a read that stopped: by the generic path, from the mapping that `begin` returned;
    /// in the backlog, if the device's queue is full; or as an error.
    ///
    /// # Errors
    /// The error, with the buffer.
    #[cold]
    #[inline(never)]
    pub(crate) fn continue_read<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        (io, size): (&IoArgs, u64),
        stopped: Stopped<I>,
        simple: bool,
    ) -> Result<(), Rejected<ErrorOf<M>>> {
        let nowait = io.flags.contains(IoFlags::NOWAIT);
        match stopped {
            Stopped::Device(Rejected { error: Error::Busy, payload: bio })
                if !nowait && self.may_wait() =>
            {
                self.state.backlog.push_back(bio);
                match simple {
                    true => self.state.counters.simple += 1,
                    false => self.state.counters.generic += 1,
                }
                Ok(())
            }
            stopped => {
                let new = self.stopped_read(file, (io, size), stopped, simple)?;
                self.submit_generic(file, new)
            }
        }
    }

    /// Returns the request of a read that needs the generic path.
    ///
    /// # Errors
    /// The reason why the read failed, with the buffer.
    #[cold]
    #[inline(never)]
    pub(crate) fn stopped_read<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        (io, size): (&IoArgs, u64),
        stopped: Stopped<I>,
        simple: bool,
    ) -> Result<NewRequest<I>, Rejected<ErrorOf<M>>> {
        let pos = io.pos;
        let (error, buf) = match stopped {
            Stopped::Early(buf) => {
                return Ok(NewRequest::read(*io, self.hold(buf.into(), io.flags), size));
            }
            Stopped::Filesystem(error, buf) => (error, buf),
            Stopped::Device(Rejected { error, payload: bio }) => (error.into(), bio.buf),
            Stopped::Mapping(mapping, in_flight, buf) => {
                let count = buf.len() as u64;
                if let Some(reason) = why_split(&mapping, pos, count) {
                    if simple {
                        self.count_reason(reason);
                    }
                    let memory = self.hold(buf.into(), io.flags);
                    let first = Some((mapping, in_flight));
                    return Ok(NewRequest { first, ..NewRequest::read(*io, memory, size) });
                }
                let _ = file.end(&mapping, pos, count, 0, op_of(BioOp::Read, io.flags));
                let Mapping { offset, length, .. } = mapping;
                (Error::BadMapping { pos, offset, length }.into(), buf)
            }
        };
        report(file.open_file().state(), pos, buf.len() as u64, false, &error);
        Err(Rejected { error, payload: buf.into() })
    }

    pub(crate) fn count_reason(&mut self, reason: Reason) {
        self.state.counters.fall_back(reason);
    }

    /// Returns true if a request whose command finds no room may wait in the backlog.
    pub(crate) fn may_wait(&self) -> bool {
        self.state.in_flight() < self.in_flight_max() && self.state.has_backlog_room()
    }
}
