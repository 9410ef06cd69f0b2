//! The admin queue pair: one command at a time, and requests for asynchronous events.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use nvio_spec::register::Csts;
use nvio_spec::{Sqe, Status};

use crate::aer::AsyncEvent;
use crate::dma::DmaBuf;
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

/// The result of an admin command: DW0 of the completion and the buffer.
pub(crate) struct Answer {
    pub(crate) dw0: u32,
    pub(crate) buf: Option<DmaBuf>,
}

impl Admin {
    pub(crate) fn new(
        layout: &Layout<'_>,
        timeout: Duration,
        events: Arc<ArrayQueue<AsyncEvent>>,
    ) -> Result<Self> {
        Ok(Self { core: RawQueuePair::new(layout)?, timeout, events })
    }

    pub(crate) fn sq_iova(&self) -> u64 {
        self.core.sq_iova()
    }

    pub(crate) fn cq_iova(&self) -> u64 {
        self.core.cq_iova()
    }

    /// Drops the commands in flight of a controller that was stopped, or with `lost` could not be
    /// stopped, and empties the queues.
    pub(crate) fn restart(&mut self, lost: bool) {
        while self.core.abandon(Status::SUCCESS, lost).is_some() {}
        self.core.restart();
    }

    /// Sets the longest time of a command, and returns the former one.
    pub(crate) fn set_timeout(&mut self, timeout: Duration) -> Duration {
        std::mem::replace(&mut self.timeout, timeout)
    }

    /// Runs one command. `name` is for errors.
    ///
    /// # Errors
    /// [`Error::Command`] if the controller completes the command with an error. After any other
    /// error the command may still be in progress, so the controller must be stopped.
    pub(crate) fn execute(
        &mut self,
        transport: &dyn Transport,
        name: &'static str,
        sqe: Sqe,
        buf: Option<DmaBuf>,
    ) -> Result<Answer> {
        let capacity = self.core.capacity();
        let submitted = match buf {
            Some(buf) => self.core.submit_buf(sqe, buf, Kind::Command).is_ok(),
            None => self.core.submit(sqe, Kind::Command).is_ok(),
        };
        if !submitted {
            return Err(Error::QueueFull { capacity });
        }
        self.core.ring();
        let (status, answer) = self.wait(transport, name)?;
        match status.is_success() {
            true => Ok(answer),
            false => Err(Error::Command { command: name, status }),
        }
    }

    fn wait(&mut self, transport: &dyn Transport, name: &'static str) -> Result<(Status, Answer)> {
        let begin = transport.now();
        let mut health = begin + HEALTH_INTERVAL;
        loop {
            // The clock is read first, so that a thread that was not scheduled polls once more.
            let now = transport.now();
            if let Some(answer) = self.poll() {
                return Ok(answer);
            }
            let elapsed = now.saturating_sub(begin);
            if elapsed >= self.timeout {
                return Err(Error::Timeout { what: name, after: self.timeout });
            }
            if now >= health {
                health = now + HEALTH_INTERVAL;
                check_alive(transport, self.timeout - elapsed)?;
            }
            transport.pause(PAUSE);
        }
    }

    /// Handles posted completions: stores events, and returns the answer to the command in flight.
    fn poll(&mut self) -> Option<(Status, Answer)> {
        let Self { core, events, .. } = self;
        if !core.has_posted() {
            return None;
        }
        let (mut answer, mut again) = (None, 0);
        core.process(usize::MAX, &mut |ended: Completion<Kind>| match ended.context {
            Kind::Command => {
                let answered = Answer { dw0: ended.result, buf: Some(ended.buf) };
                answer = Some((ended.status, answered));
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

    /// Stores the events that the controller has posted while no command is in flight.
    pub(crate) fn note_events(&mut self) {
        self.poll();
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
