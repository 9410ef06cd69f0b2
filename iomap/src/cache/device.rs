//! The device of a cache, which all threads use through one queue.
//!
//! Whoever waits for a command polls the queue, whoever submitted the command. So a thread that
//! stops does not stop others.

use nvio_driver::{DmaBuf, FrozenBuf, Rejected};

use super::ticket::Ticket;
use crate::device::bio::{Bio, BioDone, WriteQueue};
use crate::error::Error;

/// A queue, without its type.
pub(super) trait CacheDevice: Send {
    fn max_transfer_at(&self, addr: u64) -> usize;
    fn alloc(&mut self, bytes: usize) -> Result<DmaBuf, Error>;
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

impl<Q: WriteQueue<Ticket> + Send> CacheDevice for Q {
    fn max_transfer_at(&self, addr: u64) -> usize {
        self.max_transfer_at(addr)
    }

    fn alloc(&mut self, bytes: usize) -> Result<DmaBuf, Error> {
        self.alloc(bytes)
    }

    fn read(&mut self, addr: u64, buf: DmaBuf, ticket: Ticket) -> Submitted<(DmaBuf, Ticket)> {
        self.submit(Bio::read(addr, buf, ticket)).map_err(|Rejected { error, payload }| {
            let Bio { buf, tag, .. } = payload;
            Rejected { error, payload: (buf, tag) }
        })
    }

    fn write(
        &mut self,
        addr: u64,
        parts: &[FrozenBuf],
        fua: bool,
        ticket: Ticket,
    ) -> Submitted<Ticket> {
        self.write_frozen(addr, parts, fua, ticket)
    }

    fn flush(&mut self, ticket: Ticket) -> Submitted<Ticket> {
        self.flush(ticket)
    }

    fn ring(&mut self) {
        self.ring();
    }

    fn poll(&mut self) -> usize {
        let mut handler = |BioDone { tag, buf, result }: BioDone<Ticket>| tag.complete(buf, result);
        self.poll(usize::MAX, &mut handler)
    }
}
