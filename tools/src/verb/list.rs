//! `nvio list`: the NVMe controllers of this machine, from sysfs, and from Identify data for those
//! that are bound to vfio-pci.

use std::process::ExitCode;

use clap::Args;
use indicatif::HumanBytes;
use nvio_driver::pci::{BlockDevice, NvmeDevice, Sysfs, Use, UseKind, VFIO_PCI};
use nvio_driver::spec::IdentifyNamespace;
use nvio_driver::{Address, Controller, Options, Quirks};
use serde::Serialize;

use crate::args::{DriverArgs, Format};
use crate::error::{Error, one_line};
use crate::open;
use crate::output::print;
use crate::record::Record;

/// Maximum number of namespaces of a controller that are identified.
const NAMESPACES_MAX: usize = 128;

#[derive(Serialize)]
struct Listed {
    address: String,
    vendor_id: String,
    device_id: String,
    driver: Option<String>,
    iommu_group: Option<u32>,
    /// The name of the controller in the kernel.
    name: Option<String>,
    model: Option<String>,
    serial: Option<String>,
    firmware: Option<String>,
    namespaces: Vec<Namespace>,
    in_use_by: Vec<InUse>,
    /// The reason why a controller that is bound to vfio-pci could not be identified.
    unknown: Option<String>,
}

#[derive(Serialize)]
struct Namespace {
    nsid: Option<u32>,
    /// The block device of the kernel.
    device: Option<String>,
    size: u64,
    lba_size: Option<u64>,
    /// Null if it is not known.
    metadata_size: Option<u16>,
    partitions: Vec<Partition>,
}

#[derive(Serialize)]
struct Partition {
    device: String,
    size: u64,
}

#[derive(Serialize)]
struct InUse {
    /// The block device, or the address of the controller if a process drives it.
    device: String,
    kind: &'static str,
    text: String,
}

/// List the NVMe controllers of this machine and their users.
///
/// Idle controllers bound to vfio-pci are reset to identify them.
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    driver: DriverArgs,
    #[command(flatten)]
    format: Format,
}

impl List {
    /// Lists the controllers.
    ///
    /// # Errors
    /// If sysfs cannot be read.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let sysfs = Sysfs::new();
        let options = self.options();
        let mut found = Vec::new();
        for device in sysfs.nvme_devices()? {
            found.push(listed(&sysfs, &device, &options)?);
        }
        print(self.format, &found, || match found.is_empty() {
            true => "no NVMe controllers\n".to_owned(),
            false => table(&found),
        })
    }

    fn options(&self) -> Options {
        let DriverArgs { timeout: io_timeout, admin_timeout, retries, ref quirks } = self.driver;
        let quirks = quirks.iter().copied().fold(Quirks::NONE, Quirks::with);
        let bounded = Options { io_timeout, admin_timeout, retries, ..Options::default() };
        Options { arena_bytes: 2 << 20, queues: 1, quirks, ..bounded }
    }
}

fn listed(sysfs: &Sysfs, device: &NvmeDevice, options: &Options) -> Result<Listed, Error> {
    let uses = sysfs.uses(device)?;
    let kernel = device.controller.as_ref();
    let mut listed = Listed {
        address: device.address.to_string(),
        vendor_id: format!("{:#06x}", device.id.0),
        device_id: format!("{:#06x}", device.id.1),
        driver: device.driver.clone(),
        iommu_group: device.iommu_group,
        name: kernel.map(|kernel| kernel.name.clone()),
        model: kernel.map(|kernel| kernel.model.clone()),
        serial: kernel.map(|kernel| kernel.serial.clone()),
        firmware: kernel.map(|kernel| kernel.firmware.clone()),
        namespaces: device.namespaces().iter().map(of_kernel).collect(),
        in_use_by: uses.iter().map(in_use).collect(),
        unknown: None,
    };
    if device.driver.as_deref() != Some(VFIO_PCI) {
        return Ok(listed);
    }
    match sysfs.driven_by(device.address)? {
        Some(processes) => listed.in_use_by.push(driven(&listed.address, &processes)),
        None => listed.identify(Address::Pci(device.address), options.clone()),
    }
    Ok(listed)
}

impl Listed {
    /// Identifies a controller that no process drives, which resets it. If it cannot be opened, the
    /// data of sysfs remains.
    fn identify(&mut self, address: Address, options: Options) {
        let opened = open::controller(address, options);
        if let Err(error) = opened.and_then(|device| Ok(self.add(device.controller())?)) {
            self.unknown = Some(one_line(&error));
        }
    }

    fn add(&mut self, controller: &Controller) -> nvio_driver::Result<()> {
        let identify = controller.identify();
        self.model = Some(identify.model());
        self.serial = Some(identify.serial());
        self.firmware = Some(identify.firmware());
        for nsid in controller.namespace_ids()?.into_iter().take(NAMESPACES_MAX) {
            self.namespaces.push(of_controller(nsid, &*controller.identify_namespace(nsid)?));
        }
        Ok(())
    }
}

fn of_kernel(block: &BlockDevice) -> Namespace {
    Namespace {
        nsid: block.nsid,
        device: Some(block.name.clone()),
        size: block.bytes,
        lba_size: block.block_size,
        metadata_size: None,
        partitions: block
            .partitions
            .iter()
            .map(|partition| Partition { device: partition.name.clone(), size: partition.bytes })
            .collect(),
    }
}

/// Describes a namespace. The contents of `identify` are not trusted.
fn of_controller(nsid: u32, identify: &IdentifyNamespace) -> Namespace {
    let format = identify.format();
    let lba_size = 1u64.checked_shl(format.lbads.into());
    Namespace {
        nsid: Some(nsid),
        device: None,
        size: identify.nsze.get().saturating_mul(lba_size.unwrap_or(0)),
        lba_size,
        metadata_size: Some(format.ms.get()),
        partitions: Vec::new(),
    }
}

fn in_use(found: &Use) -> InUse {
    let kind = match found.kind {
        UseKind::Mounted { .. } => "mounted",
        UseKind::Swap => "swap",
        UseKind::Held { .. } => "holder",
        UseKind::Claimed => "claimed",
    };
    InUse { device: found.device.clone(), kind, text: found.to_string() }
}

fn driven(address: &str, processes: &[u32]) -> InUse {
    let text = match processes {
        [] => "another process".to_owned(),
        [one] => format!("process {one}"),
        many => {
            let many: Vec<String> = many.iter().map(u32::to_string).collect();
            format!("processes {}", many.join(", "))
        }
    };
    InUse { device: address.to_owned(), kind: "driven", text: format!("driven by {text}") }
}

/// Returns the table: a line for each namespace, with the columns of the controller in its first
/// line.
fn table(found: &[Listed]) -> String {
    let mut rows = Vec::new();
    for controller in found {
        let none = controller.namespaces.is_empty().then_some(None);
        let namespaces = controller.namespaces.iter().map(Some).chain(none);
        rows.extend(namespaces.enumerate().map(|(at, namespace)| controller.row(at, namespace)));
    }
    Record::table(&rows, &[5, 7, 8])
}

impl Listed {
    /// Returns the row of the namespace at `index`, or of a controller without namespaces.
    fn row(&self, index: usize, namespace: Option<&Namespace>) -> Record {
        let mut row = Record::default();
        let group = self.iommu_group.map(|group| group.to_string());
        for (heading, text) in [
            ("ADDRESS", Some(&self.address)),
            ("MODEL", self.model.as_ref()),
            ("SERIAL", self.serial.as_ref()),
            ("FIRMWARE", self.firmware.as_ref()),
            ("DRIVER", self.driver.as_ref()),
            ("GROUP", group.as_ref()),
        ] {
            let text = text.map(String::as_str).filter(|text| !text.is_empty()).unwrap_or("-");
            row.text(heading, if index == 0 { text } else { "" });
        }
        let dash = || "-".to_owned();
        row.text("NAMESPACE", namespace.map_or_else(dash, Namespace::name));
        row.text("SIZE", namespace.map_or_else(dash, |of| HumanBytes(of.size).to_string()));
        row.text("LBA", namespace.map_or_else(dash, lba_format));
        let is_of = |found: &&InUse| namespace.is_none_or(|of| of.has(&found.device));
        let uses: Vec<&str> =
            self.in_use_by.iter().filter(is_of).map(|found| found.text.as_str()).collect();
        let note = match (&self.unknown, namespace) {
            (Some(why), None) => format!("unknown: {why}"),
            _ if uses.is_empty() => dash(),
            _ => uses.join(", "),
        };
        row.text("IN USE BY", note);
        row
    }
}

/// Formats the bytes of a block and of its metadata: 512, 4096+8.
fn lba_format(namespace: &Namespace) -> String {
    match (namespace.lba_size, namespace.metadata_size) {
        (None, _) => "-".to_owned(),
        (Some(data), None | Some(0)) => data.to_string(),
        (Some(data), Some(metadata)) => format!("{data}+{metadata}"),
    }
}

impl Namespace {
    /// Returns the block device of the kernel, or else the number.
    fn name(&self) -> String {
        let nsid = self.nsid.map(|nsid| format!("nsid {nsid}"));
        self.device.clone().or(nsid).unwrap_or_default()
    }

    /// Returns true if `device` is the block device of this namespace or a partition of it.
    fn has(&self, device: &str) -> bool {
        self.device.as_deref() == Some(device)
            || self.partitions.iter().any(|partition| partition.device == device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nvio_driver::spec::LbaFormat;
    use nvio_emulator::{Backing, Emulator, NamespaceConfig};
    use zerocopy::FromZeros;

    fn unidentified() -> Listed {
        Listed {
            address: "0000:02:00.0".to_owned(),
            vendor_id: String::new(),
            device_id: String::new(),
            driver: Some("vfio-pci".to_owned()),
            iommu_group: Some(7),
            name: None,
            model: None,
            serial: None,
            firmware: None,
            namespaces: Vec::new(),
            in_use_by: Vec::new(),
            unknown: None,
        }
    }

    #[test]
    fn a_controller_that_can_be_opened_is_identified() {
        let namespace = |size| NamespaceConfig::new(Backing::memory(1 << 20)).block_size(size);
        let builder = Emulator::builder().namespace(namespace(512));
        let emulator = builder.namespace(namespace(4096).nsid(4)).start().unwrap();
        let mut listed = unidentified();
        listed.identify(Address::VfioUser(emulator.socket().to_owned()), Options::default());
        assert_eq!(listed.unknown, None);
        let text = table(&[listed]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[1].contains("vfio-pci") && lines[1].contains("nsid 1"), "{text}");
        assert!(lines[2].contains("nsid 4") && lines[2].contains("4096"), "{text}");
    }

    #[test]
    fn a_controller_that_cannot_be_opened_has_a_reason() {
        let mut listed = unidentified();
        listed.identify(Address::VfioUser("/no/such/socket".into()), Options::default());
        assert!(listed.unknown.as_ref().unwrap().contains("/no/such/socket"));
        assert!(table(&[listed]).contains("unknown: cannot open vfio-user:/no/such/socket: "));
        let mut listed = unidentified();
        listed.in_use_by.push(driven("0000:02:00.0", &[12, 34]));
        assert!(table(&[listed]).ends_with("driven by processes 12, 34\n"));
    }

    #[test]
    fn metadata_is_part_of_the_format() {
        let mut identify = IdentifyNamespace::new_zeroed();
        identify.nsze = 10.into();
        identify.lbaf[0] = LbaFormat { ms: 8.into(), lbads: 12, rp: 0 };
        let namespace = of_controller(3, &identify);
        assert_eq!((lba_format(&namespace).as_str(), namespace.size), ("4096+8", 40_960));
        identify.lbaf[0].lbads = 200;
        assert_eq!(lba_format(&of_controller(3, &identify)), "-");
    }
}
