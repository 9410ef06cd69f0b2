//! The device of a cache, which all threads use through one queue.
//!
//! Whoever waits for a command polls the queue, whoever submitted the command. So a thread that
//! stops does not stop others.

use nvio_driver::Error::ArenaFull as Full;
use nvio_driver::{DmaBuf, FrozenBuf, Rejected};

use super::ticket::Ticket;
use crate::device::bio::{Bio, BioDone, WriteQueue};
use crate::error::Error;

/// A queue, without its type.
pub(super) trait CacheDevice: Send {
    fn max_transfer_at(&self, addr: u64) -> usize;
    fn alloc(&mut self, bytes: usize) -> Result<DmaBuf, Error>;
    fn alloc_uncleared(&mut self, bytes: usize) -> Result<DmaBuf, Error>;
    fn read(&mut self, addr: u64, buf: DmaBuf, ticket: Ticket) -> Submitted<(DmaBuf, Ticket)>;
    fn write(
        &mut self,
        addr: u64,
        parts: &[FrozenBuf],
        fua: bool,
        ticket: Ticket,
    ) -> Submitted<Ticket>;
    fn flush(&mut self, ticket: Ticket) -> Submitted<Ticket>;
    fn ring(&mut self);
    /// Completes the tickets of all commands that have ended, and returns their number.
    fn poll(&mut self) -> usize;
}

pub(super) type Submitted<P> = Result<(), Rejected<Error, P>>;

/// A queue, and the number of its commands in flight.
pub(super) struct CacheQueue<Q> {
    queue: Q,
    in_flight: usize,
}

impl<Q> CacheQueue<Q> {
    pub(super) fn new(queue: Q) -> Self {
        Self { queue, in_flight: 0 }
    }

    /// Counts a command that was submitted. A command that finds no memory is to be submitted again
    /// after another has ended, whose memory is free then.
    fn submitted<P>(&mut self, submitted: Submitted<P>) -> Submitted<P> {
        match submitted {
            Ok(()) => self.in_flight += 1,
            Err(Rejected { error: Error::Driver(Full { .. }), payload }) if self.in_flight > 0 => {
                return Err(Rejected { error: Error::Busy, payload });
            }
            Err(_) => {}
        }
        submitted
    }
}

impl<Q: WriteQueue<Ticket> + Send> CacheDevice for CacheQueue<Q> {
    fn max_transfer_at(&self, addr: u64) -> usize {
        self.queue.max_transfer_at(addr)
    }

    fn alloc(&mut self, bytes: usize) -> Result<DmaBuf, Error> {
        self.queue.alloc(bytes)
    }

    fn alloc_uncleared(&mut self, bytes: usize) -> Result<DmaBuf, Error> {
        self.queue.alloc_uncleared(bytes)
    }

    fn read(&mut self, addr: u64, buf: DmaBuf, ticket: Ticket) -> Submitted<(DmaBuf, Ticket)> {
        let submitted = self.queue.submit(Bio::read(addr, buf, ticket));
        self.submitted(submitted.map_err(|Rejected { error, payload }| {
            let Bio { buf, tag, .. } = payload;
            Rejected { error, payload: (buf, tag) }
        }))
    }

    fn write(
        &mut self,
        addr: u64,
        parts: &[FrozenBuf],
        fua: bool,
        ticket: Ticket,
    ) -> Submitted<Ticket> {
        let submitted = self.queue.write_frozen(addr, parts, fua, ticket);
        self.submitted(submitted)
    }

    fn flush(&mut self, ticket: Ticket) -> Submitted<Ticket> {
        let submitted = self.queue.flush(ticket);
        self.submitted(submitted)
    }

    fn ring(&mut self) {
        self.queue.ring();
    }

    fn poll(&mut self) -> usize {
        let mut handler = |BioDone { tag, buf, result }: BioDone<Ticket>| tag.complete(buf, result);
        let ended = self.queue.poll(usize::MAX, &mut handler);
        self.in_flight -= ended.min(self.in_flight);
        ended
    }
}
