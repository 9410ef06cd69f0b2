//! The I/O queue pair that users hold.

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nvio_spec::{Sqe, Status};

use super::Core;
use crate::controller::Inner;
use crate::dma::DmaBuf;
use crate::namespace::Namespace;
use crate::{Error, Result};

/// Polls without a completion after which a waiting thread yields and looks at the clock.
const SPINS: u32 = 1 << 12;
/// How often a waiting thread asks whether the controller is alive.
const HEALTH_INTERVAL: Duration = Duration::from_millis(250);

/// A submission queue and its completion queue, for one thread.
///
/// Commands are queued by [`read`](Self::read) and [`flush`](Self::flush), shown to the controller
/// by [`ring`](Self::ring) once for a batch, and come back through [`poll`](Self::poll). `T` is
/// the caller's context: it moves in with a command and out with its completion.
///
/// Dropping the pair deletes its queues; buffers of commands in flight are given up.
pub struct QueuePair<T = u64> {
    core: ManuallyDrop<Core<T>>,
    controller: Arc<Inner>,
    qid: u16,
    closed: bool,
}

/// What became of a command.
#[derive(Debug)]
pub struct Completion<T> {
    /// What was given with the command.
    pub context: T,
    /// The command's buffer; empty for a flush.
    pub buf: DmaBuf,
    /// The controller's verdict. Data of a failed read is not defined.
    pub status: Status,
}

/// A command that was not queued, with what was given for it.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Rejected<T, B = DmaBuf> {
    /// Why.
    pub error: Error,
    /// The buffer.
    pub buf: B,
    /// The context.
    pub context: T,
}

impl<T> QueuePair<T> {
    pub(crate) fn new(core: Core<T>, controller: Arc<Inner>, qid: u16) -> Self {
        Self { core: ManuallyDrop::new(core), controller, qid, closed: false }
    }

    /// The queues' identifier, 1 to 65,534.
    pub fn id(&self) -> u16 {
        self.qid
    }

    /// Commands that can be in flight at once.
    pub fn capacity(&self) -> usize {
        self.core.capacity()
    }

    /// Commands that are in flight.
    #[inline]
    pub fn in_flight(&self) -> usize {
        self.core.in_flight()
    }

    /// Completions that matched no command, since the pair was made.
    pub fn stale(&self) -> u64 {
        self.core.stale()
    }

    /// Queues a read of `buf.len()` bytes at block `lba` (NVM 3.2.4). The length is a multiple of
    /// the block size and at most [`Namespace::max_transfer`].
    ///
    /// # Errors
    /// [`Error::QueueFull`] when every slot is in flight; [`Error::Misaligned`],
    /// [`Error::TransferSize`] and [`Error::OutOfRange`] for what the namespace does not allow;
    /// [`Error::QueueClosed`] after a failure of the controller.
    // Always: called, it costs a third more, and the compiler stops inlining at the second user.
    #[inline(always)]
    pub fn read(
        &mut self,
        namespace: &Namespace,
        lba: u64,
        buf: DmaBuf,
        context: T,
    ) -> Result<(), Rejected<T>> {
        let Some(blocks) = namespace.check(lba, buf.len()) else {
            return Err(self.reject(namespace, lba, buf, context));
        };
        if !self.core.is_one_page(&buf) {
            return self.read_pages(namespace, lba, blocks, buf, context);
        }
        match self.core.submit_page(Sqe::read(namespace.id(), lba, blocks), buf, context) {
            Ok(()) => Ok(()),
            Err((buf, context)) => Err(self.reject(namespace, lba, buf, context)),
        }
    }

    /// [`read`](Self::read) of more than a page; apart, so that the common case is small enough to
    /// be inlined and to stay in registers.
    #[inline(never)]
    fn read_pages(
        &mut self,
        namespace: &Namespace,
        lba: u64,
        blocks: u32,
        buf: DmaBuf,
        context: T,
    ) -> Result<(), Rejected<T>> {
        match self.core.submit_pages(Sqe::read(namespace.id(), lba, blocks), buf, context) {
            Ok(()) => Ok(()),
            Err((buf, context)) => Err(self.reject(namespace, lba, buf, context)),
        }
    }

    /// Finds out why a transfer cannot be queued.
    #[cold]
    #[inline(never)]
    fn reject(&self, namespace: &Namespace, lba: u64, buf: DmaBuf, context: T) -> Rejected<T> {
        let error = match namespace.check(lba, buf.len()) {
            Some(_) => self.why_full(),
            None => namespace.refuse(lba, buf.len()),
        };
        Rejected { error, buf, context }
    }

    /// Queues a flush of the namespace's volatile write cache (Base 7.1).
    ///
    /// # Errors
    /// [`Error::QueueFull`] and [`Error::QueueClosed`], as [`read`](Self::read).
    pub fn flush(&mut self, namespace: &Namespace, context: T) -> Result<(), Rejected<T, ()>> {
        let sqe = Sqe::flush(namespace.id());
        self.core.submit(sqe, context).map_err(|context| Rejected {
            error: self.why_full(),
            buf: (),
            context,
        })
    }

    #[cold]
    fn why_full(&self) -> Error {
        match self.closed {
            true => Error::QueueClosed,
            false => Error::QueueFull { capacity: self.core.capacity() },
        }
    }

    fn close(&mut self) {
        self.closed = true;
        self.core.close();
    }

    /// Shows the controller what was queued since the last time: one store.
    #[inline]
    pub fn ring(&mut self) {
        self.core.ring();
    }

    /// Whether [`poll`](Self::poll) would find something: one load.
    #[inline]
    pub fn is_ready(&self) -> bool {
        self.core.has_posted()
    }

    /// Takes at most `limit` completions, hands each to `done`, and tells how many there were.
    /// Never waits, and never takes more than a ring has entries.
    #[inline]
    pub fn poll(&mut self, limit: usize, mut done: impl FnMut(Completion<T>)) -> usize {
        self.core.poll(limit, |posted, buf, context| {
            done(Completion { context, buf, status: posted.status });
        })
    }

    /// Polls until there is a completion, hands all there are to `done`, and tells how many there
    /// were; 0 when nothing is in flight. Rings the doorbell first.
    ///
    /// # Errors
    /// [`Error::Timeout`] when nothing completes within the controller's I/O timeout,
    /// [`Error::Gone`] and [`Error::Fatal`] when it has failed. The pair is closed then, and the
    /// buffers in flight stay with it.
    pub fn wait(&mut self, mut done: impl FnMut(Completion<T>)) -> Result<usize> {
        self.ring();
        if self.in_flight() == 0 {
            return Ok(0);
        }
        if self.closed {
            return Err(Error::QueueClosed);
        }
        let begin = Instant::now();
        let mut health = begin + HEALTH_INTERVAL;
        loop {
            for _ in 0..SPINS {
                match self.poll(usize::MAX, &mut done) {
                    0 => std::hint::spin_loop(),
                    taken => return Ok(taken),
                }
            }
            std::thread::yield_now();
            let now = Instant::now();
            if now >= health {
                health = now + HEALTH_INTERVAL;
                let after = self.controller.io_timeout();
                let overdue = now.duration_since(begin) >= after;
                let verdict = match self.controller.check_alive() {
                    Ok(()) if overdue => Err(Error::Timeout { what: "an I/O command", after }),
                    other => other,
                };
                verdict.inspect_err(|_| self.close())?;
            }
        }
    }
}

impl<T> Drop for QueuePair<T> {
    fn drop(&mut self) {
        match self.controller.delete_queues(self.qid) {
            // SAFETY: `core` is dropped once, here. The controller has deleted the queues, so it
            // will not use the memory of the rings or of commands in flight any more.
            Ok(()) => unsafe { ManuallyDrop::drop(&mut self.core) },
            // The controller may still write to this memory: it must never be used again.
            Err(error) => log::warn!("queue pair {} is abandoned: {error}", self.qid),
        }
    }
}
