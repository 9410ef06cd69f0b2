//! The errors of [`pci`](super).

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::address::{ParsePciAddressError, PciAddress};
use super::neighbour::Neighbour;
use super::usage::Use;

/// An error of [`pci`](super). A message ends with the step that removes the cause, if there is
/// one.
///
/// ```
/// use nvio_driver::pci::{Error, Sysfs};
///
/// let error = Sysfs::at("/nonexistent").nvme_device("01:00.0".parse()?).unwrap_err();
/// assert!(matches!(error, Error::NoDevice { .. }));
/// # Ok::<(), nvio_driver::pci::Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Text is not a PCI address.
    #[error(transparent)]
    Address(#[from] ParsePciAddressError),
    /// There is no such device.
    #[error("there is no PCI device {address} ({path} does not exist)")]
    NoDevice {
        /// The requested address.
        address: PciAddress,
        /// The directory that does not exist.
        path: PathBuf,
    },
    /// The device is not an NVMe controller.
    #[error(
        "PCI device {address} is not an NVMe controller: its class is {class:#08x}, not 0x010802"
    )]
    NotNvme {
        /// The device's address.
        address: PciAddress,
        /// The device's class code.
        class: u32,
    },
    /// A file could not be read, written, opened or removed.
    #[error("cannot {action} {path}{}", root_hint(.source))]
    Io {
        /// The attempted operation, a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The content of a file cannot be parsed.
    #[error("{path} holds {content:?}, expected {expected}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// At most 64 characters of its content.
        content: String,
        /// The expected form of the content.
        expected: &'static str,
    },
    /// The kernel uses the device.
    #[error("{address} is in use: {}; {}", list(.uses), remedy(.uses))]
    InUse {
        /// The device's address.
        address: PciAddress,
        /// The uses of its block devices.
        uses: Vec<Use>,
    },
    /// The IOMMU cannot isolate the device from others, and those have drivers.
    #[error(
        "{address} shares IOMMU group {group} with {}; unbind these from their drivers or bind \
         them to vfio-pci too, or move the device to another slot",
        list(.others)
    )]
    GroupShared {
        /// Address of the device.
        address: PciAddress,
        /// The group.
        group: u32,
        /// The other devices, with their drivers.
        others: Vec<Neighbour>,
    },
    /// No IOMMU translates for the device.
    #[error("no IOMMU is on for {address}: {advice}")]
    NoIommu {
        /// Address of the device.
        address: PciAddress,
        /// The change to the kernel's command line or to the firmware's setup that turns it on.
        advice: String,
    },
    /// A kernel driver is not loaded, and loading it failed.
    #[error(
        "the kernel driver {driver} is not loaded ({reason}); as root, run `modprobe {driver}`"
    )]
    NoDriver {
        /// The driver.
        driver: String,
        /// Error of the attempt to load the module.
        reason: String,
    },
    /// The kernel accepted a request to bind or unbind a device, and did not carry it out in time.
    #[error("{address} is not bound to {} after {waited:?}; `dmesg` says why", name(.driver))]
    BindTimeout {
        /// Address of the device.
        address: PciAddress,
        /// The driver that the device should have; `None` if it should have none.
        driver: Option<String>,
        /// The bound of the wait.
        waited: Duration,
    },
    /// Another process drives the device through VFIO. Unbinding would wait for that process
    /// without a bound.
    #[error("{address} is open in {}; end that first", holders(.processes))]
    Driven {
        /// Address of the device.
        address: PciAddress,
        /// The processes that have its VFIO file open, as far as `/proc` shows them.
        processes: Vec<u32>,
    },
    /// A step failed, and restoring the former state failed as well.
    #[error("{step}; restoring the former state failed too: {undo}")]
    Undo {
        /// The step's error, with its cause.
        step: String,
        /// The error of restoring the former state.
        undo: Box<Error>,
    },
}

impl Error {
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { action, path: path.into(), source }
    }

    pub(super) fn malformed(
        path: impl Into<PathBuf>,
        content: &str,
        expected: &'static str,
    ) -> Self {
        let content = content.chars().take(64).collect();
        Self::Malformed { path: path.into(), content, expected }
    }
}

fn name(driver: &Option<String>) -> &str {
    driver.as_deref().unwrap_or("no driver")
}

fn root_hint(source: &io::Error) -> &'static str {
    if source.kind() == io::ErrorKind::PermissionDenied { " (this needs root)" } else { "" }
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn remedy(uses: &[Use]) -> String {
    let mut steps: Vec<&str> = uses.iter().map(Use::remedy).collect();
    steps.dedup();
    format!("{} first", steps.join(" and "))
}

fn holders(processes: &[u32]) -> String {
    match processes {
        [] => "another process".to_owned(),
        [one] => format!("process {one}"),
        many => format!("processes {}", list(many)),
    }
}
