//! The smaller log pages: errors, firmware, changed namespaces.

use nvio_driver::Controller;
use nvio_driver::spec::ErrorLogEntry;
use serde::Serialize;

use crate::args::Format;
use crate::error::Error;
use crate::output::Output;
use crate::table::Table;

#[derive(Serialize)]
struct ErrorEntry {
    error_count: u64,
    queue: u16,
    command: u16,
    nsid: u32,
    lba: u64,
    status_code_type: u8,
    status_code: u8,
    status: String,
    /// Byte and bit of the submission queue entry that is in error.
    parameter: Option<(u8, u8)>,
    vendor_log: Option<u8>,
    command_specific: u64,
    transport_type: u8,
    transport_specific: u16,
}

/// Prints Error Information, newest first.
///
/// # Errors
/// If the page cannot be read.
pub fn errors(controller: &Controller, format: Format) -> Result<(), Error> {
    let entries: Vec<ErrorEntry> = controller.error_log()?.iter().map(entry).collect();
    let mut out = Output::new();
    if format.json {
        out.json(&entries)?;
    } else if entries.is_empty() {
        out.line("no errors")?;
    } else {
        let headings = ["COUNT", "QUEUE", "COMMAND", "NSID", "LBA", "PARAMETER", "STATUS"];
        let mut table = Table::new(&headings, &[0, 1, 2, 3, 4]);
        for entry in &entries {
            let parameter = entry.parameter.map(|(byte, bit)| format!("byte {byte} bit {bit}"));
            table.row([
                entry.error_count.to_string(),
                entry.queue.to_string(),
                format!("{:#06x}", entry.command),
                entry.nsid.to_string(),
                entry.lba.to_string(),
                parameter.unwrap_or_else(|| "-".to_owned()),
                entry.status.clone(),
            ]);
        }
        out.text(&table.render())?;
    }
    out.flush()
}

fn entry(entry: &ErrorLogEntry) -> ErrorEntry {
    let status = entry.status();
    ErrorEntry {
        error_count: entry.error_count.get(),
        queue: entry.sqid.get(),
        command: entry.cid.get(),
        nsid: entry.nsid.get(),
        lba: entry.lba.get(),
        status_code_type: status.kind(),
        status_code: status.code(),
        status: status.to_string(),
        parameter: entry.parameter(),
        vendor_log: Some(entry.vendor_log).filter(|&id| id != 0),
        command_specific: entry.command_specific.get(),
        transport_type: entry.trtype,
        transport_specific: entry.transport_specific.get(),
    }
}

#[derive(Serialize)]
struct Firmware {
    active_slot: u8,
    /// Null if the next reset keeps the running firmware.
    next_slot: Option<u8>,
    slots: Vec<Slot>,
}

#[derive(Serialize)]
struct Slot {
    slot: u8,
    revision: String,
}

/// Prints Firmware Slot Information.
///
/// # Errors
/// If the page cannot be read.
pub fn firmware(controller: &Controller, format: Format) -> Result<(), Error> {
    let log = controller.firmware_slots()?;
    let slots = log.slots().map(|(slot, revision)| Slot { slot, revision }).collect();
    let report = Firmware { active_slot: log.active_slot(), next_slot: log.next_slot(), slots };
    let mut out = Output::new();
    if format.json {
        out.json(&report)?;
    } else {
        let mut table = Table::new(&["SLOT", "REVISION", "STATE"], &[0]);
        for Slot { slot, revision } in &report.slots {
            let active = (*slot == report.active_slot).then_some("active");
            let next = (Some(*slot) == report.next_slot).then_some("at the next reset");
            let state: Vec<&str> = active.into_iter().chain(next).collect();
            table.row([slot.to_string(), revision.clone(), state.join(", ")]);
        }
        out.text(&table.render())?;
    }
    out.flush()
}

#[derive(Serialize)]
struct Changed {
    /// True if more namespaces changed than fit into the list.
    overflowed: bool,
    namespaces: Vec<u32>,
}

/// Prints the Changed Namespace List. Reading the list clears it.
///
/// # Errors
/// If the page cannot be read.
pub fn changed_namespaces(controller: &Controller, format: Format) -> Result<(), Error> {
    let log = controller.changed_namespaces()?;
    let changed = Changed { overflowed: log.is_overflowed(), namespaces: log.ids().collect() };
    let mut out = Output::new();
    if format.json {
        out.json(&changed)?;
    } else if changed.overflowed {
        out.line("more than 1024 namespaces changed")?;
    } else if changed.namespaces.is_empty() {
        out.line("no namespaces changed")?;
    } else {
        for nsid in &changed.namespaces {
            out.line(&nsid.to_string())?;
        }
    }
    out.flush()
}
