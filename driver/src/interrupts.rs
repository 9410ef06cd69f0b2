//! Interrupts: the eventfds that a controller's vectors signal, and who has which.
//!
//! A vector belongs to one queue pair at a time. Sharing one would need somebody who passes its
//! signals on, as whoever resets an eventfd takes the signal from the others; pairs for which
//! there is none poll instead.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::transport::Transport;

/// The vectors of a controller.
pub(crate) struct Interrupts {
    events: Vec<Event>,
    /// Vectors below this are connected to their events. A reset may leave fewer.
    connected: AtomicUsize,
    /// Vectors that no queue pair has; the next is at the end.
    free: Mutex<Vec<u16>>,
}

impl Interrupts {
    /// Sets up as many of `wanted` vectors as the device and the system have. `None` if that is
    /// none at all; polling does without.
    pub(crate) fn new(transport: &dyn Transport, wanted: u16) -> Result<Option<Arc<Self>>> {
        let count = transport.interrupts().min(wanted);
        let events = (0..count).map(|_| Event::new()).collect::<Result<Vec<_>>>()?;
        // Vector 0 is the admin queue's, which is always polled: it is lent last.
        let mut free: Vec<u16> = (1..count).rev().collect();
        free.splice(0..0, (count > 0).then_some(0));
        let interrupts = Self { events, connected: AtomicUsize::new(0), free: Mutex::new(free) };
        interrupts.connect(transport);
        let connected = interrupts.connected();
        interrupts.free().retain(|&vector| usize::from(vector) < connected);
        log::debug!("{connected} interrupt vectors of {wanted} that would be of use");
        Ok((connected > 0).then(|| Arc::new(interrupts)))
    }

    /// Connects the vectors to their events, at first and after a reset of the function. Those
    /// that cannot be are done without.
    pub(crate) fn connect(&self, transport: &dyn Transport) {
        let events: Vec<_> = self.events.iter().map(Event::as_fd).collect();
        let connected = match events.len() {
            0 => Ok(0),
            _ => transport.connect_interrupts(&events),
        };
        let connected = connected.unwrap_or_else(|error| {
            log::warn!("queues are polled, as interrupts cannot be set up: {error}");
            0
        });
        self.connected.store(connected.min(events.len()), Ordering::Release);
    }

    fn connected(&self) -> usize {
        self.connected.load(Ordering::Acquire)
    }

    /// Wakes all who sleep.
    pub(crate) fn wake_all(&self) {
        self.events.iter().for_each(Event::signal);
    }

    fn free(&self) -> MutexGuard<'_, Vec<u16>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A vector, lent to one queue pair until it is dropped.
pub(crate) struct Vector {
    interrupts: Arc<Interrupts>,
    number: u16,
}

impl Vector {
    /// A vector that nobody has.
    pub(crate) fn take(interrupts: &Arc<Interrupts>) -> Option<Self> {
        let number = interrupts.free().pop()?;
        Some(Self { interrupts: Arc::clone(interrupts), number })
    }

    /// Its number, if it can signal.
    pub(crate) fn number(&self) -> Option<u16> {
        (usize::from(self.number) < self.interrupts.connected()).then_some(self.number)
    }

    /// What it signals, if it can.
    pub(crate) fn event(&self) -> Option<&Event> {
        self.number().and_then(|number| self.interrupts.events.get(usize::from(number)))
    }
}

impl Drop for Vector {
    fn drop(&mut self) {
        self.interrupts.free().push(self.number);
    }
}

/// An eventfd: readable from a signal on until it is cleared.
pub(crate) struct Event(File);

impl Event {
    fn new() -> Result<Self> {
        // SAFETY: takes numbers only.
        match unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) } {
            -1 => Err(Error::System { call: "eventfd", source: io::Error::last_os_error() }),
            // SAFETY: the descriptor is fresh, and nobody else's.
            fd => Ok(Self(unsafe { File::from_raw_fd(fd) })),
        }
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Forgets the signals that came. What they were for is to be looked for afterwards.
    pub(crate) fn clear(&self) {
        // It fails when there was none.
        (&self.0).read_exact(&mut [0; 8]).unwrap_or(());
    }

    fn signal(&self) {
        // It fails when there are more signals than can be counted, which is signal enough.
        (&self.0).write_all(&1u64.to_ne_bytes()).unwrap_or(());
    }

    /// Sleeps until a signal, or for `most`, rounded up to milliseconds; whether there is one.
    pub(crate) fn wait(&self, most: Duration) -> bool {
        let millis = most.as_nanos().div_ceil(1_000_000);
        let timeout = libc::c_int::try_from(millis).unwrap_or(libc::c_int::MAX);
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: `poll` is one pollfd, of an open descriptor, and outlives the call.
        match unsafe { libc::poll(&raw mut poll, 1, timeout) } {
            -1 => {
                let error = io::Error::last_os_error();
                // A signal to the process ends the sleep, which is no harm.
                if error.kind() != ErrorKind::Interrupted {
                    log::warn!("waiting for an interrupt: {error}");
                    std::thread::sleep(most.min(Duration::from_millis(1)));
                }
                false
            }
            ready => ready > 0,
        }
    }
}

#[cfg(test)]
mod tests;
