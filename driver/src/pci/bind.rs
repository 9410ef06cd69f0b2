//! From the kernel's driver to vfio-pci and back.
//!
//! Both ways end in [`Sysfs::restore`], which brings a device from whatever state it is in to a
//! recorded one: the way back is the same for `unbind` and for a `bind` that failed half way.

use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::record::Record;
use super::{Error, PciAddress, Sysfs, VFIO_PCI};

/// The driver of a device of which nothing is known.
const DEFAULT_DRIVER: &str = "nvme";
/// The kernel finds the namespaces after `nvme` has taken the device; some have none.
const SCAN: Duration = Duration::from_secs(3);
const TICK: Duration = Duration::from_millis(5);

/// What came of [`Sysfs::bind`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The IOMMU group: the device's file is `/dev/vfio/<group>`.
    pub group: u32,
    /// The driver it had, to which [`Sysfs::unbind`] gives it back.
    pub former: Option<String>,
    /// Whether it was bound to vfio-pci before.
    pub already: bool,
}

/// What came of [`Sysfs::unbind`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unbound {
    /// The driver that has it now; `None` if it had none before it was bound.
    pub driver: Option<String>,
    /// Names of its namespaces' block devices.
    pub devices: Vec<String>,
    /// Whether that driver had it before.
    pub already: bool,
}

impl Sysfs {
    /// Takes an NVMe controller from its driver and gives it to vfio-pci. Nothing is changed for
    /// a controller that vfio-pci has, and nothing stays changed if a step fails.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::GroupShared`], [`Error::NoIommu`], [`Error::NoDriver`],
    /// [`Error::NotTaken`], or if a file cannot be read or written.
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
        // From here nobody can mount it, until the block devices are gone.
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

    /// Gives a controller back to the driver it had before [`Sysfs::bind`], or to `nvme` if that
    /// is not known, and puts back its `driver_override`. Nothing is changed for a controller
    /// that another driver than vfio-pci has.
    ///
    /// # Errors
    /// [`Error::Driven`], [`Error::NoDriver`], [`Error::NotTaken`], or if a file cannot be read or
    /// written.
    pub fn unbind(&self, address: PciAddress) -> Result<Unbound, Error> {
        let device = self.nvme_device(address)?;
        let already = device.driver.as_deref().is_some_and(|driver| driver != VFIO_PCI);
        if already {
            let devices = self.block_names(address)?;
            return Ok(Unbound { driver: device.driver, devices, already });
        }
        if let (Some(_), Some(group)) = (&device.driver, device.iommu_group) {
            self.refuse_driven(address, group)?;
        }
        let default = || Record { driver: Some(DEFAULT_DRIVER.to_owned()), driver_override: None };
        let record = self.recall(address)?.unwrap_or_else(default);
        self.restore(address, &record)?;
        let devices = self.await_namespaces(address, record.driver.as_deref())?;
        Ok(Unbound { driver: record.driver, devices, already })
    }

    /// Brings the device to what `record` says, from any state.
    fn restore(&self, address: PciAddress, record: &Record) -> Result<(), Error> {
        let current = self.driver(address)?;
        let moved = match record.driver.as_deref() {
            driver if driver == current.as_deref() => Ok(()),
            Some(driver) => {
                self.ensure_driver(driver).and_then(|()| self.hand_over(address, driver, || ()))
            }
            None => self.release(address),
        };
        // Put back in any case: it decides which driver may take the device later.
        let put_back = self.set_override(address, record.driver_override.as_deref());
        moved.and(put_back)?;
        self.forget(address)
    }

    fn undo(&self, address: PciAddress, record: &Record, step: Error) -> Error {
        log::debug!("{address}: putting back {record:?} after: {step}");
        match self.restore(address, record) {
            Ok(()) => step,
            Err(undo) => {
                let cause = std::error::Error::source(&step).map(|cause| format!(": {cause}"));
                let step = format!("{step}{}", cause.unwrap_or_default());
                Error::Undo { step, undo: Box::new(undo) }
            }
        }
    }

    /// Lets `driver` alone match the device, and moves the device to it. `released` is called
    /// when the former driver has let go. Leaves `driver_override` set.
    fn hand_over(
        &self,
        address: PciAddress,
        driver: &str,
        released: impl FnOnce(),
    ) -> Result<(), Error> {
        self.set_override(address, Some(driver))?;
        self.release(address)?;
        released();
        // Rather than drivers_probe, which does not report why a driver refused.
        self.store(&self.driver_dir(driver).join("bind"), &address.to_string())?;
        self.await_driver(address, Some(driver))
    }

    /// Takes the device from its driver, if it has one.
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
        let deadline = Instant::now() + self.patience;
        while self.driver(address)?.as_deref() != driver {
            if Instant::now() >= deadline {
                let driver = driver.map_or("no driver at all", |driver| driver).to_owned();
                return Err(Error::NotTaken { address, driver, waited: self.patience });
            }
            sleep(TICK);
        }
        Ok(())
    }

    /// So that a mount can follow at once. That there are none is no error.
    fn await_namespaces(
        &self,
        address: PciAddress,
        driver: Option<&str>,
    ) -> Result<Vec<String>, Error> {
        let deadline = Instant::now() + SCAN.min(self.patience);
        loop {
            let names = self.block_names(address)?;
            let done = !names.is_empty() || driver != Some("nvme");
            if done || Instant::now() >= deadline {
                return Ok(names);
            }
            sleep(TICK);
        }
    }

    fn block_names(&self, address: PciAddress) -> Result<Vec<String>, Error> {
        let device = self.nvme_device(address)?;
        Ok(device.namespaces().iter().map(|namespace| namespace.name.clone()).collect())
    }

    /// The processes that drive the device through VFIO, as far as `/proc` shows them to us. `None`
    /// if nobody does, or if we may not know.
    ///
    /// # Errors
    /// If the device's IOMMU group cannot be read.
    pub fn driven_by(&self, address: PciAddress) -> Result<Option<Vec<u32>>, Error> {
        let Some(group) = self.iommu_group(address)? else { return Ok(None) };
        match self.refuse_driven(address, group) {
            Ok(()) => Ok(None),
            Err(Error::Driven { processes, .. }) => Ok(Some(processes)),
            Err(error) => Err(error),
        }
    }

    /// The kernel would wait in `unbind`, without end and past any signal, for whoever has the
    /// group open. A group can be opened once only, so trying tells.
    fn refuse_driven(&self, address: PciAddress, group: u32) -> Result<(), Error> {
        let path = self.path("dev/vfio").join(group.to_string());
        match std::fs::OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                let node = PathBuf::from(format!("/dev/vfio/{group}"));
                Err(Error::Driven { address, processes: self.openers(&node) })
            }
            _ => Ok(()),
        }
    }

    /// Processes that have `node` open, as far as `/proc` shows them to us.
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
