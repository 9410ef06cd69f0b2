//! `nvio identify`: the Identify data of a controller and its namespaces.

mod controller;
pub mod field;
mod namespace;

use nvio_driver::spec::{IdentifyController, IdentifyNamespace, sgl};
use nvio_driver::{Controller, Namespace};
use serde::Serialize;

use crate::args::{ControllerArgs, Format};
use crate::error::Error;
use crate::open;
use crate::output::{Output, human_size};
use crate::table::Table;
use controller::{PowerState, power_table};
use field::{Fields, identifier};

/// Maximum number of namespaces that are identified. A controller may have many thousands.
const NAMESPACES_SHOWN: usize = 128;

#[derive(Serialize)]
struct Report {
    model: String,
    serial: String,
    firmware: String,
    subsystem_nqn: Option<String>,
    pci_vendor_id: String,
    pci_subsystem_vendor_id: String,
    oui: String,
    controller_id: u16,
    version: String,
    /// Largest NSID that may be valid (NN).
    number_of_namespaces: u32,
    /// The limit of MDTS in bytes; null is no limit.
    max_data_transfer_bytes: Option<u64>,
    /// Most bytes that the driver transfers in one command.
    max_command_bytes: usize,
    max_queue_entries: u32,
    io_queues_granted: u16,
    min_page_size: u64,
    max_page_size: u64,
    doorbell_stride: u32,
    volatile_write_cache: bool,
    /// The controller supports doorbells in host memory (Doorbell Buffer Config).
    shadow_doorbells: bool,
    /// Support of scatter gather lists.
    sgl: &'static str,
    /// A Controller Memory Buffer can be enabled (CAP.CMBS).
    controller_memory: bool,
    total_capacity: Option<u64>,
    active_namespaces: Vec<u32>,
    /// Every field of Identify Controller, by its name in the specification.
    identify_controller: Fields,
    power_states: Vec<PowerState>,
    namespaces: Vec<NamespaceReport>,
}

#[derive(Serialize)]
struct NamespaceReport {
    nsid: u32,
    /// The reason why the driver cannot use the namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    unusable: Option<String>,
    #[serde(flatten)]
    details: Option<NamespaceDetails>,
    /// Every field of Identify Namespace, by its name in the specification.
    identify_namespace: Option<Fields>,
}

#[derive(Serialize)]
struct NamespaceDetails {
    size: u64,
    capacity: u64,
    used: u64,
    lba_size: u32,
    metadata_size: u16,
    protection_type: u8,
    optimal_io_boundary_bytes: Option<u64>,
    eui64: Option<String>,
    nguid: Option<String>,
    lba_formats: Vec<LbaFormat>,
}

#[derive(Serialize)]
struct LbaFormat {
    index: usize,
    lba_size: u64,
    metadata_size: u16,
    relative_performance: &'static str,
    in_use: bool,
}

/// Prints the Identify data of a controller.
///
/// # Errors
/// If the controller cannot be opened, or Identify fails.
pub fn run(args: &ControllerArgs, format: Format) -> Result<(), Error> {
    let device = open::device(args)?;
    let active = device.controller().namespace_ids()?;
    let shown: Vec<u32> = match args.namespace {
        Some(nsid) => vec![device.check_active(nsid)?],
        None => active.iter().copied().take(NAMESPACES_SHOWN).collect(),
    };
    let namespaces = shown.into_iter().map(|nsid| namespace_report(device.controller(), nsid));
    let namespaces = namespaces.collect();
    let report = report(device.controller(), active, namespaces);
    let mut out = Output::new();
    if format.json {
        out.json(&report)?
    } else {
        out.text(&text(&report))?
    }
    out.flush()
}

fn namespace_report(controller: &Controller, nsid: u32) -> NamespaceReport {
    // A namespace that the driver cannot use is shown, too.
    let identify = controller.identify_namespace(nsid).ok();
    let identify_namespace = identify.map(|identify| namespace::fields(&identify));
    let (unusable, details) = match controller.namespace(nsid) {
        Ok(namespace) => (None, Some(details(&namespace))),
        Err(error) => (Some(crate::error::one_line(&error)), None),
    };
    NamespaceReport { nsid, unusable, details, identify_namespace }
}

fn report(
    controller: &Controller,
    active_namespaces: Vec<u32>,
    namespaces: Vec<NamespaceReport>,
) -> Report {
    let identify: &IdentifyController = controller.identify();
    let capabilities = controller.capabilities();
    let page_shift = capabilities.min_page_shift();
    let capacity = u64::try_from(identify.tnvmcap.get()).unwrap_or(u64::MAX);
    let ieee = identify.ieee;
    Report {
        model: identify.model(),
        serial: identify.serial(),
        firmware: identify.firmware(),
        subsystem_nqn: Some(identify.nqn()).filter(|nqn| !nqn.is_empty()),
        pci_vendor_id: format!("{:#06x}", identify.vid.get()),
        pci_subsystem_vendor_id: format!("{:#06x}", identify.ssvid.get()),
        // Least significant byte first.
        oui: format!("{:02x}-{:02x}-{:02x}", ieee[2], ieee[1], ieee[0]),
        controller_id: identify.cntlid.get(),
        version: controller.version().to_string(),
        number_of_namespaces: identify.nn.get(),
        max_data_transfer_bytes: identify.max_transfer(page_shift),
        max_command_bytes: controller.max_transfer(),
        max_queue_entries: capabilities.max_queue_entries(),
        io_queues_granted: controller.granted_queues(),
        min_page_size: 1u64.checked_shl(page_shift).unwrap_or(0),
        max_page_size: 1u64.checked_shl(capabilities.max_page_shift()).unwrap_or(0),
        doorbell_stride: capabilities.doorbell_stride(),
        volatile_write_cache: identify.has_write_cache(),
        shadow_doorbells: identify.oacs.get() >> 8 & 1 != 0,
        sgl: match identify.sgls.get() & sgl::support::MASK {
            0 => "none",
            sgl::support::BYTE_ALIGNED => "byte aligned",
            sgl::support::DWORD_ALIGNED => "dword aligned",
            _ => "unknown",
        },
        controller_memory: capabilities.controller_memory(),
        total_capacity: Some(capacity).filter(|&bytes| bytes != 0),
        active_namespaces,
        identify_controller: controller::fields(identify, page_shift),
        power_states: controller::power_states(identify),
        namespaces,
    }
}

fn details(namespace: &Namespace) -> NamespaceDetails {
    let identify: &IdentifyNamespace = namespace.identify();
    let bytes = |blocks: u64| blocks.saturating_mul(namespace.block_size().into());
    let boundary = u64::from(identify.noiob.get());
    NamespaceDetails {
        size: namespace.bytes(),
        capacity: bytes(identify.ncap.get()),
        used: bytes(identify.nuse.get()),
        lba_size: namespace.block_size(),
        metadata_size: identify.format().ms.get(),
        protection_type: identify.protection_type(),
        optimal_io_boundary_bytes: Some(bytes(boundary)).filter(|&bytes| bytes != 0),
        eui64: identifier(&identify.eui64),
        nguid: identifier(&identify.nguid),
        lba_formats: formats(identify),
    }
}

/// Returns the available formats: LBADS of 0 means unavailable (NVM 4.1.5.1), above 63 is
/// impossible.
fn formats(identify: &IdentifyNamespace) -> Vec<LbaFormat> {
    let all = identify.lbaf.iter().enumerate().take(usize::from(identify.nlbaf).min(63) + 1);
    all.filter(|(_, format)| (9..64).contains(&format.lbads))
        .map(|(index, format)| LbaFormat {
            index,
            lba_size: 1 << format.lbads,
            metadata_size: format.ms.get(),
            relative_performance: ["best", "better", "good", "degraded"]
                [usize::from(format.rp & 3)],
            in_use: index == identify.format_index(),
        })
        .collect()
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: String| text.push_str(&format!("{key:<22}{value}\n"));
    line("Model", report.model.clone());
    line("Serial", report.serial.clone());
    line("Firmware", report.firmware.clone());
    line("NVMe version", report.version.clone());
    let vendors = (&report.pci_vendor_id, &report.pci_subsystem_vendor_id);
    line("PCI vendor", format!("{} (subsystem {})", vendors.0, vendors.1));
    line("OUI", report.oui.clone());
    line("Controller ID", report.controller_id.to_string());
    report.subsystem_nqn.iter().for_each(|nqn| line("Subsystem NQN", nqn.clone()));
    let limit = |bytes: u64| format!("{bytes} bytes ({})", human_size(bytes));
    let mdts = report.max_data_transfer_bytes.map_or("no limit".to_owned(), limit);
    line("Largest transfer", mdts);
    line("Queues", format!("{} of {} entries", report.io_queues_granted, report.max_queue_entries));
    let cache = if report.volatile_write_cache { "present" } else { "none" };
    line("Volatile write cache", cache.to_owned());
    let offered = |offered: bool| if offered { "yes" } else { "no" }.to_owned();
    line("Shadow doorbells", offered(report.shadow_doorbells));
    line("SGLs", report.sgl.to_owned());
    line("Controller memory", offered(report.controller_memory));
    report.total_capacity.iter().for_each(|&bytes| line("Total capacity", limit(bytes)));
    let active = report.active_namespaces.len();
    line("Namespaces", format!("{active} active, largest NSID {}", report.number_of_namespaces));
    for namespace in &report.namespaces {
        text.push_str(&namespace_text(namespace));
    }
    text.push_str("\nIdentify Controller\n");
    text.push_str(&report.identify_controller.table());
    text.push_str("\nPower states\n");
    text.push_str(&power_table(&report.power_states));
    for namespace in &report.namespaces {
        if let Some(fields) = &namespace.identify_namespace {
            text.push_str(&format!("\nIdentify Namespace {}\n", namespace.nsid));
            text.push_str(&fields.table());
        }
    }
    text
}

fn namespace_text(namespace: &NamespaceReport) -> String {
    let mut text = format!("\nNamespace {}\n", namespace.nsid);
    let mut line = |key: &str, value: String| text.push_str(&format!("  {key:<20}{value}\n"));
    if let Some(why) = &namespace.unusable {
        line("Cannot be used", why.clone());
    }
    let Some(details) = &namespace.details else { return text };
    let size = |bytes: u64| format!("{bytes} bytes ({})", human_size(bytes));
    line("Size", size(details.size));
    line("Capacity", size(details.capacity));
    line("Used", size(details.used));
    if let Some(bytes) = details.optimal_io_boundary_bytes {
        line("I/O boundary", size(bytes));
    }
    if details.protection_type != 0 {
        line("Protection", format!("type {}", details.protection_type));
    }
    details.eui64.iter().for_each(|id| line("EUI-64", id.clone()));
    details.nguid.iter().for_each(|id| line("NGUID", id.clone()));
    let mut table = Table::new(&["  FORMAT", "LBA", "METADATA", "PERFORMANCE", ""], &[0, 1, 2]);
    for format in &details.lba_formats {
        table.row([
            format.index.to_string(),
            format.lba_size.to_string(),
            format.metadata_size.to_string(),
            format.relative_performance.to_owned(),
            if format.in_use { "in use".to_owned() } else { String::new() },
        ]);
    }
    text + &table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromBytes;

    #[test]
    fn any_bytes_can_be_shown() {
        for byte in [0, 0x3f, 0x40, 0x80, 0xff] {
            let bytes = vec![byte; size_of::<IdentifyController>()];
            let id = IdentifyController::read_from_bytes(&bytes).unwrap();
            let fields = controller::fields(&id, 12);
            // Each is one line, whatever bytes the device sends.
            assert_eq!(fields.table().lines().count(), 80, "{}", fields.table());
            assert!(serde_json::to_string(&fields).unwrap().contains("\"oncs\""));
            let states = controller::power_states(&id);
            assert_eq!(power_table(&states).lines().count(), states.len() + 1);
            let id = IdentifyNamespace::read_from_bytes(&bytes).unwrap();
            assert_eq!(namespace::fields(&id).table().lines().count(), 36);
        }
    }

    #[test]
    fn every_byte_of_the_structures_is_in_some_field() {
        // Bytes that are reserved, vendor specific, for fabrics, or shown in separate tables.
        let apart = [102..111, 134..253, 358..368, 384..512, 564..768, 1024..4096];
        let shown = |at: usize| !apart.iter().any(|range| range.contains(&at));
        let zeroes = [0; 4096];
        let table = |bytes: &[u8]| {
            controller::fields(&IdentifyController::read_from_bytes(bytes).unwrap(), 12).table()
        };
        let nothing = table(&zeroes);
        for at in (0..4096).filter(|&at| shown(at)) {
            let mut bytes = zeroes;
            bytes[at] = 0xff;
            // Text fields of zeroes are empty.
            let text =
                [4..72, 768..1024].iter().any(|range: &std::ops::Range<usize>| range.contains(&at));
            if !text {
                assert_ne!(table(&bytes), nothing, "byte {at} is in no field");
            }
        }
    }
}
