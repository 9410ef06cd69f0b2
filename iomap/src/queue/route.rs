//! The way that a read takes: asked before anything is done.

use nvio_driver::DmaBuf;

use crate::contract::io_args::{IoArgs, IoFlags};
use crate::contract::iter::serves;
use crate::contract::mapper::{Mapper, Mapping, MappingFlags, MappingKind};
use crate::contract::open_file::OpenFile;
use crate::device::bio::Queue;
use crate::queue::counters::Reason;
use crate::queue::file_queue::FileQueue;
use crate::queue::tag::Tag;

/// The way of a read into one DMA buffer. The mapping may still send it to the generic path.
pub(crate) enum Route {
    /// At most a block of the filesystem, and one command: the simple path.
    Simple,
    /// One command, but not the simple path, for this reason.
    OneCommand(Reason),
    /// Any number of commands, for this reason. `None` if the request is invalid.
    Generic(Option<Reason>),
}

/// Flags that do not change how one block is read.
const SIMPLE: IoFlags = IoFlags::NOWAIT
    .union(IoFlags::FSBLOCK_ALIGNED)
    .union(IoFlags::NOFAULT)
    .union(IoFlags::DONTCACHE);

/// Flags that do not change how a read of one command is done.
const ONE_COMMAND: IoFlags = SIMPLE.union(IoFlags::GENERIC).union(IoFlags::PARTIAL);

/// Flags of mappings that one command does not serve.
const UNFIT: MappingFlags =
    MappingFlags::INTEGRITY.union(MappingFlags::ANON_WRITE).union(MappingFlags::STALE);

impl<Q: Queue<Tag<I>>, I: OpenFile> FileQueue<Q, I> {
    /// Chooses the way of a read into `buf` of a file of `size` bytes.
    #[inline(always)]
    pub(crate) fn route<M: Mapper<OpenFile = I>>(
        &self,
        file: &M,
        size: u64,
        io: &IoArgs,
        buf: &DmaBuf,
    ) -> Route {
        let IoArgs { pos, flags, done_before, .. } = *io;
        let (count, block) = (buf.len() as u64, u64::from(file.block_size()));
        let align_mask = match flags.contains(IoFlags::FSBLOCK_ALIGNED) {
            true => block - 1,
            false => self.state.block_mask,
        };
        let inside = size.checked_sub(count).is_some_and(|last| pos <= last);
        let aligned = (pos | count) & align_mask == 0 && buf.is_aligned();
        let plain = ONE_COMMAND.contains(flags) && done_before == 0 && file.is_plain();
        let one = count > 0 && inside && aligned && plain && !self.state.mode.has_integrity();
        if !one {
            return Route::Generic(self.why_generic(file, size, io, buf));
        }
        match () {
            () if flags.intersects(IoFlags::GENERIC) => Route::OneCommand(Reason::Flags),
            () if self.state.mode.is_off() => Route::OneCommand(Reason::Off),
            () if !SIMPLE.contains(flags) => Route::OneCommand(Reason::Flags),
            () if count > block => Route::OneCommand(Reason::Length),
            () => Route::Simple,
        }
    }

    /// Returns the reason why the arguments alone exclude the simple path.
    pub(crate) fn why_not_simple(&self, io: &IoArgs) -> Option<Reason> {
        let flags = io.flags;
        match () {
            () if flags.contains(IoFlags::GENERIC) => Some(Reason::Flags),
            () if self.state.mode.is_off() => Some(Reason::Off),
            () if io.done_before != 0 => Some(Reason::DoneBefore),
            () if flags.contains(IoFlags::HOOKS) => Some(Reason::Hooks),
            () if !SIMPLE.contains(flags) => Some(Reason::Flags),
            () => None,
        }
    }

    /// Returns the reason why a read is not one command; `None` if it is misaligned, which the
    /// generic path reports.
    #[cold]
    #[inline(never)]
    fn why_generic<M: Mapper<OpenFile = I>>(
        &self,
        file: &M,
        size: u64,
        io: &IoArgs,
        buf: &DmaBuf,
    ) -> Option<Reason> {
        let count = buf.len() as u64;
        let outside = size.checked_sub(count).is_none_or(|last| io.pos > last);
        match self.why_not_simple(io) {
            Some(reason) => Some(reason),
            None if count == 0 || count > u64::from(file.block_size()) => Some(Reason::Length),
            None if outside => Some(Reason::EndOfFile),
            None if !file.is_plain() => Some(Reason::Encoded),
            None if self.state.mode.has_integrity() => Some(Reason::Integrity),
            None => None,
        }
    }
}

/// Returns the device address of `count` bytes at `pos`, if the mapping covers them with data.
#[inline(always)]
pub(crate) fn one_range(mapping: &Mapping, pos: u64, count: u64) -> Option<u64> {
    let Mapping { offset, length, addr, kind, flags } = *mapping;
    // Wraps for a mapping past `pos`, and is larger than any length then.
    let before = pos.wrapping_sub(offset);
    let whole = length.checked_sub(before).is_some_and(|left| count <= left);
    if kind != MappingKind::Mapped || flags.intersects(UNFIT) || !whole {
        return None;
    }
    addr.checked_add(before)
}

/// Returns the reason why one command does not serve a mapping; `None` if the mapping breaks the
/// contract.
pub(crate) fn why_split(mapping: &Mapping, pos: u64, count: u64) -> Option<Reason> {
    match () {
        () if !serves(mapping, pos) => None,
        () if mapping.kind != MappingKind::Mapped => Some(Reason::NotMapped),
        () if mapping.flags.intersects(UNFIT) => Some(Reason::Integrity),
        () if count > mapping.end() - pos => Some(Reason::PartlyMapped),
        () => mapping.device_address(pos).map(|_| Reason::Split),
    }
}
