//! Binding a device to vfio-pci, and back to the kernel's driver.
//!
//! `unbind`, and a `bind` that failed half way, both end in [`Sysfs::restore`], which brings a
//! device from any state to the recorded one.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::address::PciAddress;
use super::error::Error;
use super::record::Record;
use super::sysfs::{Sysfs, VFIO_PCI, poll_for};

/// The driver of a device without a record.
const DEFAULT_DRIVER: &str = "nvme";
/// Longest wait for the kernel to find namespaces after `nvme` is bound; a controller may have
/// none.
const SCAN_TIMEOUT: Duration = Duration::from_secs(3);

/// The result of [`Sysfs::bind`].
///
/// See the [example](Sysfs#examples).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The IOMMU group, whose file is `/dev/vfio/<group>`.
    pub group: u32,
    /// The former driver, which [`Sysfs::unbind`] restores.
    pub former: Option<String>,
    /// The controller was bound to vfio-pci before the call.
    pub already: bool,
}

/// The result of [`Sysfs::unbind`].
///
/// See the [example](crate::pci::Sysfs#examples).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unbound {
    /// The controller's driver now; `None` if it had none before `bind`.
    pub driver: Option<String>,
    /// Names of its namespaces' block devices.
    pub devices: Vec<String>,
    /// The controller had that driver before the call.
    pub already: bool,
}

impl Sysfs {
    /// Moves an NVMe controller from its driver to vfio-pci. A controller that is bound to vfio-pci
    /// is left as it is. If a step fails, the former state is restored.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::GroupShared`], [`Error::NoIommu`], [`Error::NoDriver`],
    /// [`Error::BindTimeout`], or if a file cannot be read or written.
    pub fn bind(&self, address: PciAddress) -> Result<Bound, Error> {
        let device = self.nvme_device(address)?;
        let group = self.usable_group(address)?;
        if device.driver.as_deref() == Some(VFIO_PCI) {
            let former =
                self.recall(address)?.map_or(Some(DEFAULT_DRIVER.to_owned()), |r| r.driver);
            return Ok(Bound { group, former, already: true });
        }
        let uses = self.uses(&device)?;
        if !uses.is_empty() {
            return Err(Error::InUse { address, uses });
        }
        self.ensure_driver(VFIO_PCI)?;
        let record = Record {
            driver: device.driver.clone(),
            driver_override: self.driver_override(address)?,
        };
        // The claims prevent mounts until the block devices are gone.
        let claims = self.claims(&device)?;
        self.remember(address, &record)?;
        let moved = self
            .hand_over(address, VFIO_PCI, || drop(claims))
            .and_then(|()| self.set_override(address, record.driver_override.as_deref()));
        match moved {
            Ok(()) => Ok(Bound { group, former: record.driver, already: false }),
            Err(step) => Err(self.undo(address, &record, step)),
        }
    }

    /// Moves a controller back to the driver it had before [`Sysfs::bind`], or to `nvme` if that is
    /// not known, and restores its `driver_override`. A controller that is bound to a driver other
    /// than vfio-pci is left as it is.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Driven`], [`Error::NoDriver`], [`Error::BindTimeout`], or if a file cannot be read
    /// or written.
    pub fn unbind(&self, address: PciAddress) -> Result<Unbound, Error> {
        let device = self.nvme_device(address)?;
        let already = device.driver.as_deref().is_some_and(|driver| driver != VFIO_PCI);
        if already {
            let devices = self.block_names(address)?;
            return Ok(Unbound { driver: device.driver, devices, already });
        }
        if let (Some(_), Some(group)) = (&device.driver, device.iommu_group) {
            self.check_not_open(address, group)?;
        }
        let default = || Record { driver: Some(DEFAULT_DRIVER.to_owned()), driver_override: None };
        let record = self.recall(address)?.unwrap_or_else(default);
        self.restore(address, &record)?;
        let devices = self.await_namespaces(address, record.driver.as_deref())?;
        Ok(Unbound { driver: record.driver, devices, already })
    }

    /// Brings the device from any state to the one in `record`.
    fn restore(&self, address: PciAddress, record: &Record) -> Result<(), Error> {
        let current = self.driver(address)?;
        let moved = match record.driver.as_deref() {
            driver if driver == current.as_deref() => Ok(()),
            Some(driver) => {
                self.ensure_driver(driver).and_then(|()| self.hand_over(address, driver, || ()))
            }
            None => self.release(address),
        };
        // Restored in any case, because it decides which driver may bind the device later.
        let restored = self.set_override(address, record.driver_override.as_deref());
        moved.and(restored)?;
        self.forget(address)
    }

    fn undo(&self, address: PciAddress, record: &Record, step: Error) -> Error {
        log::debug!("{address}: restoring {record:?} after: {step}");
        match self.restore(address, record) {
            Ok(()) => step,
            Err(undo) => {
                let cause = std::error::Error::source(&step).map(|cause| format!(": {cause}"));
                let step = format!("{step}{}", cause.unwrap_or_default());
                Error::Undo { step, undo: Box::new(undo) }
            }
        }
    }

    /// Makes `driver` the only one that matches the device, and binds the device to it. Calls
    /// `released` after the former driver has released the device. Leaves `driver_override` set.
    fn hand_over(
        &self,
        address: PciAddress,
        driver: &str,
        released: impl FnOnce(),
    ) -> Result<(), Error> {
        self.set_override(address, Some(driver))?;
        self.release(address)?;
        released();
        // Not drivers_probe, which does not report why a driver failed.
        self.store(&self.driver_dir(driver).join("bind"), &address.to_string())?;
        self.await_driver(address, Some(driver))
    }

    /// Unbinds the device from its driver, if it has one.
    fn release(&self, address: PciAddress) -> Result<(), Error> {
        let Some(driver) = self.driver(address)? else { return Ok(()) };
        self.store(&self.driver_dir(&driver).join("unbind"), &address.to_string())?;
        self.await_driver(address, None)
    }

    fn driver_override(&self, address: PciAddress) -> Result<Option<String>, Error> {
        let text = self.attribute(&self.device_dir(address).join("driver_override"))?;
        Ok(text.filter(|text| !text.is_empty() && text != "(null)"))
    }

    fn set_override(&self, address: PciAddress, driver: Option<&str>) -> Result<(), Error> {
        if self.driver_override(address)?.as_deref() == driver {
            return Ok(());
        }
        // A newline alone clears it.
        let value = format!("{}\n", driver.unwrap_or_default());
        self.store(&self.device_dir(address).join("driver_override"), &value)
    }

    fn await_driver(&self, address: PciAddress, driver: Option<&str>) -> Result<(), Error> {
        let waited = self.timeout;
        let bound = || Ok((self.driver(address)?.as_deref() == driver).then_some(()));
        let timeout = Error::BindTimeout { address, driver: driver.map(str::to_owned), waited };
        poll_for::<_, Error>(waited, bound)?.ok_or(timeout)
    }

    /// Waits for the kernel to find namespaces, so that a mount can follow at once, and returns
    /// their names. A controller without namespaces is not an error.
    fn await_namespaces(
        &self,
        address: PciAddress,
        driver: Option<&str>,
    ) -> Result<Vec<String>, Error> {
        let found = || {
            let names = self.block_names(address)?;
            Ok((!names.is_empty() || driver != Some("nvme")).then_some(names))
        };
        Ok(poll_for::<_, Error>(SCAN_TIMEOUT.min(self.timeout), found)?.unwrap_or_default())
    }

    fn block_names(&self, address: PciAddress) -> Result<Vec<String>, Error> {
        let device = self.nvme_device(address)?;
        Ok(device.namespaces().iter().map(|namespace| namespace.name.clone()).collect())
    }

    /// Returns the processes that drive the device through VFIO, as far as `/proc` shows them to
    /// this process. `None` if there are none, or if this process may not open the group's file.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// If the device's IOMMU group cannot be read.
    pub fn driven_by(&self, address: PciAddress) -> Result<Option<Vec<u32>>, Error> {
        let Some(group) = self.iommu_group(address)? else { return Ok(None) };
        match self.check_not_open(address, group) {
            Ok(()) => Ok(None),
            Err(Error::Driven { processes, .. }) => Ok(Some(processes)),
            Err(error) => Err(error),
        }
    }

    /// Fails if a process has the device's group open, because a write to `unbind` would wait for
    /// that process without a bound and ignore signals. A group can be opened only once at a time.
    fn check_not_open(&self, address: PciAddress, group: u32) -> Result<(), Error> {
        let path = self.path("dev/vfio").join(group.to_string());
        match std::fs::OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                let node = PathBuf::from(format!("/dev/vfio/{group}"));
                Err(Error::Driven { address, processes: self.openers(&node) })
            }
            _ => Ok(()),
        }
    }

    /// Returns the processes that have `node` open, as far as `/proc` shows them to this process.
    fn openers(&self, node: &Path) -> Vec<u32> {
        let proc = self.path("proc");
        let has_open = |process: &u32| {
            let dir = proc.join(process.to_string()).join("fd");
            let names = self.names(&dir).unwrap_or_default();
            names.iter().any(|fd| std::fs::read_link(dir.join(fd)).is_ok_and(|to| to == node))
        };
        let names = self.names(&proc).unwrap_or_default();
        names.iter().filter_map(|name| name.parse().ok()).filter(has_open).collect()
    }
}
