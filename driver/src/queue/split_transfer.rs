//! A transfer of any size, in as many commands as it takes.

use nvio_spec::Status;

use crate::dma::{DmaBuf, SplitBuffer};
use crate::namespace::Namespace;
use crate::{Error, Result};

/// A transfer that failed, with its buffer.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Failed {
    /// Why; of several commands that failed, of the one with the lowest LBA. The blocks before that
    /// were transferred.
    #[source]
    pub error: Error,
    /// The buffer. Missing after a failure of a controller that could not be stopped: it may still
    /// write to the memory, which is given up.
    pub buf: Option<DmaBuf>,
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

/// A buffer on its way in pieces, each of one command: none is larger than a command can carry,
/// and none crosses the namespace's optimal boundary.
#[derive(Debug)]
pub(crate) struct SplitTransfer {
    pieces: SplitBuffer,
    /// I/O virtual address of the first byte.
    iova: u64,
    command: &'static str,
    nsid: u32,
    block_shift: u32,
    first: u64,
    /// The first block that no piece was cut for.
    next: u64,
    end: u64,
    in_flight: usize,
    /// The error of the lowest LBA.
    failed: Option<(u64, Error)>,
}

impl SplitTransfer {
    /// A transfer of all of `buf`, which may be empty, from block `lba` on.
    ///
    /// # Errors
    /// [`Error::Misaligned`] if it is not whole blocks, [`Error::OutOfRange`] if they are not all
    /// inside the namespace.
    pub(crate) fn new(
        command: &'static str,
        namespace: &Namespace,
        lba: u64,
        buf: DmaBuf,
    ) -> Result<Self, Failed> {
        let blocks = match namespace.check_bytes(lba, buf.len() as u64) {
            Ok(blocks) => blocks,
            Err(error) => return Err(Failed { error, buf: Some(buf) }),
        };
        Ok(Self {
            iova: buf.iova(),
            pieces: SplitBuffer::new(buf),
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

    /// The next piece, with its LBA; none when there is no more, or a command has failed.
    pub(crate) fn next_command(&mut self, namespace: &Namespace) -> Option<(u64, DmaBuf)> {
        if self.next == self.end || self.failed.is_some() {
            return None;
        }
        let lba = self.next;
        let blocks = namespace.blocks_of_command(lba, self.end - lba);
        // At most what is left of a buffer.
        let piece = self.pieces.cut(usize::try_from(blocks << self.block_shift).ok()?)?;
        self.next += blocks;
        Some((lba, piece))
    }

    /// Notes that a piece was queued.
    pub(crate) fn submitted(&mut self) {
        self.in_flight += 1;
    }

    /// Pieces that were queued and have not ended.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Takes back a piece whose command could not be queued.
    pub(crate) fn rejected(&mut self, lba: u64, piece: DmaBuf, error: Error) {
        self.fail(lba, error);
        self.put(piece);
    }

    /// Takes back a piece whose command has ended.
    pub(crate) fn completed(&mut self, piece: DmaBuf, status: Status) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if !status.is_success() {
            let (command, nsid) = (self.command, self.nsid);
            let (lba, blocks) = self.place(&piece);
            self.fail(lba, Error::Io { command, nsid, lba, blocks, status });
        }
        self.put(piece);
    }

    /// The blocks of a piece. Of one that was given up, nothing is left to tell.
    fn place(&self, piece: &DmaBuf) -> (u64, u64) {
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

    /// Whether a command has failed, so that no more are to be queued.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Takes back a piece.
    pub(crate) fn put(&mut self, piece: DmaBuf) {
        // What is not of the buffer, or was given up, is found missing in the end.
        if let Err(stranger) = self.pieces.put(piece) {
            drop(stranger);
        }
    }

    /// The buffer, when nothing is in flight any more.
    ///
    /// # Errors
    /// What went wrong.
    pub(crate) fn finish(self) -> Result<DmaBuf, Failed> {
        let missing = Error::Invalid {
            structure: "transfer",
            field: "number of blocks that did not come back",
            value: self.end - self.first,
        };
        let (complete, error) = (self.next == self.end, self.failed.map(|(_, error)| error));
        match (self.pieces.finish().ok(), error) {
            (Some(buf), None) if complete => Ok(buf),
            (buf, error) => Err(Failed { error: error.unwrap_or(missing), buf }),
        }
    }
}
