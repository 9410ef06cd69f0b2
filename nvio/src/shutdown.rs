//! The end of a program whose threads use devices.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use nvio_driver::Controller;

use crate::error::Error;

/// Shuts down all devices that were opened with it, while other threads use them. A program calls
/// it from the thread that handles signals, and exits then.
///
/// [`OpenOptions::shutdown`](crate::OpenOptions::shutdown) adds it to the options of a device.
///
/// # Examples
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// # let image = sample.path();
/// use nvio::{OpenOptions, Shutdown};
///
/// let shutdown = Shutdown::new();
/// let options = OpenOptions::new().emulate(true).shutdown(&shutdown);
/// let volume = options.open(&image)?;
/// assert!(volume.read("/hello.txt").is_ok());
///
/// // On the thread that handles signals:
/// shutdown.run();
/// assert!(volume.queue().is_err(), "the controller is shut down");
/// assert!(options.open(&image).is_err(), "and no other is opened");
/// # Ok::<(), nvio::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Shutdown(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    /// Signalled when `busy` is 0.
    settled: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// No device is opened any more.
    ended: bool,
    /// Number of devices that are being opened or closed.
    busy: usize,
    opened: Vec<(u64, Controller)>,
    next_id: u64,
}

impl Shutdown {
    /// Creates one without devices.
    ///
    /// See the [example](Self#examples).
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits for devices that are being opened or closed, and shuts all open ones down
    /// ([`Controller::shut_down`]). Failures are logged. No device can be opened with this value
    /// afterwards.
    ///
    /// See the [example](Self#examples).
    pub fn run(&self) {
        let mut state = self.state();
        state.ended = true;
        while state.busy > 0 {
            state = self.0.settled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        // Under the lock, so that a device that is closed meanwhile is not closed before this ends.
        for (_, controller) in &state.opened {
            if let Err(error) = controller.shut_down() {
                log::warn!("shutdown: {error}");
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to open a device.
    pub(crate) fn opening(&self) -> Result<Ticket, Error> {
        let mut state = self.state();
        if state.ended {
            return Err(nvio_driver::Error::ShutDown.into());
        }
        state.busy += 1;
        state.next_id += 1;
        Ok(Ticket { shutdown: self.clone(), id: state.next_id, is_busy: true })
    }
}

/// The record of a device. Its owner drops it after the controller.
#[derive(Debug)]
pub(crate) struct Ticket {
    shutdown: Shutdown,
    id: u64,
    is_busy: bool,
}

impl Ticket {
    /// Records that the device is open.
    pub(crate) fn opened(&mut self, controller: &Controller) {
        let mut state = self.shutdown.state();
        state.opened.push((self.id, controller.clone()));
        self.is_busy = false;
        self.shutdown.release(&mut state);
    }

    /// Records that the device is about to be closed.
    pub(crate) fn closing(&mut self) {
        let mut state = self.shutdown.state();
        state.busy += 1;
        self.is_busy = true;
        let id = self.id;
        let closed: Vec<_> = state.opened.extract_if(.., |(other, _)| *other == id).collect();
        drop(state);
        // The owner has a clone, so that this does not shut the controller down.
        drop(closed);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.is_busy {
            let mut state = self.shutdown.state();
            self.shutdown.release(&mut state);
        }
    }
}

impl Shutdown {
    fn release(&self, state: &mut State) {
        state.busy = state.busy.saturating_sub(1);
        if state.busy == 0 {
            self.0.settled.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::OpenOptions;
    use nvio_testkit::image::Sample;

    #[test]
    fn closed_devices_are_forgotten_and_open_ones_shut_down() {
        let sample = Sample::new();
        let shutdown = Shutdown::new();
        let options = OpenOptions::new().shutdown(&shutdown);
        let count = || {
            let state = shutdown.state();
            (state.busy, state.opened.len())
        };
        drop(options.open_device(sample.path()).unwrap());
        assert_eq!(count(), (0, 0));
        assert!(options.open_device(std::path::Path::new("/nonexistent")).is_err());
        assert_eq!(count(), (0, 0));

        let device = options.open_device(sample.path()).unwrap();
        assert_eq!(count(), (0, 1));
        shutdown.run();
        let error = device.namespace(None).err().unwrap().to_string();
        assert!(error.contains("was shut down"), "{error}");
        let resets = device.controller().resets().requested();
        assert!(device.controller().reset().is_err(), "a reset would enable it again");
        assert_eq!(device.controller().resets().requested(), resets);
        // A second run has nothing to do.
        shutdown.run();
        drop(device);
        assert_eq!(count(), (0, 0));
    }

    #[test]
    fn reads_in_flight_end() {
        let sample = Sample::new();
        let shutdown = Shutdown::new();
        let options = OpenOptions::new().emulate(true).shutdown(&shutdown);
        let volume = options.open(sample.path()).unwrap();
        let reader = std::thread::spawn(move || {
            // Ends only by an error.
            while volume.read("/hello.txt").is_ok() {}
        });
        std::thread::sleep(std::time::Duration::from_millis(20));
        shutdown.run();
        reader.join().unwrap();
    }
}
