//! What can go wrong on the sysfs side of PCI.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::{Neighbour, PciAddress, Use};

/// An error of [`pci`](super). Each message ends with what to do, where anything can be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Text that is no PCI address.
    #[error("{text:?} is no PCI address; write it as 0000:01:00.0")]
    BadAddress {
        /// The text.
        text: String,
    },
    /// There is no such device.
    #[error("there is no PCI device {address} ({path} does not exist)")]
    NoDevice {
        /// Address that was asked for.
        address: PciAddress,
        /// Directory that was expected.
        path: PathBuf,
    },
    /// The device is something else than an NVMe controller.
    #[error(
        "PCI device {address} is not an NVMe controller: its class is {class:#08x}, not 0x010802"
    )]
    NotNvme {
        /// Its address.
        address: PciAddress,
        /// Its class code.
        class: u32,
    },
    /// A file could not be read, written, opened or removed.
    #[error("cannot {action} {path}{}", root_hint(.source))]
    Io {
        /// What was tried: a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file holds something else than the kernel writes there.
    #[error("{path} holds {content:?}, expected {expected}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it holds, cut after 64 characters.
        content: String,
        /// What should be there.
        expected: &'static str,
    },
    /// The kernel uses the device.
    #[error("{address} is in use: {}; {}", list(.uses), remedy(.uses))]
    InUse {
        /// Its address.
        address: PciAddress,
        /// What uses it.
        uses: Vec<Use>,
    },
    /// The IOMMU cannot tell the device from others, and those have drivers.
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
        /// The others, with their drivers.
        others: Vec<Neighbour>,
    },
    /// No IOMMU translates for the device.
    #[error("no IOMMU is on for {address}: {advice}")]
    NoIommu {
        /// Address of the device.
        address: PciAddress,
        /// What to put on the kernel command line or to change in the firmware's setup.
        advice: String,
    },
    /// A kernel driver is not there and could not be loaded.
    #[error(
        "the kernel driver {driver} is not loaded ({reason}); as root, run `modprobe {driver}`"
    )]
    NoDriver {
        /// The driver.
        driver: String,
        /// Why loading it failed.
        reason: String,
    },
    /// The kernel took the request and nothing came of it.
    #[error("{driver} did not take {address} within {waited:?}; `dmesg` says why")]
    NotTaken {
        /// Address of the device.
        address: PciAddress,
        /// The driver that was to take it.
        driver: String,
        /// How long was waited.
        waited: Duration,
    },
    /// Another process drives the device through VFIO; unbinding would wait for it without end.
    #[error("{address} is open in {}; end that first", holders(.processes))]
    Driven {
        /// Address of the device.
        address: PciAddress,
        /// The processes that have its VFIO file open, as far as they could be seen.
        processes: Vec<u32>,
    },
    /// A step failed, and so did putting back what had been changed before it.
    #[error("{step}; putting it back failed too: {undo}")]
    Undo {
        /// The step's error, with its cause.
        step: String,
        /// What failed afterwards.
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
