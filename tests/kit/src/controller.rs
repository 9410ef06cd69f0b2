//! Controllers of nvio-driver on the embedded emulator.

use nvio_driver::{Address, Controller, Options};
use nvio_emulator::{Backing, Emulator, EmulatorBuilder, NamespaceConfig};

/// A controller that this process serves, and drives over vfio-user.
///
/// The controller is closed before its emulator stops.
pub struct Served {
    /// The driver's side.
    pub controller: Controller,
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
    pub fn start(builder: EmulatorBuilder, options: Options) -> Self {
        let emulator = builder.start().expect("the emulator starts");
        Self { controller: open_with(&emulator, options), emulator }
    }
}

/// Returns the default options with write access.
pub fn writable() -> Options {
    Options { writable: true, ..Options::default() }
}

/// Opens the controller that `emulator` serves, read-only.
pub fn open(emulator: &Emulator) -> Controller {
    open_with(emulator, Options::default())
}

/// Opens the controller that `emulator` serves.
pub fn open_with(emulator: &Emulator, options: Options) -> Controller {
    let address = Address::VfioUser(emulator.socket().to_owned());
    Controller::open_with(&address, options).expect("the controller opens")
}
