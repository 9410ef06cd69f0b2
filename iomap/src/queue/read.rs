//! The public calls that read.

use nvio_driver::DmaBuf;

use crate::contract::io_args::{Done, Failed, IoArgs, IoFlags, Memory, Rejected};
use crate::contract::mapper::{ErrorOf, Mapper};
use crate::contract::open_file::OpenFile;
use crate::device::bio::Queue;
use crate::error::{Error, FileError};
use crate::memory::borrowed::{Cursor, NoBorrowedMemory, Sink, ToSink};
use crate::memory::request_memory::RequestMemory;
use crate::queue::counters::Reason;
use crate::queue::file_queue::FileQueue;
use crate::queue::generic::NewRequest;
use crate::queue::route::Route;
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
        match self.page(file, pos, buf, token) {
            Ok(()) => {
                self.state.counters.simple += 1;
                Ok(())
            }
            Err(stopped) => self.continue_page(file, pos, token, stopped),
        }
    }

    /// Continues a read that is not a page, or that stopped on the page path.
    #[cold]
    #[inline(never)]
    fn continue_page<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        pos: u64,
        token: u64,
        stopped: Stopped<I>,
    ) -> Result<(), Rejected<ErrorOf<M>>> {
        let io = IoArgs::at(pos).token(token);
        match stopped {
            Stopped::Early(buf) => self.submit_read_with(file, io, Memory::Dma(buf)),
            stopped => {
                let size = file.size();
                self.continue_read(file, (&io, size), stopped, true)
            }
        }
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
        if self.state.mode.is_full() {
            return Err(Rejected { error: Error::Busy.into(), payload: memory });
        }
        if io.flags.contains(IoFlags::FORCE_WAIT) {
            let done = self.read_with(file, io, memory);
            return self.force(io, done);
        }
        let buf = match memory {
            Memory::Dma(buf) => buf,
            memory => {
                let new = self.new_read(file.size(), &io, memory);
                return self.submit_generic(file, new);
            }
        };
        let size = file.size();
        let simple = match self.route(file, size, &io, &buf) {
            Route::Simple => true,
            Route::OneCommand(reason) => {
                self.count_reason(reason);
                false
            }
            Route::Generic(reason) => return self.submit_routed(file, size, &io, reason, buf),
        };
        let traced = simple && self.state.mode.is_traced();
        if traced {
            trace_begin(io.pos, buf.len());
        }
        let tag = |in_flight| Tag::simple(in_flight, io.token, io.pos);
        match self.one_command(file, (io.pos, io.flags), buf, tag) {
            Ok(()) if simple => self.state.counters.simple += 1,
            Ok(()) => {
                self.state.counters.generic += 1;
                self.state.counters.commands += 1;
            }
            Err(stopped) => return self.continue_read(file, (&io, size), stopped, simple),
        }
        if traced {
            trace_queued(io.pos);
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn submit_routed<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        size: u64,
        io: &IoArgs,
        reason: Option<Reason>,
        buf: DmaBuf,
    ) -> Result<(), Rejected<ErrorOf<M>>> {
        if let Some(reason) = reason {
            self.count_reason(reason);
        }
        let memory = self.hold(Memory::Dma(buf), io.flags);
        self.submit_generic(file, NewRequest::read(*io, memory, size))
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
        let size = file.size();
        let new = match memory {
            Memory::Dma(buf) => match self.route(file, size, &io, &buf) {
                Route::Simple => match self.execute_simple(file, (&io, size), buf)? {
                    Executed::Done(done) => return result(done),
                    Executed::Generic(new) => new,
                },
                Route::OneCommand(reason) | Route::Generic(Some(reason)) => {
                    self.count_reason(reason);
                    NewRequest::read(io, self.hold(Memory::Dma(buf), io.flags), size)
                }
                Route::Generic(None) => {
                    NewRequest::read(io, self.hold(Memory::Dma(buf), io.flags), size)
                }
            },
            memory => self.new_read(size, &io, memory),
        };
        result(self.execute_generic(file, new, &mut NoBorrowedMemory)?)
    }

    /// Reads one block or less, and waits; or returns the request for the generic path.
    fn execute_simple<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        (io, size): (&IoArgs, u64),
        mut buf: DmaBuf,
    ) -> Result<Executed<I>, Failed<ErrorOf<M>>> {
        let traced = self.state.mode.is_traced();
        if traced {
            trace_begin(io.pos, buf.len());
        }
        loop {
            let wait = self.state.begin_wait();
            let tag = |in_flight| Tag::waited(in_flight, wait, io.pos);
            let Err(stopped) = self.one_command(file, (io.pos, io.flags), buf, tag) else {
                self.state.counters.simple += 1;
                if traced {
                    trace_queued(io.pos);
                }
                return self.wait_for_simple().map(Executed::Done);
            };
            match stopped {
                Stopped::Device(Rejected { error: Error::Busy, payload: bio })
                    if !io.flags.contains(IoFlags::NOWAIT) =>
                {
                    let error = match self.wait_some(None) {
                        Ok(1..) => {
                            buf = bio.buf;
                            continue;
                        }
                        Ok(0) => Error::Busy,
                        Err(error) => error,
                    };
                    return Err(Failed { error: error.into(), payload: Some(bio.buf.into()) });
                }
                stopped => {
                    return match self.stopped_read(file, (io, size), stopped, true) {
                        Ok(new) => Ok(Executed::Generic(new)),
                        Err(Rejected { error, payload }) => {
                            Err(Failed { error, payload: Some(payload) })
                        }
                    };
                }
            }
        }
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
        let length = sink.memory.len().saturating_sub(sink.at);
        self.count_reason(Reason::Memory);
        let new = NewRequest::read(io, RequestMemory::Borrowed(length), file.size());
        let done = self.execute_generic(file, new, &mut ToSink(sink));
        moved(sink, &io, done)
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

    /// Returns a read into memory other than one DMA buffer, and counts why it is not simple.
    fn new_read(&mut self, size: u64, io: &IoArgs, memory: Memory) -> NewRequest<I> {
        self.count_reason(self.why_not_simple(io).unwrap_or(Reason::Memory));
        NewRequest::read(*io, self.hold(memory, io.flags), size)
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
        self.state.push(done);
        Ok(())
    }
}

/// A read of one block or less that was waited for.
enum Executed<I: OpenFile> {
    Done(Done<I::Error>),
    /// The request that the generic path must serve instead.
    Generic(NewRequest<I>),
}

#[cold]
fn trace_begin(pos: u64, bytes: usize) {
    log::trace!("simple read at {pos}: {bytes} bytes");
}

#[cold]
fn trace_queued(pos: u64) {
    log::trace!("read at {pos} is queued");
}

/// Returns memory and number of bytes of a request of owned memory.
pub(crate) fn result<E: FileError>(done: Done<E>) -> Result<(Memory, usize), Failed<E>> {
    match done {
        Done { result: Ok(n), memory: Some(memory), .. } => Ok((memory, n)),
        Done { result: Ok(length), memory: None, .. } => {
            Err(Failed { error: Error::LostBuffer { length }.into(), payload: None })
        }
        Done { result: Err(error), memory, .. } => Err(Failed { error, payload: memory }),
    }
}

/// Moves a cursor by the bytes of a request that succeeded.
pub(crate) fn moved<U, E: FileError>(
    cursor: &mut Cursor<U>,
    io: &IoArgs,
    done: Result<Done<E>, Failed<E>>,
) -> Result<usize, E> {
    let n = done.map_err(|failed| failed.error)?.result?;
    let before = usize::try_from(io.done_before).unwrap_or(usize::MAX);
    cursor.at = cursor.at.saturating_add(n.saturating_sub(before));
    Ok(n)
}
