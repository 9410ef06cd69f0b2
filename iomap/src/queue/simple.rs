//! Reads of one command. The command carries all of their state: the simple path for one block or
//! less, and the generic path for anything that turns out to be one command.

use nvio_driver::DmaBuf;

use crate::contract::io_args::{IoArgs, IoFlags, Memory, Rejected};
use crate::contract::mapper::{ErrorOf, Mapper, Mapping};
use crate::contract::open_file::{InFlight, OpenFile};
use crate::device::bio::{Bio, BioOp, Queue};
use crate::error::Error;
use crate::memory::borrowed::NoBorrowedMemory;
use crate::queue::file_queue::FileQueue;
use crate::queue::generic::{NewRequest, op_of};
use crate::queue::request::report;
use crate::queue::route::{Read, Route, data_at, why_split};
use crate::queue::state::Mode;
use crate::queue::tag::Tag;

/// The step at which a read of one command stopped.
pub(crate) enum Stopped<I: OpenFile> {
    /// At `begin`.
    Filesystem(I::Error, DmaBuf),
    /// At the mapping, which needs more than one command. `end` was not called.
    Mapping(Mapping, InFlight<I>, DmaBuf),
    /// At the device.
    Device(Rejected<Error, Bio<Tag<I>>>),
}

impl<Q: Queue<Tag<I>>, I: OpenFile> FileQueue<Q, I> {
    /// Submits a read of one DMA buffer. `wait` is the number of the wait for its result; 0 if a
    /// poll returns it.
    #[inline(never)]
    pub(crate) fn read_buf<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        io: &IoArgs,
        buf: DmaBuf,
        wait: u64,
    ) -> Result<(), Rejected<ErrorOf<M>>> {
        self.read_routed::<M, false>(file, *io, buf, wait)
    }

    /// Submits a read of one DMA buffer without flags. Separate from [`read_buf`](Self::read_buf),
    /// so that the compiler removes the tests of flags and of waiting.
    #[inline(never)]
    pub(crate) fn read_plain<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        pos: u64,
        buf: DmaBuf,
        token: u64,
    ) -> Result<(), Rejected<ErrorOf<M>>> {
        // Otherwise `route` asks for each mode.
        if self.state.mode != Mode::default() {
            return self.read_buf(file, &IoArgs::at(pos).token(token), buf, 0);
        }
        self.read_routed::<M, true>(file, IoArgs::at(pos).token(token), buf, 0)
    }

    /// Submits a read by the path that [`route`](Self::route) chooses. With `INLINE_RUNS`, a read of
    /// several mappings is submitted without a further call, which would copy all arguments.
    #[inline(always)]
    fn read_routed<M: Mapper<OpenFile = I>, const INLINE_RUNS: bool>(
        &mut self,
        file: &mut M,
        io: IoArgs,
        buf: DmaBuf,
        wait: u64,
    ) -> Result<(), Rejected<ErrorOf<M>>> {
        if self.state.mode.is_full() && wait == 0 {
            return Err(Rejected { error: Error::Busy.into(), payload: buf.into() });
        }
        let size = file.size();
        let read = |simple| Read { io, size, wait, simple };
        let in_flight = file.open_file().begin_io();
        let simple = match self.route(file, in_flight.state(), &io, size, &buf) {
            Route::Simple => true,
            Route::OneCommand(reason) => {
                self.state.counters.fall_back(reason);
                false
            }
            Route::Other => {
                drop(in_flight);
                return self.read_memory(file, &read(false), buf.into());
            }
        };
        let (IoArgs { pos, flags, token, .. }, count) = (io, buf.len() as u64);
        let traced = simple && self.state.mode.is_traced();
        if traced {
            trace_begin(pos, count);
        }
        let op = op_of(BioOp::Read, flags);
        let mapping = match file.begin(pos, count, op) {
            Ok(mapping) => mapping,
            Err(error) => {
                return self.continue_read(file, &read(simple), Stopped::Filesystem(error, buf));
            }
        };
        let addr = match data_at(&mapping, pos) {
            Some((addr, bytes)) if count <= bytes && self.queue.fits(addr, count) => addr,
            Some(data) if INLINE_RUNS && !simple => {
                return self.read_runs(file, read(simple), buf, (mapping, in_flight), data);
            }
            _ => {
                let stopped = Stopped::Mapping(mapping, in_flight, buf);
                return self.continue_read(file, &read(simple), stopped);
            }
        };
        // An error of `end` counts only if nothing was processed.
        let _ = file.end(&mapping, pos, count, count, op);
        let tag = match wait {
            0 => Tag::simple(in_flight, token, pos),
            wait => Tag::waited(in_flight, wait, pos),
        };
        if let Err(rejected) = self.submit_bio(Bio::read(addr, buf, tag)) {
            return self.continue_read(file, &read(simple), Stopped::Device(rejected));
        }
        self.count_read(simple);
        if traced {
            trace_queued(pos);
        }
        Ok(())
    }

    /// Counts a read that was submitted as one command.
    #[inline]
    pub(crate) fn count_read(&mut self, simple: bool) {
        match simple {
            true => self.state.counters.simple += 1,
            false => {
                self.state.counters.generic += 1;
                self.state.counters.commands += 1;
            }
        }
    }

    /// Continues a read that stopped: by the generic path, from the mapping that `begin` returned;
    /// when the device's queue has room; or as an error.
    ///
    /// # Errors
    /// The error, with the buffer.
    #[cold]
    #[inline(never)]
    pub(crate) fn continue_read<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        read: &Read,
        stopped: Stopped<I>,
    ) -> Result<(), Rejected<ErrorOf<M>>> {
        let Read { io, wait, simple, .. } = *read;
        let (error, buf) = match stopped {
            Stopped::Filesystem(error, buf) => (error, buf),
            Stopped::Mapping(mapping, in_flight, buf) => {
                let reason = why_split(&mapping, io.pos, buf.len() as u64).filter(|_| simple);
                if let Some(reason) = reason {
                    self.state.counters.fall_back(reason);
                }
                match data_at(&mapping, io.pos) {
                    Some(data) => {
                        return self.read_runs(file, *read, buf, (mapping, in_flight), data);
                    }
                    None => {
                        let first = Some((mapping, in_flight));
                        return self.start_read(file, read, buf.into(), first);
                    }
                }
            }
            Stopped::Device(rejected) => {
                let how = (io.flags.contains(IoFlags::NOWAIT), wait != 0);
                match self.submit_later(rejected, how, None, &mut NoBorrowedMemory) {
                    Ok(()) => {
                        self.count_read(simple);
                        return Ok(());
                    }
                    Err(Rejected { error, payload: bio }) => (error.into(), bio.buf),
                }
            }
        };
        report(file.open_file().state(), io.pos, buf.len() as u64, false, &error);
        Err(Rejected { error, payload: buf.into() })
    }

    /// Starts a read on the generic path.
    pub(crate) fn start_read<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        read: &Read,
        memory: Memory,
        first: Option<(Mapping, InFlight<I>)>,
    ) -> Result<(), Rejected<ErrorOf<M>>> {
        let Read { io, size, wait, .. } = *read;
        let new = NewRequest {
            op: BioOp::Read,
            io,
            memory: self.hold(memory, io.flags),
            size,
            wait,
            first,
        };
        self.start(file, new, &mut NoBorrowedMemory)
    }
}

#[cold]
fn trace_begin(pos: u64, bytes: u64) {
    log::trace!("simple read at {pos}: {bytes} bytes");
}

#[cold]
fn trace_queued(pos: u64) {
    log::trace!("read at {pos} is queued");
}
