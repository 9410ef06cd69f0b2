//! The commands of the NVM command set that are not on the shortest path (NVM 3.2, Base 7.1).

use nvio_spec::opcode::nvm;
use nvio_spec::{CopyRange, DsmRange, MAX_RANGES, Sqe};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use super::options::CommandOptions;
use super::pair::QueuePair;
use super::raw::NotSubmitted;
use crate::controller::writable::WritableController;
use crate::dma::{DmaBuf, ScatterList};
use crate::error::{Error, Result};
use crate::namespace::{Namespace, WritableNamespace};
use crate::quirks::Quirk;
use crate::rejected::{Rejected, SubmitResult};

/// CDW12 bit 25 of Write Zeroes: the blocks may be deallocated.
const WRITE_ZEROES_DEALLOCATE: u32 = 1 << 25;

impl<T> QueuePair<T> {
    /// Submits a flush of the namespace's volatile write cache (Base 7.1).
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::QueueFull`], and the error of a controller that has failed.
    pub fn flush(&mut self, namespace: &Namespace, context: T) -> SubmitResult<(), T> {
        self.submit_bare(Sqe::flush(namespace.id()), context)
    }

    /// Submits a read with metadata, protection information or scattered buffers (NVM 3.2.4).
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`read`](Self::read); [`Error::Scattered`].
    pub fn read_with(
        &mut self,
        namespace: &Namespace,
        (lba, blocks): (u64, u32),
        list: ScatterList,
        options: CommandOptions,
        context: T,
    ) -> SubmitResult<ScatterList, T> {
        self.submit_with(nvm::READ, namespace, (lba, blocks), list, options, context)
    }

    /// Submits a write with metadata, protection information, scattered buffers, or Force Unit
    /// Access (NVM 3.2.6).
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`read_with`](Self::read_with).
    pub fn write_with(
        &mut self,
        namespace: &WritableNamespace,
        (lba, blocks): (u64, u32),
        list: ScatterList,
        options: CommandOptions,
        context: T,
    ) -> SubmitResult<ScatterList, T> {
        self.submit_with(nvm::WRITE, namespace, (lba, blocks), list, options, context)
    }

    /// Submits a comparison of the stored blocks with the data of `list` (NVM 3.2.1). The status of
    /// a difference is [`COMPARE_FAILURE`](nvio_spec::status::COMPARE_FAILURE).
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`read_with`](Self::read_with).
    pub fn compare(
        &mut self,
        namespace: &Namespace,
        (lba, blocks): (u64, u32),
        list: ScatterList,
        options: CommandOptions,
        context: T,
    ) -> SubmitResult<ScatterList, T> {
        self.submit_with(nvm::COMPARE, namespace, (lba, blocks), list, options, context)
    }

    /// Submits a check that blocks are readable and that their protection information is correct
    /// (NVM 3.2.5). No data is transferred, so that one command covers up to 65,535 blocks.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn verify(
        &mut self,
        namespace: &Namespace,
        (lba, blocks): (u64, u32),
        options: CommandOptions,
        context: T,
    ) -> SubmitResult<(), T> {
        self.submit_range(nvm::VERIFY, namespace, (lba, blocks), options, 0, context)
    }

    /// Submits zeroing of blocks (NVM 3.2.8). With `deallocate`, the controller may deallocate them
    /// if they read as zeroes afterwards. No data is transferred, so that one command covers up to
    /// 65,535 blocks.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`read`](Self::read); [`Error::Unsupported`] with
    /// [`Quirk::NoWriteZeroes`](crate::Quirk::NoWriteZeroes).
    pub fn write_zeroes(
        &mut self,
        namespace: &WritableNamespace,
        (lba, blocks): (u64, u32),
        deallocate: bool,
        options: CommandOptions,
        context: T,
    ) -> SubmitResult<(), T> {
        if self.controller.quirks.has(Quirk::NoWriteZeroes) {
            let error = Error::unsupported("Write Zeroes", Quirk::NoWriteZeroes.name());
            return Err(Rejected { error, payload: ((), context) });
        }
        let flags = if deallocate { WRITE_ZEROES_DEALLOCATE } else { 0 };
        self.submit_range(nvm::WRITE_ZEROES, namespace, (lba, blocks), options, flags, context)
    }

    /// Submits the deallocation of at most 256 ranges (Dataset Management, NVM 3.2.3). The list of
    /// ranges is written into `buf`, 16 bytes each. The contents of deallocated blocks depend on
    /// the controller.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`read`](Self::read); [`Error::TransferSize`] for the number of ranges, and for a `buf`
    /// that is too small.
    pub fn deallocate(
        &mut self,
        namespace: &WritableNamespace,
        ranges: &[DsmRange],
        buf: DmaBuf,
        context: T,
    ) -> SubmitResult<DmaBuf, T> {
        let check = |range: &DsmRange| namespace.check_range(range.slba.get(), range.blocks.get());
        let checked = ranges.iter().try_for_each(check);
        let command = checked.map(|()| Sqe::deallocate(namespace.id(), count(ranges)));
        self.submit_list(command, (ranges.len(), ranges.as_bytes()), buf, context)
    }

    /// Submits a copy of ranges of the namespace to the blocks from `lba` on, in order (Copy with
    /// descriptors of format 0, NVM 3.2.2). The list of ranges is written into `buf`, 32 bytes
    /// each. The namespace limits the ranges and blocks of one command (MSRC, MSSRL, MCL).
    ///
    /// See the [example](Self#examples).
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
    ) -> SubmitResult<DmaBuf, T> {
        let mut total = 0u32;
        let checked = ranges.iter().try_for_each(|range| {
            let blocks = range.blocks();
            // At most 256 times 65,536.
            total = total.saturating_add(blocks);
            namespace.check_range(range.slba.get(), blocks)
        });
        let checked = checked.and_then(|()| namespace.check_range(lba, total));
        let command = checked.map(|()| Sqe::copy(namespace.id(), lba, count(ranges)));
        self.submit_list(command, (ranges.len(), ranges.as_bytes()), buf, context)
    }

    /// Submits any I/O command. This function sets the identifier and the data and metadata
    /// pointers; the rest of `sqe` is sent unchanged.
    ///
    /// See the [example](Self#examples).
    ///
    /// ```
    /// # let served = nvio_testkit::controller::Served::memory(16 << 20);
    /// # let controller = &served.controller;
    /// use nvio_driver::ScatterList;
    /// use nvio_driver::spec::Sqe;
    ///
    /// let mut queue = controller.queue_pair(8)?;
    /// let list = ScatterList::new(vec![controller.alloc(4096)?], None);
    /// // SAFETY: the command reads 8 blocks of 512 bytes, the length of the buffer.
    /// unsafe { queue.raw(&controller.writable()?, Sqe::read(1, 0, 8), list, ())? };
    /// queue.wait(|done| assert!(done.status.is_success()))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::QueueFull`], [`Error::Scattered`], and the error of a controller that has failed.
    ///
    /// # Safety
    /// The command must not transfer more bytes than `list` has, in either direction. Otherwise the
    /// controller writes or reads the memory that follows the buffers in the arena.
    pub unsafe fn raw(
        &mut self,
        _permission: &WritableController,
        sqe: Sqe,
        list: ScatterList,
        context: T,
    ) -> SubmitResult<ScatterList, T> {
        self.submit_scattered(sqe, list, context)
    }

    fn submit_bare(&mut self, sqe: Sqe, context: T) -> SubmitResult<(), T> {
        self.core.submit(sqe, context).map_err(|context| self.full(((), context)))
    }

    fn submit_range(
        &mut self,
        opcode: u8,
        namespace: &Namespace,
        (lba, blocks): (u64, u32),
        options: CommandOptions,
        flags: u32,
        context: T,
    ) -> SubmitResult<(), T> {
        let checked = match blocks {
            0 | 0x1_0000.. => Err(Error::TransferSize { bytes: 0, max: 0 }),
            _ => namespace.check_range(lba, blocks),
        };
        if let Err(error) = checked {
            return Err(Rejected { error, payload: ((), context) });
        }
        let mut sqe = options.command(opcode, namespace, lba, blocks);
        sqe.cdw12 = U32::new(sqe.cdw12.get() | flags);
        self.submit_bare(sqe, context)
    }

    fn submit_with(
        &mut self,
        opcode: u8,
        namespace: &Namespace,
        (lba, blocks): (u64, u32),
        list: ScatterList,
        options: CommandOptions,
        context: T,
    ) -> SubmitResult<ScatterList, T> {
        let checked = namespace.check_blocks(lba, blocks);
        if let Err(error) = checked.and_then(|()| options.check(namespace, blocks, &list)) {
            return Err(Rejected { error, payload: (list, context) });
        }
        let sqe = options.command(opcode, namespace, lba, blocks);
        self.submit_scattered(sqe, list, context)
    }

    fn submit_scattered(
        &mut self,
        sqe: Sqe,
        list: ScatterList,
        context: T,
    ) -> SubmitResult<ScatterList, T> {
        self.core.submit_scattered(sqe, list, context).map_err(|(reason, list, context)| {
            let payload = (list, context);
            match reason {
                NotSubmitted::Scattered => Rejected { error: Error::Scattered, payload },
                NotSubmitted::Full => self.full(payload),
            }
        })
    }

    /// Submits a command whose data is a list of `count` ranges, which is copied to `buf`, if its
    /// checks succeeded.
    fn submit_list(
        &mut self,
        command: Result<Sqe>,
        (count, list): (usize, &[u8]),
        mut buf: DmaBuf,
        context: T,
    ) -> SubmitResult<DmaBuf, T> {
        let command = command.and_then(|sqe| buf.check_alignment().map(|()| sqe));
        let len = buf.len();
        let room = buf.get_mut(..list.len()).filter(|_| (1..=MAX_RANGES).contains(&count));
        let copied = room
            .map(|room| room.copy_from_slice(list))
            .ok_or(Error::TransferSize { bytes: list.len(), max: len.min(8192) });
        self.submit_checked(command.and_then(|sqe| copied.map(|()| sqe)), list.len(), buf, context)
    }
}

/// The number of ranges of a command, of which one has at most [`MAX_RANGES`].
fn count<R>(ranges: &[R]) -> u32 {
    u32::try_from(ranges.len()).unwrap_or(u32::MAX)
}
