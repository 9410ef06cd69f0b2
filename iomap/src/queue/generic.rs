//! The generic path: any number of mappings of any kind, any number of commands.

use crate::contract::io_args::{Done, Failed, IoArgs, IoFlags, Rejected};
use crate::contract::iter::iterate_from;
use crate::contract::mapper::{ErrorOf, Mapper, Mapping, MappingFlags, MappingKind, Op};
use crate::contract::open_file::{InFlight, OpenFile};
use crate::device::bio::{BioOp, Queue};
use crate::error::Error;
use crate::memory::borrowed::{BorrowedMemory, NoBorrowedMemory};
use crate::memory::request_memory::RequestMemory;
use crate::queue::file_queue::FileQueue;
use crate::queue::request::{Request, Serving, Stop, report, to_usize};
use crate::queue::state::{Mode, Work};
use crate::queue::tag::Tag;

/// A request before the generic path accepts it.
pub(crate) struct NewRequest<I> {
    pub(crate) op: BioOp,
    pub(crate) io: IoArgs,
    pub(crate) memory: RequestMemory,
    /// Bytes of the memory.
    pub(crate) length: u64,
    /// Size of the file, in bytes.
    pub(crate) size: u64,
    /// True if the submitter waits for the result.
    pub(crate) waited: bool,
    /// The first mapping, if `begin` was called already and the arguments were checked.
    pub(crate) first: Option<(Mapping, InFlight<I>)>,
}

impl<I> NewRequest<I> {
    pub(crate) fn read(io: IoArgs, memory: RequestMemory, size: u64) -> Self {
        let length = memory.len() as u64;
        Self { op: BioOp::Read, io, memory, length, size, waited: false, first: None }
    }

    pub(crate) fn write(io: IoArgs, memory: RequestMemory, size: u64) -> Self {
        Self { op: BioOp::Write, ..Self::read(io, memory, size) }
    }
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
    /// Submits a request. The result comes from a poll.
    ///
    /// # Errors
    /// The error that occurred before any command was submitted, with the memory.
    #[inline(never)]
    pub(crate) fn submit_generic<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        new: NewRequest<I>,
    ) -> Result<(), Rejected<ErrorOf<M>>> {
        let Serving { index, mut request, .. } = self.serve(file, new, &mut NoBorrowedMemory)?;
        request.refs -= 1;
        if request.refs > 0 {
            self.state.requests.put(index, request);
        } else if request.has_work() {
            self.state.requests.put(index, request);
            self.state.defer(Work::Request(index));
        } else {
            self.state.requests.remove(index);
            self.state.push(request.finish());
        }
        Ok(())
    }

    /// Submits a request, waits, and returns its result. Results of other requests are kept for the
    /// next poll.
    ///
    /// # Errors
    /// The error that occurred before any command was submitted, or with which the device failed.
    #[inline(never)]
    pub(crate) fn execute_generic<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        new: NewRequest<I>,
        borrowed: &mut dyn BorrowedMemory,
    ) -> Result<Done<I::Error>, Failed<ErrorOf<M>>> {
        let new = NewRequest { waited: true, ..new };
        let serving = match self.serve(file, new, borrowed) {
            Ok(serving) => serving,
            Err(Rejected { error, payload }) => {
                return Err(Failed { error, payload: Some(payload) });
            }
        };
        self.state.returned += 1;
        self.wait_for(serving)
    }

    /// Accepts a request, maps all of it, and submits its commands.
    ///
    /// # Errors
    /// The error that occurred before any command was submitted, with the memory.
    fn serve<'b, M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        new: NewRequest<I>,
        borrowed: &'b mut dyn BorrowedMemory,
    ) -> Result<Serving<'b, I>, Rejected<ErrorOf<M>>> {
        let NewRequest { op, io, length, size, waited, .. } = new;
        let count = match op {
            BioOp::Write => length,
            BioOp::Read => size.saturating_sub(io.pos).min(length),
        };
        let checked = if new.first.is_some() { Ok(()) } else { self.check(file, &new, count) };
        if let Err(error) = checked {
            report(file.open_file().state(), io.pos, count, op == BioOp::Write, &error);
            return Err(Rejected { error, payload: new.memory.into_owned() });
        }
        let Some(index) = self.reserve(waited && !io.flags.contains(IoFlags::NOWAIT)) else {
            return Err(Rejected { error: Error::Busy.into(), payload: new.memory.into_owned() });
        };
        let (first, in_flight) = match new.first {
            Some((mapping, in_flight)) => (Some(mapping), in_flight),
            None => (None, file.open_file().begin_io()),
        };
        let request = Request {
            in_flight,
            io,
            op,
            waited,
            refs: 1,
            commands: 0,
            count,
            size,
            moved: 0,
            error: None,
            fault: None,
            unwritten: false,
            flush: false,
            ended: false,
            memory: new.memory,
        };
        let mut serving = Serving { index, request, borrowed };
        log::trace!("request at {}: {count} bytes", io.pos);
        if count > 0 {
            self.walk(file, &mut serving, first);
        }
        let request = &mut serving.request;
        if request.commands == 0
            && let Some(error) = request.error.take()
        {
            self.state.requests.remove(index);
            report(request.in_flight.state(), io.pos, count, request.is_write(), &error);
            return Err(Rejected { error, payload: serving.request.into_memory() });
        }
        self.state.counters.generic += 1;
        Ok(serving)
    }

    /// Reserves an entry of the pool. If the submitter may wait, waits until a request ends.
    #[inline]
    fn reserve(&mut self, may_wait: bool) -> Option<u32> {
        loop {
            match self.state.requests.reserve() {
                None if may_wait && self.wait_for_any() => {}
                reserved => return reserved,
            }
        }
    }

    /// Checks the arguments of a request of `count` bytes.
    fn check<M: Mapper<OpenFile = I>>(
        &self,
        file: &M,
        new: &NewRequest<I>,
        count: u64,
    ) -> Result<(), ErrorOf<M>> {
        let NewRequest { op, io, memory, length, waited, .. } = new;
        let flags = io.flags;
        if memory.is_bounced() && flags.contains(IoFlags::NOWAIT) {
            return Err(Error::WouldBlock.into());
        }
        let writes_only = IoFlags::ATOMIC.union(IoFlags::DSYNC);
        if *op == BioOp::Read && flags.intersects(writes_only) {
            return Err(Error::Flags(flags.intersection(writes_only)).into());
        }
        let fs_aligned = flags.contains(IoFlags::FSBLOCK_ALIGNED);
        let align = if fs_aligned { u64::from(file.block_size()) } else { self.block() };
        let any = *op == BioOp::Read && memory.is_bytes() && !fs_aligned;
        let aligned = any || is_multiple(io.pos | length, align);
        // A request of nothing is aligned.
        if count > 0 && !(aligned && io.pos.checked_add(*length).is_some()) {
            return Err(Error::Misaligned { pos: io.pos, length: *length, align }.into());
        }
        if let RequestMemory::Direct(direct) = memory
            && count > 0
        {
            direct.check(self.block())?;
        }
        if self.state.mode.is_full() && !waited { Err(Error::Busy.into()) } else { Ok(()) }
    }

    /// Maps all of a request, from its first mapping if that is known, and submits its commands.
    fn walk<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        serving: &mut Serving<'_, I>,
        first: Option<Mapping>,
    ) {
        let Request { io, op, count, .. } = serving.request;
        if first.is_none()
            && let Err(error) = prepare_cache(file, op, &io, count)
        {
            return serving.request.fail(error);
        }
        let op = op_of(op, io.flags);
        let walked = iterate_from(file, first, (io.pos, count), op, |file, mapping, pos, n| {
            if serving.request.has_failed() {
                return Ok(0);
            }
            let served = self.serve_mapping(file, mapping, serving, (pos, n));
            Ok(serving.request.served((pos, n), served))
        });
        serving.request.moved = walked.processed;
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
    ) -> Result<(), Stop> {
        let request = &mut serving.request;
        let at = pos - request.io.pos;
        let range = FileRange { pos, bytes: n, at, last: at + n == request.count, fua: false };
        // Only the end of the request may be inside a block.
        if !range.last && !is_multiple(pos + n, self.block()) {
            return Err(request.stop(bad_mapping(mapping, pos)));
        }
        match (mapping.kind, request.op) {
            (MappingKind::Mapped, BioOp::Read) => {
                self.transfer(serving, mapping, &range)?.stopped.map_or(Ok(()), Err)
            }
            (MappingKind::Hole | MappingKind::Unwritten, BioOp::Read) => {
                self.read_zeroes(serving, &range)
            }
            (MappingKind::Inline, _) => self.copy_inline(file, mapping, serving, &range),
            (MappingKind::Delalloc, BioOp::Read) => Err(request.stop(Error::Delalloc { pos })),
            (MappingKind::Mapped | MappingKind::Unwritten, BioOp::Write)
                if !mapping.flags.contains(MappingFlags::ANON_WRITE) =>
            {
                let block_size = u64::from(file.block_size());
                self.write_blocks(serving, mapping, range, block_size)
            }
            (_, BioOp::Write) => Err(request.stop(Error::NoBlocks { pos })),
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
    ) -> Result<(), Stop> {
        let (at, bytes) = (to_usize(range.at), to_usize(range.bytes));
        let whole = to_usize(round_up(range.bytes, self.block()));
        let Self { queue, state } = self;
        let Serving { request, borrowed, .. } = serving;
        let mut buf = match state.bounce.take(whole, |bytes| queue.alloc(bytes)) {
            Ok(buf) => buf,
            Err(_) => return Err(request.stop(Error::NoMemory)),
        };
        let nofault = request.has(IoFlags::NOFAULT);
        let (copied, result) = match request.op {
            BioOp::Write => {
                request.flush |= request.has(IoFlags::DSYNC);
                let copied =
                    request.memory.copy_blocks_from(*borrowed, at, bytes, &mut buf, nofault);
                match copied == bytes {
                    true => (copied, file.write_inline(mapping, range.pos, &buf[..bytes])),
                    false => (0, Ok(())),
                }
            }
            BioOp::Read => {
                buf.fill(0);
                match file.read_inline(mapping, range.pos, &mut buf[..bytes]) {
                    Ok(()) => {
                        let memory = &mut request.memory;
                        (memory.copy_blocks_to(*borrowed, at, bytes, &buf, nofault), Ok(()))
                    }
                    Err(error) => (bytes, Err(error)),
                }
            }
        };
        state.bounce.put(buf);
        if copied < bytes {
            request.fault_at((at + copied) as u64);
        }
        result.map_err(|error| request.stop(error))
    }

    /// Waits for a request that was submitted, and returns its result.
    fn wait_for(
        &mut self,
        mut serving: Serving<'_, I>,
    ) -> Result<Done<I::Error>, Failed<I::Error>> {
        serving.request.refs -= 1;
        loop {
            while serving.request.refs > 0 {
                match self.wait_some(Some(&mut serving)) {
                    Ok(1..) => {}
                    Ok(0) => return Err(self.give_up(serving, Error::LostBuffer { length: 0 })),
                    Err(error) => return Err(self.give_up(serving, error)),
                }
            }
            if !self.end_waited(&mut serving) {
                self.state.requests.remove(serving.index);
                return Ok(serving.request.finish());
            }
        }
    }

    /// Does the work at the end of a request that is waited for. Returns true after the submission
    /// of a flush.
    fn end_waited(&mut self, serving: &mut Serving<'_, I>) -> bool {
        if !serving.request.has_work() {
            return false;
        }
        self.state.counters.deferred += u64::from(!serving.request.ended);
        serving.request.end();
        while serving.request.wants_flush() {
            serving.request.flush = false;
            match self.queue.flush(Tag::flush(serving.index)) {
                Ok(()) => {
                    serving.request.refs = 1;
                    return true;
                }
                Err(Rejected { error: Error::Busy, .. })
                    if matches!(self.wait_some(Some(serving)), Ok(1..)) =>
                {
                    serving.request.flush = true;
                }
                Err(Rejected { error, .. }) => serving.request.fail(error),
            }
        }
        false
    }

    /// Stops waiting after the device failed. The request stays in the pool for completions that
    /// may still arrive.
    #[cold]
    fn give_up(&mut self, serving: Serving<'_, I>, error: Error) -> Failed<I::Error> {
        self.state.set_mode(Mode::LOST, true);
        self.state.requests.put(serving.index, serving.request);
        Failed { error: error.into(), payload: None }
    }

    /// Returns the device's logical block in bytes.
    #[inline]
    pub(crate) fn block(&self) -> u64 {
        self.state.block_mask + 1
    }
}

/// Writes back or invalidates the cached data of a range before the device transfers it.
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
pub(crate) fn op_of(bio_op: BioOp, flags: IoFlags) -> Op {
    let mut op = Op::DIRECT;
    op.set(Op::WRITE, bio_op == BioOp::Write);
    op.set(Op::NOWAIT, flags.contains(IoFlags::NOWAIT));
    op.set(Op::ATOMIC, flags.contains(IoFlags::ATOMIC));
    op.set(Op::DONTCACHE, flags.contains(IoFlags::DONTCACHE));
    op
}

/// Returns the error of a mapping that does not serve position `pos`.
#[cold]
pub(crate) fn bad_mapping(mapping: &Mapping, pos: u64) -> Error {
    Error::BadMapping { pos, offset: mapping.offset, length: mapping.length }
}

#[inline]
pub(crate) fn is_multiple(value: u64, power_of_two: u64) -> bool {
    value & (power_of_two - 1) == 0
}

/// Rounds up to a multiple of a power of two.
#[inline]
pub(crate) fn round_up(value: u64, power_of_two: u64) -> u64 {
    value.wrapping_add(power_of_two - 1) & !(power_of_two - 1)
}
