//! Controllers of nvio-driver on the embedded emulator.

use std::ops::Deref;
use std::path::Path;

use nvio_driver::{Address, Controller, Options, WritableNamespace};
use nvio_emulator::{Backing, Config, Emulator, NamespaceConfig};

/// A controller that this process serves, and drives over vfio-user.
///
/// The controller is closed before its emulator stops.
pub struct Served {
    /// The driver's side.
    pub controller: Watched,
    /// The device's side.
    pub emulator: Emulator,
}

impl Served {
    /// Starts an emulator with one namespace, and opens its controller read-only.
    pub fn new(namespace: NamespaceConfig) -> Self {
        Self::start(Emulator::builder().namespace(namespace), Options::default())
    }

    /// Starts an emulator with one namespace, and opens its controller for writing.
    pub fn writable(namespace: NamespaceConfig) -> Self {
        Self::start(Emulator::builder().namespace(namespace), writable())
    }

    /// Starts an emulator with one namespace of `bytes` bytes of memory, and opens its controller
    /// for writing.
    pub fn memory(bytes: u64) -> Self {
        Self::writable(NamespaceConfig::new(Backing::memory(bytes)))
    }

    /// Starts the emulator that `builder` describes, and opens its controller with `options`.
    pub fn start(builder: Config, options: Options) -> Self {
        let emulator = builder.start().expect("the emulator starts");
        Self { controller: open_with(&emulator, options), emulator }
    }

    /// Opens namespace 1 of a writable controller.
    pub fn writable_namespace(&self) -> WritableNamespace {
        let controller = self.controller.writable().expect("a writable controller");
        controller.writable_namespace(1).expect("a namespace")
    }
}

/// Returns the default options with write access.
pub fn writable() -> Options {
    Options { writable: true, ..Options::default() }
}

/// A controller that the test expects to work: it fails the test, when it is dropped, if the
/// driver had to reset it. A test that injects such a fault uses [`open_at`] instead.
#[derive(Debug)]
pub struct Watched(Controller);

impl Deref for Watched {
    type Target = Controller;

    fn deref(&self) -> &Controller {
        &self.0
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let unrequested = self.0.resets().unrequested();
            assert_eq!(unrequested, 0, "resets of the controller that the driver made");
        }
    }
}

/// Opens the controller that `emulator` serves, read-only.
pub fn open(emulator: &Emulator) -> Watched {
    open_with(emulator, Options::default())
}

/// Opens the controller that `emulator` serves.
pub fn open_with(emulator: &Emulator, options: Options) -> Watched {
    Watched(open_at(emulator.socket(), options))
}

/// Opens the controller that is served at `socket`, possibly by another process.
pub fn open_at(socket: &Path, options: Options) -> Controller {
    Controller::open_with(&Address::vfio_user(socket), options).expect("the controller opens")
}
