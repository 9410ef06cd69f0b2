//! The admin queue: one command at a time, waited for; and the requests for events.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use nvio_spec::{Sqe, Status};

use crate::aer::AsyncEvent;
use crate::dma::DmaBuf;
use crate::queue::{Completion, Layout, RawQueuePair};
use crate::transport::Transport;
use crate::{Error, Result, controller};

/// Entries of the admin queues. One command is in flight at a time; the rest is room for events.
pub(crate) const ADMIN_ENTRIES: u32 = 32;
/// Admin commands that can be in flight.
pub(crate) const ADMIN_DEPTH: u16 = 31;
/// How often the controller's health is looked at while a command is waited for.
const HEALTH_INTERVAL: Duration = Duration::from_millis(50);
/// Admin commands take microseconds to milliseconds; there is no hurry.
const PAUSE: Duration = Duration::from_micros(20);
/// Most event requests in flight: events come seldom, and what is not asked for waits.
const MOST_EVENT_REQUESTS: u8 = 4;

/// What an admin command in flight is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Command,
    EventRequest,
}

/// The admin queue pair.
pub(crate) struct Admin {
    core: RawQueuePair<Kind>,
    timeout: Duration,
    /// Events that came and were not taken.
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

    /// Ends what is in flight on a controller that was stopped, or, with `lost`, could not be; and
    /// begins again with empty queues.
    pub(crate) fn restart(&mut self, lost: bool) {
        while self.core.abandon(Status::SUCCESS, lost).is_some() {}
        self.core.restart();
    }

    /// Gives commands so long from now on; returns how long it was.
    pub(crate) fn set_timeout(&mut self, timeout: Duration) -> Duration {
        std::mem::replace(&mut self.timeout, timeout)
    }

    /// Runs one command. `name` is for errors.
    ///
    /// # Errors
    /// [`Error::Command`] for what the controller refuses. After any other error the command may
    /// still be in progress: the controller is to be stopped.
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
            // The clock first: a thread that was not scheduled for long must still look once more.
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
                controller::check_alive(transport, self.timeout - elapsed)?;
            }
            transport.pause(PAUSE);
        }
    }

    /// Takes what was posted: events, and the answer of the command in flight.
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
                // The oldest are kept: what follows them is of the same kind, as a rule.
                if let Err(event) = events.push(AsyncEvent::from_dword(ended.result)) {
                    log::warn!("{event} is dropped: nobody takes events");
                }
            }
            Kind::EventRequest => {
                log::debug!("event request: {}", ended.status);
            }
        });
        self.request_events(again);
        answer
    }

    /// Asks for events; `limit` is how many requests the controller takes at once, less one
    /// (AERL).
    pub(crate) fn request_first_events(&mut self, limit: u8) {
        self.request_events(limit.saturating_add(1).min(MOST_EVENT_REQUESTS));
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

    /// Takes what was posted while no command is in flight: events.
    pub(crate) fn note_events(&mut self) {
        self.poll();
    }
}
