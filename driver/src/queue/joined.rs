//! Commands whose data and metadata lie in one buffer (NVM 3.2.4, 3.2.6).
//!
//! [`ScatterList`](crate::ScatterList) are a list, which is memory of its own; here there is none.

use nvio_spec::Sqe;
use nvio_spec::opcode::nvm;
use zerocopy::little_endian::U64;

use super::{CommandOptions, QueuePair, Rejected};
use crate::dma::DmaBuf;
use crate::namespace::{Namespace, WritableNamespace};
use crate::{Error, Result};

/// What an address of data or metadata is a multiple of (Base 3.3.3.1, 4.1.1).
const DWORD: u64 = 4;

impl<T> QueuePair<T> {
    /// Queues a read of `blocks` with all of their metadata into `buf` (NVM 3.2.4).
    ///
    /// Where metadata follows each block ([`Namespace::extended_metadata`]), the buffer is what is
    /// transferred: a block, its metadata, the next block. Else it is the data of all blocks with
    /// the metadata of all blocks behind it; only the data counts towards
    /// [`Namespace::max_transfer`] then. With [`Protection::action`](crate::Protection::action),
    /// metadata that is protection information alone is not transferred, and not in the buffer.
    ///
    /// # Errors
    /// [`Error::QueueFull`] when every slot is in flight; [`Error::OutOfRange`] for blocks that
    /// are not in the namespace; [`Error::TransferSize`] for none, or more than one command
    /// carries, and for a buffer without room for the data; [`Error::MetadataSize`] for one whose
    /// rest is not the metadata; [`Error::Misaligned`] for one that does not begin at a multiple
    /// of 4; what a failed controller failed with.
    pub fn read_joined(
        &mut self,
        namespace: &Namespace,
        range: (u64, u32),
        buf: DmaBuf,
        how: CommandOptions,
        context: T,
    ) -> Result<(), Rejected<T>> {
        self.submit_joined(nvm::READ, namespace, range, buf, how, context)
    }

    /// Queues a write of `blocks` with all of their metadata (NVM 3.2.6), which lie in `buf` as
    /// [`read_joined`](Self::read_joined) has them.
    ///
    /// # Errors
    /// As [`read_joined`](Self::read_joined).
    pub fn write_joined(
        &mut self,
        namespace: &WritableNamespace,
        range: (u64, u32),
        buf: DmaBuf,
        how: CommandOptions,
        context: T,
    ) -> Result<(), Rejected<T>> {
        self.submit_joined(nvm::WRITE, namespace, range, buf, how, context)
    }

    fn submit_joined(
        &mut self,
        opcode: u8,
        namespace: &Namespace,
        (lba, blocks): (u64, u32),
        buf: DmaBuf,
        how: CommandOptions,
        context: T,
    ) -> Result<(), Rejected<T>> {
        let data = match how.check_joined(namespace, (lba, blocks), &buf) {
            Ok(data) => data,
            Err(error) => return Err(Rejected { error, buf, context }),
        };
        let mut sqe = Sqe::read(namespace.id(), lba, blocks);
        sqe.opcode = opcode;
        how.apply(&mut sqe);
        if data < buf.len() {
            sqe.mptr = U64::new(buf.iova() + data as u64);
        }
        self.core
            .submit_front(sqe, data, buf, context)
            .map_err(|(buf, context)| self.full(buf, context))
    }
}

impl CommandOptions {
    /// How many bytes of `buf` the data pointer is to describe: all but metadata that is behind
    /// the data.
    fn check_joined(
        &self,
        namespace: &Namespace,
        (lba, blocks): (u64, u32),
        buf: &DmaBuf,
    ) -> Result<usize> {
        namespace.check_blocks(lba, blocks)?;
        let (data, metadata) = self.lengths(namespace, blocks);
        match buf.len().checked_sub(data) {
            None => return Err(Error::TransferSize { bytes: buf.len(), max: data }),
            Some(rest) if rest == metadata => {}
            Some(_) if metadata == 0 => {
                return Err(Error::TransferSize { bytes: buf.len(), max: data });
            }
            Some(bytes) => return Err(Error::MetadataSize { bytes, needed: metadata }),
        }
        // Blocks are 512 bytes or more, so that what is behind them is a multiple, too.
        match buf.iova() & (DWORD - 1) {
            0 => Ok(data),
            _ => Err(Error::Misaligned { value: buf.iova(), align: DWORD }),
        }
    }
}

#[cfg(test)]
mod tests;
