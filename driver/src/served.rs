//! Controllers on the embedded emulator, for the unit tests of this crate. Other crates use those of
//! `tests/kit`, which depends on this crate.

use nvio_emulator::{Config, Emulator};

use crate::{Address, Controller, Options, WritableNamespace};

/// A controller, and the emulator that serves it.
pub(crate) struct Served {
    pub controller: Controller,
    pub emulator: Emulator,
}

impl Served {
    /// Starts the emulator that `builder` describes, and opens its controller with `options`.
    pub fn start(builder: Config, options: Options) -> Self {
        let emulator = builder.start().unwrap();
        let address = Address::vfio_user(emulator.socket());
        let controller = Controller::open_with(&address, options).unwrap();
        Self { controller, emulator }
    }

    /// Opens namespace 1 of a writable controller.
    pub fn writable_namespace(&self) -> WritableNamespace {
        self.controller.writable().unwrap().writable_namespace(1).unwrap()
    }
}

/// Returns the default options with write access.
pub(crate) fn writable() -> Options {
    Options { writable: true, ..Options::default() }
}
