//! A queue that records its commands.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nvio_driver::{DmaBuf, FrozenBuf, Handler, Rejected};
use nvio_iomap::{Bio, BioDone, BioOp, DiskQueue, Error, Queue, WritableDisk, WriteQueue};

/// Something that happened to the device, or that the workload was told.
#[derive(Debug)]
pub enum Event {
    /// A write was submitted.
    Write {
        /// Byte address on the device.
        addr: u64,
        /// The data.
        data: Vec<u8>,
        /// The data is durable when the write completes.
        fua: bool,
    },
    /// A flush was submitted.
    Flush,
    /// The command of the event with this index completed, with success.
    Done(usize),
    /// The bytes of the file in this range are durable, as the workload was told.
    Durable(std::ops::Range<u64>),
}

/// The events in order.
#[derive(Clone, Debug, Default)]
pub struct Record(Arc<Mutex<Vec<Event>>>);

impl Record {
    /// Returns the events.
    pub fn events(&self) -> MutexGuard<'_, Vec<Event>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event, and returns its index.
    pub fn add(&self, event: Event) -> usize {
        let mut events = self.events();
        events.push(event);
        events.len() - 1
    }
}

/// The tag of a command, with the index of its event; `None` for a read.
#[derive(Debug)]
pub struct Numbered<C>(C, Option<usize>);

/// A queue of a disk, with the record of its writes and flushes.
pub struct Recorded<C> {
    queue: DiskQueue<Numbered<C>, WritableDisk>,
    record: Record,
}

impl<C> Recorded<C> {
    /// Records the commands of `queue` from now on.
    pub fn new(queue: DiskQueue<Numbered<C>, WritableDisk>, record: &Record) -> Self {
        Self { queue, record: record.clone() }
    }
}

fn unnumbered<P, C>(rejected: Rejected<Error, P>, tag: impl FnOnce(P) -> C) -> Rejected<Error, C> {
    let Rejected { error, payload } = rejected;
    Rejected { error, payload: tag(payload) }
}

fn plain<C>(bio: Bio<Numbered<C>>) -> Bio<C> {
    let Bio { op, addr, buf, tag, fua } = bio;
    Bio { op, addr, buf, tag: tag.0, fua }
}

/// Passes completions on, and records them.
struct Passing<'a, H>(&'a mut H, &'a Record);

impl<C, H: Handler<BioDone<C>>> Handler<BioDone<Numbered<C>>> for Passing<'_, H> {
    fn completed(&mut self, done: BioDone<Numbered<C>>) {
        let BioDone { tag: Numbered(tag, index), buf, result } = done;
        if let (Some(index), Ok(())) = (index, &result) {
            self.1.add(Event::Done(index));
        }
        self.0.completed(BioDone { tag, buf, result });
    }
}

impl<C> Queue<C> for Recorded<C> {
    fn block_shift(&self) -> u32 {
        self.queue.block_shift()
    }

    fn size(&self) -> u64 {
        self.queue.size()
    }

    fn capacity(&self) -> usize {
        self.queue.capacity()
    }

    fn max_transfer(&self) -> usize {
        self.queue.max_transfer()
    }

    fn max_transfer_at(&self, addr: u64) -> usize {
        self.queue.max_transfer_at(addr)
    }

    fn has_volatile_cache(&self) -> bool {
        self.queue.has_volatile_cache()
    }

    fn submit(&mut self, bio: Bio<C>) -> Result<(), Rejected<Error, Bio<C>>> {
        let Bio { op, addr, buf, tag, fua } = bio;
        let event = Event::Write { addr, data: buf.to_vec(), fua };
        // The command cannot complete before this call returns.
        let index = (op == BioOp::Write).then(|| self.record.add(event));
        let bio = Bio { op, addr, buf, tag: Numbered(tag, index), fua };
        self.queue.submit(bio).map_err(|rejected| {
            index.map(|_| self.record.events().pop());
            unnumbered(rejected, plain)
        })
    }

    fn flush(&mut self, tag: C) -> Result<(), Rejected<Error, C>> {
        let index = self.record.add(Event::Flush);
        self.queue.flush(Numbered(tag, Some(index))).map_err(|rejected| {
            self.record.events().pop();
            unnumbered(rejected, |Numbered(tag, _)| tag)
        })
    }

    fn ring(&mut self) {
        self.queue.ring();
    }

    fn poll(&mut self, limit: usize, handler: &mut impl Handler<BioDone<C>>) -> usize {
        self.queue.poll(limit, &mut Passing(handler, &self.record))
    }

    fn wait(&mut self, mut done: impl FnMut(BioDone<C>)) -> Result<usize, Error> {
        let record = &self.record;
        self.queue.wait(|found| Passing(&mut done, record).completed(found))
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.queue.event_fd()
    }

    fn prepare_to_sleep(&mut self) -> bool {
        self.queue.prepare_to_sleep()
    }

    fn alloc(&mut self, bytes: usize) -> Result<DmaBuf, Error> {
        self.queue.alloc(bytes)
    }
}

impl<C> WriteQueue<C> for Recorded<C> {
    fn write_frozen(
        &mut self,
        addr: u64,
        parts: &[FrozenBuf],
        fua: bool,
        tag: C,
    ) -> Result<(), Rejected<Error, C>> {
        let data = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let index = self.record.add(Event::Write { addr, data, fua });
        let tag = Numbered(tag, Some(index));
        self.queue.write_frozen(addr, parts, fua, tag).map_err(|rejected| {
            self.record.events().pop();
            unnumbered(rejected, |Numbered(tag, _)| tag)
        })
    }
}
