//! IOMMU groups: their members, and advice if there is no IOMMU.

use super::address::PciAddress;
use super::error::Error;
use super::neighbour::Neighbour;
use super::sysfs::{Sysfs, VFIO_PCI};

impl Sysfs {
    /// Returns the IOMMU group of a PCI device. `None` if no IOMMU translates for it.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// If the link cannot be read, or its target is not a number.
    pub fn iommu_group(&self, address: PciAddress) -> Result<Option<u32>, Error> {
        let path = self.device_dir(address).join("iommu_group");
        let Some(name) = self.link_name(&path)? else { return Ok(None) };
        let group = name.parse().map(Some);
        group.map_err(|_| Error::malformed(path, &name, "a link to a group number"))
    }

    /// Returns the group of `address`, if user space can use it.
    ///
    /// # Errors
    /// [`Error::NoIommu`] and [`Error::GroupShared`].
    pub(crate) fn usable_group(&self, address: PciAddress) -> Result<u32, Error> {
        let Some(group) = self.iommu_group(address)? else {
            return Err(Error::NoIommu { address, advice: self.iommu_advice()? });
        };
        match self.neighbours(address)? {
            others if others.is_empty() => Ok(group),
            others => Err(Error::GroupShared { address, group, others }),
        }
    }

    /// Returns the other devices of the group with a driver that VFIO does not allow there.
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
        let cpuinfo = self.table(&self.path("proc/cpuinfo")).unwrap_or_default();
        let Some(vendor) = self.vendor(&cpuinfo) else {
            return Ok("turn on the IOMMU (SMMU) in the firmware's setup and see that the kernel \
                       command line does not turn it off"
                .to_owned());
        };
        let Vendor { switch, firmware, .. } = vendor;
        let cmdline = self.attribute(&self.path("proc/cmdline"))?.unwrap_or_default();
        let has_switch = cmdline.split_ascii_whitespace().any(|word| word == *switch);
        let mut steps = Vec::new();
        if !has_switch {
            steps.push(format!(
                "put `{switch} iommu=pt` on the kernel command line (GRUB_CMDLINE_LINUX in \
                 /etc/default/grub, then update-grub)"
            ));
        }
        if !self.has_table(vendor) {
            steps.push(if is_guest(&cpuinfo) {
                "give this virtual machine an IOMMU (QEMU: -device intel-iommu,intremap=on)".into()
            } else {
                format!("turn on {firmware} in the firmware's setup")
            });
        }
        if steps.is_empty() {
            // Both the table and the switch exist, so the kernel failed to use the IOMMU.
            return Ok("the kernel could not use it; `dmesg | grep -i iommu` says why".to_owned());
        }
        Ok(format!("{}, and reboot", steps.join(", ")))
    }

    /// Returns the vendor of the IOMMU: from the firmware's table, else from the processor. A virtual
    /// machine's processor does not decide, and QEMU's IOMMU is Intel's.
    fn vendor(&self, cpuinfo: &[u8]) -> Option<&'static Vendor> {
        let table = [&INTEL, &AMD].into_iter().find(|vendor| self.has_table(vendor));
        table.or_else(|| match field(cpuinfo, b"vendor_id")? {
            _ if is_guest(cpuinfo) => Some(&INTEL),
            "GenuineIntel" => Some(&INTEL),
            "AuthenticAMD" | "HygonGenuine" => Some(&AMD),
            _ => None,
        })
    }

    /// Returns true if the firmware describes an IOMMU of this vendor.
    fn has_table(&self, vendor: &Vendor) -> bool {
        self.path("sys/firmware/acpi/tables").join(vendor.table).exists()
    }
}

/// A vendor of IOMMUs.
struct Vendor {
    /// The firmware's table that describes the IOMMU.
    table: &'static str,
    /// The word on the kernel's command line that turns it on.
    switch: &'static str,
    /// Its name in the firmware's setup.
    firmware: &'static str,
}

const INTEL: Vendor = Vendor { table: "DMAR", switch: "intel_iommu=on", firmware: "Intel VT-d" };
const AMD: Vendor =
    Vendor { table: "IVRS", switch: "amd_iommu=on", firmware: "AMD-Vi (often just called IOMMU)" };

fn is_guest(cpuinfo: &[u8]) -> bool {
    let mut flags = field(cpuinfo, b"flags").unwrap_or_default().split_ascii_whitespace();
    flags.any(|flag| flag == "hypervisor")
}

fn field<'a>(cpuinfo: &'a [u8], key: &[u8]) -> Option<&'a str> {
    let line = cpuinfo.split(|&b| b == b'\n').find(|line| line.starts_with(key))?;
    Some(std::str::from_utf8(line).ok()?.split_once(':')?.1.trim())
}
