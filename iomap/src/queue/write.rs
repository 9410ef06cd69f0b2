//! Overwrites, as callers ask for them: the blocks are there, and no metadata changes.

use nvio_driver::DmaBuf;

use crate::contract::io_args::{Failed, IoArgs, IoFlags, Memory, Rejected};
use crate::contract::mapper::{ErrorOf, Mapper};
use crate::contract::open_file::OpenFile;
use crate::device::bio::{WriteQueue, Writes};
use crate::error::Error;
use crate::memory::borrowed::{Cursor, FromSource, NoBorrowedMemory, Source};
use crate::memory::request_memory::RequestMemory;
use crate::queue::counters::Reason;
use crate::queue::file_queue::FileQueue;
use crate::queue::generic::Transfer;
use crate::queue::read::{moved, rejected};
use crate::queue::tag::Tag;

impl<Q: WriteQueue<Tag<I>>, I: OpenFile> FileQueue<Q, I> {
    /// Submits a write of all of `buf` at `pos` of a file, without flags. The result has `token`.
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

    /// Submits a write of all of `memory` at `io.pos` of a file. Position and length are multiples
    /// of the device's block. It is durable with [`IoFlags::DSYNC`], or after a flush.
    ///
    /// The call waits only if a request needs more commands than the queue has room for.
    ///
    /// # Errors
    /// What went wrong before anything was in flight: [`Error::Misaligned`], an error of the
    /// filesystem, [`Error::NoBlocks`], [`Error::NotAtomic`], [`Error::FallBack`] when cached data
    /// is in the way; [`Error::Busy`] and [`Error::WouldBlock`], after which the same may succeed.
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
            return self.forced(io, done);
        }
        self.state.counters.fall_back(Reason::Write);
        let length = memory.len() as u64;
        let held = self.hold(memory, io.flags);
        let transfer = Transfer { io, length, waited: false, any_alignment: false };
        self.start::<Writes, M, _>(file, &transfer, held, &mut NoBorrowedMemory).map_err(rejected)
    }

    /// Writes all of `memory` at `io.pos` of a file, waits, and gives the memory back with the
    /// number of bytes.
    ///
    /// # Errors
    /// As [`submit_write_with`](Self::submit_write_with), and what the device fails with.
    pub fn write_with<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        io: IoArgs,
        memory: Memory,
    ) -> Result<(Memory, usize), Failed<ErrorOf<M>>> {
        self.state.counters.fall_back(Reason::Write);
        let length = memory.len() as u64;
        let held = self.hold(memory, io.flags);
        let wait = self.state.begin_wait();
        let transfer = Transfer { io: io.token(wait), length, waited: true, any_alignment: false };
        let started = self.start::<Writes, M, _>(file, &transfer, held, &mut NoBorrowedMemory);
        self.finish_waited(started, &mut NoBorrowedMemory)
    }

    /// Writes what is left of `source` at `io.pos` of a file, waits, and gives the number of bytes,
    /// by which the cursor moves. The data is copied to private memory, at most 1 MiB at a time, so
    /// that it may change afterwards.
    ///
    /// # Errors
    /// As [`write_with`](Self::write_with); [`Error::WouldBlock`] for [`IoFlags::NOWAIT`];
    /// [`Error::Fault`] where the memory cannot be accessed; [`Error::NoMemory`]. The cursor is
    /// where it was, then; with [`IoFlags::PARTIAL`], what was written before a fault is the
    /// result.
    pub fn write_from<M: Mapper<OpenFile = I>, S: Source>(
        &mut self,
        file: &mut M,
        io: IoArgs,
        source: &mut Cursor<S>,
    ) -> Result<usize, ErrorOf<M>> {
        let length = source.memory.len().saturating_sub(source.at) as u64;
        self.state.counters.fall_back(Reason::Write);
        let wait = self.state.begin_wait();
        let transfer = Transfer { io: io.token(wait), length, waited: true, any_alignment: false };
        let mut user = FromSource(source);
        let started =
            self.start::<Writes, M, _>(file, &transfer, RequestMemory::Borrowed, &mut user);
        let done = self.finish_waited(started, &mut user);
        moved(source, &io, done)
    }

    /// Writes `data` at `pos` of a file, and waits. See [`write_from`](Self::write_from).
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
