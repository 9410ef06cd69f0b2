//! A transfer of any size as several commands.

use nvio_spec::Status;

use crate::dma::{DmaBuf, SplitBuffer};
use crate::error::{Error, Result};
use crate::namespace::Namespace;
use crate::rejected::{Failed, TransferResult};

/// A transfer that is split into commands. No command exceeds the limits of the namespace or
/// crosses its optimal boundary.
#[derive(Debug)]
pub(crate) struct SplitTransfer {
    buffer: SplitBuffer,
    /// I/O virtual address of the first byte.
    iova: u64,
    command: &'static str,
    nsid: u32,
    block_shift: u32,
    first: u64,
    /// First block that no command was made for.
    next: u64,
    end: u64,
    in_flight: usize,
    /// Error at the lowest LBA, with the LBA.
    failed: Option<(u64, Error)>,
}

impl SplitTransfer {
    /// Creates a transfer of all of `buf`, which may be empty, from block `lba` on. `command` is
    /// the name for errors.
    ///
    /// # Errors
    /// [`Error::Misaligned`] if the length is not a multiple of the block size,
    /// [`Error::OutOfRange`] if the blocks are not all inside the namespace.
    pub(crate) fn new(
        command: &'static str,
        namespace: &Namespace,
        lba: u64,
        buf: DmaBuf,
    ) -> Result<Self, Failed<Error, DmaBuf>> {
        let blocks = match namespace.check_bytes(lba, buf.len() as u64) {
            Ok(blocks) => blocks,
            Err(error) => return Err(Failed { error, payload: Some(buf) }),
        };
        Ok(Self {
            iova: buf.iova(),
            buffer: SplitBuffer::new(buf),
            command,
            nsid: namespace.id(),
            block_shift: namespace.block_shift(),
            first: lba,
            next: lba,
            end: lba + blocks,
            in_flight: 0,
            failed: None,
        })
    }

    /// Returns LBA and buffer of the next command; `None` at the end, and after an error.
    pub(crate) fn next_command(&mut self, namespace: &Namespace) -> Option<(u64, DmaBuf)> {
        if self.next == self.end || self.failed.is_some() {
            return None;
        }
        let lba = self.next;
        let blocks = namespace.blocks_of_command(lba, self.end - lba);
        // At most the rest of a buffer.
        let piece = self.buffer.cut(usize::try_from(blocks << self.block_shift).ok()?)?;
        self.next += blocks;
        Some((lba, piece))
    }

    /// Notes that a command was submitted.
    pub(crate) fn submitted(&mut self) {
        self.in_flight += 1;
    }

    /// Returns the number of commands in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Records that a command was rejected.
    pub(crate) fn rejected(&mut self, lba: u64, piece: DmaBuf, error: Error) {
        self.fail(lba, error);
        self.put(piece);
    }

    /// Notes that a command ended.
    pub(crate) fn completed(&mut self, piece: DmaBuf, status: Status) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if !status.is_success() {
            let (command, nsid) = (self.command, self.nsid);
            let (lba, blocks) = self.blocks_of(&piece);
            self.fail(lba, Error::Io { command, nsid, lba, blocks, status });
        }
        self.put(piece);
    }

    /// Returns the first block and the number of blocks of a piece; all blocks of the transfer for
    /// an empty buffer, which replaces memory that was lost.
    fn blocks_of(&self, piece: &DmaBuf) -> (u64, u64) {
        let offset = piece.iova().wrapping_sub(self.iova) >> self.block_shift;
        match piece.len() as u64 >> self.block_shift {
            0 => (self.first, self.end - self.first),
            blocks => (self.first.saturating_add(offset), blocks),
        }
    }

    fn fail(&mut self, lba: u64, error: Error) {
        if self.failed.as_ref().is_none_or(|&(lowest, _)| lba < lowest) {
            self.failed = Some((lba, error));
        }
    }

    /// Returns true after an error. No further command may be submitted.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Returns the buffer of a command to the transfer.
    pub(crate) fn put(&mut self, piece: DmaBuf) {
        // `finish` reports a buffer that is foreign or lost as missing.
        if let Err(foreign) = self.buffer.put(piece) {
            drop(foreign);
        }
    }

    /// Returns the whole buffer. No command is in flight.
    ///
    /// # Errors
    /// The error at the lowest LBA. The blocks before it were transferred.
    pub(crate) fn finish(self) -> TransferResult {
        let field = "number of blocks that did not come back";
        let missing = Error::invalid("transfer", field, self.end - self.first);
        let (complete, error) = (self.next == self.end, self.failed.map(|(_, error)| error));
        match (self.buffer.finish().ok(), error) {
            (Some(buf), None) if complete => Ok(buf),
            (payload, error) => Err(Failed { error: error.unwrap_or(missing), payload }),
        }
    }
}
