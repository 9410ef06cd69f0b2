//! `nvio bind` and `nvio unbind`.

use nvio_driver::pci::{PciAddress, Sysfs, VFIO_PCI};

use crate::error::Error;
use crate::output::Output;

/// Binds a controller to vfio-pci.
///
/// # Errors
/// As [`Sysfs::bind`].
pub fn bind(address: PciAddress) -> Result<(), Error> {
    let bound = Sysfs::new().bind(address)?;
    let former = bound.former.as_deref().unwrap_or("no driver");
    let text = if bound.already {
        format!("{address} is bound to {VFIO_PCI} already (/dev/vfio/{})", bound.group)
    } else {
        let group = bound.group;
        format!("{address} is bound to {VFIO_PCI} (/dev/vfio/{group}), before to {former}")
    };
    say(&text)
}

/// Binds a controller to the driver it had before.
///
/// # Errors
/// As [`Sysfs::unbind`].
pub fn unbind(address: PciAddress) -> Result<(), Error> {
    let unbound = Sysfs::new().unbind(address)?;
    let driver = unbound.driver.as_deref().unwrap_or("no driver, as it was before");
    let how = if unbound.already { "already" } else { "again" };
    let devices: Vec<String> = unbound.devices.iter().map(|name| format!("/dev/{name}")).collect();
    let devices =
        if devices.is_empty() { String::new() } else { format!(" ({})", devices.join(", ")) };
    say(&format!("{address} is bound to {driver} {how}{devices}"))
}

fn say(text: &str) -> Result<(), Error> {
    let mut out = Output::new();
    out.line(text)?;
    out.flush()
}
