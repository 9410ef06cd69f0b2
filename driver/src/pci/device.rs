//! NVMe controllers and their block devices, as sysfs shows them.

use std::path::Path;

use super::address::PciAddress;
use super::error::Error;
use super::sysfs::Sysfs;

/// Most directory entries read of one device. The kernel has at most 256 partitions on a disk, and
/// controllers have far fewer namespaces than this.
const ENTRIES_MAX: usize = 4096;

/// An NVMe controller: a PCI function of class 0x010802. [`Sysfs::nvme_devices`] lists them.
///
/// See the [example](crate::pci::Sysfs#examples).
#[derive(Clone, Debug)]
pub struct NvmeDevice {
    /// The controller's address.
    pub address: PciAddress,
    /// PCI vendor and device IDs.
    pub id: (u16, u16),
    /// The driver that the controller is bound to.
    pub driver: Option<String>,
    /// The IOMMU group; `None` if no IOMMU translates for the controller.
    pub iommu_group: Option<u32>,
    /// The kernel's view, if the controller is bound to `nvme`.
    pub controller: Option<KernelController>,
}

/// A controller as the kernel's `nvme` driver shows it; see [`NvmeDevice::controller`].
///
/// See the [example](crate::pci::Sysfs#examples).
#[derive(Clone, Debug)]
pub struct KernelController {
    /// The kernel's name, such as `nvme0`.
    pub name: String,
    /// Model number.
    pub model: String,
    /// Serial number.
    pub serial: String,
    /// Firmware revision.
    pub firmware: String,
    /// The block devices of the controller's namespaces.
    pub namespaces: Vec<BlockDevice>,
}

/// The number of a block device; see [`BlockDevice::number`].
///
/// See the [example](crate::pci::Sysfs#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, derive_more::Display)]
#[display("{major}:{minor}")]
pub struct DeviceNumber {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl DeviceNumber {
    /// Parses a number such as `259:0`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once(':')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

/// The block device of a namespace; see [`NvmeDevice::namespaces`].
///
/// See the [example](crate::pci::Sysfs#examples).
#[derive(Clone, Debug)]
pub struct BlockDevice {
    /// The name in `/dev`.
    pub name: String,
    /// The device number.
    pub number: DeviceNumber,
    /// Namespace ID, where the kernel shows it.
    pub nsid: Option<u32>,
    /// Size in bytes.
    pub bytes: u64,
    /// Size of a logical block in bytes.
    pub block_size: Option<u64>,
    /// The partitions, by minor number.
    pub partitions: Vec<Partition>,
}

/// A partition of a namespace; see [`BlockDevice::partitions`].
///
/// See the [example](crate::pci::Sysfs#examples).
#[derive(Clone, Debug)]
pub struct Partition {
    /// The name in `/dev`.
    pub name: String,
    /// The device number.
    pub number: DeviceNumber,
    /// Size in bytes.
    pub bytes: u64,
}

impl NvmeDevice {
    /// Returns the controller's block devices; none unless it is bound to `nvme`.
    ///
    /// See the [example](crate::pci::Sysfs#examples).
    pub fn namespaces(&self) -> &[BlockDevice] {
        self.controller.as_ref().map_or(&[], |controller| &controller.namespaces)
    }
}

impl Sysfs {
    /// Returns all NVMe controllers, sorted by address.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// If a directory or attribute cannot be read, or an attribute cannot be parsed.
    pub fn nvme_devices(&self) -> Result<Vec<NvmeDevice>, Error> {
        let mut addresses: Vec<PciAddress> = self
            .names(&self.path("sys/bus/pci/devices"))?
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect();
        addresses.sort();
        let mut devices = Vec::new();
        for address in addresses {
            match self.nvme_device(address) {
                Ok(device) => devices.push(device),
                Err(Error::NotNvme { .. } | Error::NoDevice { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(devices)
    }

    /// Returns the NVMe controller at `address`.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::NoDevice`] and [`Error::NotNvme`]; if a directory or attribute cannot be read or
    /// parsed.
    pub fn nvme_device(&self, address: PciAddress) -> Result<NvmeDevice, Error> {
        let dir = self.device_dir(address);
        let Some(class) = self.number(&dir.join("class"))? else {
            return Err(Error::NoDevice { address, path: dir });
        };
        if class != u64::from(nvio_spec::PCI_CLASS) {
            let class = u32::try_from(class).unwrap_or(u32::MAX);
            return Err(Error::NotNvme { address, class });
        }
        Ok(NvmeDevice {
            address,
            id: (self.id(&dir.join("vendor"))?, self.id(&dir.join("device"))?),
            driver: self.driver(address)?,
            iommu_group: self.iommu_group(address)?,
            controller: self.controller(&dir)?,
        })
    }

    /// Returns the driver that a PCI device is bound to.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// If the link cannot be read.
    pub fn driver(&self, address: PciAddress) -> Result<Option<String>, Error> {
        self.link_name(&self.device_dir(address).join("driver"))
    }

    fn id(&self, path: &Path) -> Result<u16, Error> {
        let value = self.number(path)?.unwrap_or(0);
        u16::try_from(value)
            .map_err(|_| Error::malformed(path, &format!("{value:#x}"), "a 16-bit ID"))
    }

    fn controller(&self, device: &Path) -> Result<Option<KernelController>, Error> {
        let class = device.join("nvme");
        let is_controller =
            |name: &String| NvmeName::parse(name).is_some_and(|n| n.is_controller());
        let Some(name) = self.names(&class)?.into_iter().find(is_controller) else {
            return Ok(None);
        };
        let dir = class.join(&name);
        let text = |attribute: &str| -> Result<String, Error> {
            Ok(printable(&self.attribute(&dir.join(attribute))?.unwrap_or_default()))
        };
        Ok(Some(KernelController {
            model: text("model")?,
            serial: text("serial")?,
            firmware: text("firmware_rev")?,
            namespaces: self.namespaces(&dir)?,
            name,
        }))
    }

    fn namespaces(&self, controller: &Path) -> Result<Vec<BlockDevice>, Error> {
        let mut found = Vec::new();
        for name in self.names(controller)?.into_iter().take(ENTRIES_MAX) {
            let Some(parsed) = NvmeName::parse(&name) else { continue };
            let Some(head) = parsed.head() else { continue };
            // With multipath, the block device of the path is hidden (it has no node in /dev), and
            // the one in use is the head, in another directory.
            let block = self.path("sys/block").join(&head);
            let dir = if parsed.path.is_some() { block } else { controller.join(&name) };
            found.extend(self.block_device(&dir, head)?);
        }
        Ok(found)
    }

    fn block_device(&self, dir: &Path, name: String) -> Result<Option<BlockDevice>, Error> {
        let Some((number, bytes)) = self.number_and_size(dir)? else { return Ok(None) };
        let mut partitions = Vec::new();
        for entry in self.names(dir)?.into_iter().take(ENTRIES_MAX) {
            let part = dir.join(&entry);
            if !entry.starts_with(&name) || !part.join("partition").exists() {
                continue;
            }
            if let Some((number, bytes)) = self.number_and_size(&part)? {
                partitions.push(Partition { name: entry, number, bytes });
            }
        }
        partitions.sort_by_key(|partition| partition.number.minor);
        Ok(Some(BlockDevice {
            nsid: self.number(&dir.join("nsid"))?.and_then(|id| u32::try_from(id).ok()),
            block_size: self.number(&dir.join("queue/logical_block_size"))?,
            name,
            number,
            bytes,
            partitions,
        }))
    }

    /// Reads number and size of a block device. `None` if it has just been removed.
    fn number_and_size(&self, dir: &Path) -> Result<Option<(DeviceNumber, u64)>, Error> {
        let path = dir.join("dev");
        let Some(text) = self.attribute(&path)? else { return Ok(None) };
        let number = DeviceNumber::parse(&text)
            .ok_or_else(|| Error::malformed(&path, &text, "a device number such as 259:0"))?;
        let sectors = self.number(&dir.join("size"))?.unwrap_or(0);
        // Sysfs counts in 512 bytes, whatever the block size.
        Ok(Some((number, sectors.saturating_mul(512))))
    }
}

/// Replaces characters that a terminal might interpret, because the text comes from the device.
fn printable(text: &str) -> String {
    let clean = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    text.trim().chars().map(clean).collect()
}

/// A name that the kernel's driver assigns: `nvme0` (controller), `nvme0n1` (namespace) or
/// `nvme0c1n1` (the path to a namespace of subsystem 0 through controller 1).
struct NvmeName {
    instance: u32,
    path: Option<u32>,
    namespace: Option<u32>,
}

impl NvmeName {
    fn parse(name: &str) -> Option<Self> {
        let (instance, rest) = leading_number(name.strip_prefix("nvme")?)?;
        let (path, rest) = match rest.strip_prefix('c') {
            Some(rest) => leading_number(rest).map(|(path, rest)| (Some(path), rest))?,
            None => (None, rest),
        };
        let (namespace, rest) = match rest.strip_prefix('n') {
            Some(rest) => leading_number(rest).map(|(id, rest)| (Some(id), rest))?,
            None => (None, rest),
        };
        rest.is_empty().then_some(Self { instance, path, namespace })
    }

    fn is_controller(&self) -> bool {
        self.path.is_none() && self.namespace.is_none()
    }

    /// Returns the name of the block device in use.
    fn head(&self) -> Option<String> {
        self.namespace.map(|namespace| format!("nvme{}n{namespace}", self.instance))
    }
}

fn leading_number(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;
    use super::*;

    #[test]
    fn only_nvme_controllers_are_listed_and_in_order() {
        let fake = Fake::new();
        fake.nvme("0000:0a:00.0", 1, Some("vfio-pci"));
        fake.nvme("0000:02:00.0", 0, Some("nvme"));
        fake.pci("0000:01:00.0", "0x030000", Some("gpu"));
        fake.pci("not-an-address", "0x010802", None);
        fake.block("0000:02:00.0", "nvme0", "nvme0n1", "259:0", 2048);
        fake.partition("0000:02:00.0", "nvme0", "nvme0n1", "nvme0n1p1", "259:1", 1024);
        let devices = fake.sysfs().nvme_devices().unwrap();
        let shown: Vec<String> = devices.iter().map(|d| d.address.to_string()).collect();
        assert_eq!(shown, ["0000:02:00.0", "0000:0a:00.0"]);
        assert_eq!(devices[0].id, (0x1b36, 0x0010));
        assert_eq!(devices[0].driver.as_deref(), Some("nvme"));
        let controller = devices[0].controller.as_ref().unwrap();
        assert_eq!((&*controller.name, &*controller.model), ("nvme0", "A Model"));
        let namespace = &controller.namespaces[0];
        assert_eq!((&*namespace.name, namespace.bytes), ("nvme0n1", 1 << 20));
        assert_eq!(namespace.number, DeviceNumber { major: 259, minor: 0 });
        assert_eq!((namespace.nsid, namespace.block_size), (Some(1), Some(512)));
        assert_eq!(namespace.partitions[0].name, "nvme0n1p1");
        assert_eq!(namespace.partitions[0].bytes, 512 << 10);
        assert!(devices[1].controller.is_none());
        assert!(devices[1].namespaces().is_empty());
    }

    #[test]
    fn a_machine_without_pci_has_no_devices() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Sysfs::at(dir.path()).nvme_devices().unwrap().is_empty());
    }

    #[test]
    fn behind_multipath_the_head_is_found() {
        let fake = Fake::new();
        fake.nvme("0000:02:00.0", 5, Some("nvme"));
        fake.file("sys/bus/pci/devices/0000:02:00.0/nvme/nvme5/nvme0c5n1/dev", "0:0");
        fake.file("sys/block/nvme0n1/dev", "259:4");
        fake.file("sys/block/nvme0n1/size", "8");
        fake.file("sys/block/nvme0n1/nvme0n1p1/partition", "1");
        fake.file("sys/block/nvme0n1/nvme0n1p1/dev", "259:5");
        let device = fake.sysfs().nvme_device("02:00.0".parse().unwrap()).unwrap();
        let namespace = &device.namespaces()[0];
        assert_eq!((&*namespace.name, namespace.number.minor), ("nvme0n1", 4));
        assert_eq!(namespace.partitions.len(), 1);
    }

    #[test]
    fn odd_content_is_an_error_that_names_the_file() {
        let fake = Fake::new();
        let dir = "sys/bus/pci/devices/0000:02:00.0";
        fake.nvme("0000:02:00.0", 0, Some("nvme"));
        fake.block("0000:02:00.0", "nvme0", "nvme0n1", "259:0", 2048);
        for (file, content) in [
            ("nvme/nvme0/nvme0n1/dev", "259"),
            ("nvme/nvme0/nvme0n1/dev", ""),
            ("nvme/nvme0/nvme0n1/size", "-1"),
            ("nvme/nvme0/nvme0n1/size", "99999999999999999999999"),
            ("vendor", "0x12345"),
            ("vendor", "\u{0}\u{1b}[2J"),
            ("class", "0xzz"),
            ("class", "0x"),
        ] {
            let path = format!("{dir}/{file}");
            let before = fake.read(&path);
            fake.file(&path, content);
            let error = fake.sysfs().nvme_devices().unwrap_err();
            assert!(matches!(&error, Error::Malformed { .. }), "{file}: {error}");
            assert!(error.to_string().contains(file), "{error}");
            assert!(!error.to_string().contains('\u{1b}'), "{error}");
            fake.file(&path, &before);
        }
        assert_eq!(fake.sysfs().nvme_devices().unwrap().len(), 1);
    }

    #[test]
    fn a_missing_device_and_one_of_another_class_are_different_errors() {
        let fake = Fake::new();
        fake.pci("0000:01:00.0", "0x030000", None);
        let sysfs = fake.sysfs();
        let error = sysfs.nvme_device("01:00.0".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("0x030000"), "{error}");
        let error = sysfs.nvme_device("01:00.1".parse().unwrap()).unwrap_err();
        assert!(matches!(error, Error::NoDevice { .. }), "{error}");
    }

    #[test]
    fn names_of_the_driver() {
        let head = |name| NvmeName::parse(name).and_then(|n| n.head());
        assert_eq!(head("nvme0n1").as_deref(), Some("nvme0n1"));
        assert_eq!(head("nvme3c7n12").as_deref(), Some("nvme3n12"));
        assert_eq!(head("nvme0"), None);
        for name in ["ng0n1", "nvme", "nvmen1", "nvme0n1p1", "nvme0n", "nvme0c", "nvme99999999999"]
        {
            assert!(NvmeName::parse(name).is_none(), "{name}");
        }
    }
}
