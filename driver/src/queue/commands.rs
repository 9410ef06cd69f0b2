//! The commands of the NVM command set that are not on the shortest path (NVM 3.2, Base 7.1).

use nvio_spec::opcode::nvm;
use nvio_spec::{CopyRange, DsmRange, MAX_RANGES, Sqe};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use super::{CommandOptions, QueuePair, Rejected};
use crate::controller::WritableController;
use crate::dma::{DmaBuf, ScatterList};
use crate::namespace::{Namespace, WritableNamespace};
use crate::{Error, Result};

/// CDW12 bit 25 of Write Zeroes: the blocks may be deallocated.
const WRITE_ZEROES_DEALLOCATE: u32 = 1 << 25;

impl<T> QueuePair<T> {
    /// Queues a flush of the namespace's volatile write cache (Base 7.1).
    ///
    /// # Errors
    /// [`Error::QueueFull`], and what a failed controller failed with.
    pub fn flush(&mut self, namespace: &Namespace, context: T) -> Result<(), Rejected<T, ()>> {
        self.submit_bare(Sqe::flush(namespace.id()), context)
    }

    /// Queues a read with metadata, protection information or scattered buffers (NVM 3.2.4).
    ///
    /// # Errors
    /// As [`read`](Self::read); [`Error::Scattered`].
    pub fn read_with(
        &mut self,
        namespace: &Namespace,
        (lba, blocks): (u64, u32),
        parts: ScatterList,
        how: CommandOptions,
        context: T,
    ) -> Result<(), Rejected<T, ScatterList>> {
        self.submit_with(nvm::READ, namespace, (lba, blocks), parts, how, context)
    }

    /// Queues a write with metadata, protection information, scattered buffers, or Force Unit
    /// Access (NVM 3.2.6).
    ///
    /// # Errors
    /// As [`read_with`](Self::read_with).
    pub fn write_with(
        &mut self,
        namespace: &WritableNamespace,
        (lba, blocks): (u64, u32),
        parts: ScatterList,
        how: CommandOptions,
        context: T,
    ) -> Result<(), Rejected<T, ScatterList>> {
        self.submit_with(nvm::WRITE, namespace, (lba, blocks), parts, how, context)
    }

    /// Queues a comparison of what is stored with `parts` (NVM 3.2.1). A difference is the status
    /// [`COMPARE_FAILURE`](nvio_spec::status::COMPARE_FAILURE).
    ///
    /// # Errors
    /// As [`read_with`](Self::read_with).
    pub fn compare(
        &mut self,
        namespace: &Namespace,
        (lba, blocks): (u64, u32),
        parts: ScatterList,
        how: CommandOptions,
        context: T,
    ) -> Result<(), Rejected<T, ScatterList>> {
        self.submit_with(nvm::COMPARE, namespace, (lba, blocks), parts, how, context)
    }

    /// Queues a check that blocks can be read, and that their protection information is right
    /// (NVM 3.2.5). Nothing is transferred, so that up to 65,535 blocks are one command.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn verify(
        &mut self,
        namespace: &Namespace,
        (lba, blocks): (u64, u32),
        how: CommandOptions,
        context: T,
    ) -> Result<(), Rejected<T, ()>> {
        self.submit_range(nvm::VERIFY, namespace, (lba, blocks), how, 0, context)
    }

    /// Queues zeroing of blocks (NVM 3.2.8); with `deallocate`, the controller may free them, if
    /// they read as zeroes then. Nothing is transferred, so that up to 65,535 blocks are one
    /// command.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn write_zeroes(
        &mut self,
        namespace: &WritableNamespace,
        (lba, blocks): (u64, u32),
        deallocate: bool,
        how: CommandOptions,
        context: T,
    ) -> Result<(), Rejected<T, ()>> {
        let flags = if deallocate { WRITE_ZEROES_DEALLOCATE } else { 0 };
        self.submit_range(nvm::WRITE_ZEROES, namespace, (lba, blocks), how, flags, context)
    }

    /// Queues the deallocation of ranges (Dataset Management, NVM 3.2.3), at most 256. The list is
    /// written into `buf`, which has 16 bytes for each. What deallocated blocks read as is the
    /// controller's matter.
    ///
    /// # Errors
    /// As [`read`](Self::read); [`Error::TransferSize`] for the number of ranges, or a `buf` that
    /// is too small.
    pub fn deallocate(
        &mut self,
        namespace: &WritableNamespace,
        ranges: &[DsmRange],
        buf: DmaBuf,
        context: T,
    ) -> Result<(), Rejected<T>> {
        let check = |range: &DsmRange| namespace.check_range(range.slba.get(), range.blocks.get());
        let checked = ranges.iter().try_for_each(check);
        let mut sqe = Sqe::new(nvm::DATASET_MANAGEMENT, namespace.id());
        sqe.cdw10 = U32::new(zeroes_based(ranges.len()));
        sqe.cdw11 = U32::new(Sqe::DSM_DEALLOCATE);
        self.submit_list(sqe, checked, (ranges.len(), ranges.as_bytes()), buf, context)
    }

    /// Queues a copy of ranges of the namespace to blocks from `lba` on, one after the other (Copy
    /// with descriptors of format 0, NVM 3.2.2). The list is written into `buf`, which has 32 bytes
    /// for each. The namespace says how many ranges and blocks there may be (MSRC, MSSRL, MCL).
    ///
    /// # Errors
    /// As [`deallocate`](Self::deallocate).
    pub fn copy(
        &mut self,
        namespace: &WritableNamespace,
        lba: u64,
        ranges: &[CopyRange],
        buf: DmaBuf,
        context: T,
    ) -> Result<(), Rejected<T>> {
        let mut total = 0u32;
        let checked = ranges.iter().try_for_each(|range| {
            let blocks = u32::from(range.nlb.get()) + 1;
            // At most 256 times 65,536.
            total = total.saturating_add(blocks);
            namespace.check_range(range.slba.get(), blocks)
        });
        let checked = checked.and_then(|()| namespace.check_range(lba, total));
        let mut sqe = Sqe::read(namespace.id(), lba, 1);
        sqe.opcode = nvm::COPY;
        sqe.cdw12 = U32::new(zeroes_based(ranges.len()));
        self.submit_list(sqe, checked, (ranges.len(), ranges.as_bytes()), buf, context)
    }

    /// Queues any I/O command. Its identifier and its data and metadata pointers are set here, the
    /// rest is sent as it is: the command must transfer no more than `parts` have, in either
    /// direction.
    ///
    /// # Errors
    /// [`Error::QueueFull`], [`Error::Scattered`], and what a failed controller failed with.
    ///
    /// # Safety
    /// A command that transfers more than `parts` have makes the controller write, or read, what
    /// follows them in the arena.
    pub unsafe fn raw(
        &mut self,
        _permission: &WritableController,
        sqe: Sqe,
        parts: ScatterList,
        context: T,
    ) -> Result<(), Rejected<T, ScatterList>> {
        self.submit_parts(sqe, parts, context)
    }

    fn submit_bare(&mut self, sqe: Sqe, context: T) -> Result<(), Rejected<T, ()>> {
        self.core.submit(sqe, context).map_err(|context| self.full((), context))
    }

    fn submit_range(
        &mut self,
        opcode: u8,
        namespace: &Namespace,
        (lba, blocks): (u64, u32),
        how: CommandOptions,
        flags: u32,
        context: T,
    ) -> Result<(), Rejected<T, ()>> {
        let checked = match blocks {
            0 | 0x1_0000.. => Err(Error::TransferSize { bytes: 0, max: 0 }),
            _ => namespace.check_range(lba, blocks),
        };
        if let Err(error) = checked {
            return Err(Rejected { error, buf: (), context });
        }
        let mut sqe = Sqe::read(namespace.id(), lba, blocks);
        sqe.opcode = opcode;
        how.apply(&mut sqe);
        sqe.cdw12 = U32::new(sqe.cdw12.get() | flags);
        self.submit_bare(sqe, context)
    }

    fn submit_with(
        &mut self,
        opcode: u8,
        namespace: &Namespace,
        (lba, blocks): (u64, u32),
        parts: ScatterList,
        how: CommandOptions,
        context: T,
    ) -> Result<(), Rejected<T, ScatterList>> {
        let checked = namespace.check_blocks(lba, blocks);
        if let Err(error) = checked.and_then(|()| how.check(namespace, blocks, &parts)) {
            return Err(Rejected { error, buf: parts, context });
        }
        let mut sqe = Sqe::read(namespace.id(), lba, blocks);
        sqe.opcode = opcode;
        how.apply(&mut sqe);
        self.submit_parts(sqe, parts, context)
    }

    fn submit_parts(
        &mut self,
        sqe: Sqe,
        parts: ScatterList,
        context: T,
    ) -> Result<(), Rejected<T, ScatterList>> {
        self.core.submit_parts(sqe, parts, context).map_err(|(scattered, parts, context)| {
            match scattered {
                Some(_) => Rejected { error: Error::Scattered, buf: parts, context },
                None => self.full(parts, context),
            }
        })
    }

    /// Queues a command whose data is a list of ranges.
    fn submit_list(
        &mut self,
        sqe: Sqe,
        checked: Result<()>,
        (count, list): (usize, &[u8]),
        mut buf: DmaBuf,
        context: T,
    ) -> Result<(), Rejected<T>> {
        let room = buf.get_mut(..list.len()).filter(|_| (1..=MAX_RANGES).contains(&count));
        let checked = checked.and(match room {
            Some(room) => {
                room.copy_from_slice(list);
                Ok(())
            }
            None => Err(Error::TransferSize { bytes: list.len(), max: buf.len().min(8192) }),
        });
        match checked {
            Ok(()) => self
                .core
                .submit_front(sqe, list.len(), buf, context)
                .map_err(|(buf, context)| self.full(buf, context)),
            Err(error) => Err(Rejected { error, buf, context }),
        }
    }
}

/// A count of 1 to 256, which was checked, as commands have it.
fn zeroes_based(count: usize) -> u32 {
    u32::try_from(count.wrapping_sub(1) & 0xff).unwrap_or(0)
}
