//! A controller that the driver has opened, and the machine behind it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use nvio_driver::{Controller, Options, WritableController};
use nvio_emulator::{Config, Faults};

use super::machine::Machine;
use super::transport::Simulated;
use super::{Checked, Wrong, ensure, lock, wrong};

/// The controller of a run, on both sides. The driver's side is dropped first.
pub struct Device {
    controller: Option<WritableController>,
    machine: Arc<Mutex<Machine>>,
    /// Allocated pages of the arena when they were counted last.
    pages: usize,
}

impl Device {
    /// Creates a controller at power on, which the driver has not opened. `seed` determines when it
    /// makes progress, and `iova` is the preferred address of the arena.
    ///
    /// # Errors
    /// If the settings are invalid.
    pub fn new(config: &Config, seed: u64, iova: u64, print: bool) -> Checked<Self> {
        let machine = Machine::new(config, seed, iova, print)
            .map_err(|error| wrong("the settings of the controller", &error))?;
        Ok(Self { controller: None, machine: Arc::new(Mutex::new(machine)), pages: 0 })
    }

    /// Opens the controller.
    ///
    /// # Errors
    /// Any failure, because faults are not enabled yet.
    pub fn open(&mut self, options: Options) -> Checked<WritableController> {
        let failed = |error| wrong("opening a controller without faults", &error);
        let transport = Simulated::new(&self.machine).map_err(failed)?;
        let controller = Controller::open_on(Box::new(transport), options).map_err(failed)?;
        let controller = controller.writable().map_err(failed)?;
        self.controller = Some(controller.clone());
        self.count_pages();
        Ok(controller)
    }

    /// Closes the controller. All queue pairs must have been dropped.
    pub fn close(&mut self) {
        self.controller = None;
    }

    /// Returns a handle of the open controller.
    ///
    /// # Errors
    /// If none is open.
    pub fn controller(&self) -> Checked<WritableController> {
        self.controller.clone().ok_or(Wrong("no controller is open".into()))
    }

    /// Returns the machine, which the clients of a queue share.
    pub fn machine(&self) -> &Arc<Mutex<Machine>> {
        &self.machine
    }

    /// Calls a function with the machine.
    pub fn with<T>(&self, act: impl FnOnce(&mut Machine) -> T) -> T {
        act(&mut lock(&self.machine))
    }

    /// Returns the time.
    pub fn now(&self) -> Duration {
        self.with(|machine| machine.now())
    }

    /// Records an event in the trace.
    pub fn note(&self, what: &'static str, numbers: &[u64]) {
        self.with(|machine| lock(&machine.trace).note(what, numbers));
    }

    /// Prints a line, if printing is on.
    pub fn say(&self, line: impl FnOnce() -> String) {
        self.with(|machine| lock(&machine.trace).say(line));
    }

    /// Replaces the faults.
    ///
    /// # Errors
    /// If a rate is invalid.
    pub fn set_faults(&self, faults: &Faults) -> Checked {
        self.with(|machine| machine.set_faults(faults)).map_err(|error| wrong("the faults", &error))
    }

    /// Records the number of allocated pages, with which [`check_pages`](Self::check_pages) compares.
    pub fn count_pages(&mut self) {
        self.pages = self.allocated();
    }

    /// Checks that no memory has leaked, after all buffers were returned.
    ///
    /// # Errors
    /// If the number of allocated pages has changed.
    pub fn check_pages(&self) -> Checked {
        let (before, now) = (self.pages, self.allocated());
        ensure!(before == now, "{before} pages of the arena became {now}");
        Ok(())
    }

    /// Checks that the controller has accessed only lent memory.
    ///
    /// # Errors
    /// The first invalid access.
    pub fn check_accesses(&self) -> Checked {
        self.with(|machine| match lock(&machine.table).wrong() {
            Some(wrong) => Err(Wrong(wrong.to_owned())),
            None => Ok(()),
        })
    }

    /// Returns the number of allocated pages in the arena.
    fn allocated(&self) -> usize {
        let Some(controller) = &self.controller else { return 0 };
        let arena = controller.arena();
        let pages = (arena.iova()..arena.iova() + arena.size() as u64).step_by(4096);
        pages.filter(|&page| arena.is_allocated(page, 1)).count()
    }
}
