//! `nvio bind` and `nvio unbind`.

use std::process::ExitCode;

use clap::Args;
use nvio_driver::pci::{PciAddress, Sysfs, VFIO_PCI};

use crate::error::Error;
use crate::output::Output;

/// Bind a controller to vfio-pci instead of the kernel's driver.
#[derive(Debug, Args)]
pub struct Bind {
    /// PCI address, such as 0000:01:00.0.
    address: PciAddress,
}

impl Bind {
    /// Binds a controller to vfio-pci.
    ///
    /// # Errors
    /// As [`Sysfs::bind`].
    pub fn run(&self) -> Result<ExitCode, Error> {
        let address = self.address;
        let bound = Sysfs::new().bind(address)?;
        let (group, former) = (bound.group, bound.former.as_deref().unwrap_or("no driver"));
        say(&if bound.already {
            format!("{address} is bound to {VFIO_PCI} already (/dev/vfio/{group})")
        } else {
            format!("{address} is bound to {VFIO_PCI} (/dev/vfio/{group}), before to {former}")
        })
    }
}

/// Bind a controller to the driver it had before `nvio bind`.
#[derive(Debug, Args)]
pub struct Unbind {
    /// PCI address, such as 0000:01:00.0.
    address: PciAddress,
}

impl Unbind {
    /// Binds a controller to the driver it had before.
    ///
    /// # Errors
    /// As [`Sysfs::unbind`].
    pub fn run(&self) -> Result<ExitCode, Error> {
        let address = self.address;
        let unbound = Sysfs::new().unbind(address)?;
        let driver = unbound.driver.as_deref().unwrap_or("no driver, as it was before");
        let how = if unbound.already { "already" } else { "again" };
        let devices: Vec<String> =
            unbound.devices.iter().map(|name| format!("/dev/{name}")).collect();
        let devices =
            if devices.is_empty() { String::new() } else { format!(" ({})", devices.join(", ")) };
        say(&format!("{address} is bound to {driver} {how}{devices}"))
    }
}

fn say(text: &str) -> Result<ExitCode, Error> {
    let mut out = Output::new();
    out.line(text)?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
