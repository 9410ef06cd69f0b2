//! Reads, as callers ask for them.

use nvio_driver::DmaBuf;

use crate::contract::io_args::{Done, Failed, IoArgs, IoFlags, Memory, Rejected};
use crate::contract::mapper::{ErrorOf, Mapper};
use crate::contract::open_file::OpenFile;
use crate::device::bio::{Queue, Reads};
use crate::error::{Error, FileError};
use crate::memory::borrowed::{BorrowedMemory, Cursor, NoBorrowedMemory, Sink, ToSink};
use crate::memory::request_memory::RequestMemory;
use crate::queue::counters::Reason;
use crate::queue::file_queue::FileQueue;
use crate::queue::generic::Transfer;
use crate::queue::simple::{KNOWN, NotTaken, Stopped};
use crate::queue::tag::Tag;

/// Flags with which a read of one command is like any other.
const ONE_COMMAND: IoFlags = KNOWN.union(IoFlags::GENERIC).union(IoFlags::PARTIAL);

impl<Q: Queue<Tag<I>>, I: OpenFile> FileQueue<Q, I> {
    /// Submits a read of all of `buf` at `pos` of a file: the shortest way, without flags.
    ///
    /// # Errors
    /// As [`submit_read_with`](Self::submit_read_with).
    #[inline]
    pub fn submit_read<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        pos: u64,
        buf: DmaBuf,
        token: u64,
    ) -> Result<(), Rejected<ErrorOf<M>>> {
        match self.simple_page(file, pos, buf, token) {
            Ok(()) => self.count_simple(),
            Err((Stopped::Early, buf)) => self.read_any(file, pos, buf, token),
            Err((stopped, buf)) => {
                self.not_simple(file, &IoArgs::at(pos).token(token), stopped, buf)
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn read_any<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        pos: u64,
        buf: DmaBuf,
        token: u64,
    ) -> Result<(), Rejected<ErrorOf<M>>> {
        self.submit_read_with(file, IoArgs::at(pos).token(token), buf.into())
    }

    #[inline(always)]
    fn count_simple(&mut self) -> Result<(), Rejected<I::Error>> {
        self.state.counters.simple += 1;
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn not_simple<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        io: &IoArgs,
        stopped: Stopped<I>,
        buf: DmaBuf,
    ) -> Result<(), Rejected<ErrorOf<M>>> {
        match self.not_taken(file, io.pos, io.flags, stopped, &buf) {
            NotTaken::NotSimple(reason @ Reason::Length) => {
                self.state.counters.fall_back(reason);
                self.submit_generic(file, io, buf.into())
            }
            NotTaken::NotSimple(reason) => {
                self.state.counters.fall_back(reason);
                self.submit_whole(file, io, buf.into())
            }
            NotTaken::Failed(error) => Err(Rejected { error, payload: buf.into() }),
        }
    }

    /// Submits a read at `io.pos` of a file into all of `memory`. Position and length are multiples
    /// of the device's block, but for [`Memory::Bytes`], which may be anywhere. Holes become
    /// zeroes; nothing is read at or past the end of the file.
    ///
    /// The call waits only if a request needs more commands than the queue has room for.
    ///
    /// # Errors
    /// What went wrong before anything was in flight: [`Error::Misaligned`], an error of the
    /// filesystem, [`Error::Busy`] and [`Error::WouldBlock`], after which the same may succeed.
    #[inline]
    pub fn submit_read_with<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        io: IoArgs,
        memory: Memory,
    ) -> Result<(), Rejected<ErrorOf<M>>> {
        if self.state.mode.is_full() {
            return Err(Rejected { error: Error::Busy.into(), payload: memory });
        }
        if io.flags.contains(IoFlags::FORCE_WAIT) {
            return self.force_read(file, io, memory);
        }
        let buf = match (memory, self.is_simple(&io)) {
            (Memory::Dma(buf), Ok(())) => buf,
            (memory, tried) => {
                self.state.counters.fall_back(tried.err().unwrap_or(Reason::Memory));
                return self.submit_generic(file, &io, memory);
            }
        };
        let IoArgs { pos, token, flags, .. } = io;
        let traced = self.state.mode.is_traced();
        if traced {
            trace_begin(pos, buf.len());
        }
        let tag = |in_flight| Tag::simple(in_flight, token, pos);
        let how = (u64::from(file.block_size()), flags);
        let taken = self.simple(
            file,
            pos,
            buf,
            how,
            tag,
            Self::count_simple,
            |this, file, stopped, buf| this.not_simple(file, &io, stopped, buf),
        );
        if traced && taken.is_ok() {
            trace_queued(pos);
        }
        taken
    }

    /// The generic path: what is one command after all needs no more than the state that goes with
    /// it.
    #[inline(always)]
    fn submit_generic<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        io: &IoArgs,
        memory: Memory,
    ) -> Result<(), Rejected<ErrorOf<M>>> {
        let IoArgs { pos, token, flags, done_before } = *io;
        let plain = ONE_COMMAND.contains(flags) && done_before == 0 && !self.queue.must_bounce();
        let buf = match memory {
            Memory::Dma(buf) if plain => buf,
            memory => return self.submit_whole(file, io, memory),
        };
        let tag = |in_flight| Tag::simple(in_flight, token, pos);
        let taken = |this: &mut Self| {
            this.state.counters.generic += 1;
            this.state.counters.commands += 1;
            Ok(())
        };
        let how = (u64::MAX, flags);
        self.simple(file, pos, buf, how, tag, taken, |this, file, stopped, buf| {
            match this.not_taken(file, pos, flags, stopped, &buf) {
                NotTaken::NotSimple(_) => this.submit_whole(file, io, buf.into()),
                NotTaken::Failed(error) => Err(Rejected { error, payload: buf.into() }),
            }
        })
    }

    /// The generic path, with a request in the pool.
    #[inline(never)]
    fn submit_whole<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        io: &IoArgs,
        memory: Memory,
    ) -> Result<(), Rejected<ErrorOf<M>>> {
        let length = memory.len() as u64;
        let held = self.hold(memory, io.flags);
        let any_alignment = matches!(held, RequestMemory::Bounced(Memory::Bytes(_)));
        let transfer = Transfer { io: *io, length, waited: false, any_alignment };
        self.start::<Reads, M, _>(file, &transfer, held, &mut NoBorrowedMemory).map_err(rejected)
    }

    pub(crate) fn hold(&self, memory: Memory, flags: IoFlags) -> RequestMemory {
        RequestMemory::new(memory, flags.contains(IoFlags::BOUNCE) || self.queue.must_bounce())
    }

    #[cold]
    #[inline(never)]
    fn force_read<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        io: IoArgs,
        memory: Memory,
    ) -> Result<(), Rejected<ErrorOf<M>>> {
        let done = self.read_with(file, io, memory);
        self.forced(io, done)
    }

    /// Keeps the result of a request that was waited for.
    pub(crate) fn forced(
        &mut self,
        io: IoArgs,
        done: Result<(Memory, usize), Failed<I::Error>>,
    ) -> Result<(), Rejected<I::Error>> {
        let token = io.token;
        let done = match done {
            Ok((memory, n)) => Done { token, result: Ok(n), memory: Some(memory) },
            Err(Failed { error, payload: memory }) => Done { token, result: Err(error), memory },
        };
        self.state.deliver(false, done);
        Ok(())
    }

    /// Reads at `io.pos` of a file into all of `memory`, waits, and gives the memory back with the
    /// number of bytes. Results of other requests that end meanwhile are kept for the next poll.
    ///
    /// # Errors
    /// As [`submit_read_with`](Self::submit_read_with), and what the device fails with.
    pub fn read_with<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        io: IoArgs,
        memory: Memory,
    ) -> Result<(Memory, usize), Failed<ErrorOf<M>>> {
        let simple = self.is_simple(&io);
        let memory = match (memory, simple) {
            (Memory::Dma(buf), Ok(())) => match self.execute_simple(file, &io, buf) {
                Ok(done) => return done,
                Err((reason, buf)) => {
                    self.state.counters.fall_back(reason);
                    Memory::Dma(buf)
                }
            },
            (memory, tried) => {
                self.state.counters.fall_back(tried.err().unwrap_or(Reason::Memory));
                memory
            }
        };
        let length = memory.len() as u64;
        let held = self.hold(memory, io.flags);
        let any_alignment = matches!(held, RequestMemory::Bounced(Memory::Bytes(_)));
        let wait = self.state.begin_wait();
        let transfer = Transfer { io: io.token(wait), length, waited: true, any_alignment };
        let started = self.start::<Reads, M, _>(file, &transfer, held, &mut NoBorrowedMemory);
        self.finish_waited(started, &mut NoBorrowedMemory)
    }

    /// Waits for what was started.
    pub(crate) fn finish_waited(
        &mut self,
        started: Result<(), (I::Error, RequestMemory)>,
        user: &mut impl BorrowedMemory,
    ) -> Result<(Memory, usize), Failed<I::Error>> {
        if let Err((error, held)) = started {
            return Err(Failed { error, payload: held.into_memory() });
        }
        match self.take_waited(user) {
            Ok(Done { result: Ok(n), memory: Some(memory), .. }) => Ok((memory, n)),
            // Of borrowed memory nothing comes back.
            Ok(Done { result: Ok(n), memory: None, .. }) => Ok((Memory::Bytes(Vec::new()), n)),
            Ok(Done { result: Err(error), memory, .. }) => Err(Failed { error, payload: memory }),
            Err(error) => Err(Failed { error: error.into(), payload: None }),
        }
    }

    #[expect(clippy::type_complexity, reason = "a result, or what to go on with")]
    fn execute_simple<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        io: &IoArgs,
        mut buf: DmaBuf,
    ) -> Result<Result<(Memory, usize), Failed<ErrorOf<M>>>, (Reason, DmaBuf)> {
        let IoArgs { pos, flags, .. } = *io;
        let traced = self.state.mode.is_traced();
        if traced {
            trace_begin(pos, buf.len());
        }
        loop {
            let wait = self.state.begin_wait();
            let tag = |in_flight| Tag::waited(in_flight, wait, pos);
            let how = (u64::from(file.block_size()), flags);
            let count = |this: &mut Self| {
                this.state.counters.simple += 1;
                None
            };
            let taken = self.simple(file, pos, buf, how, tag, count, |this, file, stopped, buf| {
                Some((this.not_taken(file, pos, flags, stopped, &buf), buf))
            });
            match taken {
                None => {
                    if traced {
                        trace_queued(pos);
                    }
                    return Ok(self.finish_waited(Ok(()), &mut NoBorrowedMemory));
                }
                Some((NotTaken::NotSimple(reason), buf)) => return Err((reason, buf)),
                Some((NotTaken::Failed(error), taken)) => {
                    let nowait = flags.contains(IoFlags::NOWAIT);
                    let room = match !nowait && error.is_busy() {
                        true => self.take_some(&mut NoBorrowedMemory),
                        false => Ok(0),
                    };
                    let error = match room {
                        Ok(0) => error,
                        Ok(_) => {
                            buf = taken;
                            continue;
                        }
                        Err(dead) => dead.into(),
                    };
                    return Ok(Err(Failed { error, payload: Some(taken.into()) }));
                }
            }
        }
    }

    /// Reads at `io.pos` of a file into what is left of `sink`, waits, and gives the number of
    /// bytes, by which the cursor moves. No alignment is needed: data goes through private memory,
    /// at most 1 MiB at a time, and is copied as it arrives. What did not arrive is as it was.
    ///
    /// # Errors
    /// As [`read_with`](Self::read_with); [`Error::WouldBlock`] for [`IoFlags::NOWAIT`];
    /// [`Error::Fault`] where the memory cannot be accessed; [`Error::NoMemory`]. The cursor is
    /// where it was, then.
    pub fn read_into<M: Mapper<OpenFile = I>, S: Sink>(
        &mut self,
        file: &mut M,
        io: IoArgs,
        sink: &mut Cursor<S>,
    ) -> Result<usize, ErrorOf<M>> {
        let length = sink.memory.len().saturating_sub(sink.at) as u64;
        self.state.counters.fall_back(Reason::Memory);
        let wait = self.state.begin_wait();
        let transfer = Transfer { io: io.token(wait), length, waited: true, any_alignment: true };
        let mut user = ToSink(sink);
        let started =
            self.start::<Reads, M, _>(file, &transfer, RequestMemory::Borrowed, &mut user);
        let done = self.finish_waited(started, &mut user);
        moved(sink, &io, done)
    }

    /// Reads at `pos` of a file into `out`, waits, and gives the number of bytes: less than
    /// `out.len()` only at the end of the file. See [`read_into`](Self::read_into).
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
}

#[cold]
fn trace_begin(pos: u64, bytes: usize) {
    log::trace!("simple read at {pos}: {bytes} bytes");
}

#[cold]
fn trace_queued(pos: u64) {
    log::trace!("read at {pos} is queued");
}

/// Moves a cursor by what was moved, if anything was.
pub(crate) fn moved<U, E: std::error::Error>(
    cursor: &mut Cursor<U>,
    io: &IoArgs,
    done: Result<(Memory, usize), Failed<E>>,
) -> Result<usize, E> {
    let (_, n) = done.map_err(|failed| failed.error)?;
    let before = usize::try_from(io.done_before).unwrap_or(usize::MAX);
    cursor.at = cursor.at.saturating_add(n.saturating_sub(before));
    Ok(n)
}

pub(crate) fn rejected<E: std::error::Error>((error, held): (E, RequestMemory)) -> Rejected<E> {
    // Nothing is in flight, so that all of it is there.
    let memory = held.into_memory().unwrap_or(Memory::Bytes(Vec::new()));
    Rejected { error, payload: memory }
}
