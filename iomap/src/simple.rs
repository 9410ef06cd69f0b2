//! The simple path: a read of one block or less, one command, no state but what goes with it.

use nvio_driver::DmaBuf;

use crate::engine::{FileQueue, Kind, Tag};
use crate::generic::{is_multiple, op};
use crate::held::DWORD;
use crate::inode::{InFlight, Inode};
use crate::iter::serves;
use crate::request::report;
use crate::{
    Bio, Error, ErrorOf, Io, IoFlags, Mapper, Mapping, MappingFlags, MappingKind, Op, Queue, Reason,
};

/// Flags that change nothing of how one block is read.
const KNOWN: IoFlags = IoFlags::NOWAIT
    .union(IoFlags::FSBLOCK_ALIGNED)
    .union(IoFlags::NOFAULT)
    .union(IoFlags::DONTCACHE);

/// Why a read is not under way.
pub(crate) enum NotTaken<E> {
    /// It is for the generic path. Nobody but that hears of this.
    NotSimple(Reason),
    /// It failed.
    Failed(E),
}

impl<Q: Queue<Tag<I>>, I: Inode> FileQueue<Q, I> {
    /// Whether the simple path may try a request.
    pub(crate) fn is_simple(&self, io: &Io) -> Result<(), Reason> {
        let flags = io.flags;
        match () {
            () if self.core.mode.is_off() => Err(Reason::Off),
            () if io.done_before != 0 => Err(Reason::DoneBefore),
            () if flags.contains(IoFlags::HOOKS) => Err(Reason::Hooks),
            () if !KNOWN.contains(flags) => Err(Reason::Flags),
            () => Ok(()),
        }
    }

    /// Submits a read of all of `buf`, if it is one for this path; `kind` makes the state that goes
    /// with it.
    ///
    /// # Errors
    /// Gives the buffer back.
    #[inline(always)]
    pub(crate) fn simple<M: Mapper<Inode = I>>(
        &mut self,
        file: &mut M,
        pos: u64,
        buf: DmaBuf,
        flags: IoFlags,
        kind: impl FnOnce(InFlight<I>) -> Kind<I>,
    ) -> Result<(), (NotTaken<I::Error>, DmaBuf)> {
        let count = buf.len() as u64;
        // 0 wraps, and is too long.
        let long = count.wrapping_sub(1) >= u64::from(file.block_size());
        let outside = file.size().checked_sub(count).is_none_or(|last| pos > last);
        if long || outside || !file.is_plain() || self.queue.has_integrity() {
            let reason = self.why_not(file, count, outside);
            return Err((NotTaken::NotSimple(reason), buf));
        }
        let align = match flags.contains(IoFlags::FSBLOCK_ALIGNED) {
            true => u64::from(file.block_size()),
            false => 1 << self.queue.block_shift(),
        };
        if !is_multiple(pos | count, align) || !is_multiple(buf.iova(), DWORD) {
            return Err((NotTaken::Failed(misaligned(pos, &buf, align).into()), buf));
        }
        let inode = file.inode().enter();
        let nowait = flags.contains(IoFlags::NOWAIT);
        if let Err(error) = file.inode().inode().write_back(pos, count, nowait) {
            return Err((failed(file, pos, count, error), buf));
        }
        let op = op(false, flags);
        let mapping = match file.begin(pos, count, op) {
            Ok(mapping) => mapping,
            Err(error) => return Err((failed(file, pos, count, error), buf)),
        };
        let addr = match self.usable(&mapping, pos, count) {
            Ok(addr) => addr,
            Err(not) => return Err((undo(file, &mapping, (pos, count, op), not), buf)),
        };
        // An error counts only when nothing was processed.
        let _ = file.end(&mapping, pos, count, count, op);
        let bio = Bio { addr, buf, tag: Tag(kind(inode)), fua: false };
        match self.queue.read(bio) {
            Ok(()) => {
                self.core.counters.simple += 1;
                Ok(())
            }
            Err(refused) => Err((failed(file, pos, count, refused.error.into()), refused.bio.buf)),
        }
    }

    /// Where on the device the bytes are, if one command can read them.
    #[inline(always)]
    fn usable(&self, mapping: &Mapping, pos: u64, count: u64) -> Result<u64, Not> {
        let unfit = MappingFlags::INTEGRITY.union(MappingFlags::ANON_WRITE);
        let plain = mapping.kind == MappingKind::Mapped && !mapping.flags.intersects(unfit);
        if !plain || !serves(mapping, pos) {
            return Err(Not::plain(mapping, pos));
        }
        // `serves` says that the position is inside.
        let before = pos - mapping.offset;
        if count > mapping.length - before {
            return Err(Not::Simple(Reason::PartlyMapped));
        }
        let Some(addr) = mapping.addr.checked_add(before) else {
            return Err(Not::Contract);
        };
        if count > self.queue.max_transfer_at(addr) as u64 {
            return Err(Not::Simple(Reason::Split));
        }
        Ok(addr)
    }

    #[cold]
    #[inline(never)]
    fn why_not<M: Mapper<Inode = I>>(&self, file: &M, count: u64, outside: bool) -> Reason {
        match () {
            () if count == 0 || count > u64::from(file.block_size()) => Reason::Length,
            () if outside => Reason::EndOfFile,
            () if !file.is_plain() => Reason::Encoded,
            () => Reason::Integrity,
        }
    }
}

/// Why a mapping is not read by one command.
enum Not {
    Simple(Reason),
    Contract,
}

impl Not {
    #[cold]
    fn plain(mapping: &Mapping, pos: u64) -> Self {
        match () {
            () if !serves(mapping, pos) => Self::Contract,
            () if mapping.kind != MappingKind::Mapped => Self::Simple(Reason::NotMapped),
            () => Self::Simple(Reason::Integrity),
        }
    }
}

/// Ends a mapping that nothing was done with.
#[cold]
#[inline(never)]
fn undo<M: Mapper>(
    file: &mut M,
    mapping: &Mapping,
    (pos, count, op): (u64, u64, Op),
    not: Not,
) -> NotTaken<ErrorOf<M>> {
    let ended = file.end(mapping, pos, count, 0, op);
    match not {
        Not::Simple(reason) => match ended {
            Ok(()) => NotTaken::NotSimple(reason),
            Err(error) => failed(file, pos, count, error),
        },
        Not::Contract => {
            let Mapping { offset, length, .. } = *mapping;
            failed(file, pos, count, Error::BadMapping { pos, offset, length }.into())
        }
    }
}

#[cold]
#[inline(never)]
fn failed<M: Mapper>(file: &M, pos: u64, count: u64, error: ErrorOf<M>) -> NotTaken<ErrorOf<M>> {
    report(file.inode().inode(), pos, count, false, &error);
    NotTaken::Failed(error)
}

#[cold]
#[inline(never)]
fn misaligned(pos: u64, buf: &DmaBuf, align: u64) -> Error {
    let (iova, length) = (buf.iova(), buf.len() as u64);
    match is_multiple(pos | length, align) {
        true => Error::MisalignedMemory { iova, align: DWORD },
        false => Error::Misaligned { pos, length, align },
    }
}
