//! A read that is one command, with no state but what goes with that: the simple path, which takes
//! one block or less, and the first attempt of the generic one.

use nvio_driver::{DmaBuf, Rejected};

use crate::contract::io_args::{IoArgs, IoFlags};
use crate::contract::iter::serves;
use crate::contract::mapper::{Mapper, Mapping, MappingFlags, MappingKind};
use crate::contract::open_file::{InFlight, OpenFile};
use crate::device::bio::{Bio, BioOp, PAGE, Queue};
use crate::error::Error;
use crate::memory::request_memory::DWORD;
use crate::queue::counters::Reason;
use crate::queue::file_queue::FileQueue;
use crate::queue::generic::{is_multiple, op};
use crate::queue::request::report;
use crate::queue::tag::Tag;

/// Flags that change nothing of how one block is read.
pub(crate) const KNOWN: IoFlags = IoFlags::NOWAIT
    .union(IoFlags::FSBLOCK_ALIGNED)
    .union(IoFlags::NOFAULT)
    .union(IoFlags::DONTCACHE);

/// Why a read is not under way.
pub(crate) enum NotTaken<E> {
    /// It is for the generic path. NoBorrowedMemory but that hears of this.
    NotSimple(Reason),
    /// It failed.
    Failed(E),
}

/// Where the attempt at a read ended, with what is needed to go on.
pub(crate) enum Stopped<I: OpenFile> {
    /// Before anything was done.
    Early,
    /// At the cache or at `begin`.
    Filesystem(I::Error),
    /// At the mapping, which the request still holds.
    Mapping(Mapping, InFlight<I>),
    /// At the queue.
    Queue(Error),
}

impl<Q: Queue<Tag<I>>, I: OpenFile> FileQueue<Q, I> {
    /// Whether the simple path may try a request.
    #[inline(always)]
    pub(crate) fn is_simple(&self, io: &IoArgs) -> Result<(), Reason> {
        let flags = io.flags;
        match () {
            () if flags.contains(IoFlags::GENERIC) => Err(Reason::Flags),
            () if self.state.mode.is_off() => Err(Reason::Off),
            () if io.done_before != 0 => Err(Reason::DoneBefore),
            () if flags.contains(IoFlags::HOOKS) => Err(Reason::Hooks),
            () if !KNOWN.contains(flags) => Err(Reason::Flags),
            () => Ok(()),
        }
    }

    /// Submits a read of a page, the most frequent of all: with fewer questions, each of which
    /// answers several.
    ///
    /// # Errors
    /// Gives the buffer back, with the reason if it is known; without, nothing was done.
    #[inline(always)]
    pub(crate) fn simple_page<M: Mapper<OpenFile = I>>(
        &mut self,
        file: &mut M,
        pos: u64,
        buf: DmaBuf,
        token: u64,
    ) -> Result<(), (Stopped<I>, DmaBuf)> {
        let usual = buf.is_page(self.state.page);
        if !usual || pos >= file.page_end() || pos & self.state.block_mask != 0 {
            return Err((Stopped::Early, buf));
        }
        let count = u64::from(PAGE);
        let in_flight = file.open_file().begin_io();
        if let Err(error) = file.open_file().state().write_back(pos, count, false) {
            return Err((Stopped::Filesystem(error), buf));
        }
        let op = op(false, IoFlags::empty());
        let mapping = match file.begin(pos, count, op) {
            Ok(mapping) => mapping,
            Err(error) => return Err((Stopped::Filesystem(error), buf)),
        };
        let Some(addr) = usable(&mapping, pos, count) else {
            return Err((Stopped::Mapping(mapping, in_flight), buf));
        };
        let _ = file.end(&mapping, pos, count, count, op);
        match self.queue.read_page(addr, buf, Tag::simple(in_flight, token, pos)) {
            Ok(()) => Ok(()),
            Err((buf, tag)) => self.page_refused(addr, buf, tag),
        }
    }

    /// The shortest way did not serve: asks for the reason, or for a longer one.
    #[cold]
    #[inline(never)]
    fn page_refused(
        &mut self,
        addr: u64,
        buf: DmaBuf,
        tag: Tag<I>,
    ) -> Result<(), (Stopped<I>, DmaBuf)> {
        let read = self.queue.submit(Bio { op: BioOp::Read, addr, buf, tag, fua: false });
        read.map_err(|Rejected { error, payload: bio }| (Stopped::Queue(error), bio.buf))
    }

    /// Submits a read of all of `buf`, if it is at most `most` bytes and one command, and returns
    /// what `taken` makes; else what `stopped` makes of it. `tag` makes the state that goes with
    /// the command.
    // What is rare is told by a function at the end, and the result is made there: there is little
    // to keep for it then.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "inlined, into two callers")]
    pub(crate) fn simple<M: Mapper<OpenFile = I>, R>(
        &mut self,
        file: &mut M,
        pos: u64,
        buf: DmaBuf,
        (most, flags): (u64, IoFlags),
        tag: impl FnOnce(InFlight<I>) -> Tag<I>,
        taken: impl FnOnce(&mut Self) -> R,
        stopped: impl FnOnce(&mut Self, &mut M, Stopped<I>, DmaBuf) -> R,
    ) -> R {
        let (why, buf) = 'stopped: {
            let count = buf.len() as u64;
            let mask = match flags.contains(IoFlags::FSBLOCK_ALIGNED) {
                true => u64::from(file.block_size()) - 1,
                false => self.state.block_mask,
            };
            // No byte wraps, and is too long.
            let short = count.wrapping_sub(1) < most;
            let inside = file.size().checked_sub(count).is_some_and(|last| pos <= last);
            let aligned = (pos | count) & mask == 0 && buf.is_aligned();
            let checked = short && inside && aligned && file.is_plain();
            if !checked || self.state.mode.has_integrity() {
                break 'stopped (Stopped::Early, buf);
            }
            let in_flight = file.open_file().begin_io();
            let nowait = flags.contains(IoFlags::NOWAIT);
            if let Err(error) = file.open_file().state().write_back(pos, count, nowait) {
                break 'stopped (Stopped::Filesystem(error), buf);
            }
            let op = op(false, flags);
            let mapping = match file.begin(pos, count, op) {
                Ok(mapping) => mapping,
                Err(error) => break 'stopped (Stopped::Filesystem(error), buf),
            };
            let addr = match usable(&mapping, pos, count) {
                Some(addr) if self.queue.fits(addr, count) => addr,
                _ => break 'stopped (Stopped::Mapping(mapping, in_flight), buf),
            };
            // An error counts only when nothing was processed.
            let _ = file.end(&mapping, pos, count, count, op);
            let bio = Bio { op: BioOp::Read, addr, buf, tag: tag(in_flight), fua: false };
            match self.queue.submit(bio) {
                Ok(()) => return taken(self),
                Err(Rejected { error, payload: bio }) => (Stopped::Queue(error), bio.buf),
            }
        };
        stopped(self, file, why, buf)
    }

    /// What is to be done about a read that is not under way.
    #[cold]
    #[inline(never)]
    pub(crate) fn not_taken<M: Mapper<OpenFile = I>>(
        &self,
        file: &mut M,
        pos: u64,
        flags: IoFlags,
        stopped: Stopped<I>,
        buf: &DmaBuf,
    ) -> NotTaken<I::Error> {
        let count = buf.len() as u64;
        let error = match stopped {
            Stopped::Early => return self.early(file, pos, flags, buf),
            Stopped::Filesystem(error) => error,
            Stopped::Queue(error) => error.into(),
            Stopped::Mapping(mapping, _inode) => {
                let ended = file.end(&mapping, pos, count, 0, op(false, flags));
                match (why_not(&mapping, pos, count), ended) {
                    (Some(reason), Ok(())) => return NotTaken::NotSimple(reason),
                    (Some(_), Err(error)) => error,
                    (None, _) => {
                        let Mapping { offset, length, .. } = mapping;
                        Error::BadMapping { pos, offset, length }.into()
                    }
                }
            }
        };
        report(file.open_file().state(), pos, count, false, &error);
        NotTaken::Failed(error)
    }

    /// What of a request itself is not for this path, or wrong.
    fn early<M: Mapper<OpenFile = I>>(
        &self,
        file: &M,
        pos: u64,
        flags: IoFlags,
        buf: &DmaBuf,
    ) -> NotTaken<I::Error> {
        let (count, iova) = (buf.len() as u64, buf.iova());
        let block = u64::from(file.block_size());
        let align = match flags.contains(IoFlags::FSBLOCK_ALIGNED) {
            true => block,
            false => 1 << self.queue.block_shift(),
        };
        let outside = file.size().checked_sub(count).is_none_or(|last| pos > last);
        let failed = |error: Error| {
            let error = error.into();
            report(file.open_file().state(), pos, count, false, &error);
            NotTaken::Failed(error)
        };
        NotTaken::NotSimple(match () {
            () if count == 0 || count > block => Reason::Length,
            () if outside => Reason::EndOfFile,
            () if !file.is_plain() => Reason::Encoded,
            () if self.state.mode.has_integrity() => Reason::Integrity,
            () if !is_multiple(pos | count, align) => {
                return failed(Error::Misaligned { pos, length: count, align });
            }
            () => return failed(Error::MisalignedMemory { iova, align: DWORD }),
        })
    }
}

/// Where on the device the bytes are, if all of them are in one place.
#[inline(always)]
fn usable(mapping: &Mapping, pos: u64, count: u64) -> Option<u64> {
    let Mapping { offset, length, addr, kind, flags } = *mapping;
    // Wraps where the mapping begins later, and is too much then.
    let before = pos.wrapping_sub(offset);
    let unfit = MappingFlags::INTEGRITY | MappingFlags::ANON_WRITE | MappingFlags::STALE;
    let whole = length.checked_sub(before).is_some_and(|left| count <= left);
    if kind != MappingKind::Mapped || flags.intersects(unfit) || !whole {
        return None;
    }
    addr.checked_add(before)
}

/// Why a mapping is not read by one command; `None` if it breaks the contract.
fn why_not(mapping: &Mapping, pos: u64, count: u64) -> Option<Reason> {
    let unfit = MappingFlags::INTEGRITY | MappingFlags::ANON_WRITE;
    match () {
        () if !serves(mapping, pos) => None,
        () if mapping.kind != MappingKind::Mapped => Some(Reason::NotMapped),
        () if mapping.flags.intersects(unfit) => Some(Reason::Integrity),
        () if count > mapping.end() - pos => Some(Reason::PartlyMapped),
        () => mapping.device_address(pos).map(|_| Reason::Split),
    }
}
