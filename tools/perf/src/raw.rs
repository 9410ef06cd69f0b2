//! A range of a namespace.

use std::time::Duration;

use nvio_driver::{
    Completion, Controller, DmaBuf, Error as DriverError, Handler, Namespace, QueuePair, Rejected,
    WritableNamespace,
};

use crate::sleep;
use crate::target::{self, Counters, Error, Request, Sink, Target};

type Pair = QueuePair<u64>;

/// A namespace, read and written by commands.
#[derive(Debug)]
pub struct Raw {
    pair: Pair,
    controller: Controller,
    namespace: Namespace,
    writable: Option<WritableNamespace>,
    /// Sleeps with a limit, which the pair does not count.
    sleeps: u64,
}

impl Raw {
    /// Creates a queue of `depth` commands to a namespace.
    ///
    /// # Errors
    /// If the controller has no more queues, or its memory no room.
    pub fn new(
        controller: &Controller,
        namespace: &Namespace,
        writable: Option<&WritableNamespace>,
        depth: u16,
    ) -> Result<Self, Error> {
        let pair = controller.queue_pair(depth).map_err(|error| Error::of(&error))?;
        let (controller, namespace) = (controller.clone(), namespace.clone());
        Ok(Self { pair, controller, namespace, writable: writable.cloned(), sleeps: 0 })
    }

    #[cold]
    fn write(&mut self, lba: u64, buf: DmaBuf, slot: u64) -> Result<(), Back> {
        match &self.writable {
            Some(namespace) => self.pair.write(namespace, lba, buf, slot),
            None => Err(Rejected { error: DriverError::ReadOnly, payload: (buf, slot) }),
        }
    }
}

type Back = Rejected<DriverError, (DmaBuf, u64)>;

#[cold]
fn rejected(back: Back) -> Box<target::Rejected<DmaBuf>> {
    let busy = matches!(back.error, DriverError::QueueFull { .. });
    let buf = Some(back.payload.0);
    Box::new(target::Rejected { error: Error::of(&back.error), busy, buf })
}

impl Target for Raw {
    type Buf = DmaBuf;

    fn alloc(&mut self, bytes: usize) -> Result<DmaBuf, Error> {
        self.controller.alloc(bytes).map_err(|error| Error::of(&error))
    }

    #[inline(always)]
    fn submit(
        &mut self,
        request: &Request,
        buf: DmaBuf,
        slot: u64,
    ) -> Result<(), Box<target::Rejected<DmaBuf>>> {
        let lba = request.pos >> self.namespace.block_shift();
        let submitted = match request.write {
            false => self.pair.read(&self.namespace, lba, buf, slot),
            true => self.write(lba, buf, slot),
        };
        submitted.map_err(rejected)
    }

    #[inline(always)]
    fn ring(&mut self) {
        self.pair.ring();
    }

    #[inline(always)]
    fn poll(&mut self, limit: usize, sink: &mut impl Sink<DmaBuf>) -> usize {
        self.pair.poll_with(limit, &mut Takes(sink))
    }

    fn wait(
        &mut self,
        within: Option<Duration>,
        sink: &mut impl Sink<DmaBuf>,
    ) -> Result<usize, Error> {
        let mut takes = Takes(sink);
        let Some(within) = within else {
            let waited = self.pair.wait(|done| takes.completed(done));
            return waited.map_err(|error| Error::of(&error));
        };
        if self.pair.prepare_to_sleep()
            && let Some(event) = self.pair.event_fd()
        {
            sleep::until_readable(event, within);
            self.sleeps += 1;
        }
        Ok(self.pair.poll_with(usize::MAX, &mut takes))
    }

    fn capacity(&self) -> usize {
        self.pair.capacity()
    }

    fn counters(&self) -> Counters {
        let mut counters = Counters::default().with_driver(&self.pair.counters());
        counters.sleeps += self.sleeps;
        counters
    }

    fn lba(&mut self, pos: u64) -> Option<u64> {
        Some(pos >> self.namespace.block_shift())
    }

    fn flush(&mut self) -> Result<(), Error> {
        let flushed = self.pair.blocking(u64::MAX, drop).flush(&self.namespace);
        flushed.map_err(|error| Error::of(&error))
    }
}

struct Takes<'s, S>(&'s mut S);

impl<S: Sink<DmaBuf>> Handler<Completion<u64>> for Takes<'_, S> {
    #[inline(always)]
    fn completed(&mut self, done: Completion<u64>) {
        match done.status.is_success() {
            true => self.0.done(done.context, done.buf),
            false => {
                let error = Error(done.status.to_string());
                self.0.failed(done.context, error, Some(done.buf));
            }
        }
    }
}
