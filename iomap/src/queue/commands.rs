//! The data commands of a request of the generic path, in the caller's memory or bounced.

use nvio_driver::{BOUNCE_BYTES_MAX, DmaBuf, Rejected};

use crate::contract::io_args::IoFlags;
use crate::contract::mapper::Mapping;
use crate::contract::open_file::OpenFile;
use crate::device::bio::{Bio, BioOp, Queue};
use crate::error::Error;
use crate::memory::request_memory::RequestMemory;
use crate::queue::file_queue::FileQueue;
use crate::queue::generic::{FileRange, bad_mapping, round_up};
use crate::queue::request::{Serving, Stop, to_usize};
use crate::queue::tag::Tag;

/// The part of a range for which commands were submitted.
pub(crate) struct Sent {
    /// Length of the part in bytes, from the start of the range.
    pub(crate) bytes: u64,
    /// Set if the request failed before the end of the range.
    pub(crate) stopped: Option<Stop>,
}

impl<Q: Queue<Tag<I>>, I: OpenFile> FileQueue<Q, I> {
    /// Submits the data commands of a range.
    ///
    /// # Errors
    /// [`Stop`] if the range as a whole is invalid.
    pub(crate) fn transfer(
        &mut self,
        serving: &mut Serving<'_, I>,
        mapping: &Mapping,
        range: &FileRange,
    ) -> Result<Sent, Stop> {
        let block = self.block();
        // Bounced data may start and end inside a block.
        let head = range.pos & (block - 1);
        let addr = mapping.device_address(range.pos).and_then(|addr| addr.checked_sub(head));
        let Some(mut addr) = addr else {
            return Err(serving.request.stop(bad_mapping(mapping, range.pos)));
        };
        let (op, fua) = (serving.request.op, range.fua);
        let atomic = serving.request.has(IoFlags::ATOMIC);
        let (mut at, mut skip) = (range.at, head);
        let mut left = round_up(range.bytes + head, block);
        while left > 0 {
            let most = to_usize(left).min(self.queue.max_transfer_at(addr));
            let stopped =
                |at: u64| Sent { bytes: (at - range.at).min(range.bytes), stopped: Some(Stop) };
            let Some(buf) = self.next_buf(serving, most, at) else { return Ok(stopped(at)) };
            let bytes = buf.len() as u64;
            if atomic && bytes < left {
                self.put_back(serving, at, buf);
                let error = Error::NotAtomic { pos: range.pos, length: left, most: bytes };
                return Err(serving.request.stop(error));
            }
            // `skip` is less than a block.
            let tag = Tag::data(serving.index, u32::try_from(skip).unwrap_or(u32::MAX), at);
            let bio = Bio { op, addr, buf, tag, fua };
            let pos = range.pos + (at - range.at);
            if let Err(buf) = self.send(serving, bio, pos) {
                self.put_back(serving, at, buf);
                return Ok(stopped(at));
            }
            addr = addr.saturating_add(bytes);
            at += bytes - skip;
            left -= bytes;
            skip = 0;
        }
        Ok(Sent { bytes: range.bytes, stopped: None })
    }

    /// Returns the buffer of the next command: at most `most` bytes of the request's own memory, or
    /// of private memory, with the data of a write. `None` if the request fails.
    #[inline]
    fn next_buf(&mut self, serving: &mut Serving<'_, I>, most: usize, at: u64) -> Option<DmaBuf> {
        let RequestMemory::Direct(direct) = &mut serving.request.memory else {
            return self.bounce(serving, most, to_usize(at));
        };
        let buf = direct.cut(most);
        if buf.is_none() {
            serving.request.fail(Error::LostBuffer { length: most });
        }
        buf
    }

    /// Returns private memory for the next command, with the data of a write.
    fn bounce(&mut self, serving: &mut Serving<'_, I>, most: usize, at: usize) -> Option<DmaBuf> {
        let want = most.min(BOUNCE_BYTES_MAX);
        let least = match serving.request.has(IoFlags::ATOMIC) {
            true => want,
            false => to_usize(self.block()),
        };
        let nowait = serving.request.has(IoFlags::NOWAIT);
        let mut buf = match self.bounce_buf(serving, (want, least), nowait) {
            Ok(buf) => buf,
            Err(error) => {
                serving.request.fail(error);
                return None;
            }
        };
        self.state.counters.bounced += 1;
        let Serving { request, borrowed, .. } = serving;
        if request.is_write() {
            let nofault = request.has(IoFlags::NOFAULT);
            let copied = request.memory.copy_from(*borrowed, at, &mut buf, nofault);
            if copied < buf.len() {
                request.fault_at(at as u64);
                self.state.bounce.put(buf);
                return None;
            }
        }
        Some(buf)
    }

    /// Returns private memory of `want` bytes, or less if memory is short, but at least `least`.
    /// Waits for commands in flight to return theirs, unless `nowait`.
    pub(crate) fn bounce_buf(
        &mut self,
        serving: &mut Serving<'_, I>,
        (want, least): (usize, usize),
        nowait: bool,
    ) -> Result<DmaBuf, Error> {
        loop {
            let Self { queue, state } = self;
            match state.bounce.take_some(want, least, |bytes| queue.alloc(bytes)) {
                Ok((buf, _)) => return Ok(buf),
                Err(_) if !nowait && self.wait_some(Some(serving))? > 0 => {}
                Err(_) => return Err(Error::NoMemory),
            }
        }
    }

    /// Puts the buffer of a command that was not submitted back.
    fn put_back(&mut self, serving: &mut Serving<'_, I>, at: u64, buf: DmaBuf) {
        match &mut serving.request.memory {
            // A piece that does not fit is not joined; the end of the request then reports the
            // buffer as incomplete.
            RequestMemory::Direct(direct) => {
                direct.put(to_usize(at), buf);
            }
            _ => self.state.bounce.put(buf),
        }
    }

    /// Submits a bio of a request. If the device's queue is full, the bio waits in the backlog; a
    /// submitter that waits for the result waits for room.
    ///
    /// # Errors
    /// The buffer; the request has failed.
    pub(crate) fn send(
        &mut self,
        serving: &mut Serving<'_, I>,
        mut bio: Bio<Tag<I>>,
        pos: u64,
    ) -> Result<(), DmaBuf> {
        let pad = bio.tag.is_pad();
        if serving.request.has(IoFlags::HOOKS) {
            let open_file = serving.request.in_flight.state();
            if let Err(error) = open_file.submit_io(pos, bio.addr, bio.buf.len()) {
                serving.request.fail(error);
                return Err(bio.buf);
            }
        }
        loop {
            // After the first error only zeroes are written, which hide old data.
            if serving.request.has_failed() && !pad {
                return Err(bio.buf);
            }
            match self.submit_bio(bio) {
                Ok(()) => break,
                Err(Rejected { error: Error::Busy, payload: refused }) => {
                    bio = refused;
                    match self.wait_for_room(serving, pad) {
                        Room::Device => {}
                        Room::Backlog => {
                            self.state.backlog.push_back(bio);
                            break;
                        }
                        Room::None => return Err(bio.buf),
                    }
                }
                Err(Rejected { error, payload: bio }) => {
                    serving.request.fail(error);
                    return Err(bio.buf);
                }
            }
        }
        serving.request.refs += 1;
        serving.request.commands += 1;
        self.state.counters.commands += 1;
        Ok(())
    }

    #[inline]
    fn submit_bio(&mut self, bio: Bio<Tag<I>>) -> Result<(), Rejected<Error, Bio<Tag<I>>>> {
        match bio.op {
            BioOp::Read => self.submit_read_bio(bio.addr, bio.buf, bio.tag),
            BioOp::Write => self.queue.submit(bio),
        }
    }

    /// Finds room for a bio that the device's queue did not accept. On [`Room::None`] the request
    /// has failed.
    #[cold]
    fn wait_for_room(&mut self, serving: &mut Serving<'_, I>, pad: bool) -> Room {
        let Serving { request, .. } = serving;
        let may_wait = pad || !request.has(IoFlags::NOWAIT);
        let submitted = request.commands > 0;
        if may_wait && !request.waited && self.state.has_backlog_room() {
            let accepted = submitted || self.may_wait();
            if accepted {
                return Room::Backlog;
            }
        }
        if !may_wait || !(request.waited || submitted) {
            request.fail(Error::Busy);
            return Room::None;
        }
        match self.wait_some(Some(serving)) {
            Ok(1..) => Room::Device,
            Ok(0) => {
                serving.request.fail(Error::Busy);
                Room::None
            }
            Err(error) => {
                serving.request.fail(error);
                Room::None
            }
        }
    }
}

/// The place for a bio that the device's queue did not accept.
enum Room {
    /// The device's queue may accept it now.
    Device,
    /// The backlog.
    Backlog,
    None,
}
