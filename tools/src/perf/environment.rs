//! The machine and the devices of a run: all that is needed to repeat it.

use std::fs;
use std::path::Path;

use nvio::driver::{Address, Controller, Namespace};
use nvio::{Device, DeviceName};

/// The machine and the devices.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// Version of nvio.
    pub nvio: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Model of the processor.
    pub cpu: String,
    /// Number of processors.
    pub cpus: usize,
    /// Frequency governor of the first processor.
    pub governor: Option<String>,
    /// Number of IOMMUs that the kernel has.
    pub iommus: usize,
    /// The devices.
    pub devices: Vec<DeviceFacts>,
}

/// A device.
#[derive(Clone, Debug, Default)]
pub struct DeviceFacts {
    /// Name on the command line.
    pub name: String,
    /// Interface of the kernel, if requests go through it.
    pub interface: Option<&'static str>,
    /// Model number.
    pub model: String,
    /// Serial number.
    pub serial: String,
    /// Firmware revision.
    pub firmware: String,
    /// Version of NVMe.
    pub version: String,
    /// Namespace identifier.
    pub namespace: u32,
    /// Logical block in bytes.
    pub block_bytes: u32,
    /// Metadata of a block in bytes.
    pub metadata_bytes: u32,
    /// Size of the namespace in bytes.
    pub bytes: u64,
    /// Largest command in bytes.
    pub max_transfer: usize,
    /// The kernel's type of the device's IOMMU domain, for a PCI device.
    pub iommu: Option<String>,
    /// NUMA node of a PCI device.
    pub numa_node: Option<String>,
}

impl Environment {
    /// Describes this machine.
    pub fn of_machine() -> Self {
        let iommus = fs::read_dir("/sys/class/iommu").map_or(0, Iterator::count);
        Self {
            nvio: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: line("/proc/sys/kernel/osrelease").unwrap_or_default(),
            cpu: processor().unwrap_or_default(),
            cpus: std::thread::available_parallelism().map_or(0, Into::into),
            governor: line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            iommus,
            devices: Vec::new(),
        }
    }
}

impl DeviceFacts {
    /// Describes a namespace of a device.
    pub fn of(name: &DeviceName, device: &Device, namespace: &Namespace) -> Self {
        let controller: &Controller = device.controller();
        let identify = controller.identify();
        Self {
            name: name.to_string(),
            model: identify.model(),
            interface: None,
            serial: identify.serial(),
            firmware: identify.firmware(),
            version: controller.version().to_string(),
            namespace: namespace.id(),
            block_bytes: namespace.block_size(),
            metadata_bytes: namespace.metadata_size(),
            bytes: namespace.bytes(),
            max_transfer: namespace.max_transfer(),
            iommu: of_pci(name, "iommu_group/type"),
            numa_node: of_pci(name, "numa_node"),
        }
    }
}

/// Returns an attribute of a PCI device.
fn of_pci(name: &DeviceName, attribute: &str) -> Option<String> {
    match name {
        DeviceName::Address(Address::Pci(address)) => {
            line(format!("/sys/bus/pci/devices/{address}/{attribute}"))
        }
        _ => None,
    }
}

fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Returns the first line of a file of the kernel.
fn line(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.lines().next()?.trim().to_owned())
}
