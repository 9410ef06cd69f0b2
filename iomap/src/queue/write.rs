//! Overwrites, as callers ask for them: the blocks are there, and no metadata changes.

use nvio_driver::DmaBuf;

use crate::contract::io_args::{Failed, Io, IoFlags, Memory, Rejected};
use crate::contract::mapper::{ErrorOf, Mapper};
use crate::contract::open_file::Inode;
use crate::device::bio::{WriteQueue, Writes};
use crate::error::Error;
use crate::memory::borrowed::{Cursor, FromSource, Nobody, Source};
use crate::memory::request_memory::Held;
use crate::queue::counters::Reason;
use crate::queue::file_queue::FileQueue;
use crate::queue::generic::Transfer;
use crate::queue::read::{moved, one_buffer, rejected};
use crate::queue::tag::Tag;

impl<Q: WriteQueue<Tag<I>>, I: Inode> FileQueue<Q, I> {
    /// Submits a write of all of `memory` at `io.pos` of a file. Position and length are multiples
    /// of the device's block. It is durable with [`IoFlags::DSYNC`], or after a flush.
    ///
    /// The call waits only if a request needs more commands than the queue has room for.
    ///
    /// # Errors
    /// What went wrong before anything was in flight: [`Error::Misaligned`], an error of the
    /// filesystem, [`Error::NoBlocks`], [`Error::NotAtomic`], [`Error::FallBack`] when cached data
    /// is in the way; [`Error::Busy`] and [`Error::WouldBlock`], after which the same may succeed.
    pub fn submit_write<M: Mapper<Inode = I>>(
        &mut self,
        file: &mut M,
        io: Io,
        memory: Memory,
    ) -> Result<(), Rejected<ErrorOf<M>>> {
        if self.core.mode.is_full() {
            return Err(Rejected { error: Error::Busy.into(), memory });
        }
        if io.flags.contains(IoFlags::FORCE_WAIT) {
            let done = self.execute_write(file, io, memory);
            return self.forced(io, done);
        }
        self.core.counters.fall_back(Reason::Write);
        let length = memory.len() as u64;
        let held = self.hold(memory, io.flags);
        let transfer = Transfer { io, length, waited: false, any_alignment: false };
        self.start::<Writes, M, _>(file, &transfer, held, &mut Nobody).map_err(rejected)
    }

    /// Writes all of `memory` at `io.pos` of a file, waits, and gives the memory back with the
    /// number of bytes.
    ///
    /// # Errors
    /// As [`submit_write`](Self::submit_write), and what the device fails with.
    pub fn execute_write<M: Mapper<Inode = I>>(
        &mut self,
        file: &mut M,
        io: Io,
        memory: Memory,
    ) -> Result<(Memory, usize), Failed<ErrorOf<M>, Memory>> {
        self.core.counters.fall_back(Reason::Write);
        let length = memory.len() as u64;
        let held = self.hold(memory, io.flags);
        let wait = self.core.begin_wait();
        let transfer = Transfer { io: io.token(wait), length, waited: true, any_alignment: false };
        let started = self.start::<Writes, M, _>(file, &transfer, held, &mut Nobody);
        self.finish_waited(started, &mut Nobody)
    }

    /// Writes all of `buf` at `io.pos` of a file, waits, and gives the buffer back with the number
    /// of bytes.
    ///
    /// # Errors
    /// As [`execute_write`](Self::execute_write).
    pub fn write_dma<M: Mapper<Inode = I>>(
        &mut self,
        file: &mut M,
        io: Io,
        buf: DmaBuf,
    ) -> Result<(DmaBuf, usize), Failed<ErrorOf<M>>> {
        one_buffer(self.execute_write(file, io, Memory::Dma(buf)))
    }

    /// Writes what is left of `source` at `io.pos` of a file, waits, and gives the number of bytes,
    /// by which the cursor moves. The data is copied to private memory, at most 1 MiB at a time, so
    /// that it may change afterwards.
    ///
    /// # Errors
    /// As [`execute_write`](Self::execute_write); [`Error::WouldBlock`] for [`IoFlags::NOWAIT`];
    /// [`Error::Fault`] where the memory cannot be accessed; [`Error::NoMemory`]. The cursor is
    /// where it was, then; with [`IoFlags::PARTIAL`], what was written before a fault is the
    /// result.
    pub fn write_from<M: Mapper<Inode = I>, S: Source>(
        &mut self,
        file: &mut M,
        io: Io,
        source: &mut Cursor<S>,
    ) -> Result<usize, ErrorOf<M>> {
        let length = source.memory.len().saturating_sub(source.at) as u64;
        self.core.counters.fall_back(Reason::Write);
        let wait = self.core.begin_wait();
        let transfer = Transfer { io: io.token(wait), length, waited: true, any_alignment: false };
        let mut user = FromSource(source);
        let started = self.start::<Writes, M, _>(file, &transfer, Held::Borrowed, &mut user);
        let done = self.finish_waited(started, &mut user);
        moved(source, &io, done)
    }

    /// Writes `data` at `pos` of a file, and waits. See [`write_from`](Self::write_from).
    ///
    /// # Errors
    /// As [`write_from`](Self::write_from).
    pub fn write_at<M: Mapper<Inode = I>>(
        &mut self,
        file: &mut M,
        pos: u64,
        data: &[u8],
        flags: IoFlags,
    ) -> Result<usize, ErrorOf<M>> {
        self.write_from(file, Io::at(pos).flags(flags), &mut Cursor::new(data))
    }
}
