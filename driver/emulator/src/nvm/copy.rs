//! Copy: blocks of several ranges of a namespace to one range (NVM 3.2.2).

use nvio_spec::protection::prinfo;
use nvio_spec::{CopyRange, MAX_RANGES, Sqe, Status, status};
use zerocopy::IntoBytes;

use crate::config::atomic::PIECE;
use crate::config::metadata::Metadata;
use crate::host::access::Access;
use crate::host::memory::HostMemory;
use crate::host::stream::Stream;
use crate::media::failed;
use crate::media::namespace::Namespace;
use crate::nvm::protection::{Action, Request};
use crate::nvm::{Media, Settings, Staging, make_durable, pointer};

/// CDW12 bits 11:8: the descriptor format of the source ranges.
const FORMAT_SHIFT: u32 = 8;

impl Media {
    /// Executes Copy. Ranges are copied one after the other, in pieces. [`Self::take_dw0`] returns
    /// the number of the range that failed.
    #[inline(never)]
    pub(crate) fn copy(
        &mut self,
        sqe: &Sqe,
        memory: &HostMemory,
        settings: Settings,
    ) -> Result<(), Status> {
        let namespace = self.namespaces.for_command(sqe.nsid.get())?;
        let cdw12 = sqe.cdw12.get();
        let (count, format) = (cdw12 & 0xff, cdw12 >> FORMAT_SHIFT & 0xf);
        if format != 0 {
            return Err(status::INVALID_FIELD);
        }
        if count >= u32::from(namespace.copy_limits.ranges) {
            return Err(status::COMMAND_SIZE_LIMIT_EXCEEDED);
        }
        let mut list = [CopyRange::default(); MAX_RANGES];
        let list = &mut list[..count as usize + 1];
        let bytes = size_of_val(list) as u64;
        self.segments.resolve(memory, pointer(sqe, settings), bytes, Access::READ)?;
        Stream::new(memory, self.segments.iter()).get(list.as_mut_bytes())?;
        let mut copy = Copy::new(namespace, sqe, list)?;
        for (number, range) in (0..).zip(list) {
            let copied = copy.range(namespace, &mut self.staging, range);
            copied.inspect_err(|_| self.failed_range = number)?;
        }
        make_durable(namespace, sqe, settings, copy.destination)
    }

    /// Returns DW0 of the completion of the I/O command that has just failed: for Copy the number
    /// of the first source range that was not copied, for other commands 0 (NVM 3.2.2.1).
    pub(crate) fn take_dw0(&mut self) -> u32 {
        std::mem::take(&mut self.failed_range)
    }
}

/// A Copy command whose parameters are valid; its source has not been read yet.
struct Copy<'a> {
    sqe: &'a Sqe,
    metadata: Option<Metadata>,
    /// Protection information of the blocks that are written.
    write: Option<Action>,
    block_size: usize,
    /// Offset and length in bytes of the destination.
    destination: (u64, u64),
    /// Blocks copied so far.
    done: u32,
}

impl<'a> Copy<'a> {
    fn new(namespace: &Namespace, sqe: &'a Sqe, list: &[CopyRange]) -> Result<Self, Status> {
        let limits = namespace.copy_limits;
        // The sum is at most 256 times 65,536.
        let total = list.iter().map(CopyRange::blocks).sum();
        let too_long = |range: &CopyRange| range.blocks() > u32::from(limits.range);
        if total > limits.total || list.iter().any(too_long) {
            return Err(status::COMMAND_SIZE_LIMIT_EXCEEDED);
        }
        let destination = namespace.range(sqe.slba(), total)?;
        for range in list {
            namespace.range(range.slba.get(), range.blocks())?;
        }
        // Protection information that is stripped from the source is inserted at the destination.
        let written = Request::of(sqe);
        if (read_prinfo(sqe) ^ written.prinfo) & prinfo::PRACT != 0 {
            return Err(status::INVALID_FIELD);
        }
        let mut write = None;
        if let Some(metadata) = namespace.metadata {
            write = written.action(metadata, true)?;
            for range in list {
                reading(sqe, range).action(metadata, false)?;
            }
        }
        namespace.check_writable()?;
        let (metadata, block_size) = (namespace.metadata, 1 << namespace.block_shift);
        Ok(Self { sqe, metadata, write, block_size, destination, done: 0 })
    }

    /// Copies one source range.
    fn range(
        &mut self,
        namespace: &mut Namespace,
        staging: &mut Staging,
        range: &CopyRange,
    ) -> Result<(), Status> {
        let (mut offset, mut left) = namespace.range(range.slba.get(), range.blocks())?;
        let read = match self.metadata {
            Some(metadata) => reading(self.sqe, range).action(metadata, false)?,
            None => None,
        };
        let mut index = 0;
        while left > 0 {
            let bytes = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let blocks = bytes / self.block_size;
            staging.data.resize(bytes, 0);
            staging.metadata.resize(blocks * self.metadata.map_or(0, |metadata| metadata.len()), 0);
            self.piece(namespace, staging, offset, (read.as_ref(), index))?;
            let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
            (index, self.done) = (index + blocks, self.done + blocks);
            (offset, left) = (offset + bytes as u64, left - bytes as u64);
        }
        Ok(())
    }

    /// Copies one piece, as large as the buffers.
    fn piece(
        &self,
        namespace: &mut Namespace,
        Staging { data, metadata, .. }: &mut Staging,
        offset: u64,
        (read, index): (Option<&Action>, u32),
    ) -> Result<(), Status> {
        let found = namespace.store.read_bytes(offset, data).and_then(|has_data| {
            namespace.store.read_metadata(offset, metadata)?;
            Ok(has_data)
        });
        let has_data = found.map_err(|error| failed(&error, status::UNRECOVERED_READ_ERROR))?;
        if let Some(read) = read.filter(|_| has_data) {
            read.check(index, self.block_size, data, metadata)?;
        }
        match &self.write {
            Some(write) if write.is_pract() => {
                write.insert(self.done, self.block_size, data, metadata);
            }
            Some(write) if has_data => write.check(self.done, self.block_size, data, metadata)?,
            _ => {}
        }
        let to = self.destination.0 + u64::from(self.done) * self.block_size as u64;
        let written = namespace.store.write_blocks(to, data, metadata);
        written.map_err(|error| failed(&error, status::WRITE_FAULT))
    }
}

/// Returns PRINFOR as the bits of [`prinfo`].
fn read_prinfo(sqe: &Sqe) -> u32 {
    sqe.cdw12.get() << prinfo::COPY_READ_SHIFT & prinfo::MASK
}

/// Returns the checks of a source range's protection information.
fn reading(sqe: &Sqe, range: &CopyRange) -> Request {
    Request {
        prinfo: read_prinfo(sqe),
        slba: range.slba.get(),
        ref_tag: range.ref_tag.get(),
        app_tag: range.app_tag.get(),
        app_mask: range.app_mask.get(),
    }
}
