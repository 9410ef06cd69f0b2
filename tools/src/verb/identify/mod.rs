//! `nvio identify`: the Identify data of a controller and its namespaces.

mod controller;
pub mod field;
mod namespace;

use std::process::ExitCode;

use clap::Args;
use nvio_driver::spec::{IdentifyController, IdentifyNamespace, LbaFormat, sgl};
use nvio_driver::{Controller, Namespace};

use crate::args::{ControllerArgs, Format};
use crate::error::{Error, one_line};
use crate::open;
use crate::output::{exact_size, print};
use crate::record::Record;
use field::identifier;

/// Maximum number of namespaces that are identified. A controller may have many thousands.
const NAMESPACES_SHOWN: usize = 128;

/// Show the Identify data of a controller and its namespaces.
#[derive(Debug, Args)]
pub struct Identify {
    #[command(flatten)]
    device: ControllerArgs,
    #[command(flatten)]
    format: Format,
}

impl Identify {
    /// Prints the Identify data of a controller.
    ///
    /// # Errors
    /// If the controller cannot be opened, or Identify fails.
    pub fn run(&self) -> Result<ExitCode, Error> {
        open::with_device(&self.device, |device| {
            let controller = device.controller();
            let active = controller.namespace_ids()?;
            let shown: Vec<u32> = match self.device.namespace {
                Some(nsid) => vec![device.check_active(nsid)?],
                None => active.iter().copied().take(NAMESPACES_SHOWN).collect(),
            };
            let page_shift = controller.capabilities().min_page_shift();
            let fields = controller::fields(controller.identify(), page_shift);
            let states = controller::power_states(controller.identify());
            let mut report = summary(controller, active);
            let mut text = report.render("", 22);
            let mut tables = format!("\nIdentify Controller\n{}", fields.table());
            tables += &format!("\nPower states\n{}", controller::power_table(&states));
            let mut namespaces = Vec::new();
            for nsid in shown {
                let mut record = Record::default();
                record.json("nsid", nsid);
                let formats = match controller.namespace(nsid) {
                    Ok(namespace) => details(&mut record, &namespace),
                    Err(error) => {
                        record.value("Cannot be used", "unusable", one_line(&error));
                        String::new()
                    }
                };
                text += &format!("\nNamespace {nsid}\n{}{formats}", record.render("  ", 20));
                // A namespace that the driver cannot use is shown, too.
                let identify = controller.identify_namespace(nsid).ok();
                let fields = identify.map(|identify| namespace::fields(&identify));
                if let Some(fields) = &fields {
                    tables += &format!("\nIdentify Namespace {nsid}\n{}", fields.table());
                }
                record.json("identify_namespace", fields);
                namespaces.push(record);
            }
            report.json("identify_controller", fields);
            report.json("power_states", states);
            report.json("namespaces", namespaces);
            print(self.format, &report, || text + &tables)
        })
    }
}

fn summary(controller: &Controller, active: Vec<u32>) -> Record {
    let identify: &IdentifyController = controller.identify();
    let capabilities = controller.capabilities();
    let page_shift = capabilities.min_page_shift();
    let page_size = |shift: u32| 1u64.checked_shl(shift).unwrap_or(0);
    let yes_no = |yes: bool| if yes { "yes" } else { "no" };
    let mut report = Record::default();
    report.value("Model", "model", identify.model());
    report.value("Serial", "serial", identify.serial());
    report.value("Firmware", "firmware", identify.firmware());
    report.value("NVMe version", "version", controller.version().to_string());
    let [vendor, subsystem] = [identify.vid, identify.ssvid].map(|id| format!("{:#06x}", id.get()));
    report.field(
        "PCI vendor",
        "pci_vendor_id",
        format!("{vendor} (subsystem {subsystem})"),
        vendor,
    );
    report.json("pci_subsystem_vendor_id", subsystem);
    report.value("OUI", "oui", controller::oui(identify));
    report.value("Controller ID", "controller_id", identify.cntlid.get());
    let nqn = Some(identify.nqn()).filter(|nqn| !nqn.is_empty());
    report.if_any("Subsystem NQN", "subsystem_nqn", nqn);
    let most = identify.max_transfer(page_shift);
    let text = most.map_or("no limit".to_owned(), |bytes| exact_size(bytes.into()));
    report.field("Largest transfer", "max_data_transfer_bytes", text, most);
    report.json("max_command_bytes", controller.max_transfer());
    let (queues, entries) = (controller.granted_queues(), capabilities.max_queue_entries());
    let text = format!("{queues} of {entries} entries");
    report.field("Queues", "io_queues_granted", text, queues);
    report.json("max_queue_entries", entries);
    report.json("min_page_size", page_size(page_shift));
    report.json("max_page_size", page_size(capabilities.max_page_shift()));
    report.json("doorbell_stride", capabilities.doorbell_stride());
    let cache = identify.has_write_cache();
    let text = if cache { "present" } else { "none" };
    report.field("Volatile write cache", "volatile_write_cache", text, cache);
    let shadow = identify.oacs.get() >> 8 & 1 != 0;
    report.field("Shadow doorbells", "shadow_doorbells", yes_no(shadow), shadow);
    let sgl = match identify.sgls.get() & sgl::support::MASK {
        0 => "none",
        sgl::support::BYTE_ALIGNED => "byte aligned",
        sgl::support::DWORD_ALIGNED => "dword aligned",
        _ => "unknown",
    };
    report.value("SGLs", "sgl", sgl);
    let memory = capabilities.controller_memory();
    report.field("Controller memory", "controller_memory", yes_no(memory), memory);
    match u64::try_from(identify.tnvmcap.get()).unwrap_or(u64::MAX) {
        0 => report.json("total_capacity", ()),
        bytes => report.size("Total capacity", "total_capacity", bytes),
    }
    let (count, largest) = (active.len(), identify.nn.get());
    report.text("Namespaces", format!("{count} active, largest NSID {largest}"));
    report.json("number_of_namespaces", largest);
    report.json("active_namespaces", active);
    report
}

/// Adds the fields of a namespace that the driver can use, and returns the table of its formats.
fn details(record: &mut Record, namespace: &Namespace) -> String {
    let identify: &IdentifyNamespace = namespace.identify();
    let bytes = |blocks: u64| blocks.saturating_mul(namespace.block_size().into());
    record.size("Size", "size", namespace.bytes());
    record.size("Capacity", "capacity", bytes(identify.ncap.get()));
    record.size("Used", "used", bytes(identify.nuse.get()));
    record.json("lba_size", namespace.block_size());
    record.json("metadata_size", identify.format().ms.get());
    match bytes(identify.noiob.get().into()) {
        0 => record.json("optimal_io_boundary_bytes", ()),
        boundary => record.size("I/O boundary", "optimal_io_boundary_bytes", boundary),
    }
    record.json("protection_type", identify.protection_type());
    if identify.protection_type() != 0 {
        record.text("Protection", format!("type {}", identify.protection_type()));
    }
    record.if_any("EUI-64", "eui64", identifier(&identify.eui64));
    record.if_any("NGUID", "nguid", identifier(&identify.nguid));
    let formats = formats(identify);
    let table = Record::table(&formats, &[0, 1, 2]);
    record.json("lba_formats", formats);
    table
}

/// Returns the available formats: LBADS of 0 means unavailable (NVM 4.1.5.1), above 63 is
/// impossible.
fn formats(identify: &IdentifyNamespace) -> Vec<Record> {
    let all = identify.lbaf.iter().enumerate().take(usize::from(identify.nlbaf).min(63) + 1);
    let available = all.filter(|(_, format)| (9..64).contains(&format.lbads));
    let record = |(index, format): (usize, &LbaFormat)| {
        let performance = ["best", "better", "good", "degraded"][usize::from(format.rp & 3)];
        let in_use = index == identify.format_index();
        let mut record = Record::default();
        record.value("  FORMAT", "index", index);
        record.value("LBA", "lba_size", 1u64 << format.lbads);
        record.value("METADATA", "metadata_size", format.ms.get());
        record.value("PERFORMANCE", "relative_performance", performance);
        record.field("", "in_use", if in_use { "in use" } else { "" }, in_use);
        record
    };
    available.map(record).collect()
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
            assert_eq!(controller::power_table(&states).lines().count(), states.len() + 1);
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
