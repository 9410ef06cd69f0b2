//! The public calls that write to blocks that are allocated already.

use nvio_driver::DmaBuf;

use crate::contract::io_args::{Failed, IoArgs, IoFlags, Memory, Rejected};
use crate::contract::mapper::{ErrorOf, Mapper};
use crate::contract::open_file::OpenFile;
use crate::device::bio::{BioOp, WriteQueue};
use crate::error::Error;
use crate::memory::borrowed::{Cursor, FromSource, NoBorrowedMemory, Source};
use crate::memory::request_memory::RequestMemory;
use crate::queue::counters::Reason;
use crate::queue::file_queue::FileQueue;
use crate::queue::generic::NewRequest;
use crate::queue::read::not_submitted;
use crate::queue::tag::Tag;

impl<Q: WriteQueue<Tag<I>>, I: OpenFile> FileQueue<Q, I> {
    /// Submits a write of all of `buf` at `pos` of a file, without flags. The result has `token`.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`submit_write_with`](Self::submit_write_with).
    #[inline]
    pub fn submit_write<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        pos: u64,
        buf: DmaBuf,
        token: u64,
    ) -> Result<(), Rejected<ErrorOf<M>>> {
        self.submit_write_with(file, IoArgs::at(pos).token(token), buf.into())
    }

    /// Submits a write of all of `memory` at `io.pos` of a file. Position and length must be
    /// multiples of the device's block. The write is durable at completion with
    /// [`IoFlags::DSYNC`], else after a flush.
    ///
    /// The call waits only if the request needs more commands than fit; see
    /// [Busy](Self#busy).
    ///
    /// # Errors
    /// The error that occurred before any command was submitted: [`Error::Misaligned`], an error of
    /// the filesystem, [`Error::NoBlocks`], [`Error::NotAtomic`], [`Error::FallBack`] if cached
    /// data cannot be dropped; [`Error::Busy`] or [`Error::WouldBlock`] if a retry may succeed.
    pub fn submit_write_with<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        io: IoArgs,
        memory: Memory,
    ) -> Result<(), Rejected<ErrorOf<M>>> {
        if self.state.mode.is_full() {
            return Err(Rejected { error: Error::Busy.into(), payload: memory });
        }
        if io.flags.contains(IoFlags::FORCE_WAIT) {
            let done = self.write_with(file, io, memory);
            return self.force(io, done);
        }
        self.write(file, io, memory, 0)
    }

    fn write<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        io: IoArgs,
        memory: Memory,
        wait: u64,
    ) -> Result<(), Rejected<ErrorOf<M>>> {
        self.state.counters.fall_back(Reason::Write);
        let (memory, size) = (self.hold(memory, io.flags), file.size());
        let new = NewRequest { op: BioOp::Write, io, memory, size, wait, first: None };
        self.start(file, new, &mut NoBorrowedMemory)
    }

    /// Writes all of `memory` at `io.pos` of a file, waits, and returns the memory with the number
    /// of bytes.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`submit_write_with`](Self::submit_write_with), or the error of the device.
    pub fn write_with<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        io: IoArgs,
        memory: Memory,
    ) -> Result<(Memory, usize), Failed<ErrorOf<M>>> {
        let wait = self.state.begin_wait();
        self.write(file, io, memory, wait).map_err(not_submitted)?;
        self.wait_for(&mut NoBorrowedMemory)?.into_result()
    }

    /// Writes the rest of `source` at `io.pos` of a file, waits, and returns the number of bytes,
    /// by which the cursor moves. The data is copied to private memory, at most 1 MiB at a time, so
    /// that the source may change while the write is in flight.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`write_with`](Self::write_with); [`Error::WouldBlock`] with [`IoFlags::NOWAIT`];
    /// [`Error::Fault`] if the memory cannot be accessed; [`Error::NoMemory`]. After an error the
    /// cursor is unchanged. With [`IoFlags::PARTIAL`] a fault after the first byte is not an error:
    /// the result is the number of bytes before it.
    pub fn write_from<M: Mapper<OpenFile = I>, S: Source>(
        &mut self,
        file: &mut M,
        io: IoArgs,
        source: &mut Cursor<S>,
    ) -> Result<usize, ErrorOf<M>> {
        let memory = RequestMemory::Borrowed(source.memory.len().saturating_sub(source.at));
        self.state.counters.fall_back(Reason::Write);
        let (size, wait) = (file.size(), self.state.begin_wait());
        let new = NewRequest { op: BioOp::Write, io, memory, size, wait, first: None };
        let n = self.execute(file, new, &mut FromSource(source))?;
        source.advance(&io, n);
        Ok(n)
    }

    /// Writes `data` at `pos` of a file, waits, and returns the number of bytes. See
    /// [`write_from`](Self::write_from).
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`write_from`](Self::write_from).
    pub fn write_at<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        pos: u64,
        data: &[u8],
    ) -> Result<usize, ErrorOf<M>> {
        self.write_from(file, IoArgs::at(pos), &mut Cursor::new(data))
    }
}
