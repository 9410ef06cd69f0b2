//! Zeroes: reads of holes, and blocks of which a write covers only a part.

use crate::contract::bytes::{is_multiple, to_usize};
use crate::contract::io_args::IoFlags;
use crate::contract::iter::bad_mapping;
use crate::contract::mapper::{Mapping, MappingFlags, MappingKind};
use crate::contract::open_file::OpenFile;
use crate::device::bio::{Bio, BioOp, Queue};
use crate::error::Error;
use crate::queue::file_queue::FileQueue;
use crate::queue::generic::FileRange;
use crate::queue::request::Serving;
use crate::queue::tag::Tag;

impl<Q: Queue<Tag<I>>, I: OpenFile> FileQueue<Q, I> {
    /// Reads a range without data: zeroes the memory, without a command.
    pub(crate) fn read_zeroes(&self, serving: &mut Serving<'_, I>, range: &FileRange) {
        let Serving { request, borrowed } = serving;
        let (at, n) = (to_usize(range.at), request.memory.rounded(range.bytes, self.block()));
        let nofault = request.has(IoFlags::NOFAULT);
        let zeroed = request.memory.zero(*borrowed, at, n, nofault);
        if zeroed < n {
            request.fault_at(at + zeroed);
        }
    }

    /// Writes to allocated blocks. Zeroes the parts of blocks that the write does not cover and
    /// that hold no data of the file: beside the range in new blocks, and past the end of the file.
    pub(crate) fn write_blocks(
        &mut self,
        serving: &mut Serving<'_, I>,
        mapping: &Mapping,
        mut range: FileRange,
        block_size: u64,
    ) {
        let FileRange { pos, bytes, .. } = range;
        let request = &mut serving.request;
        let size = request.size;
        let unwritten = mapping.kind == MappingKind::Unwritten;
        let fresh = unwritten || mapping.flags.contains(MappingFlags::NEW);
        let unsettled = MappingFlags::SHARED | MappingFlags::NEW | MappingFlags::DIRTY;
        let plain = !unwritten && !mapping.flags.intersects(unsettled);
        request.unwritten |= unwritten;
        if request.has(IoFlags::DSYNC) {
            range.fua = plain && self.queue.has_volatile_cache();
            request.flush |= !plain;
        }
        let head = pos & (block_size - 1);
        let past = fresh || pos + bytes >= size;
        let padded = (fresh && head > 0) || (past && !is_multiple(pos + bytes, block_size));
        if request.has(IoFlags::ATOMIC) && !self.is_atomic(serving, mapping, &range, padded) {
            return;
        }
        if padded && serving.request.has(IoFlags::NOWAIT) {
            return serving.request.fail(Error::WouldBlock);
        }
        if fresh && head > 0 && !self.pad(serving, mapping, (pos - head, head), range.fua) {
            return;
        }
        let sent = self.transfer(serving, mapping, &range);
        let end = pos + sent;
        let tail = block_size - (end & (block_size - 1));
        // Also after a failure half way, because the rest of the block would show old data. The
        // error of the zeroes is the request's even if a fault leaves a partial success.
        if (fresh || end >= size) && tail < block_size && (sent > 0 || fresh) {
            self.pad(serving, mapping, (end, tail), range.fua);
        }
    }

    /// Returns true if one command to one mapping can write all of an atomic write. Otherwise the
    /// request fails.
    fn is_atomic(
        &self,
        serving: &mut Serving<'_, I>,
        mapping: &Mapping,
        range: &FileRange,
        padded: bool,
    ) -> bool {
        let FileRange { pos, bytes, at, last, .. } = *range;
        let addr = mapping.device_address(pos).unwrap_or(0);
        let most = self.queue.max_atomic_at(addr).min(self.queue.max_transfer_at(addr));
        let most = most.min(serving.request.memory.contiguous()) as u64;
        let room = mapping.end().saturating_sub(pos);
        let most = if padded { 0 } else { most.min(room) };
        if at == 0 && last && bytes <= most {
            return true;
        }
        let length = if last { at + bytes } else { at + bytes + 1 };
        serving.request.fail(Error::NotAtomic { pos, length, most });
        false
    }

    /// Zeroes `n` bytes at `pos` on the device, beside the data of a write. Returns false if the
    /// zeroes could not be submitted, and the request has failed.
    fn pad(
        &mut self,
        serving: &mut Serving<'_, I>,
        mapping: &Mapping,
        (mut pos, n): (u64, u64),
        fua: bool,
    ) -> bool {
        let Some(mut addr) = mapping.device_address(pos) else {
            serving.request.fail(bad_mapping(mapping, pos));
            return false;
        };
        let (mut left, least) = (to_usize(n), to_usize(self.block()));
        while left > 0 {
            let most = left.min(self.queue.max_transfer_at(addr));
            let Some(mut buf) = self.bounce_buf(serving, (most, least), false) else {
                return false;
            };
            let bytes = buf.len();
            buf.fill(0);
            let tag = Tag::pad(serving.request.index);
            if !self.send(serving, Bio { op: BioOp::Write, addr, buf, tag, fua }, pos) {
                return false;
            }
            addr = addr.saturating_add(bytes as u64);
            pos = pos.saturating_add(bytes as u64);
            left -= bytes;
        }
        true
    }
}
