//! PCI devices as sysfs shows them: the NVMe controllers of the machine, their users, and binding
//! between the kernel's driver and vfio-pci.
//!
//! No function here accesses a device's registers. Every operation starts from a [`Sysfs`], whose
//! root directory can differ from `/`, so that the tests run on a tree of their own.
//!
//! ```no_run
//! use nvio_driver::pci::Sysfs;
//!
//! let sysfs = Sysfs::new();
//! for device in sysfs.nvme_devices()? {
//!     println!("{} {:?}", device.address, device.driver);
//! }
//! sysfs.bind("0000:01:00.0".parse()?)?;
//! # Ok::<(), nvio_driver::pci::Error>(())
//! ```
#![forbid(unsafe_code)]

pub(crate) mod address;
mod bind;
mod device;
pub(crate) mod error;
#[cfg(test)]
mod fake;
mod find_uses;
mod iommu;
mod memory_node;
mod module;
mod mounts;
mod neighbour;
mod record;
pub(crate) mod sysfs;
#[cfg(test)]
mod tests;
mod usage;

pub use address::{ParsePciAddressError, PciAddress};
pub use bind::{Bound, Unbound};
pub use device::{BlockDevice, DeviceNumber, KernelController, NvmeDevice, Partition};
pub use error::Error;
pub use neighbour::Neighbour;
pub use sysfs::{Sysfs, VFIO_PCI};
pub use usage::{Use, UseKind};
