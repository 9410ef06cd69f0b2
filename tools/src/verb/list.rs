//! `nvio list`: the NVMe controllers of this machine, from sysfs, and from Identify data for those
//! that are bound to vfio-pci.

use nvio_driver::pci::{BlockDevice, NvmeDevice, Sysfs, Use, UseKind, VFIO_PCI};
use nvio_driver::spec::IdentifyNamespace;
use nvio_driver::{Address, Controller, Options};
use serde::Serialize;

use crate::args::Format;
use crate::error::{Error, one_line};
use crate::output::{Output, human_size};
use crate::table::Table;

/// Most namespaces of a controller that are identified.
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

/// Lists the controllers.
///
/// # Errors
/// If sysfs cannot be read.
pub fn run(format: Format) -> Result<(), Error> {
    let sysfs = Sysfs::new();
    let mut found = Vec::new();
    for device in sysfs.nvme_devices()? {
        found.push(listed(&sysfs, &device)?);
    }
    let mut out = Output::new();
    if format.json {
        out.json(&found)?;
    } else if found.is_empty() {
        out.line("no NVMe controllers")?;
    } else {
        out.text(&table(&found))?;
    }
    out.flush()
}

fn listed(sysfs: &Sysfs, device: &NvmeDevice) -> Result<Listed, Error> {
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
        None => listed.identify(Address::Pci(device.address)),
    }
    Ok(listed)
}

impl Listed {
    /// Identifies a controller that no process drives, which resets it. If it cannot be opened, the
    /// data of sysfs remains.
    fn identify(&mut self, address: Address) {
        let options = Options { arena_bytes: 2 << 20, queues: 1, ..Options::default() };
        if let Err(error) =
            Controller::open_with(&address, options).and_then(|found| self.add(&found))
        {
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

/// The contents of `identify` are not trusted.
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
    let headings = [
        "ADDRESS",
        "MODEL",
        "SERIAL",
        "FIRMWARE",
        "DRIVER",
        "GROUP",
        "NAMESPACE",
        "SIZE",
        "LBA",
        "IN USE BY",
    ];
    let mut table = Table::new(&headings, &[5, 7, 8]);
    let dash = |text: Option<&str>| text.filter(|text| !text.is_empty()).unwrap_or("-").to_owned();
    for controller in found {
        let mut first = vec![
            controller.address.clone(),
            dash(controller.model.as_deref()),
            dash(controller.serial.as_deref()),
            dash(controller.firmware.as_deref()),
            dash(controller.driver.as_deref()),
            dash(controller.iommu_group.map(|group| group.to_string()).as_deref()),
        ];
        let uses = |is_of: &dyn Fn(&InUse) -> bool| {
            let uses = controller.in_use_by.iter().filter(|found| is_of(found));
            let texts: Vec<&str> = uses.map(|found| found.text.as_str()).collect();
            dash(Some(&texts.join(", ")))
        };
        if controller.namespaces.is_empty() {
            first.extend(["-", "-", "-"].map(str::to_owned));
            let note = controller.unknown.as_ref().map(|why| format!("unknown: {why}"));
            first.push(note.unwrap_or_else(|| uses(&|_| true)));
            table.row(first);
            continue;
        }
        for namespace in &controller.namespaces {
            let mut row = std::mem::replace(&mut first, vec![String::new(); 6]);
            let nsid = namespace.nsid.map(|nsid| format!("nsid {nsid}"));
            row.push(namespace.device.clone().or(nsid).unwrap_or_default());
            row.push(human_size(namespace.size));
            row.push(lba_format(namespace));
            row.push(uses(&|found| namespace.has(&found.device)));
            table.row(row);
        }
    }
    table.render()
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
        listed.identify(Address::VfioUser(emulator.socket().to_owned()));
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
        listed.identify(Address::VfioUser("/no/such/socket".into()));
        assert!(listed.unknown.as_ref().unwrap().contains("/no/such/socket"));
        assert!(table(&[listed]).contains("unknown: vfio-user server /no/such/socket"));
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
