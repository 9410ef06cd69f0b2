//! The public calls that read.

use std::mem::ManuallyDrop;

use nvio_driver::DmaBuf;

use crate::contract::io_args::{Done, Failed, IoArgs, IoFlags, Memory, Rejected};
use crate::contract::mapper::{ErrorOf, Mapper, PAGE};
use crate::contract::open_file::OpenFile;
use crate::device::bio::{Bio, BioOp, Queue};
use crate::error::{Error, FileError};
use crate::memory::borrowed::{BorrowedMemory, Cursor, NoBorrowedMemory, Sink, ToSink};
use crate::memory::request_memory::RequestMemory;
use crate::queue::counters::Reason;
use crate::queue::file_queue::FileQueue;
use crate::queue::generic::{NewRequest, op_of};
use crate::queue::route::{Read, one_range};
use crate::queue::simple::Stopped;
use crate::queue::tag::Tag;

impl<Q: Queue<Tag<I>>, I: OpenFile> FileQueue<Q, I> {
    /// Submits a read of all of `buf` at `pos` of a file, without flags. The result has `token`.
    /// A read of a page takes the fewest instructions.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`submit_read_with`](Self::submit_read_with).
    // Always: with several callers the compiler would make it a function, which costs a sixth more.
    #[inline(always)]
    pub fn submit_read<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        pos: u64,
        buf: DmaBuf,
        token: u64,
    ) -> Result<(), Rejected<ErrorOf<M>>> {
        // Fewer questions than those of `route`, each of which answers several.
        let usual = buf.is_page(self.state.page_span);
        if !usual || pos & self.state.block_mask != 0 {
            return self.read_plain(file, pos, buf, token);
        }
        let count = u64::from(PAGE);
        // Otherwise an unwind of the filesystem would find `buf` in memory, and each read would store it.
        let buf = ManuallyDrop::new(buf);
        let in_flight = file.open_file().begin_io();
        if pos >= file.page_end(in_flight.state()) {
            in_flight.end();
            return self.read_plain(file, pos, ManuallyDrop::into_inner(buf), token);
        }
        let op = op_of(BioOp::Read, IoFlags::empty());
        let mapping = match file.begin(pos, count, op) {
            Ok(mapping) => mapping,
            Err(error) => {
                let stopped = Stopped::Filesystem(error, ManuallyDrop::into_inner(buf));
                return self.continue_page(file, (pos, token), stopped);
            }
        };
        let buf = ManuallyDrop::into_inner(buf);
        let Some(addr) = one_range(&mapping, pos, count) else {
            let stopped = Stopped::Mapping(mapping, in_flight, buf);
            return self.continue_page(file, (pos, token), stopped);
        };
        let _ = file.end(&mapping, pos, count, count, op);
        let submitted = self.queue.read_page(addr, buf, Tag::simple(in_flight, token, pos));
        self.state.counters.simple += 1;
        if let Err((buf, tag)) = submitted {
            return self.page_refused(file, (pos, token), Bio::read(addr, buf, tag));
        }
        Ok(())
    }

    /// Submits a page that the device's page path did not accept, for the reason.
    #[cold]
    #[inline(never)]
    fn page_refused<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        io: (u64, u64),
        bio: Bio<Tag<I>>,
    ) -> Result<(), Rejected<ErrorOf<M>>> {
        let Err(rejected) = self.queue.submit(bio) else { return Ok(()) };
        self.state.counters.simple -= 1;
        self.continue_page(file, io, Stopped::Device(rejected))
    }

    /// Continues a read that stopped on the page path.
    #[cold]
    #[inline(never)]
    fn continue_page<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        (pos, token): (u64, u64),
        stopped: Stopped<I>,
    ) -> Result<(), Rejected<ErrorOf<M>>> {
        let io = IoArgs::at(pos).token(token);
        let read = Read { io, size: file.size(), wait: 0, simple: true };
        self.continue_read(file, &read, stopped)
    }

    /// Submits a read at `io.pos` of a file into all of `memory`. Position and length must be
    /// multiples of the device's block, except for [`Memory::Bytes`]. Holes read as zeroes. A read
    /// ends at the end of the file.
    ///
    /// The call waits only if the request needs more commands than fit; see
    /// [Busy](Self#busy).
    ///
    /// # Errors
    /// The error that occurred before any command was submitted: [`Error::Misaligned`], an error of
    /// the filesystem; [`Error::Busy`] or [`Error::WouldBlock`] if a retry may succeed.
    #[inline]
    pub fn submit_read_with<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        io: IoArgs,
        memory: Memory,
    ) -> Result<(), Rejected<ErrorOf<M>>> {
        self.read(file, &io, memory, 0)
    }

    /// Reads at `io.pos` of a file into all of `memory`, waits, and returns the memory with the
    /// number of bytes. Results of other requests are kept for the next poll.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`submit_read_with`](Self::submit_read_with), or the error of the device.
    pub fn read_with<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        io: IoArgs,
        memory: Memory,
    ) -> Result<(Memory, usize), Failed<ErrorOf<M>>> {
        let wait = self.state.begin_wait();
        self.read(file, &io, memory, wait).map_err(not_submitted)?;
        self.wait_for(&mut NoBorrowedMemory)?.into_result()
    }

    /// Submits a read. `wait` is the number of the wait for its result; 0 if a poll returns it.
    #[inline]
    fn read<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        io: &IoArgs,
        memory: Memory,
        wait: u64,
    ) -> Result<(), Rejected<ErrorOf<M>>> {
        match memory {
            Memory::Dma(buf) => self.read_buf(file, io, buf, wait),
            memory => {
                let read = Read { io: *io, size: file.size(), wait, simple: false };
                self.read_memory(file, &read, memory)
            }
        }
    }

    /// Submits a read that is not one command, and counts why it is not simple.
    #[cold]
    #[inline(never)]
    pub(crate) fn read_memory<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        read: &Read,
        memory: Memory,
    ) -> Result<(), Rejected<ErrorOf<M>>> {
        let Read { io, wait, .. } = *read;
        if wait == 0 && self.state.mode.is_full() {
            return Err(Rejected { error: Error::Busy.into(), payload: memory });
        }
        if wait == 0 && io.flags.contains(IoFlags::FORCE_WAIT) {
            let done = self.read_with(file, io, memory);
            return self.force(io, done);
        }
        if let Some(reason) = self.why_not_simple(file, read, &memory) {
            self.state.counters.fall_back(reason);
        }
        self.start_read(file, read, memory, None)
    }

    /// Reads at `io.pos` of a file into the rest of `sink`, waits, and returns the number of bytes,
    /// by which the cursor moves. Any alignment is allowed: the data is copied through private
    /// memory, at most 1 MiB at a time. Bytes that did not arrive are unchanged.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`read_with`](Self::read_with); [`Error::WouldBlock`] with [`IoFlags::NOWAIT`];
    /// [`Error::Fault`] if the memory cannot be accessed; [`Error::NoMemory`]. After an error the
    /// cursor is unchanged.
    pub fn read_into<M: Mapper<OpenFile = I>, S: Sink>(
        &mut self,
        file: &mut M,
        io: IoArgs,
        sink: &mut Cursor<S>,
    ) -> Result<usize, ErrorOf<M>> {
        let memory = RequestMemory::Borrowed(sink.memory.len().saturating_sub(sink.at));
        self.state.counters.fall_back(Reason::Memory);
        let (size, wait) = (file.size(), self.state.begin_wait());
        let new = NewRequest { op: BioOp::Read, io, memory, size, wait, first: None };
        let n = self.execute(file, new, &mut ToSink(sink))?;
        sink.advance(&io, n);
        Ok(n)
    }

    /// Reads at `pos` of a file into `out`, waits, and returns the number of bytes: less than
    /// `out.len()` only at the end of the file. See [`read_into`](Self::read_into).
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`read_into`](Self::read_into).
    pub fn read_at<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        pos: u64,
        out: &mut [u8],
    ) -> Result<usize, ErrorOf<M>> {
        self.read_into(file, IoArgs::at(pos), &mut Cursor::new(out))
    }

    /// Starts a request of borrowed memory, and waits for its result.
    pub(crate) fn execute<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        new: NewRequest<I>,
        borrowed: &mut dyn BorrowedMemory,
    ) -> Result<usize, ErrorOf<M>> {
        self.start(file, new, borrowed).map_err(|rejected| rejected.error)?;
        self.wait_for(borrowed).map_err(|failed| failed.error)?.result
    }

    /// Returns the memory as a request holds it.
    pub(crate) fn hold(&self, memory: Memory, flags: IoFlags) -> RequestMemory {
        RequestMemory::new(memory, flags.contains(IoFlags::BOUNCE) || self.queue.must_bounce())
    }

    /// Keeps the result of a request with [`IoFlags::FORCE_WAIT`] for the next poll.
    pub(crate) fn force(
        &mut self,
        io: IoArgs,
        done: Result<(Memory, usize), Failed<I::Error>>,
    ) -> Result<(), Rejected<I::Error>> {
        let token = io.token;
        let done = match done {
            Ok((memory, n)) => Done { token, result: Ok(n), memory: Some(memory) },
            Err(Failed { error, payload }) => Done { token, result: Err(error), memory: payload },
        };
        self.state.forced += 1;
        self.state.keep(0, done);
        Ok(())
    }
}

impl<E: FileError> Done<E> {
    /// Returns memory and number of bytes of a request.
    ///
    /// # Errors
    /// The error of the request; [`Error::LostBuffer`] if the device kept the memory.
    ///
    /// See the [example](crate::FileQueue#examples).
    pub fn into_result(self) -> Result<(Memory, usize), Failed<E>> {
        match (self.result, self.memory) {
            (Ok(n), Some(memory)) => Ok((memory, n)),
            (Ok(length), None) => {
                Err(Failed { error: Error::LostBuffer { length }.into(), payload: None })
            }
            (Err(error), payload) => Err(Failed { error, payload }),
        }
    }
}

/// Returns a request that was rejected as one that failed.
pub(crate) fn not_submitted<E>(rejected: Rejected<E>) -> Failed<E> {
    Failed { error: rejected.error, payload: Some(rejected.payload) }
}
