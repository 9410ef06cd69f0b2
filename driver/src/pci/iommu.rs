//! IOMMU groups: who is in one, and what to say when there is none.

use std::fmt;

use super::{Error, PciAddress, Sysfs, VFIO_PCI};

/// Another device of the same IOMMU group, with the driver that keeps the group from user space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address, as sysfs names it.
    pub device: String,
    /// Its driver.
    pub driver: String,
}

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (bound to {})", self.device, self.driver)
    }
}

impl Sysfs {
    /// The IOMMU group of a PCI device. `None` if no IOMMU is on for it.
    ///
    /// # Errors
    /// If the link cannot be read or leads to something without a number.
    pub fn iommu_group(&self, address: PciAddress) -> Result<Option<u32>, Error> {
        let path = self.device_dir(address).join("iommu_group");
        let Some(name) = self.link_name(&path)? else { return Ok(None) };
        match name.parse() {
            Ok(group) => Ok(Some(group)),
            Err(_) => Err(Error::malformed(path, &name, "a link to a group number")),
        }
    }

    /// The group of `address`, if user space may have it.
    ///
    /// # Errors
    /// [`Error::NoIommu`] and [`Error::GroupShared`].
    pub(crate) fn usable_group(&self, address: PciAddress) -> Result<u32, Error> {
        let Some(group) = self.iommu_group(address)? else {
            return Err(Error::NoIommu { address, advice: self.iommu_advice()? });
        };
        let others = self.neighbours(address)?;
        if others.is_empty() {
            Ok(group)
        } else {
            Err(Error::GroupShared { address, group, others })
        }
    }

    /// What VFIO demands of the other devices of a group: no driver, VFIO's or a harmless one.
    fn neighbours(&self, address: PciAddress) -> Result<Vec<Neighbour>, Error> {
        let devices = self.device_dir(address).join("iommu_group/devices");
        let mut others = Vec::new();
        for name in self.names(&devices)? {
            if name == address.to_string() {
                continue;
            }
            let dir = devices.join(&name);
            let Some(driver) = self.link_name(&dir.join("driver"))? else { continue };
            let class = self.number(&dir.join("class"))?.unwrap_or(0);
            // 0x0604xx: PCI-to-PCI bridges and ports, which do no DMA of their own.
            let is_bridge = class >> 8 == 0x0604;
            if !is_bridge && driver != VFIO_PCI && driver != "pci-stub" {
                others.push(Neighbour { device: name, driver });
            }
        }
        Ok(others)
    }

    fn iommu_advice(&self) -> Result<String, Error> {
        if !self.names(&self.path("sys/class/iommu"))?.is_empty() {
            return Ok("this machine's IOMMU is on but does not cover this slot; \
                       try another one"
                .to_owned());
        }
        let cmdline = self.attribute(&self.path("proc/cmdline"))?.unwrap_or_default();
        let cpuinfo = self.table(&self.path("proc/cpuinfo")).unwrap_or_default();
        let (switch, firmware) = match vendor(&cpuinfo) {
            Some("GenuineIntel") => ("intel_iommu=on", "Intel VT-d"),
            Some("AuthenticAMD") => ("amd_iommu=on", "AMD-Vi, often just called IOMMU"),
            Some(_) | None => {
                return Ok("turn on the IOMMU (SMMU) in the firmware's setup and see that the \
                           kernel command line does not turn it off"
                    .to_owned());
            }
        };
        Ok(if cmdline.split_ascii_whitespace().any(|word| word == switch) {
            format!(
                "{switch} is on the kernel command line, so turn on {firmware} in the firmware's setup"
            )
        } else {
            format!(
                "put `{switch} iommu=pt` on the kernel command line (GRUB_CMDLINE_LINUX in \
                 /etc/default/grub, then update-grub), turn on {firmware} in the firmware's setup, and reboot"
            )
        })
    }
}

fn vendor(cpuinfo: &[u8]) -> Option<&str> {
    let line = cpuinfo.split(|&b| b == b'\n').find(|line| line.starts_with(b"vendor_id"))?;
    Some(std::str::from_utf8(line).ok()?.split_once(':')?.1.trim())
}
