//! Blocking forms: transfers of any size that are waited for.

use nvio_spec::Status;

use super::{CommandOptions, Completion, Failed, QueuePair, Rejected, SplitTransfer};
use crate::dma::DmaBuf;
use crate::namespace::{Namespace, WritableNamespace};
use crate::{Error, Result};

/// Most bytes that are bounced at a time; a multiple of every block size.
const BOUNCE: usize = 1 << 20;

/// Most blocks of a command that transfers none of them.
const MOST_BLOCKS: u64 = 0xffff;

/// The blocking forms of a queue pair; see [`QueuePair::blocking`].
///
/// A buffer may be of any size: it is split into commands where one cannot carry more, and at the
/// namespace's optimal boundary ([`Namespace::blocks_of_command`]); they are in flight together, as
/// many as the queue takes. After an error no further command is queued, and those in flight are
/// waited for.
pub struct Blocking<'q, T, F> {
    queue: &'q mut QueuePair<T>,
    mark: T,
    others: F,
    /// Memory to bounce through, when it is not in use.
    bounce: Option<DmaBuf>,
}

impl<T: Clone + PartialEq> QueuePair<T> {
    /// The forms that wait until a transfer is done.
    ///
    /// Commands may be in flight already. What ends while a transfer is waited for goes to
    /// `others`, as to the closure of [`poll`](Self::poll); with nothing in flight, that is
    /// [`drop`]. `mark` is the context of the commands that are queued here, by which they are
    /// told from others: no command in flight may have it.
    ///
    /// ```
    /// # use nvio_driver::{Address, Controller, Error, Options};
    /// # use nvio_emulator::{Backing, Emulator, NamespaceConfig};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = NamespaceConfig::new(Backing::memory(16 << 20));
    /// # let emulator = Emulator::builder().namespace(disk).start()?;
    /// # let address = Address::VfioUser(emulator.socket().to_owned());
    /// let options = Options { writable: true, ..Options::default() };
    /// let controller = Controller::open_with(&address, options)?;
    /// let namespace = controller.writable()?.writable_namespace(1)?;
    /// let mut queue = controller.queue_pair(64)?;
    /// let mut blocking = queue.blocking("blocking", drop);
    ///
    /// // More than one command carries, and durable.
    /// let mut buf = controller.alloc(4 << 20)?;
    /// buf[..5].copy_from_slice(b"hello");
    /// let buf = blocking.write(&namespace, 0, buf)?;
    /// blocking.flush(&namespace)?;
    /// assert_eq!(blocking.read(&namespace, 0, buf)?.len(), 4 << 20);
    ///
    /// // Any bytes, into memory that the device does not see.
    /// let mut word = [0; 4];
    /// blocking.read_bytes(&namespace, 1, &mut word)?;
    /// assert_eq!(&word, b"ello");
    /// # Ok(())
    /// # }
    /// ```
    pub fn blocking<F: FnMut(Completion<T>)>(&mut self, mark: T, others: F) -> Blocking<'_, T, F> {
        Blocking { queue: self, mark, others, bounce: None }
    }
}

impl<T: Clone + PartialEq, F: FnMut(Completion<T>)> Blocking<'_, T, F> {
    /// Reads all of `buf` from block `lba` on. Its length is a multiple of the block size.
    ///
    /// # Errors
    /// [`Error::Misaligned`] and [`Error::OutOfRange`] before anything is read; [`Error::Io`] with
    /// the blocks and the status of the command that failed; what a failed controller failed
    /// with. What is in the buffer then is not defined.
    pub fn read(&mut self, namespace: &Namespace, lba: u64, buf: DmaBuf) -> Result<DmaBuf, Failed> {
        let split = SplitTransfer::new("Read", namespace, lba, buf)?;
        self.transfer(namespace, split, |queue, lba, piece, mark| {
            queue.read(namespace, lba, piece, mark)
        })
    }

    /// Writes all of `buf` from block `lba` on. Its length is a multiple of the block size. It is
    /// durable after [`flush`](Self::flush).
    ///
    /// # Errors
    /// As [`read`](Self::read). Blocks behind those of the error may be written, too.
    pub fn write(
        &mut self,
        namespace: &WritableNamespace,
        lba: u64,
        buf: DmaBuf,
    ) -> Result<DmaBuf, Failed> {
        let split = SplitTransfer::new("Write", namespace, lba, buf)?;
        self.transfer(namespace, split, |queue, lba, piece, mark| {
            queue.write(namespace, lba, piece, mark)
        })
    }

    /// Fills `out` from byte `offset` of the namespace, by way of memory that the device can
    /// reach. Neither offset nor length need be a multiple of anything.
    ///
    /// # Errors
    /// As [`read`](Self::read), and [`Error::ArenaFull`]. The bytes of `out` that were not read are
    /// as they were; those before the block of the error may have been read or not.
    pub fn read_bytes(&mut self, namespace: &Namespace, offset: u64, out: &mut [u8]) -> Result<()> {
        let (shift, block) = (namespace.block_shift(), namespace.block_size() as usize);
        namespace.check_byte_range(offset, out.len() as u64)?;
        let mut at = offset;
        let mut left = out;
        while !left.is_empty() {
            let lead = usize::try_from(at).unwrap_or(usize::MAX) & (block - 1);
            let span = lead.saturating_add(left.len()).min(BOUNCE);
            let buf = self.take_bounce(span.next_multiple_of(block))?;
            let buf = self.bounced(|this| this.read(namespace, at >> shift, buf))?;
            let (now, rest) = left.split_at_mut(left.len().min(BOUNCE - lead));
            now.copy_from_slice(&buf[lead..lead + now.len()]);
            self.put_bounce(buf);
            at += now.len() as u64;
            left = rest;
        }
        Ok(())
    }

    /// Writes `data` at byte `offset` of the namespace, by way of memory that the device can reach.
    /// Offset and length are multiples of the block size: nothing is read to be written again.
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
        // All of it, before any of it is written.
        namespace.check_bytes(first, data.len() as u64)?;
        let mut lba = first;
        for piece in data.chunks(BOUNCE) {
            let mut buf = self.take_bounce(piece.len())?;
            buf.copy_from_slice(piece);
            let buf = self.bounced(|this| this.write(namespace, lba, buf))?;
            self.put_bounce(buf);
            lba += piece.len() as u64 >> namespace.block_shift();
        }
        Ok(())
    }

    /// Makes what was written durable (Base 7.1).
    ///
    /// # Errors
    /// [`Error::Command`]; what a failed controller failed with.
    pub fn flush(&mut self, namespace: &Namespace) -> Result<()> {
        match self.command(|queue, mark| queue.flush(namespace, mark))? {
            status if status.is_success() => Ok(()),
            status => Err(Error::Command { command: "Flush", status }),
        }
    }

    /// Zeroes `blocks` from block `lba` on (NVM 3.2.8), in as many commands as it takes, one after
    /// the other; with `deallocate`, the controller may free them, if they read as zeroes then.
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
        namespace.check_block_range(lba, blocks)?;
        let (mut lba, end) = (lba, lba + blocks);
        while lba < end {
            let count = (end - lba).min(MOST_BLOCKS);
            let range = (lba, u32::try_from(count).unwrap_or(u32::MAX));
            let how = CommandOptions::default();
            let status = self.command(|queue, mark| {
                queue.write_zeroes(namespace, range, deallocate, how, mark)
            })?;
            if !status.is_success() {
                let (command, nsid) = ("Write Zeroes", namespace.id());
                return Err(Error::Io { command, nsid, lba, blocks: count, status });
            }
            lba += count;
        }
        Ok(())
    }

    /// Queues what is cut, makes room by waiting, and waits for the rest.
    fn transfer(
        &mut self,
        namespace: &Namespace,
        mut split: SplitTransfer,
        mut submit: impl FnMut(&mut QueuePair<T>, u64, DmaBuf, T) -> Result<(), Rejected<T>>,
    ) -> Result<DmaBuf, Failed> {
        self.attend();
        while let Some((lba, mut piece)) = split.next_command(namespace) {
            loop {
                if split.has_failed() {
                    break split.put(piece);
                }
                match submit(self.queue, lba, piece, self.mark.clone()) {
                    Ok(()) => break split.submitted(),
                    Err(Rejected { error: Error::QueueFull { .. }, buf, .. }) if self.is_busy() => {
                        piece = buf;
                        self.wait(&mut split)?;
                    }
                    Err(rejected) => break split.rejected(lba, rejected.buf, rejected.error),
                }
            }
        }
        while split.in_flight() > 0 && self.is_busy() {
            self.wait(&mut split)?;
        }
        split.finish()
    }

    /// Has the queue notice a reset that happened while nobody polled it: it would end what is
    /// queued now.
    fn attend(&mut self) {
        self.queue.check(&mut self.others);
    }

    fn is_busy(&self) -> bool {
        self.queue.in_flight() > 0
    }

    /// Waits until something has ended. When that fails, the queue keeps what is in flight.
    fn wait(&mut self, split: &mut SplitTransfer) -> Result<(), Failed> {
        let Self { queue, mark, others, .. } = self;
        let waited = queue.wait(|done| match done.context == *mark {
            true => split.completed(done.buf, done.status),
            false => others(done),
        });
        waited.map(drop).map_err(|error| Failed { error, buf: None })
    }

    /// Runs one command without data.
    fn command(
        &mut self,
        mut submit: impl FnMut(&mut QueuePair<T>, T) -> Result<(), Rejected<T, ()>>,
    ) -> Result<Status> {
        self.attend();
        while let Err(rejected) = submit(self.queue, self.mark.clone()) {
            match rejected.error {
                Error::QueueFull { .. } if self.is_busy() => self.queue.wait(&mut self.others)?,
                error => return Err(error),
            };
        }
        let Self { queue, mark, others, .. } = self;
        let mut status = None;
        while status.is_none() && queue.in_flight() > 0 {
            queue.wait(|done| match done.context == *mark {
                true => status = Some(done.status),
                false => others(done),
            })?;
        }
        status.ok_or(Error::ResetFailed)
    }

    /// The first `bytes`, at most [`BOUNCE`], of the memory to bounce through.
    fn take_bounce(&mut self, bytes: usize) -> Result<DmaBuf> {
        let mut whole = match self.bounce.take() {
            Some(whole) if whole.len() >= bytes => whole,
            _ => self.queue.controller.alloc(bytes)?,
        };
        match whole.split_to(bytes) {
            Some(front) => {
                self.bounce = Some(whole);
                Ok(front)
            }
            None => Ok(whole),
        }
    }

    fn put_bounce(&mut self, mut front: DmaBuf) {
        // What does not fit together is not the memory that was taken, and is left.
        let fits = self.bounce.take().is_none_or(|rest| front.join(rest).is_ok());
        self.bounce = fits.then_some(front);
    }

    /// Does a transfer of bounce memory, and keeps that when it fails.
    fn bounced(
        &mut self,
        transfer: impl FnOnce(&mut Self) -> Result<DmaBuf, Failed>,
    ) -> Result<DmaBuf> {
        transfer(self).map_err(|Failed { error, buf }| {
            match buf {
                Some(buf) => self.put_bounce(buf),
                None => self.bounce = None,
            }
            error
        })
    }
}

#[cfg(test)]
mod tests;
