//! A range of a namespace with requests that are larger than a command.

use std::time::Duration;

use nvio_driver::{Controller, DmaBuf, Namespace, SplitBuffer, WritableNamespace};

use crate::raw::Raw;
use crate::target::{Counters, Error, Rejected, Request, Sink, Target};

/// A namespace whose requests are several commands each.
#[derive(Debug)]
pub struct SplitRaw {
    raw: Raw,
    /// Most bytes of a command.
    command_bytes: usize,
    /// Most commands of a request.
    commands_max: usize,
    parts: Parts,
}

/// The requests in flight.
#[derive(Debug, Default)]
struct Parts {
    /// By the number of the slot.
    requests: Vec<Option<Part>>,
    /// Number of them.
    in_flight: usize,
}

/// A request in flight.
#[derive(Debug)]
struct Part {
    buf: SplitBuffer,
    /// Commands in flight.
    commands: usize,
    /// Error of the first command that failed.
    error: Option<Error>,
}

impl SplitRaw {
    /// Creates a queue for `depth` requests of at most `bytes_max` bytes to a namespace.
    ///
    /// # Errors
    /// If the controller has no more queues, or its queues no room for a request.
    pub fn new(
        controller: &Controller,
        namespace: &Namespace,
        writable: Option<&WritableNamespace>,
        depth: u16,
        bytes_max: usize,
    ) -> Result<Self, Error> {
        let command_bytes = namespace.max_transfer().max(1);
        let commands_max = bytes_max.div_ceil(command_bytes).max(1);
        let commands = usize::from(depth).saturating_mul(commands_max);
        let commands = u16::try_from(commands).unwrap_or(u16::MAX);
        let raw = Raw::new(controller, namespace, writable, commands)?;
        if commands_max > raw.capacity() {
            let room = raw.capacity();
            return Err(Error(format!(
                "a request of {bytes_max} bytes is {commands_max} commands, and the queue has room \
                 for {room}; use a smaller --bs"
            )));
        }
        Ok(Self { raw, command_bytes, commands_max, parts: Parts::default() })
    }

    /// Submits the commands of a request, and returns how many were submitted, and the error of the
    /// one that was not.
    fn submit_all(
        &mut self,
        request: &Request,
        buf: &mut SplitBuffer,
        slot: u64,
    ) -> (usize, Option<(Error, bool)>) {
        let (mut pos, mut commands) = (request.pos, 0);
        while let Some(piece) = buf.cut_at_most(self.command_bytes) {
            let command = Request { pos, bytes: piece.len(), write: request.write };
            pos += piece.len() as u64;
            if let Err(rejected) = self.raw.submit(&command, piece, slot) {
                let Rejected { error, busy, buf: back } = *rejected;
                // The piece that came back is one of this buffer, so that `put` does not fail.
                back.map(|piece| buf.put(piece).is_ok());
                return (commands, Some((error, busy)));
            }
            commands += 1;
        }
        (commands, None)
    }
}

impl Target for SplitRaw {
    type Buf = DmaBuf;

    fn alloc(&mut self, bytes: usize) -> Result<DmaBuf, Error> {
        self.raw.alloc(bytes)
    }

    fn submit(
        &mut self,
        request: &Request,
        buf: DmaBuf,
        slot: u64,
    ) -> Result<(), Box<Rejected<DmaBuf>>> {
        let mut buf = SplitBuffer::new(buf);
        let (commands, failed) = self.submit_all(request, &mut buf, slot);
        if let (0, Some((error, busy))) = (commands, &failed) {
            let (error, busy, buf) = (error.clone(), *busy, buf.finish().ok());
            return Err(Box::new(Rejected { error, busy, buf }));
        }
        let error = failed.map(|(error, _)| error);
        self.parts.add(slot, Part { buf, commands, error });
        Ok(())
    }

    fn ring(&mut self) {
        self.raw.ring();
    }

    fn poll(&mut self, limit: usize, sink: &mut impl Sink<DmaBuf>) -> usize {
        let mut gather = Gather { parts: &mut self.parts, sink, count: 0 };
        self.raw.poll(limit, &mut gather);
        gather.count
    }

    fn wait(
        &mut self,
        within: Option<Duration>,
        sink: &mut impl Sink<DmaBuf>,
    ) -> Result<usize, Error> {
        let mut gather = Gather { parts: &mut self.parts, sink, count: 0 };
        if within.is_some() {
            self.raw.wait(within, &mut gather)?;
            return Ok(gather.count);
        }
        while gather.count == 0 && gather.parts.in_flight > 0 {
            self.raw.wait(None, &mut gather)?;
        }
        Ok(gather.count)
    }

    fn capacity(&self) -> usize {
        self.raw.capacity() / self.commands_max
    }

    fn counters(&self) -> Counters {
        self.raw.counters()
    }

    fn lba(&mut self, pos: u64) -> Option<u64> {
        self.raw.lba(pos)
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.raw.flush()
    }
}

impl Parts {
    fn add(&mut self, slot: u64, part: Part) {
        let slot = usize::try_from(slot).unwrap_or(usize::MAX);
        if self.requests.len() <= slot {
            self.requests.resize_with(slot + 1, || None);
        }
        self.requests[slot] = Some(part);
        self.in_flight += 1;
    }

    /// Ends a command, and returns the request if it was its last one.
    fn end(&mut self, slot: u64, error: Option<Error>, piece: Option<DmaBuf>) -> Option<Part> {
        let place = self.requests.get_mut(usize::try_from(slot).ok()?)?;
        let part = place.as_mut()?;
        part.commands -= 1;
        part.error = part.error.take().or(error);
        // A piece that is lost, or no piece of the buffer, is missing at the end.
        piece.map(|piece| part.buf.put(piece).is_ok());
        if part.commands > 0 {
            return None;
        }
        self.in_flight -= 1;
        place.take()
    }
}

/// Passes requests on when all their commands have ended.
struct Gather<'s, S> {
    parts: &'s mut Parts,
    sink: &'s mut S,
    /// Requests that were passed on.
    count: usize,
}

impl<S: Sink<DmaBuf>> Gather<'_, S> {
    fn end(&mut self, slot: u64, error: Option<Error>, piece: Option<DmaBuf>) {
        let Some(part) = self.parts.end(slot, error, piece) else { return };
        self.count += 1;
        match (part.error, part.buf.finish()) {
            (None, Ok(buf)) => self.sink.done(slot, buf),
            (Some(error), buf) => self.sink.failed(slot, error, buf.ok()),
            (None, Err(_)) => {
                let error = Error("a part of the buffer is lost".to_owned());
                self.sink.failed(slot, error, None);
            }
        }
    }
}

impl<S: Sink<DmaBuf>> Sink<DmaBuf> for Gather<'_, S> {
    fn done(&mut self, slot: u64, buf: DmaBuf) {
        self.end(slot, None, Some(buf));
    }

    fn failed(&mut self, slot: u64, error: Error, buf: Option<DmaBuf>) {
        self.end(slot, Some(error), buf);
    }
}
