//! The PCI function around the controller, and its server of vfio-user.

pub(crate) mod device;
pub(crate) mod emulator;
pub(crate) mod gate;
pub(crate) mod helper;
pub(crate) mod interrupts;
pub(crate) mod message;
pub(crate) mod pci_config;
pub(crate) mod poller;
pub(crate) mod server;
pub(crate) mod shared;
pub(crate) mod socket;
