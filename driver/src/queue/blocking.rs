//! Blocking transfers of any size.

use nvio_spec::Status;

use super::completion::Completion;
use super::options::CommandOptions;
use super::pair::QueuePair;
use super::split_transfer::SplitTransfer;
use crate::dma::{BOUNCE_BYTES_MAX, BouncePool, DmaBuf};
use crate::error::{Error, Result};
use crate::namespace::{Namespace, WritableNamespace};
use crate::rejected::{Failed, Rejected, SubmitResult, TransferResult};

/// Blocking calls of a queue pair; see [`QueuePair::blocking`].
///
/// A buffer may have any size. It is split into commands at the limits of the namespace and at its
/// optimal boundary ([`Namespace::blocks_of_command`]). The commands are in flight together, up to
/// the capacity of the queue. After an error no further command is submitted, and the call returns
/// when the commands in flight have ended.
#[derive(derive_more::Debug)]
#[debug("Blocking({queue:?})")]
pub struct Blocking<'q, T, F> {
    queue: &'q mut QueuePair<T>,
    mark: T,
    others: F,
    bounce: BouncePool,
}

impl<T: Clone + PartialEq> QueuePair<T> {
    /// Returns the blocking calls of this pair.
    ///
    /// Other commands may be in flight. Their completions are passed to `others`, which is
    /// [`drop`] if there are none. `mark` is the context of the commands of the blocking calls; no
    /// other command in flight may have it.
    ///
    /// ```
    /// # use nvio_driver::{Address, Controller, Error, Options};
    /// # use nvio_emulator::{Backing, Emulator, NamespaceConfig};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = NamespaceConfig::new(Backing::memory(16 << 20));
    /// # let emulator = Emulator::builder().namespace(disk).start()?;
    /// # let address = Address::vfio_user(emulator.socket());
    /// let options = Options { writable: true, ..Options::default() };
    /// let controller = Controller::open_with(&address, options)?;
    /// let namespace = controller.writable()?.writable_namespace(1)?;
    /// let mut queue = controller.queue_pair(64)?;
    /// let mut blocking = queue.blocking("blocking", drop);
    ///
    /// // 4 MiB, more than one command transfers, and durable.
    /// let mut buf = controller.alloc(4 << 20)?;
    /// buf[..5].copy_from_slice(b"hello");
    /// let buf = blocking.write(&namespace, 0, buf)?;
    /// blocking.flush(&namespace)?;
    /// assert_eq!(blocking.read(&namespace, 0, buf)?.len(), 4 << 20);
    ///
    /// // Any bytes, into memory that the device cannot access.
    /// let mut word = [0; 4];
    /// blocking.read_bytes(&namespace, 1, &mut word)?;
    /// assert_eq!(&word, b"ello");
    /// blocking.write_bytes(&namespace, 512, &[7; 512])?;
    /// blocking.write_zeroes(&namespace, 8, 8, false)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn blocking<F: FnMut(Completion<T>)>(&mut self, mark: T, others: F) -> Blocking<'_, T, F> {
        Blocking { queue: self, mark, others, bounce: BouncePool::default() }
    }
}

impl<T: Clone + PartialEq, F: FnMut(Completion<T>)> Blocking<'_, T, F> {
    /// Reads all of `buf` from block `lba` on. The length is a multiple of the block size.
    ///
    /// See the [example](crate::QueuePair::blocking).
    ///
    /// # Errors
    /// [`Error::Misaligned`] and [`Error::OutOfRange`] before a command is submitted;
    /// [`Error::Io`] with the lowest blocks that failed, and their status; the error of a
    /// controller that has failed. The contents of the buffer are then undefined.
    pub fn read(&mut self, namespace: &Namespace, lba: u64, buf: DmaBuf) -> TransferResult {
        let split = SplitTransfer::new("Read", namespace, lba, buf)?;
        self.transfer(namespace, split, |queue, lba, piece, mark| {
            queue.read(namespace, lba, piece, mark)
        })
    }

    /// Writes all of `buf` from block `lba` on. The length is a multiple of the block size. The
    /// data is durable after [`flush`](Self::flush).
    ///
    /// See the [example](crate::QueuePair::blocking).
    ///
    /// # Errors
    /// As [`read`](Self::read). Blocks after those of the error may have been written, too.
    pub fn write(
        &mut self,
        namespace: &WritableNamespace,
        lba: u64,
        buf: DmaBuf,
    ) -> TransferResult {
        let split = SplitTransfer::new("Write", namespace, lba, buf)?;
        self.transfer(namespace, split, |queue, lba, piece, mark| {
            queue.write(namespace, lba, piece, mark)
        })
    }

    /// Reads bytes from byte `offset` of the namespace on into `out`, and copies them through DMA
    /// memory. Offset and length need no alignment.
    ///
    /// See the [example](crate::QueuePair::blocking).
    ///
    /// # Errors
    /// As [`read`](Self::read), and [`Error::ArenaFull`]. The bytes of `out` before the block of
    /// the error may have been read or not; the bytes after it are unchanged.
    pub fn read_bytes(&mut self, namespace: &Namespace, offset: u64, out: &mut [u8]) -> Result<()> {
        let (shift, block) = (namespace.block_shift(), namespace.block_size() as usize);
        namespace.check_byte_range(offset, out.len() as u64)?;
        let mut at = offset;
        let mut left = out;
        while !left.is_empty() {
            let lead = usize::try_from(at).unwrap_or(usize::MAX) & (block - 1);
            let span = lead.saturating_add(left.len()).min(BOUNCE_BYTES_MAX);
            let buf = self.bounce_buffer(span.next_multiple_of(block))?;
            let buf = self.read(namespace, at >> shift, buf).or_else(|failed| self.keep(failed))?;
            let (now, rest) = left.split_at_mut(left.len().min(BOUNCE_BYTES_MAX - lead));
            now.copy_from_slice(&buf[lead..lead + now.len()]);
            self.bounce.put(buf);
            at += now.len() as u64;
            left = rest;
        }
        Ok(())
    }

    /// Writes `data` at byte `offset` of the namespace, and copies it through DMA memory. Offset
    /// and length are multiples of the block size: there is no read-modify-write.
    ///
    /// See the [example](crate::QueuePair::blocking).
    ///
    /// See the [example](crate::QueuePair::blocking).
    ///
    /// # Errors
    /// As [`write`](Self::write), and [`Error::ArenaFull`].
    pub fn write_bytes(
        &mut self,
        namespace: &WritableNamespace,
        offset: u64,
        data: &[u8],
    ) -> Result<()> {
        let align = u64::from(namespace.block_size());
        if !offset.is_multiple_of(align) {
            return Err(Error::Misaligned { value: offset, align });
        }
        let first = offset >> namespace.block_shift();
        // The whole range, before a part of it is written.
        namespace.check_bytes(first, data.len() as u64)?;
        let mut lba = first;
        for piece in data.chunks(BOUNCE_BYTES_MAX) {
            let mut buf = self.bounce_buffer(piece.len())?;
            buf.copy_from_slice(piece);
            let buf = self.write(namespace, lba, buf).or_else(|failed| self.keep(failed))?;
            self.bounce.put(buf);
            lba += piece.len() as u64 >> namespace.block_shift();
        }
        Ok(())
    }

    fn bounce_buffer(&mut self, bytes: usize) -> Result<DmaBuf> {
        let Self { queue, bounce, .. } = self;
        bounce.take(bytes, |bytes| queue.controller.arena.alloc(bytes))
    }

    /// Keeps the bounce buffer of a transfer that failed, and returns the error.
    fn keep(&mut self, failed: Failed<Error, DmaBuf>) -> Result<DmaBuf> {
        if let Some(buf) = failed.payload {
            self.bounce.put(buf);
        }
        Err(failed.error)
    }

    /// Makes completed writes durable (Base 7.1).
    ///
    /// See the [example](crate::QueuePair::blocking).
    ///
    /// # Errors
    /// [`Error::Command`], and the error of a controller that has failed.
    pub fn flush(&mut self, namespace: &Namespace) -> Result<()> {
        Error::of_status("Flush", self.command(|queue, mark| queue.flush(namespace, mark))?)
    }

    /// Zeroes `blocks` from block `lba` on (NVM 3.2.8), in several commands one after the other if
    /// necessary. With `deallocate`, the controller may deallocate the blocks if they read as
    /// zeroes afterwards.
    ///
    /// See the [example](crate::QueuePair::blocking).
    ///
    /// See the [example](crate::QueuePair::blocking).
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_zeroes(
        &mut self,
        namespace: &WritableNamespace,
        lba: u64,
        blocks: u64,
        deallocate: bool,
    ) -> Result<()> {
        namespace.zero_ranges(lba, blocks)?.try_for_each(|(lba, blocks)| {
            let options = CommandOptions::default();
            let status = self.command(|queue, mark| {
                queue.write_zeroes(namespace, (lba, blocks), deallocate, options, mark)
            })?;
            namespace.check_write_zeroes(lba, blocks, status)
        })
    }

    /// Submits the commands of a transfer, waiting for free entries, and waits for all of them.
    fn transfer(
        &mut self,
        namespace: &Namespace,
        mut split: SplitTransfer,
        mut submit: impl FnMut(&mut QueuePair<T>, u64, DmaBuf, T) -> SubmitResult<DmaBuf, T>,
    ) -> TransferResult {
        // After an error the queue keeps the commands in flight.
        let lost = |error| Failed { error, payload: None };
        self.notice_reset();
        while let Some((lba, mut piece)) = split.next_command(namespace) {
            loop {
                if split.has_failed() {
                    break split.put(piece);
                }
                match submit(self.queue, lba, piece, self.mark.clone()) {
                    Ok(()) => break split.submitted(),
                    Err(Rejected { error: Error::QueueFull { .. }, payload: (buf, _) })
                        if self.is_busy() =>
                    {
                        piece = buf;
                        self.wait(|done| split.completed(done.buf, done.status)).map_err(lost)?;
                    }
                    Err(Rejected { error, payload: (buf, _) }) => {
                        break split.rejected(lba, buf, error);
                    }
                }
            }
        }
        while split.in_flight() > 0 && self.is_busy() {
            self.wait(|done| split.completed(done.buf, done.status)).map_err(lost)?;
        }
        split.finish()
    }

    /// Handles a reset that happened since the last poll. It would otherwise end the commands that
    /// are submitted next.
    fn notice_reset(&mut self) {
        self.queue.check(&mut self.others);
    }

    fn is_busy(&self) -> bool {
        self.queue.in_flight() > 0
    }

    /// Waits until a command ends, and passes those of this call to `own`.
    fn wait(&mut self, mut own: impl FnMut(Completion<T>)) -> Result<()> {
        let Self { queue, mark, others, .. } = self;
        queue.wait(|done| if done.context == *mark { own(done) } else { others(done) }).map(drop)
    }

    /// Executes one command without data.
    fn command(
        &mut self,
        mut submit: impl FnMut(&mut QueuePair<T>, T) -> SubmitResult<(), T>,
    ) -> Result<Status> {
        self.notice_reset();
        while let Err(rejected) = submit(self.queue, self.mark.clone()) {
            match rejected.error {
                Error::QueueFull { .. } if self.is_busy() => self.queue.wait(&mut self.others)?,
                error => return Err(error),
            };
        }
        let mut status = None;
        while status.is_none() && self.is_busy() {
            self.wait(|done| status = Some(done.status))?;
        }
        status.ok_or(Error::ResetFailed)
    }
}

#[cfg(test)]
mod tests;
