//! The commands of a request of the generic path: to blocks that are there, with the caller's memory
//! or private memory, and with zeroes beside them.

use nvio_driver::{BOUNCE_BYTES_MAX, DmaBuf};

use crate::contract::io_args::IoFlags;
use crate::contract::mapper::{ErrorOf, Mapper, Mapping, MappingFlags, MappingKind};
use crate::contract::open_file::OpenFile;
use crate::device::bio::{Bio, BioError, BioOp, Direction, Queue};
use crate::error::Error;
use crate::memory::borrowed::BorrowedMemory;
use crate::memory::request_memory::RequestMemory;
use crate::queue::file_queue::FileQueue;
use crate::queue::generic::{Part, is_multiple, to_usize};
use crate::queue::request::Request;
use crate::queue::state::QueueState;
use crate::queue::tag::Tag;

impl<Q: Queue<Tag<I>>, I: OpenFile> FileQueue<Q, I> {
    /// Writes to blocks that are there, and zeroes what of them is not written and was never.
    pub(crate) fn write_range<D, M, U>(
        &mut self,
        file: &M,
        mapping: &Mapping,
        mut part: Part,
        user: &mut U,
    ) -> Result<(), ErrorOf<M>>
    where
        D: Direction,
        M: Mapper<OpenFile = I>,
        U: BorrowedMemory,
    {
        let Part { pos, n, .. } = part;
        let Some(request) = self.state.requests.get_mut(part.request) else { return Ok(()) };
        let (flags, size) = (request.io.flags, request.size);
        let unwritten = mapping.kind == MappingKind::Unwritten;
        let fresh = unwritten || mapping.flags.contains(MappingFlags::NEW);
        let unsettled = MappingFlags::SHARED | MappingFlags::NEW | MappingFlags::DIRTY;
        let plain = !unwritten && !mapping.flags.intersects(unsettled);
        request.unwritten |= unwritten;
        if flags.contains(IoFlags::DSYNC) {
            part.fua = plain && self.queue.has_volatile_cache();
            request.flush |= !plain;
        }
        let block = u64::from(file.block_size());
        let head = pos & (block - 1);
        let past = fresh || pos + n >= size;
        let padded = (fresh && head > 0) || (past && !is_multiple(pos + n, block));
        if flags.contains(IoFlags::ATOMIC) {
            self.check_atomic(mapping, &part, padded)?;
        }
        if padded && part.nowait {
            return Err(Error::WouldBlock.into());
        }
        if fresh && head > 0 {
            self.pad::<D, M, U>(mapping, &part, pos - head, head, user)?;
        }
        let (moved, result) = self.transfer::<D, M, U>(mapping, &part, user)?;
        let end = pos + moved;
        let tail = block - (end & (block - 1));
        // Also when it failed half way, as the rest of the block would show.
        if (fresh || end >= size) && tail < block && (moved > 0 || fresh) {
            let padded = self.pad::<D, M, U>(mapping, &part, end, tail, user);
            // Not even a fault, which may leave a success, hides that.
            if let (Err(error), Some(request)) = (padded, self.state.requests.get_mut(part.request))
            {
                request.fail(error);
            }
        }
        result
    }

    fn check_atomic(&self, mapping: &Mapping, part: &Part, padded: bool) -> Result<(), Error> {
        let Part { pos, n, at, last, .. } = *part;
        let addr = mapping.device_address(pos).unwrap_or(0);
        let room = mapping.end().saturating_sub(pos);
        let most = self.queue.max_atomic_at(addr).min(self.queue.max_transfer_at(addr)) as u64;
        let most = if padded { 0 } else { most.min(room) };
        if at != 0 || !last || n > most {
            let length = if last { at + n } else { at + n + 1 };
            return Err(Error::NotAtomic { pos, length, most });
        }
        Ok(())
    }

    /// Moves the bytes of a part by commands: tells how many were submitted, and what stopped it.
    pub(crate) fn transfer<D, M, U>(
        &mut self,
        mapping: &Mapping,
        part: &Part,
        user: &mut U,
    ) -> Result<(u64, Result<(), ErrorOf<M>>), Error>
    where
        D: Direction,
        M: Mapper<OpenFile = I>,
        U: BorrowedMemory,
    {
        let block = 1u64 << self.queue.block_shift();
        // What is bounced may begin inside of a block, and end there.
        let skip = part.pos & (block - 1);
        let bad =
            Error::BadMapping { pos: part.pos, offset: mapping.offset, length: mapping.length };
        let addr = mapping.device_address(part.pos).and_then(|addr| addr.checked_sub(skip));
        let mut addr = addr.ok_or(bad)?;
        let Some(request) = self.state.requests.get_mut(part.request) else {
            return Err(Error::Busy);
        };
        let (bounced, atomic) = (request.held.is_bounced(), request.is_atomic());
        let mut skip = to_usize(skip);
        let mut left = to_usize((part.n + skip as u64).next_multiple_of(block));
        let mut at = to_usize(part.at);
        let n = to_usize(part.n);
        let moved = |at: usize| ((at as u64) - part.at).min(part.n);
        while left > 0 {
            let most = left.min(self.queue.max_transfer_at(addr));
            let cut = match bounced {
                false => self.cut(part.request, most),
                true => self.bounce::<D, U>(part, most, at, user),
            };
            let (buf, bytes) = match cut {
                Ok(Some((buf, bytes))) if atomic && bytes < left => {
                    self.take_back(part.request, at, buf, bounced);
                    let (length, most) = (left as u64, bytes as u64);
                    return Err(Error::NotAtomic { pos: part.pos, length, most });
                }
                Ok(Some(cut)) => cut,
                // A fault: no more of it.
                Ok(None) => return Ok((moved(at), Ok(()))),
                Err(error) => return Ok((moved(at), Err(error.into()))),
            };
            // Less than a block.
            let before = u32::try_from(skip).unwrap_or(u32::MAX);
            let tag = Tag::piece(part.request, before, at as u64);
            let op = if D::WRITE { BioOp::Write } else { BioOp::Read };
            let bio = Bio { op, addr, buf, tag, fua: part.fua };
            let pos = part.pos + (at as u64 - part.at);
            if let Err((error, buf)) = self.send::<D, M, U>(bio, pos, part, user) {
                self.take_back(part.request, at, buf, bounced);
                return Ok((moved(at), Err(error)));
            }
            addr = addr.saturating_add(bytes as u64);
            at += bytes - skip;
            left -= bytes;
            skip = 0;
        }
        debug_assert!(at >= to_usize(part.at) + n);
        Ok((part.n, Ok(())))
    }

    /// The next bytes of a request's own buffer.
    fn cut(&mut self, request: u32, most: usize) -> Result<Option<(DmaBuf, usize)>, Error> {
        let Some(request) = self.state.requests.get_mut(request) else { return Err(Error::Busy) };
        let RequestMemory::Direct(direct) = &mut request.held else { return Err(Error::Busy) };
        let buf = direct.cut(most).ok_or(Error::LostBuffer { length: most })?;
        let bytes = buf.len();
        Ok(Some((buf, bytes)))
    }

    /// Private memory for the next bytes; for a write with the data in it. `None` if that could
    /// not be copied.
    fn bounce<D, U>(
        &mut self,
        part: &Part,
        most: usize,
        at: usize,
        user: &mut U,
    ) -> Result<Option<(DmaBuf, usize)>, Error>
    where
        D: Direction,
        U: BorrowedMemory,
    {
        let block = 1usize << self.queue.block_shift();
        let want = most.min(BOUNCE_BYTES_MAX);
        let atomic = self.state.requests.get_mut(part.request).is_some_and(|it| it.is_atomic());
        let least = if atomic { want } else { block };
        let (mut buf, bytes) = self.memory((want, least), part.nowait, user)?;
        self.state.counters.bounced += 1;
        if !D::WRITE {
            return Ok(Some((buf, bytes)));
        }
        let Some(request) = self.state.requests.get_mut(part.request) else {
            return Err(Error::Busy);
        };
        let nofault = request.io.flags.contains(IoFlags::NOFAULT);
        let copied = request.held.copy_from(user, at, &mut buf, nofault);
        if copied < bytes {
            request.fault_at(at as u64);
            self.state.bounce.put(buf);
            return Ok(None);
        }
        Ok(Some((buf, bytes)))
    }

    /// Private memory of `want` bytes, or as much as there is, but `least`.
    pub(crate) fn memory(
        &mut self,
        (want, least): (usize, usize),
        nowait: bool,
        user: &mut impl BorrowedMemory,
    ) -> Result<(DmaBuf, usize), Error> {
        loop {
            let Self { queue, state } = self;
            let taken = state.bounce.take_some(want, least, |bytes| queue.alloc(bytes));
            match taken.map_err(|_| Error::NoMemory) {
                // What is in flight gives its memory back.
                Err(_) if !nowait && self.take_some(user)? > 0 => {}
                taken => return taken,
            }
        }
    }

    fn take_back(&mut self, request: u32, at: usize, buf: DmaBuf, bounced: bool) {
        if bounced {
            return self.state.bounce.put(buf);
        }
        if let Some(Request { held: RequestMemory::Direct(direct), .. }) =
            self.state.requests.get_mut(request)
        {
            // If it is not taken, the buffer is found incomplete in the end.
            direct.put(at, buf);
        }
    }

    /// Zeroes `n` bytes at `pos` on the device, beside what is written. Waits for room: what is
    /// written already must not show what is behind it.
    fn pad<D, M, U>(
        &mut self,
        mapping: &Mapping,
        part: &Part,
        pos: u64,
        n: u64,
        user: &mut U,
    ) -> Result<(), ErrorOf<M>>
    where
        D: Direction,
        M: Mapper<OpenFile = I>,
        U: BorrowedMemory,
    {
        let bad = Error::BadMapping { pos, offset: mapping.offset, length: mapping.length };
        let mut addr = mapping.device_address(pos).ok_or(bad)?;
        let (mut pos, mut left) = (pos, to_usize(n));
        while left > 0 {
            let most = left.min(self.queue.max_transfer_at(addr));
            let least = 1 << self.queue.block_shift();
            let (mut buf, bytes) = self.memory((most, least), false, user)?;
            buf.fill(0);
            let (request, fua) = (part.request, part.fua);
            let part = Part { request, pos, n, at: 0, last: false, nowait: false, fua };
            let bio = Bio { op: BioOp::Write, addr, buf, tag: Tag::pad(request), fua };
            if let Err((error, buf)) = self.send::<D, M, U>(bio, pos, &part, user) {
                self.state.bounce.put(buf);
                return Err(error);
            }
            addr = addr.saturating_add(bytes as u64);
            pos = pos.saturating_add(bytes as u64);
            left -= bytes;
        }
        Ok(())
    }

    /// Submits a bio, making room by waiting for others.
    fn send<D, M, U>(
        &mut self,
        mut bio: Bio<Tag<I>>,
        pos: u64,
        part: &Part,
        user: &mut U,
    ) -> Result<(), (ErrorOf<M>, DmaBuf)>
    where
        D: Direction,
        M: Mapper<OpenFile = I>,
        U: BorrowedMemory,
    {
        let pad = bio.tag.is_pad();
        if let Some(request) = self.state.requests.get_mut(part.request)
            && request.io.flags.contains(IoFlags::HOOKS)
        {
            let hook = request.in_flight.state().submit_io(pos, bio.addr, bio.buf.len());
            if let Err(error) = hook {
                return Err((error, bio.buf));
            }
        }
        loop {
            let Some(request) = self.state.requests.get_mut(part.request) else {
                return Err((Error::Busy.into(), bio.buf));
            };
            // The first error wins, and nothing follows it; but what would show is zeroed.
            if request.has_failed() && !pad {
                return Err((Error::Busy.into(), bio.buf));
            }
            let may_wait = !part.nowait && (request.waited || request.commands > 0);
            match self.queue.submit(bio) {
                Ok(()) => {
                    request.refs += 1;
                    request.commands += 1;
                    self.state.counters.commands += 1;
                    return Ok(());
                }
                Err(refused) if matches!(refused.error, Error::Busy) && may_wait => {
                    bio = refused.payload;
                    match self.take_some(user) {
                        Ok(0) => return Err((Error::Busy.into(), bio.buf)),
                        Ok(_) => {}
                        Err(error) => return Err((error.into(), bio.buf)),
                    }
                }
                Err(refused) => return Err((refused.error.into(), refused.payload.buf)),
            }
        }
    }
}

impl<I: OpenFile> QueueState<I> {
    /// Takes back the memory of a command; false if its request is not known.
    #[inline]
    pub(crate) fn piece(
        &mut self,
        index: u32,
        skip: u32,
        at: u64,
        mut buf: DmaBuf,
        result: Result<(), BioError>,
        user: &mut impl BorrowedMemory,
    ) -> bool {
        let wait = self.wait;
        let Some(request) = self.requests.get_mut(index) else { return false };
        let length = buf.len();
        if let Err(error) = result {
            request.fail_bio(at, length, error);
        }
        if let RequestMemory::Direct(direct) = &mut request.held {
            let size = to_usize(request.count);
            let start = to_usize(at);
            // What the device has behind the end of the file is nobody's business.
            if !request.write && start + length > size {
                buf[size.saturating_sub(start).min(length)..].fill(0);
            }
            if !direct.put(start, buf) {
                request.fail(Error::LostBuffer { length });
            }
            return true;
        }
        // Of whom who gave up waiting, the memory is gone; another's is not to be filled.
        let given_up = request.waited && request.io.token != wait;
        if !request.write && result.is_ok() && !given_up {
            let skip = skip as usize;
            let n =
                to_usize(request.count - at.min(request.count)).min(length.saturating_sub(skip));
            let nofault = request.io.flags.contains(IoFlags::NOFAULT);
            let data = buf.get(skip..skip + n).unwrap_or(&[]);
            let copied = request.held.copy_to(user, to_usize(at), data, nofault);
            if copied < n {
                request.fault_at(at + copied as u64);
            }
        }
        self.bounce.put(buf);
        true
    }
}
