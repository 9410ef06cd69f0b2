//! The way that a read takes: asked before anything is done.

use nvio_driver::DmaBuf;

use crate::contract::io_args::{IoArgs, IoFlags, Memory};
use crate::contract::mapper::{Mapper, Mapping, MappingFlags, MappingKind};
use crate::contract::open_file::OpenFile;
use crate::device::bio::Queue;
use crate::queue::counters::Reason;
use crate::queue::file_queue::FileQueue;
use crate::queue::tag::Tag;

/// A read into one DMA buffer.
#[derive(Clone, Copy)]
pub(crate) struct Read {
    pub(crate) io: IoArgs,
    /// Size of the file, in bytes.
    pub(crate) size: u64,
    /// Number of the wait for the result; 0 if a poll returns it.
    pub(crate) wait: u64,
    /// True on the simple path.
    pub(crate) simple: bool,
}

/// The way of a read into one DMA buffer. The mapping may still send it to the generic path.
pub(crate) enum Route {
    /// At most a block of the filesystem, and one command: the simple path.
    Simple,
    /// One command if the mapping allows, but not the simple path, for this reason.
    OneCommand(Reason),
    /// Neither, or invalid.
    Other,
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
        state: &I,
        io: &IoArgs,
        size: u64,
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
        let plain = ONE_COMMAND.contains(flags) && done_before == 0 && file.is_plain(state);
        let one = count > 0 && inside && aligned && plain && !self.state.mode.has_integrity();
        match () {
            () if !one => Route::Other,
            () if flags.intersects(IoFlags::GENERIC) => Route::OneCommand(Reason::Flags),
            () if self.state.mode.is_off() => Route::OneCommand(Reason::Off),
            () if !SIMPLE.contains(flags) => Route::OneCommand(Reason::Flags),
            () if count > block => Route::OneCommand(Reason::Length),
            () => Route::Simple,
        }
    }

    /// Returns the reason why a read is not simple; `None` if it is misaligned, which the generic
    /// path reports.
    pub(crate) fn why_not_simple<M: Mapper<OpenFile = I>>(
        &self,
        file: &M,
        read: &Read,
        memory: &Memory,
    ) -> Option<Reason> {
        let Read { io: IoArgs { pos, flags, done_before, .. }, size, .. } = *read;
        let count = memory.len() as u64;
        match memory {
            _ if flags.contains(IoFlags::GENERIC) => Some(Reason::Flags),
            _ if self.state.mode.is_off() => Some(Reason::Off),
            _ if done_before != 0 => Some(Reason::DoneBefore),
            _ if flags.contains(IoFlags::HOOKS) => Some(Reason::Hooks),
            _ if !SIMPLE.contains(flags) => Some(Reason::Flags),
            Memory::Vectored(_) | Memory::Bytes(_) => Some(Reason::Memory),
            _ if count == 0 || count > u64::from(file.block_size()) => Some(Reason::Length),
            _ if size.checked_sub(count).is_none_or(|last| pos > last) => Some(Reason::EndOfFile),
            _ if !file.is_plain(file.open_file().state()) => Some(Reason::Encoded),
            _ if self.state.mode.has_integrity() => Some(Reason::Integrity),
            Memory::Dma(_) => None,
        }
    }
}

/// Returns the device address of `count` bytes at `pos`, if the mapping covers them with data.
#[inline(always)]
pub(crate) fn one_range(mapping: &Mapping, pos: u64, count: u64) -> Option<u64> {
    let (before, bytes) = data_from(mapping, pos)?;
    // Before the sum, whose carry is then tested at once.
    if count > bytes {
        return None;
    }
    mapping.addr.checked_add(before)
}

/// Returns the device address of `pos` and the number of bytes from there to the end of the
/// mapping, if it covers `pos` with data.
#[inline(always)]
pub(crate) fn data_at(mapping: &Mapping, pos: u64) -> Option<(u64, u64)> {
    let (before, bytes) = data_from(mapping, pos)?;
    Some((mapping.addr.checked_add(before)?, bytes))
}

/// Returns the number of bytes of the mapping before `pos`, and from there to its end, if it covers `pos`
/// with data.
#[inline(always)]
fn data_from(mapping: &Mapping, pos: u64) -> Option<(u64, u64)> {
    let Mapping { offset, length, kind, flags, .. } = *mapping;
    // Wraps for a mapping past `pos`, and is larger than any length then.
    let before = pos.wrapping_sub(offset);
    let unfit = kind as u32 | flags.intersection(UNFIT).bits();
    if unfit != MappingKind::Mapped as u32 || before >= length {
        return None;
    }
    Some((before, length - before))
}

/// Returns the reason why one command does not serve a mapping; `None` if the mapping breaks the
/// contract.
pub(crate) fn why_split(mapping: &Mapping, pos: u64, count: u64) -> Option<Reason> {
    match mapping.bytes_from(pos) {
        0 => None,
        _ if mapping.kind != MappingKind::Mapped => Some(Reason::NotMapped),
        _ if mapping.flags.intersects(UNFIT) => Some(Reason::Integrity),
        bytes if count > bytes => Some(Reason::PartlyMapped),
        _ => mapping.device_address(pos).map(|_| Reason::Split),
    }
}
