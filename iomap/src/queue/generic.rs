//! The generic path: any number of mappings of any kind, any number of commands.

use crate::contract::io_args::{IoArgs, IoFlags};
use crate::contract::iter::iterate;
use crate::contract::mapper::{ErrorOf, Mapper, Mapping, MappingFlags, MappingKind, Op};
use crate::contract::open_file::OpenFile;
use crate::device::bio::{Direction, Queue};
use crate::error::{Error, FileError};
use crate::memory::borrowed::BorrowedMemory;
use crate::memory::request_memory::RequestMemory;
use crate::queue::file_queue::FileQueue;
use crate::queue::request::{Request, report};
use crate::queue::state::QueueState;
use crate::queue::tag::Tag;

/// What is to be moved.
pub(crate) struct Transfer {
    pub(crate) io: IoArgs,
    /// Bytes of the memory.
    pub(crate) length: u64,
    /// Whether the submitter waits.
    pub(crate) waited: bool,
    /// Whether the position and the length of what is bounced may be any.
    pub(crate) any_alignment: bool,
}

/// A part of a mapping that is to be served.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    pub(crate) request: u32,
    pub(crate) pos: u64,
    /// Bytes of the file.
    pub(crate) n: u64,
    /// Offset of the first in the request.
    pub(crate) at: u64,
    /// Whether it ends where the request does.
    pub(crate) last: bool,
    /// Whether more may be submitted only at once.
    pub(crate) nowait: bool,
    pub(crate) fua: bool,
}

impl<Q: Queue<Tag<I>>, I: OpenFile> FileQueue<Q, I> {
    /// Submits a request. Its result is in `ready`, or will be, or in `waited`.
    ///
    /// # Errors
    /// What went wrong before any command was taken, with the memory as it was.
    pub(crate) fn start<D, M, U>(
        &mut self,
        file: &mut M,
        transfer: &Transfer,
        held: RequestMemory,
        user: &mut U,
    ) -> Result<(), (ErrorOf<M>, RequestMemory)>
    where
        D: Direction,
        M: Mapper<OpenFile = I>,
        U: BorrowedMemory,
    {
        let Transfer { io, length, waited, .. } = *transfer;
        let size = file.size();
        let count = if D::WRITE { length } else { size.saturating_sub(io.pos).min(length) };
        if let Err(error) = self.check::<D, M>(file, transfer, count, &held) {
            report(file.open_file().state(), io.pos, count, D::WRITE, &error);
            return Err((error, held));
        }
        let mut request = Request {
            in_flight: file.open_file().begin_io(),
            io,
            write: D::WRITE,
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
            held,
        };
        let may_wait = waited && !io.flags.contains(IoFlags::NOWAIT);
        let index = loop {
            match self.state.requests.insert(request) {
                Ok(index) => break index,
                Err(back) if may_wait && self.has_ended(user) => request = back,
                Err(back) => return Err((Error::Busy.into(), back.held)),
            }
        };
        log::trace!("request at {}: {count} bytes", io.pos);
        if count > 0 {
            self.walk::<D, M, U>(file, index, user);
        }
        self.submitted(index)
    }

    /// Maps and submits all of a request.
    fn walk<D, M, U>(&mut self, file: &mut M, index: u32, user: &mut U)
    where
        D: Direction,
        M: Mapper<OpenFile = I>,
        U: BorrowedMemory,
    {
        let Some(request) = self.state.requests.get_mut(index) else { return };
        let (io, count) = (request.io, request.count);
        if let Err(error) = before::<M>(file, D::WRITE, &io, count) {
            return request.fail(error);
        }
        let op = op(D::WRITE, io.flags);
        let walked = iterate(file, io.pos, count, op, |file, mapping, pos, n| {
            let served = self.range::<D, M, U>(file, mapping, index, (pos, n), user);
            self.state.served(index, (pos, n), served)
        });
        let Some(request) = self.state.requests.get_mut(index) else { return };
        request.moved = walked.processed;
        if let Some(error) = walked.error {
            // Unless that of a command came first.
            request.fail(error);
        }
    }

    /// Ends the submission of a request.
    fn submitted(&mut self, index: u32) -> Result<(), (I::Error, RequestMemory)> {
        let Some(request) = self.state.requests.get_mut(index) else { return Ok(()) };
        if request.commands == 0 && request.error.is_some() {
            // NoBorrowedMemory but the caller has heard of it.
            if let Some(Request { in_flight, io, count, write, error: Some(error), held, .. }) =
                self.state.requests.remove(index)
            {
                report(in_flight.state(), io.pos, count, write, &error);
                return Err((error, held));
            }
            return Ok(());
        }
        self.state.counters.generic += 1;
        if let Some(done) = self.state.release(index) {
            self.state.deliver(false, done);
        }
        Ok(())
    }

    fn check<D, M>(
        &self,
        file: &M,
        transfer: &Transfer,
        count: u64,
        held: &RequestMemory,
    ) -> Result<(), ErrorOf<M>>
    where
        D: Direction,
        M: Mapper<OpenFile = I>,
    {
        let Transfer { io, length, any_alignment, waited } = *transfer;
        let flags = io.flags;
        if held.is_bounced() && flags.contains(IoFlags::NOWAIT) {
            return Err(Error::WouldBlock.into());
        }
        let writes_only = IoFlags::ATOMIC.union(IoFlags::DSYNC);
        if !D::WRITE && flags.intersects(writes_only) {
            return Err(Error::Flags(flags.intersection(writes_only)).into());
        }
        let align = match flags.contains(IoFlags::FSBLOCK_ALIGNED) {
            true => u64::from(file.block_size()),
            false => 1 << self.queue.block_shift(),
        };
        let any = any_alignment && !flags.contains(IoFlags::FSBLOCK_ALIGNED);
        let aligned = any || is_multiple(io.pos | length, align);
        // Nothing is aligned.
        if count > 0 && !(aligned && io.pos.checked_add(length).is_some()) {
            return Err(Error::Misaligned { pos: io.pos, length, align }.into());
        }
        if let RequestMemory::Direct(direct) = held
            && count > 0
        {
            direct.check(1 << self.queue.block_shift())?;
        }
        // Results that nobody takes must not pile up.
        if self.state.mode.is_full() && !waited { Err(Error::Busy.into()) } else { Ok(()) }
    }

    /// Serves the `n` bytes at `pos`, all of one mapping.
    fn range<D, M, U>(
        &mut self,
        file: &mut M,
        mapping: &Mapping,
        index: u32,
        (pos, n): (u64, u64),
        user: &mut U,
    ) -> Result<(), ErrorOf<M>>
    where
        D: Direction,
        M: Mapper<OpenFile = I>,
        U: BorrowedMemory,
    {
        let Some(request) = self.state.requests.get_mut(index) else {
            return Err(Error::Busy.into());
        };
        if request.has_failed() {
            return Err(Error::Busy.into());
        }
        let (start, count) = (request.io.pos, request.count);
        let at = pos - start;
        let part = Part {
            request: index,
            pos,
            n,
            at,
            last: at + n == count,
            nowait: request.io.flags.contains(IoFlags::NOWAIT),
            fua: false,
        };
        // Only what the request ends with may end inside of a block.
        if !part.last && !is_multiple(pos + n, 1 << self.queue.block_shift()) {
            let Mapping { offset, length, .. } = *mapping;
            return Err(Error::BadMapping { pos, offset, length }.into());
        }
        match (mapping.kind, D::WRITE) {
            (MappingKind::Hole | MappingKind::Unwritten, false) => Ok(self.zeroes(&part, user)?),
            (MappingKind::Inline, _) => self.inline::<D, M, U>(file, mapping, &part, user),
            (MappingKind::Delalloc, false) => Err(Error::Delalloc { pos }.into()),
            (MappingKind::Hole | MappingKind::Delalloc, true) => {
                Err(Error::NoBlocks { pos }.into())
            }
            (_, true) if mapping.flags.contains(MappingFlags::ANON_WRITE) => {
                Err(Error::NoBlocks { pos }.into())
            }
            (MappingKind::Mapped | MappingKind::Unwritten, true) => {
                self.write_range::<D, M, U>(file, mapping, part, user)
            }
            (MappingKind::Mapped, false) => Ok(self.transfer::<D, M, U>(mapping, &part, user)?.1?),
        }
    }

    /// A hole, for a read: no command.
    fn zeroes(&mut self, part: &Part, user: &mut impl BorrowedMemory) -> Result<(), Error> {
        let block = 1u64 << self.queue.block_shift();
        let Some(request) = self.state.requests.get_mut(part.request) else {
            return Err(Error::Busy);
        };
        let nofault = request.io.flags.contains(IoFlags::NOFAULT);
        let (at, n) = (to_usize(part.at), to_usize(part.n));
        let RequestMemory::Direct(direct) = &mut request.held else {
            let zeroed = request.held.zero(user, at, n, nofault);
            if zeroed < n {
                request.fault_at((at + zeroed) as u64);
            }
            return Ok(());
        };
        // With the rest of the file's last block.
        let n = to_usize(part.n.next_multiple_of(block));
        match direct.each(at, n, |_, piece| piece.fill(0)) {
            true => Ok(()),
            false => Err(Error::LostBuffer { length: n }),
        }
    }

    /// Data in the filesystem's metadata: no command. It is no longer than a block of the
    /// filesystem.
    fn inline<D, M, U>(
        &mut self,
        file: &mut M,
        mapping: &Mapping,
        part: &Part,
        user: &mut U,
    ) -> Result<(), ErrorOf<M>>
    where
        D: Direction,
        M: Mapper<OpenFile = I>,
        U: BorrowedMemory,
    {
        let (at, bytes) = (to_usize(part.at), to_usize(part.n));
        let whole = bytes.next_multiple_of(1 << self.queue.block_shift());
        let Self { queue, state } = self;
        let taken = state.bounce.take(whole, |bytes| queue.alloc(bytes));
        let mut buf = taken.map_err(|_| Error::NoMemory)?;
        let Some(request) = self.state.requests.get_mut(part.request) else { return Ok(()) };
        let nofault = request.io.flags.contains(IoFlags::NOFAULT);
        let result = if D::WRITE {
            request.flush |= request.io.flags.contains(IoFlags::DSYNC);
            let copied = match &mut request.held {
                RequestMemory::Direct(direct) => {
                    let copy = |at: usize, piece: &mut [u8]| {
                        buf[at..at + piece.len()].copy_from_slice(piece)
                    };
                    if direct.each(at, whole, copy) { bytes } else { 0 }
                }
                held => held.copy_from(user, at, &mut buf[..bytes], nofault),
            };
            match copied == bytes {
                true => file.write_inline(mapping, part.pos, &buf[..bytes]),
                false => {
                    request.fault_at(part.at);
                    Ok(())
                }
            }
        } else {
            buf.fill(0);
            file.read_inline(mapping, part.pos, &mut buf[..bytes]).map(|()| {
                let copied = match &mut request.held {
                    RequestMemory::Direct(direct) => {
                        let copy = |at: usize, piece: &mut [u8]| {
                            piece.copy_from_slice(&buf[at..at + piece.len()])
                        };
                        if direct.each(at, whole, copy) { bytes } else { 0 }
                    }
                    held => held.copy_to(user, at, &buf[..bytes], nofault),
                };
                if copied < bytes {
                    request.fault_at((at + copied) as u64);
                }
            })
        };
        self.state.bounce.put(buf);
        result
    }
}

impl<I: OpenFile> QueueState<I> {
    /// How many of the `n` bytes at `pos` were served: all, but up to a fault only.
    fn served(
        &mut self,
        index: u32,
        (pos, n): (u64, u64),
        served: Result<(), I::Error>,
    ) -> Result<u64, I::Error> {
        let request = self.requests.get_mut(index);
        let Some((request, fault)) = request.and_then(|it| it.fault.map(|fault| (it, fault)))
        else {
            return served.map(|()| n);
        };
        match served {
            // All before it was submitted, and nothing was afterwards.
            Err(error) if !error.is_busy() => Err(error),
            _ => Ok(fault.saturating_sub(pos - request.io.pos).min(n)),
        }
    }
}

/// What the cache must do before the device is asked.
fn before<M: Mapper>(file: &M, write: bool, io: &IoArgs, count: u64) -> Result<(), ErrorOf<M>> {
    let open_file = file.open_file().state();
    if !write {
        return open_file.write_back(io.pos, count, io.flags.contains(IoFlags::NOWAIT));
    }
    if io.flags.contains(IoFlags::NOWAIT) && open_file.is_cached() {
        return Err(Error::WouldBlock.into());
    }
    match open_file.invalidate(io.pos, count) {
        true => Ok(()),
        false => Err(Error::FallBack { pos: io.pos }.into()),
    }
}

/// The operation that a mapping is asked for.
pub(crate) fn op(write: bool, flags: IoFlags) -> Op {
    let mut op = Op::DIRECT;
    op.set(Op::WRITE, write);
    op.set(Op::NOWAIT, flags.contains(IoFlags::NOWAIT));
    op.set(Op::ATOMIC, flags.contains(IoFlags::ATOMIC));
    op.set(Op::DONTCACHE, flags.contains(IoFlags::DONTCACHE));
    op
}

#[inline]
pub(crate) fn is_multiple(value: u64, power_of_two: u64) -> bool {
    value & (power_of_two - 1) == 0
}

/// A number of bytes in memory: this is for 64 bits.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "checked below")]
pub(crate) fn to_usize(bytes: u64) -> usize {
    const _: () = assert!(size_of::<usize>() == size_of::<u64>());
    bytes as usize
}
