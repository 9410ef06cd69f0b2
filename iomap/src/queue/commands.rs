//! The commands of a request of the generic path, in the caller's memory or bounced.

use nvio_driver::{BOUNCE_BYTES_MAX, DmaBuf, Rejected};

use crate::contract::bytes::{round_up, to_usize};
use crate::contract::io_args::IoFlags;
use crate::contract::iter::bad_mapping;
use crate::contract::mapper::Mapping;
use crate::contract::open_file::OpenFile;
use crate::device::bio::{Bio, BioOp, Queue};
use crate::error::Error;
use crate::memory::borrowed::BorrowedMemory;
use crate::queue::file_queue::FileQueue;
use crate::queue::generic::FileRange;
use crate::queue::request::{Request, Serving};
use crate::queue::tag::Tag;

impl<Q: Queue<Tag<I>>, I: OpenFile> FileQueue<Q, I> {
    /// Submits the data commands of a range, and returns the bytes of it that were submitted:
    /// fewer than all only if the request has failed.
    pub(crate) fn transfer(
        &mut self,
        serving: &mut Serving<'_, I>,
        mapping: &Mapping,
        range: &FileRange,
    ) -> u64 {
        // Bounced data may start and end inside a block.
        let head = range.pos & self.state.block_mask;
        let addr = mapping.device_address(range.pos).and_then(|addr| addr.checked_sub(head));
        let Some(mut addr) = addr else {
            serving.request.fail(bad_mapping(mapping, range.pos));
            return 0;
        };
        let (op, fua) = (serving.request.op, range.fua);
        let mut left = round_up(range.bytes + head, self.block());
        let (mut done, mut skip) = (0, head);
        while left > 0 {
            let most = to_usize(left).min(self.queue.max_transfer_at(addr));
            let (pos, at) = (range.pos + done, range.at + done);
            let buf = match serving.request.memory.cut(most) {
                Some(buf) => buf,
                None => match self.bounce(serving, most, to_usize(at)) {
                    Some(buf) => buf,
                    None => return done,
                },
            };
            let bytes = buf.len() as u64;
            // `skip` is less than a block.
            let tag = Tag::data(serving.request.index, (skip & 0xffff_ffff) as u32, pos);
            if !self.send(serving, Bio { op, addr, buf, tag, fua }, pos) {
                return done;
            }
            addr = addr.saturating_add(bytes);
            done += bytes - skip;
            left -= bytes;
            skip = 0;
        }
        range.bytes
    }

    /// Returns private memory for the next data command, with the data of a write. `None` if the
    /// request has failed.
    #[cold]
    #[inline(never)]
    fn bounce(&mut self, serving: &mut Serving<'_, I>, most: usize, at: usize) -> Option<DmaBuf> {
        let request = &mut serving.request;
        if request.memory.is_direct() {
            request.fail(Error::LostBuffer { length: most });
            return None;
        }
        let want = most.min(BOUNCE_BYTES_MAX);
        let (atomic, nowait) = (request.has(IoFlags::ATOMIC), request.has(IoFlags::NOWAIT));
        let least = if atomic { want } else { to_usize(self.block()) };
        let mut buf = self.bounce_buf(serving, (want, least), nowait)?;
        self.state.counters.bounced += 1;
        let Serving { request, borrowed } = serving;
        if request.is_write() {
            let nofault = request.has(IoFlags::NOFAULT);
            let copied = request.memory.copy_from(*borrowed, at, &mut buf, nofault);
            if copied < buf.len() {
                request.fault_at(at);
                self.state.bounce.put(buf);
                return None;
            }
        }
        Some(buf)
    }

    /// Returns private memory of `want` bytes, or less if memory is short, but at least `least`.
    /// Waits for commands in flight to return theirs, unless `nowait`. `None` if there is none, and
    /// the request has failed.
    pub(crate) fn bounce_buf(
        &mut self,
        serving: &mut Serving<'_, I>,
        (want, least): (usize, usize),
        nowait: bool,
    ) -> Option<DmaBuf> {
        loop {
            let Self { queue, state } = self;
            match state.bounce.take_some(want, least, |bytes| queue.alloc(bytes)) {
                Ok((buf, _)) => return Some(buf),
                Err(_) if nowait => break,
                Err(_) => {}
            }
            match self.wait_some(Some(&mut serving.request), serving.borrowed) {
                Ok(1..) => {}
                Ok(0) => break,
                Err(error) => {
                    serving.request.fail(error);
                    return None;
                }
            }
        }
        serving.request.fail(Error::NoMemory);
        None
    }

    /// Submits a bio of a request, which is for position `pos` of the file. Returns false if the
    /// request has failed.
    pub(crate) fn send(
        &mut self,
        serving: &mut Serving<'_, I>,
        bio: Bio<Tag<I>>,
        pos: u64,
    ) -> bool {
        let refused = serving.request.has(IoFlags::HOOKS) && !serving.request.show(&bio, pos);
        // After the first error only zeroes are written, which hide old data.
        if refused || (serving.request.failed && !bio.tag.is_pad()) {
            return self.put_back(&mut serving.request, bio);
        }
        if let Err(rejected) = self.submit_bio(bio)
            && !self.send_later(&mut serving.request, serving.borrowed, rejected)
        {
            return false;
        }
        serving.request.refs += 1;
        serving.request.commands += 1;
        true
    }

    /// Submits a bio that was rejected, if it can be. Returns false if the request has failed.
    #[cold]
    #[inline(never)]
    pub(crate) fn send_later(
        &mut self,
        request: &mut Request<I>,
        borrowed: &mut dyn BorrowedMemory,
        rejected: Rejected<Error, Bio<Tag<I>>>,
    ) -> bool {
        let how = (request.has(IoFlags::NOWAIT), request.wait != 0);
        let Err(rejected) = self.submit_later(rejected, how, Some(request), borrowed) else {
            return true;
        };
        let Rejected { error, payload: bio } = rejected;
        if bio.tag.is_pad() || !request.failed {
            request.fail(error);
        }
        self.put_back(request, bio)
    }

    /// Puts the buffer of a bio back that was not submitted. Returns false.
    #[cold]
    fn put_back(&mut self, request: &mut Request<I>, bio: Bio<Tag<I>>) -> bool {
        let Bio { tag, buf, .. } = bio;
        let at = request.offset(tag.at);
        request.put_buf(tag.part().1, at, buf, &mut self.state.bounce);
        false
    }

    /// Submits a bio that was rejected because the device's queue is full. The bio waits in the
    /// backlog, or the call waits for room if the submitter waits for the result, or has submitted
    /// commands of the request `own` already.
    ///
    /// # Errors
    /// The bio with the reason; with [`Error::Busy`] also if the request has failed meanwhile.
    #[cold]
    #[inline(never)]
    pub(crate) fn submit_later(
        &mut self,
        rejected: Rejected<Error, Bio<Tag<I>>>,
        (nowait, waited): (bool, bool),
        mut own: Option<&mut Request<I>>,
        borrowed: &mut dyn BorrowedMemory,
    ) -> Result<(), Rejected<Error, Bio<Tag<I>>>> {
        let pad = rejected.payload.tag.is_pad();
        let begun = own.as_ref().is_some_and(|request| request.commands > 0);
        let mut result = Err(rejected);
        loop {
            let bio = match result {
                Err(Rejected { error: Error::Busy, payload }) => payload,
                other => return other,
            };
            if (nowait && !pad) || !(waited || begun || self.may_wait()) {
                return Err(Rejected { error: Error::Busy, payload: bio });
            }
            if !waited && self.state.has_backlog_room() {
                self.state.backlog.push_back(bio);
                return Ok(());
            }
            let completed = self.wait_some(own.as_deref_mut(), borrowed);
            let failed = !pad && own.as_ref().is_some_and(|request| request.failed);
            result = match completed {
                Ok(1..) if !failed => self.submit_bio(bio),
                Ok(_) => return Err(Rejected { error: Error::Busy, payload: bio }),
                Err(error) => return Err(Rejected { error, payload: bio }),
            };
        }
    }

    /// Returns true if a request whose first command finds no room may wait in the backlog.
    fn may_wait(&self) -> bool {
        self.state.in_flight() < self.in_flight_max() && self.state.has_backlog_room()
    }

    /// Submits a bio, a read of a page by the device's page path.
    #[inline(always)]
    pub(crate) fn submit_bio(
        &mut self,
        bio: Bio<Tag<I>>,
    ) -> Result<(), Rejected<Error, Bio<Tag<I>>>> {
        if bio.op != BioOp::Read || !bio.buf.is_page(self.state.page_span) {
            return self.queue.submit(bio);
        }
        let Bio { addr, buf, tag, .. } = bio;
        match self.queue.read_page(addr, buf, tag) {
            Ok(()) => Ok(()),
            // `submit` reports the reason of the failure.
            Err((buf, tag)) => self.queue.submit(Bio::read(addr, buf, tag)),
        }
    }
}
