//! The admin queue pair: one command at a time, and requests for asynchronous events.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use nvio_spec::register::Csts;
use nvio_spec::{IDENTIFY_SIZE, Sqe, Status};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::aer::AsyncEvent;
use crate::dma::{Arena, DmaBuf};
use crate::error::{Error, Result};
use crate::queue::completion::Completion;
use crate::queue::raw::{Layout, RawQueuePair};
use crate::transport::Transport;

/// Entries of the admin queues: one command at a time, and event requests.
pub(crate) const ADMIN_ENTRIES: u32 = 32;
/// Most admin commands in flight.
pub(crate) const ADMIN_DEPTH: u16 = 31;
/// Time between two reads of CSTS while a command is in flight.
const HEALTH_INTERVAL: Duration = Duration::from_millis(50);
/// Time between two polls. Admin commands take microseconds to milliseconds.
const PAUSE: Duration = Duration::from_micros(20);
/// Most event requests in flight. The controller stores further events.
const EVENT_REQUESTS_MAX: u8 = 4;

/// The kind of an admin command in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Command,
    EventRequest,
}

/// The admin queue pair.
pub(crate) struct Admin {
    core: RawQueuePair<Kind>,
    timeout: Duration,
    /// Events that the caller has not polled for yet.
    events: Arc<ArrayQueue<AsyncEvent>>,
}

/// An admin command, its data, and its name for errors.
pub(crate) struct Command {
    name: &'static str,
    sqe: Sqe,
    buf: Option<DmaBuf>,
    /// Longest time of the command, if it is not the usual one.
    bound: Option<Duration>,
}

impl Command {
    pub(crate) fn new(name: &'static str, sqe: Sqe) -> Self {
        Self { name, sqe, buf: None, bound: None }
    }

    /// Creates an Identify command, with a buffer of `arena`.
    pub(crate) fn identify(arena: &Arena, cns: u8, nsid: u32) -> Result<Self> {
        Ok(Self::new("Identify", Sqe::identify(cns, nsid)).with(arena.alloc(IDENTIFY_SIZE)?))
    }

    pub(crate) fn with(self, buf: DmaBuf) -> Self {
        Self { buf: Some(buf), ..self }
    }

    /// Lets the command take at most `bound`.
    pub(crate) fn within(self, bound: Duration) -> Self {
        Self { bound: Some(bound), ..self }
    }
}

/// The result of an admin command: DW0 of the completion and the buffer, empty for a command without
/// data.
pub(crate) struct Answer {
    pub(crate) dw0: u32,
    pub(crate) buf: DmaBuf,
}

impl Answer {
    /// Decodes the buffer, which has the length of `D`.
    pub(crate) fn decode<D: FromBytes + KnownLayout + Immutable>(&self) -> Result<D> {
        let invalid =
            |_| Error::invalid("data of an admin command", "length", self.buf.len() as u64);
        D::read_from_bytes(&self.buf).map_err(invalid)
    }
}

impl Admin {
    pub(crate) fn new(
        layout: &Layout<'_>,
        timeout: Duration,
        events: Arc<ArrayQueue<AsyncEvent>>,
    ) -> Result<Self> {
        Ok(Self { core: RawQueuePair::new(layout)?, timeout, events })
    }

    /// I/O virtual addresses of submission ring and completion ring.
    pub(crate) fn ring_iovas(&self) -> (u64, u64) {
        self.core.ring_iovas()
    }

    /// Drops the commands in flight of a controller that was stopped, or with `lost` could not be
    /// stopped, and empties the queues.
    pub(crate) fn restart(&mut self, lost: bool) {
        while self.core.abandon(Status::SUCCESS, lost).is_some() {}
        self.core.restart();
    }

    /// Runs one command.
    ///
    /// # Errors
    /// [`Error::Command`] if the controller completes the command with an error. After any other
    /// error the command may still be in progress, so the controller must be stopped.
    pub(crate) fn execute(
        &mut self,
        transport: &dyn Transport,
        command: Command,
    ) -> Result<Answer> {
        let Command { name, sqe, buf, bound } = command;
        let capacity = self.core.capacity();
        let submitted = match buf {
            Some(buf) => self.core.submit_buf(sqe, buf, Kind::Command).is_ok(),
            None => self.core.submit(sqe, Kind::Command).is_ok(),
        };
        if !submitted {
            return Err(Error::QueueFull { capacity });
        }
        self.core.ring();
        let (status, answer) = self.wait(transport, name, bound.unwrap_or(self.timeout))?;
        Error::of_status(name, status).map(|()| answer)
    }

    fn wait(
        &mut self,
        transport: &dyn Transport,
        what: &'static str,
        bound: Duration,
    ) -> Result<(Status, Answer)> {
        let begin = transport.now();
        let mut health = begin + HEALTH_INTERVAL;
        loop {
            // The clock is read first, so that a thread that was not scheduled polls once more.
            let now = transport.now();
            if let Some(answer) = self.poll() {
                return Ok(answer);
            }
            let elapsed = now.saturating_sub(begin);
            if elapsed >= bound {
                return Err(Error::Timeout { what, after: bound });
            }
            if now >= health {
                health = now + HEALTH_INTERVAL;
                check_alive(transport, bound - elapsed)?;
            }
            transport.pause(PAUSE);
        }
    }

    /// Handles posted completions: stores events, and returns the answer to the command in flight, if
    /// there is one.
    pub(crate) fn poll(&mut self) -> Option<(Status, Answer)> {
        let Self { core, events, .. } = self;
        if !core.has_posted() {
            return None;
        }
        let (mut answer, mut again) = (None, 0);
        core.process(usize::MAX, &mut |ended: Completion<Kind>| match ended.context {
            Kind::Command => {
                answer = Some((ended.status, Answer { dw0: ended.result, buf: ended.buf }));
            }
            Kind::EventRequest if ended.status.is_success() => {
                again += 1;
                // The oldest events are kept, because later ones are usually of the same kind.
                if let Err(event) = events.push(AsyncEvent::from_dword(ended.result)) {
                    log::warn!("{event} is dropped: the caller does not poll for events");
                }
            }
            Kind::EventRequest => {
                log::debug!("event request: {}", ended.status);
            }
        });
        self.request_events(again);
        answer
    }

    /// Submits the first event requests. `limit` is AERL, the most requests in flight minus one.
    pub(crate) fn request_first_events(&mut self, limit: u8) {
        self.request_events(limit.saturating_add(1).min(EVENT_REQUESTS_MAX));
    }

    fn request_events(&mut self, count: u8) {
        for _ in 0..count {
            let sqe = Sqe::new(nvio_spec::opcode::admin::ASYNC_EVENT_REQUEST, 0);
            if self.core.submit(sqe, Kind::EventRequest).is_err() {
                log::warn!("no room for an event request");
            }
        }
        self.core.ring();
    }
}

/// Reads CSTS, and waits at most `within` for its value.
///
/// # Errors
/// [`Error::Gone`] and [`Error::Fatal`].
pub(crate) fn check_alive(transport: &dyn Transport, within: Duration) -> Result<()> {
    let csts = Csts(transport.csts_within(within)?);
    if csts.fatal() { Err(Error::Fatal { csts: csts.0 }) } else { Ok(()) }
}
