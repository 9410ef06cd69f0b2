//! The kernel's side of a PCI device, through sysfs: which NVMe controllers there are, who uses
//! them, and the way from the kernel's driver to vfio-pci and back.
//!
//! Nothing here touches a device's registers. Everything starts from one [`Sysfs`], whose root
//! directory can be another than `/`, so that the tests run against a tree they made.
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

mod address;
mod bind;
mod device;
mod error;
#[cfg(test)]
mod fake;
mod iommu;
mod module;
mod mounts;
mod record;
mod sysfs;
#[cfg(test)]
mod tests;
mod usage;

pub use address::PciAddress;
pub use bind::{Bound, Unbound};
pub use device::{BlockDevice, DeviceNumber, KernelController, NvmeDevice, Partition};
pub use error::Error;
pub use iommu::Neighbour;
pub use sysfs::Sysfs;
pub use usage::{Use, UseKind};

/// The driver that hands a device to user space.
pub const VFIO_PCI: &str = "vfio-pci";
