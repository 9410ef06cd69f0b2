//! Interrupts: the vectors of a controller, their eventfds and their assignment to queue pairs.
//!
//! A vector belongs to one queue pair at a time, because reading an eventfd clears its signal for
//! every other reader. Pairs without a vector poll.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::transport::Transport;

/// The interrupt vectors of a controller.
pub(crate) struct Interrupts {
    events: Vec<EventFd>,
    /// Vectors below this number are connected to their eventfds. A reset may leave fewer.
    connected: AtomicUsize,
    /// Vectors without a queue pair. The next one to assign is the last.
    free: Mutex<Vec<u16>>,
}

impl Interrupts {
    /// Sets up `wanted` vectors, or fewer if the device or the system has fewer. `None` if there
    /// are no vectors, so that queues are polled.
    pub(crate) fn new(transport: &dyn Transport, wanted: u16) -> Result<Option<Arc<Self>>> {
        let count = transport.interrupts().min(wanted);
        let events = (0..count).map(|_| EventFd::new()).collect::<Result<Vec<_>>>()?;
        // Vector 0 belongs to the admin queue, which is always polled, so it is assigned last.
        let mut free: Vec<u16> = (1..count).rev().collect();
        free.splice(0..0, (count > 0).then_some(0));
        let interrupts = Self { events, connected: AtomicUsize::new(0), free: Mutex::new(free) };
        interrupts.connect(transport);
        let connected = interrupts.connected();
        interrupts.free.lock().retain(|&vector| usize::from(vector) < connected);
        log::debug!("{connected} of {wanted} interrupt vectors are connected");
        Ok((connected > 0).then(|| Arc::new(interrupts)))
    }

    /// Connects the vectors to their eventfds, at first and after each reset of the function.
    /// Queues whose vector cannot be connected are polled.
    pub(crate) fn connect(&self, transport: &dyn Transport) {
        let events: Vec<_> = self.events.iter().map(EventFd::as_fd).collect();
        let connected = match events.len() {
            0 => Ok(0),
            _ => transport.connect_interrupts(&events),
        };
        let connected = connected.unwrap_or_else(|error| {
            log::warn!("queues are polled, because interrupts cannot be set up: {error}");
            0
        });
        self.connected.store(connected.min(events.len()), Ordering::Release);
    }

    fn connected(&self) -> usize {
        self.connected.load(Ordering::Acquire)
    }

    /// Wakes all threads that sleep on a vector.
    pub(crate) fn wake_all(&self) {
        self.events.iter().for_each(EventFd::signal);
    }
}

/// A vector, assigned to one queue pair until this is dropped.
pub(crate) struct Vector {
    interrupts: Arc<Interrupts>,
    number: u16,
}

impl Vector {
    /// Assigns a free vector.
    pub(crate) fn take(interrupts: &Arc<Interrupts>) -> Option<Self> {
        let number = interrupts.free.lock().pop()?;
        Some(Self { interrupts: Arc::clone(interrupts), number })
    }

    /// Returns the number of the vector, if it is connected.
    pub(crate) fn number(&self) -> Option<u16> {
        (usize::from(self.number) < self.interrupts.connected()).then_some(self.number)
    }

    /// Returns the eventfd of the vector, if it is connected.
    pub(crate) fn event(&self) -> Option<&EventFd> {
        self.number().and_then(|number| self.interrupts.events.get(usize::from(number)))
    }
}

impl Drop for Vector {
    fn drop(&mut self) {
        self.interrupts.free.lock().push(self.number);
    }
}

/// An eventfd, which is readable from a signal until it is cleared.
pub(crate) struct EventFd(File);

impl EventFd {
    fn new() -> Result<Self> {
        let created = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        Ok(Self(created.map_err(Error::system("eventfd"))?.into()))
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Clears the signal. The caller looks at its queue afterwards.
    pub(crate) fn clear(&self) {
        // The read fails if there was no signal.
        (&self.0).read_exact(&mut [0; 8]).unwrap_or(());
    }

    fn signal(&self) {
        // The write fails if the counter is at its maximum, which is a signal as well.
        (&self.0).write_all(&1u64.to_ne_bytes()).unwrap_or(());
    }

    /// Sleeps until a signal, or for `timeout`. Returns true if there is a signal.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let bound = Timespec::try_from(timeout).ok();
        match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], bound.as_ref()) {
            Ok(ready) => ready > 0,
            // A signal to the process ends the sleep early, which is allowed.
            Err(Errno::INTR) => false,
            Err(errno) => {
                log::warn!("waiting for an interrupt: {errno}");
                std::thread::sleep(timeout.min(Duration::from_millis(1)));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests;
