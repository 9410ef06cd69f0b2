//! Futures of NVMe commands.

use nvio_spec::DsmRange;

use super::reactor::Reactor;
use super::ticket::{Ticket, without_ticket};
use super::transfer;
use crate::controller::Controller;
use crate::dma::DmaBuf;
use crate::error::{Error, Result};
use crate::namespace::{Namespace, WritableNamespace};
use crate::queue::{CommandOptions, Completion, Counters, QueuePair, SplitTransfer};
use crate::rejected::{Failed, Rejected, SubmitResult, TransferResult};

/// A queue pair whose commands are futures. Cheap to clone; it stays on one thread.
///
/// It dereferences to a [`Reactor`], which has the functions that poll the queue and wake futures.
///
/// # Examples
/// ```
/// # let served = nvio_testkit::controller::Served::memory(16 << 20);
/// # let controller = &served.controller;
/// # let namespace = controller.writable()?.writable_namespace(1)?;
/// use nvio_driver::AsyncQueue;
/// use nvio_driver::spec::DsmRange;
///
/// // `namespace` is a `WritableNamespace`. 64 commands are in flight; 4,096 futures can wait for a
/// // place, or as many as `with_waiting` takes.
/// let queue = AsyncQueue::new(controller, 64)?;
/// queue.block_on(async {
///     let mut buf = controller.alloc(4096)?;
///     buf.fill(7);
///     let buf = queue.write(&namespace, 0, buf).await?;
///     queue.flush(&namespace).await?;
///     let buf = queue.read(&namespace, 0, buf).await?;
///     assert!(buf.iter().all(|&byte| byte == 7));
///
///     queue.write_zeroes(&namespace, 0, 8, false).await?;
///     queue.deallocate(&namespace, &[DsmRange::new(0, 8, 8)], buf).await?;
///     Ok::<_, Box<dyn std::error::Error>>(())
/// })?;
/// assert_eq!(queue.counters().completed, 5);
/// let another = AsyncQueue::with_waiting(controller, 8, 16)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, derive_more::Deref)]
pub struct AsyncQueue(Reactor<QueuePair<Ticket>>);

impl AsyncQueue {
    /// Creates a queue pair with room for `depth` commands; see [`Controller::queue_pair`]. 4,096
    /// futures can wait for a place.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`Controller::queue_pair`].
    pub fn new(controller: &Controller, depth: u16) -> Result<Self> {
        Ok(Self(Reactor::new(controller.queue_pair(depth)?)))
    }

    /// Creates a queue pair with room for `depth` commands, and for `waiting` futures that wait for
    /// a place.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`Controller::queue_pair`].
    pub fn with_waiting(controller: &Controller, depth: u16, waiting: usize) -> Result<Self> {
        Ok(Self(Reactor::with_waiting(controller.queue_pair(depth)?, waiting)))
    }

    /// Counters of the queue pair since it was created.
    ///
    /// See the [example](Self#examples).
    pub fn counters(&self) -> Counters {
        self.with_queue(|pair| pair.counters()).unwrap_or_default()
    }

    /// Reads all of `buf` from block `lba` on, in several commands if necessary; see
    /// [`Blocking::read`](crate::Blocking::read).
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Misaligned`] and [`Error::OutOfRange`] before a command is submitted;
    /// [`Error::Io`] with the lowest blocks that failed, and their status; [`Error::QueueFull`] if
    /// too many futures wait; the error of a controller that has failed. The contents of the
    /// buffer are then undefined.
    pub async fn read(&self, namespace: &Namespace, lba: u64, buf: DmaBuf) -> TransferResult {
        let split = SplitTransfer::new("Read", namespace, lba, buf)?;
        transfer::run(self, namespace, split, |pair, lba, piece, ticket| {
            pair.read(namespace, lba, piece, ticket)
        })
        .await
    }

    /// Writes all of `buf` from block `lba` on, in several commands if necessary. The data is
    /// durable after a [`flush`](Self::flush) that begins when the write has ended.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`read`](Self::read). Blocks after those of the error may have been written, too.
    pub async fn write(
        &self,
        namespace: &WritableNamespace,
        lba: u64,
        buf: DmaBuf,
    ) -> TransferResult {
        let split = SplitTransfer::new("Write", namespace, lba, buf)?;
        transfer::run(self, namespace, split, |pair, lba, piece, ticket| {
            pair.write(namespace, lba, piece, ticket)
        })
        .await
    }

    /// Makes completed writes durable (Base 7.1).
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Command`]; [`Error::QueueFull`] if too many futures wait; the error of a
    /// controller that has failed.
    pub async fn flush(&self, namespace: &Namespace) -> Result<()> {
        let flush = self.command((), |pair, (), ticket| pair.flush(namespace, ticket));
        let done = flush.await.map_err(|rejected| rejected.error)?;
        Error::of_status("Flush", done.status)
    }

    /// Zeroes `blocks` from block `lba` on (NVM 3.2.8), in several commands one after the other if
    /// necessary. With `deallocate`, the controller may deallocate the blocks if they read as
    /// zeroes afterwards.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn write_zeroes(
        &self,
        namespace: &WritableNamespace,
        lba: u64,
        blocks: u64,
        deallocate: bool,
    ) -> Result<()> {
        for (lba, blocks) in namespace.zero_ranges(lba, blocks)? {
            let options = CommandOptions::default();
            let zero = self.command((), |pair, (), ticket| {
                pair.write_zeroes(namespace, (lba, blocks), deallocate, options, ticket)
            });
            let done = zero.await.map_err(|rejected| rejected.error)?;
            namespace.check_write_zeroes(lba, blocks, done.status)?;
        }
        Ok(())
    }

    /// Deallocates at most 256 ranges; see [`QueuePair::deallocate`]. The list of ranges is written
    /// into `buf`, which is returned.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Command`]; as [`QueuePair::deallocate`]; [`Error::QueueFull`] if too many futures
    /// wait.
    pub async fn deallocate(
        &self,
        namespace: &WritableNamespace,
        ranges: &[DsmRange],
        buf: DmaBuf,
    ) -> TransferResult {
        let command =
            self.command(buf, |pair, buf, ticket| pair.deallocate(namespace, ranges, buf, ticket));
        let (buf, result) = match command.await {
            Ok(done) => (done.buf, Error::of_status("Dataset Management", done.status)),
            Err(Rejected { error, payload }) => (payload, Err(error)),
        };
        match result {
            Ok(()) => Ok(buf),
            Err(error) => Err(Failed { error, payload: Some(buf) }),
        }
    }

    /// Executes any command of [`QueuePair`]. `submit` submits one command with the memory and the
    /// ticket that it is passed, and does nothing else with the pair. It is called when a place is
    /// free; a function that finds the pair full is called again.
    ///
    /// ```
    /// # use nvio_driver::{Address, AsyncQueue, Controller, ScatterList, CommandOptions};
    /// # use nvio_emulator::{Backing, Emulator, NamespaceConfig};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = NamespaceConfig::new(Backing::memory(16 << 20));
    /// # let emulator = Emulator::builder().namespace(disk).start()?;
    /// # let controller = Controller::open(&Address::vfio_user(emulator.socket()))?;
    /// # let namespace = controller.namespace(1)?;
    /// # let queue = AsyncQueue::new(&controller, 64)?;
    /// let parts = ScatterList::new(vec![controller.alloc(4096)?, controller.alloc(4096)?], None);
    /// let compare = queue.command(parts, |pair, parts, ticket| {
    ///     pair.compare(&namespace, (0, 16), parts, CommandOptions::default(), ticket)
    /// });
    /// let done = queue.block_on(compare).map_err(|rejected| rejected.error)?;
    /// assert!(done.status.is_success(), "all zeroes");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As the function of [`QueuePair`]; [`Error::QueueFull`] if too many futures wait.
    pub async fn command<M>(
        &self,
        memory: M,
        mut submit: impl FnMut(&mut QueuePair<Ticket>, M, Ticket) -> SubmitResult<M, Ticket>,
    ) -> Result<Completion<()>, Rejected<Error, M>> {
        let request = self.submit(memory, false, |pair, token, memory| {
            without_ticket(submit(pair, memory, Ticket(token)))
        });
        request.await
    }
}

#[cfg(test)]
mod tests;
