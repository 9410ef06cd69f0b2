//! The generic path: any number of mappings of any kind, any number of commands.

use nvio_driver::{DmaBuf, SplitBuffer};

use crate::contract::bytes::{is_multiple, to_usize};
use crate::contract::io_args::{IoArgs, IoFlags, Memory, Rejected};
use crate::contract::iter::{bad_mapping, iterate_from};
use crate::contract::mapper::{ErrorOf, Mapper, Mapping, MappingFlags, MappingKind, Op};
use crate::contract::open_file::{InFlight, OpenFile};
use crate::device::bio::{Bio, BioOp, Queue};
use crate::error::Error;
use crate::memory::borrowed::{BorrowedMemory, NoBorrowedMemory};
use crate::memory::request_memory::RequestMemory;
use crate::queue::file_queue::FileQueue;
use crate::queue::request::{Request, Serving, report};
use crate::queue::route::{Read, data_at};
use crate::queue::tag::Tag;

/// A request before the generic path accepts it.
pub(crate) struct NewRequest<I> {
    pub(crate) op: BioOp,
    pub(crate) io: IoArgs,
    pub(crate) memory: RequestMemory,
    /// Size of the file, in bytes.
    pub(crate) size: u64,
    /// Number of the wait for the result; 0 if a poll returns it.
    pub(crate) wait: u64,
    /// The first mapping, if `begin` was called already and the arguments were checked.
    pub(crate) first: Option<(Mapping, InFlight<I>)>,
}

/// A range of a mapping that is being served.
#[derive(Clone, Copy)]
pub(crate) struct FileRange {
    /// Position in the file.
    pub(crate) pos: u64,
    pub(crate) bytes: u64,
    /// Offset in the request.
    pub(crate) at: u64,
    /// True if the range ends where the request does.
    pub(crate) last: bool,
    /// True if its writes must be durable at completion (Force Unit Access).
    pub(crate) fua: bool,
}

impl<Q: Queue<Tag<I>>, I: OpenFile> FileQueue<Q, I> {
    /// Accepts a request, maps all of it, and submits its commands. The result comes from a poll or,
    /// if it is waited for, from [`wait_for`](Self::wait_for).
    ///
    /// # Errors
    /// The error that occurred before any command was submitted, with the memory.
    #[inline(never)]
    pub(crate) fn start<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        new: NewRequest<I>,
        borrowed: &mut dyn BorrowedMemory,
    ) -> Result<(), Rejected<ErrorOf<M>>> {
        let NewRequest { op, io, memory, size, wait, first } = new;
        let (first, in_flight) = match first {
            Some((mapping, in_flight)) => (Some(mapping), in_flight),
            None => (None, file.open_file().begin_io()),
        };
        let is_new = first.is_none();
        let refreshed = if is_new { file.refresh() } else { Ok(false) };
        let size = if let Ok(true) = refreshed { file.size() } else { size };
        let length = memory.len() as u64;
        let count = match op {
            BioOp::Write => length,
            BioOp::Read => size.saturating_sub(io.pos).min(length),
        };
        let checked = refreshed.and_then(|_| match is_new {
            true => self.check(file, (op, &io), &memory, (length, count)),
            false => Ok(()),
        });
        if let Err(error) = checked {
            report(file.open_file().state(), io.pos, count, op == BioOp::Write, &error);
            return Err(rejected(error, memory));
        }
        let Some(request) = self.take_idle(wait != 0 && !io.flags.contains(IoFlags::NOWAIT)) else {
            return Err(rejected(Error::Busy.into(), memory));
        };
        let mut serving = Serving { request, borrowed };
        serving.request.begin(in_flight, (op, io), (count, size), memory, wait);
        log::trace!("request at {}: {count} bytes", io.pos);
        if count > 0 {
            self.walk(file, &mut serving, first);
        }
        self.end_submission(file, serving.request)
    }

    /// Continues a read of one buffer whose first mapping, which `begin` returned, serves only a
    /// part: submits a command for each mapping with data, and leaves the rest to
    /// [`walk`](Self::walk).
    ///
    /// # Errors
    /// The error that occurred before any command was submitted, with the memory.
    #[inline(always)]
    pub(crate) fn read_runs<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        Read { io, size, wait, simple }: Read,
        buf: DmaBuf,
        (mut mapping, in_flight): (Mapping, InFlight<I>),
        (mut addr, mut bytes): (u64, u64),
    ) -> Result<(), Rejected<ErrorOf<M>>> {
        let Some(mut request) = self.state.requests.take_idle() else {
            let read = Read { io, size, wait, simple };
            return self.start_read(file, &read, buf.into(), Some((mapping, in_flight)));
        };
        let (count, op) = (buf.len() as u64, op_of(BioOp::Read, io.flags));
        let (mut memory, mut pos, mut sent) = (SplitBuffer::new(buf), io.pos, 0);
        let stop = loop {
            let left = memory.rest().len() as u64;
            let n = left.min(bytes);
            let whole = n & self.state.block_mask == 0;
            if n != self.state.page && !(whole && self.queue.fits(addr, n)) {
                break RunStop::Mapping(mapping);
            }
            let Some(piece) = memory.cut(to_usize(n)) else { break RunStop::Mapping(mapping) };
            // Before the command, so that the mapping is not in use any more. An error of `end`
            // counts only if nothing was processed.
            let _ = file.end(&mapping, pos, left, n, op);
            let tag = Tag::data(request.index, 0, pos);
            // A piece that is not a page is refused, too.
            if let Err((piece, tag)) = self.queue.read_page(addr, piece, tag)
                && let Err(rejected) = self.queue.submit(Bio::read(addr, piece, tag))
            {
                break RunStop::Device(rejected);
            }
            (pos, sent) = (pos + n, sent + 1);
            let left = memory.rest().len() as u64;
            if left == 0 {
                if wait == 0 {
                    request.begin_quick(in_flight, io, count, memory, sent);
                    self.state.submitted(request);
                    return Ok(());
                }
                break RunStop::End;
            }
            mapping = match file.begin(pos, left, op) {
                Ok(mapping) => mapping,
                Err(error) => break RunStop::Filesystem(error),
            };
            match data_at(&mapping, pos) {
                Some(data) => (addr, bytes) = data,
                None => break RunStop::Mapping(mapping),
            }
        };
        request.begin(
            in_flight,
            (BioOp::Read, io),
            (count, size),
            RequestMemory::One(memory),
            wait,
        );
        (request.refs, request.commands, request.moved) = (1 + sent, sent, pos - io.pos);
        self.continue_runs(file, request, stop)
    }

    /// Continues a read of several mappings that stopped.
    ///
    /// # Errors
    /// The error that occurred before any command was submitted, with the memory.
    #[cold]
    #[inline(never)]
    fn continue_runs<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        mut request: Box<Request<I>>,
        stop: RunStop<I>,
    ) -> Result<(), Rejected<ErrorOf<M>>> {
        log::trace!("request at {}: {} bytes", request.io.pos, request.count);
        let rest = match stop {
            RunStop::Mapping(mapping) => Some(mapping),
            RunStop::Filesystem(error) => {
                request.fail(error);
                None
            }
            RunStop::End => None,
            RunStop::Device(rejected) => self.continue_piece(file, &mut request, rejected),
        };
        if rest.is_some() {
            let mut serving = Serving { request, borrowed: &mut NoBorrowedMemory };
            self.walk(file, &mut serving, rest);
            request = serving.request;
        }
        self.end_submission(file, request)
    }

    /// Submits a piece of a read that the device rejected, and returns the mapping of the bytes after
    /// it; `None` at the end of the request, and after an error.
    fn continue_piece<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        request: &mut Request<I>,
        rejected: Rejected<Error, Bio<Tag<I>>>,
    ) -> Option<Mapping> {
        let bytes = rejected.payload.buf.len() as u64;
        if !self.send_later(request, &mut NoBorrowedMemory, rejected) {
            return None;
        }
        request.refs += 1;
        request.commands += 1;
        request.moved += bytes;
        let (pos, left) = (request.io.pos + request.moved, request.count - request.moved);
        if request.failed || left == 0 {
            return None;
        }
        let next = file.begin(pos, left, op_of(BioOp::Read, request.io.flags));
        next.map_err(|error| request.fail(error)).ok()
    }

    /// Hands a request that was submitted to the table of requests.
    ///
    /// # Errors
    /// The error that occurred before any command was submitted, with the memory.
    #[inline(always)]
    fn end_submission<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &M,
        mut request: Box<Request<I>>,
    ) -> Result<(), Rejected<ErrorOf<M>>> {
        if let Some(error) = request.take_early_error() {
            let Request { io, count, .. } = *request;
            report(file.open_file().state(), io.pos, count, request.is_write(), &error);
            let memory = request.abandon();
            self.state.requests.put_idle(request);
            return Err(rejected(error, memory));
        }
        self.state.submitted(request);
        Ok(())
    }

    /// Returns an idle request. If the submitter may wait, waits until one ends.
    #[inline]
    fn take_idle(&mut self, may_wait: bool) -> Option<Box<Request<I>>> {
        loop {
            match self.state.requests.take_idle() {
                None if may_wait && self.wait_for_any() => {}
                request => return request,
            }
        }
    }

    /// Checks the arguments of a request of `length` bytes, of which `count` are in the file.
    fn check<M: Mapper<OpenFile = I>>(
        &self,
        file: &M,
        (op, io): (BioOp, &IoArgs),
        memory: &RequestMemory,
        (length, count): (u64, u64),
    ) -> Result<(), ErrorOf<M>> {
        let IoArgs { pos, flags, .. } = *io;
        if !memory.is_direct() && flags.contains(IoFlags::NOWAIT) {
            return Err(Error::WouldBlock.into());
        }
        let writes_only = IoFlags::ATOMIC.union(IoFlags::DSYNC);
        if op == BioOp::Read && flags.intersects(writes_only) {
            return Err(Error::Flags(flags.intersection(writes_only)).into());
        }
        // A flag of buffered writes.
        if flags.contains(IoFlags::WRITETHROUGH) {
            return Err(Error::Flags(IoFlags::WRITETHROUGH).into());
        }
        let fs_aligned = flags.contains(IoFlags::FSBLOCK_ALIGNED);
        let align = if fs_aligned { u64::from(file.block_size()) } else { self.block() };
        let any = op == BioOp::Read && memory.is_bytes() && !fs_aligned;
        let aligned = any || is_multiple(pos | length, align);
        // A request of nothing is aligned.
        if count == 0 {
            return Ok(());
        }
        if !aligned || pos.checked_add(length).is_none() {
            return Err(Error::Misaligned { pos, length, align }.into());
        }
        Ok(memory.check(self.block())?)
    }

    /// Maps the rest of a request, from its first mapping if that is known, and submits its commands.
    #[inline(never)]
    fn walk<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        serving: &mut Serving<'_, I>,
        first: Option<Mapping>,
    ) {
        let Request { io, op, count, moved, .. } = *serving.request;
        if first.is_none() {
            // A writeback gives blocks to data that had none: the map has to be read again.
            let prepared = prepare_cache(file, op, &io, count).and_then(|()| file.refresh());
            if let Err(error) = prepared {
                return serving.request.fail(error);
            }
        }
        let op = op_of(op, io.flags);
        let walked = iterate_from(
            file,
            first,
            (io.pos + moved, count - moved),
            op,
            |file, mapping, pos, n| {
                if !serving.request.failed {
                    self.serve_mapping(file, mapping, serving, (pos, n));
                    return Ok(serving.request.served(pos, n));
                }
                Ok(0)
            },
        );
        serving.request.moved = moved + walked.processed;
        if let Some(error) = walked.error {
            serving.request.fail(error);
        }
    }

    /// Serves the `n` bytes at `pos`, which are of one mapping.
    fn serve_mapping<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        mapping: &Mapping,
        serving: &mut Serving<'_, I>,
        (pos, n): (u64, u64),
    ) {
        let request = &mut serving.request;
        let at = pos - request.io.pos;
        let range = FileRange { pos, bytes: n, at, last: at + n == request.count, fua: false };
        // Only the end of the request may be inside a block.
        if !range.last && !is_multiple(pos + n, self.block()) {
            return request.fail(bad_mapping(mapping, pos));
        }
        match (mapping.kind, request.op) {
            (MappingKind::Mapped, BioOp::Read) => {
                self.transfer(serving, mapping, &range);
            }
            _ => self.serve_other(file, mapping, serving, range),
        }
    }

    /// Serves a range that is not a read of blocks with data.
    #[inline(never)]
    fn serve_other<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        mapping: &Mapping,
        serving: &mut Serving<'_, I>,
        range: FileRange,
    ) {
        let pos = range.pos;
        match (mapping.kind, serving.request.op) {
            (MappingKind::Inline, _) => self.copy_inline(file, mapping, serving, &range),
            (MappingKind::Delalloc, BioOp::Read) => serving.request.fail(Error::Delalloc { pos }),
            (_, BioOp::Read) => self.read_zeroes(serving, &range),
            (MappingKind::Mapped | MappingKind::Unwritten, BioOp::Write)
                if !mapping.flags.contains(MappingFlags::ANON_WRITE) =>
            {
                let block_size = u64::from(file.block_size());
                self.write_blocks(serving, mapping, range, block_size);
            }
            (_, BioOp::Write) => serving.request.fail(Error::NoBlocks { pos }),
        }
    }

    /// Copies data that the filesystem stores in its metadata: at most a block of the filesystem,
    /// without a command.
    fn copy_inline<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        mapping: &Mapping,
        serving: &mut Serving<'_, I>,
        range: &FileRange,
    ) {
        let block = self.block();
        let Self { queue, state } = self;
        let Serving { request, borrowed } = serving;
        let (at, bytes) = (to_usize(range.at), to_usize(range.bytes));
        let n = request.memory.rounded(range.bytes, block);
        let Ok(mut buf) = state.bounce.take(n, |bytes| queue.alloc(bytes)) else {
            return request.fail(Error::NoMemory);
        };
        let nofault = request.has(IoFlags::NOFAULT);
        let (result, copied) = match request.op {
            BioOp::Read => {
                buf.fill(0);
                match file.read_inline(mapping, range.pos, &mut buf[..bytes]) {
                    Ok(()) => (Ok(()), request.memory.copy_to(*borrowed, at, &buf, nofault)),
                    Err(error) => (Err(error), n),
                }
            }
            BioOp::Write if request.memory.copy_from(*borrowed, at, &mut buf, nofault) < n => {
                (Ok(()), 0)
            }
            BioOp::Write => (file.write_inline(mapping, range.pos, &buf[..bytes]), n),
        };
        request.flush |= request.is_write() && request.has(IoFlags::DSYNC);
        state.bounce.put(buf);
        match result {
            Err(error) => request.fail(error),
            Ok(()) if copied < n => request.fault_at(at + copied),
            Ok(()) => {}
        }
    }

    /// Returns the device's logical block in bytes.
    #[inline]
    pub(crate) fn block(&self) -> u64 {
        self.state.block_mask + 1
    }
}

/// The step at which a read of several mappings stopped.
enum RunStop<I: OpenFile> {
    /// At a mapping that does not serve the next bytes as they are.
    Mapping(Mapping),
    /// At `begin` of the next mapping.
    Filesystem(I::Error),
    /// At the end of the buffer: the submitter waits for the result.
    End,
    /// At the device. `end` of the mapping was called.
    Device(Rejected<Error, Bio<Tag<I>>>),
}

fn rejected<E>(error: E, memory: RequestMemory) -> Rejected<E> {
    // The memory is whole, or borrowed.
    let payload = memory.into_memory().unwrap_or(Memory::Bytes(Vec::new()));
    Rejected { error, payload }
}

/// Writes back or invalidates the cached data of a range before the device transfers it.
#[inline]
fn prepare_cache<M: Mapper>(
    file: &M,
    op: BioOp,
    io: &IoArgs,
    count: u64,
) -> Result<(), ErrorOf<M>> {
    let open_file = file.open_file().state();
    let nowait = io.flags.contains(IoFlags::NOWAIT);
    match op {
        BioOp::Read => open_file.write_back(io.pos, count, nowait),
        BioOp::Write if nowait && open_file.is_cached() => Err(Error::WouldBlock.into()),
        BioOp::Write if open_file.invalidate(io.pos, count) => Ok(()),
        BioOp::Write => Err(Error::FallBack { pos: io.pos }.into()),
    }
}

/// Returns the operation that mappings are asked for.
#[inline]
pub(crate) fn op_of(bio_op: BioOp, flags: IoFlags) -> Op {
    let mut op = Op::DIRECT;
    op.set(Op::WRITE, bio_op == BioOp::Write);
    op.set(Op::NOWAIT, flags.contains(IoFlags::NOWAIT));
    op.set(Op::ATOMIC, flags.contains(IoFlags::ATOMIC));
    op.set(Op::DONTCACHE, flags.contains(IoFlags::DONTCACHE));
    op
}
