//! nvio-driver

pub mod pci;
