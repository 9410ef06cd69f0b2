//! Zeroes: reads of holes, and blocks of which a write covers only a part.

use crate::contract::io_args::IoFlags;
use crate::contract::mapper::{Mapping, MappingFlags, MappingKind};
use crate::contract::open_file::OpenFile;
use crate::device::bio::{Bio, BioOp, Queue};
use crate::error::Error;
use crate::memory::request_memory::RequestMemory;
use crate::queue::commands::Sent;
use crate::queue::file_queue::FileQueue;
use crate::queue::generic::{FileRange, bad_mapping, is_multiple, round_up};
use crate::queue::request::{Serving, Stop, to_usize};
use crate::queue::tag::Tag;

impl<Q: Queue<Tag<I>>, I: OpenFile> FileQueue<Q, I> {
    /// Reads a range without data: zeroes the memory, without a command.
    pub(crate) fn read_zeroes(
        &mut self,
        serving: &mut Serving<'_, I>,
        range: &FileRange,
    ) -> Result<(), Stop> {
        let block = self.block();
        let Serving { request, borrowed, .. } = serving;
        let (at, n) = (to_usize(range.at), to_usize(range.bytes));
        let nofault = request.has(IoFlags::NOFAULT);
        let RequestMemory::Direct(direct) = &mut request.memory else {
            let zeroed = request.memory.zero(*borrowed, at, n, nofault);
            if zeroed < n {
                request.fault_at((at + zeroed) as u64);
            }
            return Ok(());
        };
        // Up to the end of the file's last block.
        let n = to_usize(round_up(range.bytes, block));
        match direct.each(at, n, |_, piece| piece.fill(0)) {
            true => Ok(()),
            false => Err(request.stop(Error::LostBuffer { length: n })),
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
    ) -> Result<(), Stop> {
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
        if request.has(IoFlags::ATOMIC) {
            self.check_atomic(serving, mapping, &range, padded)?;
        }
        if padded && serving.request.has(IoFlags::NOWAIT) {
            return Err(serving.request.stop(Error::WouldBlock));
        }
        if fresh && head > 0 {
            self.pad(serving, mapping, (pos - head, head), range.fua)?;
        }
        let Sent { bytes: sent, stopped } = self.transfer(serving, mapping, &range)?;
        let end = pos + sent;
        let tail = block_size - (end & (block_size - 1));
        // Also after a failure half way, because the rest of the block would show old data. The
        // error of the zeroes is the request's even if a fault leaves a partial success.
        if (fresh || end >= size) && tail < block_size && (sent > 0 || fresh) {
            let _ = self.pad(serving, mapping, (end, tail), range.fua);
        }
        stopped.map_or(Ok(()), Err)
    }

    /// Checks that one command to one mapping writes all of an atomic write.
    fn check_atomic(
        &self,
        serving: &mut Serving<'_, I>,
        mapping: &Mapping,
        range: &FileRange,
        padded: bool,
    ) -> Result<(), Stop> {
        let FileRange { pos, bytes, at, last, .. } = *range;
        let addr = mapping.device_address(pos).unwrap_or(0);
        let room = mapping.end().saturating_sub(pos);
        let most = self.queue.max_atomic_at(addr).min(self.queue.max_transfer_at(addr)) as u64;
        let most = if padded { 0 } else { most.min(room) };
        if at == 0 && last && bytes <= most {
            return Ok(());
        }
        let length = if last { at + bytes } else { at + bytes + 1 };
        Err(serving.request.stop(Error::NotAtomic { pos, length, most }))
    }

    /// Zeroes `n` bytes at `pos` on the device, beside the data of a write.
    fn pad(
        &mut self,
        serving: &mut Serving<'_, I>,
        mapping: &Mapping,
        (mut pos, n): (u64, u64),
        fua: bool,
    ) -> Result<(), Stop> {
        let Some(mut addr) = mapping.device_address(pos) else {
            return Err(serving.request.stop(bad_mapping(mapping, pos)));
        };
        let mut left = to_usize(n);
        while left > 0 {
            let most = left.min(self.queue.max_transfer_at(addr));
            let least = to_usize(self.block());
            let mut buf = match self.bounce_buf(serving, (most, least), false) {
                Ok(buf) => buf,
                Err(error) => return Err(serving.request.stop(error)),
            };
            let bytes = buf.len();
            buf.fill(0);
            let bio = Bio { op: BioOp::Write, addr, buf, tag: Tag::pad(serving.index), fua };
            if let Err(buf) = self.send(serving, bio, pos) {
                self.state.bounce.put(buf);
                return Err(Stop);
            }
            addr = addr.saturating_add(bytes as u64);
            pos = pos.saturating_add(bytes as u64);
            left -= bytes;
        }
        Ok(())
    }
}
