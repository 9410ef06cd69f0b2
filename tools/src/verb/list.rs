//! `nvio list`: the NVMe controllers of this machine, as sysfs tells of them.

use nvio_driver::pci::{BlockDevice, NvmeDevice, Sysfs, Use, UseKind};
use serde::Serialize;

use crate::cli::Format;
use crate::error::Error;
use crate::output::{Output, human_size};
use crate::table::Table;

#[derive(Serialize)]
struct Controller<'a> {
    address: String,
    vendor_id: String,
    device_id: String,
    driver: Option<&'a str>,
    iommu_group: Option<u32>,
    name: Option<&'a str>,
    model: Option<&'a str>,
    serial: Option<&'a str>,
    firmware: Option<&'a str>,
    namespaces: Vec<Namespace<'a>>,
    in_use_by: Vec<InUse<'a>>,
}

#[derive(Serialize)]
struct Namespace<'a> {
    nsid: Option<u32>,
    device: &'a str,
    size: u64,
    lba_size: Option<u64>,
    partitions: Vec<Partition<'a>>,
}

#[derive(Serialize)]
struct Partition<'a> {
    device: &'a str,
    size: u64,
}

#[derive(Serialize)]
struct InUse<'a> {
    device: &'a str,
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
        let uses = sysfs.uses(&device)?;
        found.push((device, uses));
    }
    let mut out = Output::new();
    if format.json {
        let all: Vec<Controller<'_>> =
            found.iter().map(|(device, uses)| controller(device, uses)).collect();
        out.json(&all)?;
    } else if found.is_empty() {
        out.line("no NVMe controllers")?;
    } else {
        out.text(&table(&found))?;
    }
    out.flush()
}

fn controller<'a>(device: &'a NvmeDevice, uses: &'a [Use]) -> Controller<'a> {
    let kernel = device.controller.as_ref();
    Controller {
        address: device.address.to_string(),
        vendor_id: format!("{:#06x}", device.id.0),
        device_id: format!("{:#06x}", device.id.1),
        driver: device.driver.as_deref(),
        iommu_group: device.iommu_group,
        name: kernel.map(|kernel| kernel.name.as_str()),
        model: kernel.map(|kernel| kernel.model.as_str()),
        serial: kernel.map(|kernel| kernel.serial.as_str()),
        firmware: kernel.map(|kernel| kernel.firmware.as_str()),
        namespaces: device.namespaces().iter().map(namespace).collect(),
        in_use_by: uses.iter().map(in_use).collect(),
    }
}

fn namespace(block: &BlockDevice) -> Namespace<'_> {
    Namespace {
        nsid: block.nsid,
        device: &block.name,
        size: block.bytes,
        lba_size: block.block_size,
        partitions: block
            .partitions
            .iter()
            .map(|partition| Partition { device: &partition.name, size: partition.bytes })
            .collect(),
    }
}

fn in_use(found: &Use) -> InUse<'_> {
    let kind = match found.kind {
        UseKind::Mounted { .. } => "mounted",
        UseKind::Swap => "swap",
        UseKind::Held { .. } => "holder",
        UseKind::Claimed => "claimed",
    };
    InUse { device: &found.device, kind, text: found.to_string() }
}

/// A line for each namespace; the controller's columns stand in its first.
fn table(found: &[(NvmeDevice, Vec<Use>)]) -> String {
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
    for (device, uses) in found {
        let kernel = device.controller.as_ref();
        let mut first = vec![
            device.address.to_string(),
            dash(kernel.map(|kernel| kernel.model.as_str())),
            dash(kernel.map(|kernel| kernel.serial.as_str())),
            dash(kernel.map(|kernel| kernel.firmware.as_str())),
            dash(device.driver.as_deref()),
            dash(device.iommu_group.map(|group| group.to_string()).as_deref()),
        ];
        if device.namespaces().is_empty() {
            first.extend(["-", "-", "-", "-"].map(str::to_owned));
            table.row(first);
            continue;
        }
        for block in device.namespaces() {
            let is_of = |found: &&Use| {
                found.device == block.name
                    || block.partitions.iter().any(|partition| partition.name == found.device)
            };
            let by: Vec<String> = uses.iter().filter(is_of).map(ToString::to_string).collect();
            let mut row = std::mem::replace(&mut first, vec![String::new(); 6]);
            row.push(block.name.clone());
            row.push(human_size(block.bytes));
            row.push(dash(block.block_size.map(|size| size.to_string()).as_deref()));
            row.push(dash(Some(&by.join(", "))));
            table.row(row);
        }
    }
    table.render()
}
