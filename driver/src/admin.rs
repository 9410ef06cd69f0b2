//! The admin queue: one command at a time, waited for.

use std::thread;
use std::time::{Duration, Instant};

use nvio_spec::Sqe;

use crate::dma::DmaBuf;
use crate::queue::{Core, Layout};
use crate::transport::Transport;
use crate::{Error, Result, controller};

/// Entries of the admin queues. One command is in flight at a time; the rest is room for events.
pub(crate) const ADMIN_ENTRIES: u32 = 32;
/// Admin commands that can be in flight.
pub(crate) const ADMIN_DEPTH: u16 = 31;
/// How often the controller's health is looked at while a command is waited for.
const HEALTH_INTERVAL: Duration = Duration::from_millis(50);

/// The admin queue pair.
pub(crate) struct Admin {
    core: Core<&'static str>,
    timeout: Duration,
    closed: bool,
}

/// The result of an admin command: DW0 of the completion and the buffer.
pub(crate) struct Answer {
    pub(crate) dw0: u32,
    pub(crate) buf: Option<DmaBuf>,
}

impl Admin {
    pub(crate) fn new(layout: &Layout<'_>, timeout: Duration) -> Result<Self> {
        Ok(Self { core: Core::new(layout)?, timeout, closed: false })
    }

    pub(crate) fn sq_iova(&self) -> u64 {
        self.core.sq_iova()
    }

    pub(crate) fn cq_iova(&self) -> u64 {
        self.core.cq_iova()
    }

    /// Runs one command. `name` is for errors.
    ///
    /// After a timeout the queue is closed: the command may still write to its buffer, which
    /// stays in the slot.
    pub(crate) fn execute(
        &mut self,
        transport: &dyn Transport,
        name: &'static str,
        sqe: Sqe,
        buf: Option<DmaBuf>,
    ) -> Result<Answer> {
        if self.closed {
            return Err(Error::QueueClosed);
        }
        let capacity = self.core.capacity();
        let submitted = match buf {
            Some(buf) => self.core.submit_pages(sqe, buf, name).is_ok(),
            None => self.core.submit(sqe, name).is_ok(),
        };
        if !submitted {
            return Err(Error::QueueFull { capacity });
        }
        self.core.ring();
        let (status, answer) = self.wait(transport, name).inspect_err(|_| self.closed = true)?;
        match status.is_success() {
            true => Ok(answer),
            false => Err(Error::Command { command: name, status }),
        }
    }

    fn wait(
        &mut self,
        transport: &dyn Transport,
        name: &'static str,
    ) -> Result<(nvio_spec::Status, Answer)> {
        let begin = Instant::now();
        let mut health = begin + HEALTH_INTERVAL;
        loop {
            let mut answer = None;
            self.core.poll(1, |posted, buf, _| {
                answer = Some((posted.status, Answer { dw0: posted.dw0, buf: Some(buf) }));
            });
            if let Some(answer) = answer {
                return Ok(answer);
            }
            let now = Instant::now();
            if now.duration_since(begin) >= self.timeout {
                return Err(Error::Timeout { what: name, after: self.timeout });
            }
            if now >= health {
                health = now + HEALTH_INTERVAL;
                controller::check_alive(transport)?;
            }
            // Admin commands take microseconds to milliseconds; there is no hurry.
            thread::sleep(Duration::from_micros(20));
        }
    }
}
