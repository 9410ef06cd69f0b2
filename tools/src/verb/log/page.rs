//! The smaller log pages: errors, firmware, changed namespaces.

use std::process::ExitCode;

use nvio_driver::Controller;
use nvio_driver::spec::ErrorLogEntry;

use crate::args::Format;
use crate::error::Error;
use crate::output::print;
use crate::record::Record;

/// Prints Error Information, newest first.
///
/// # Errors
/// If the page cannot be read.
pub fn errors(controller: &Controller, format: Format) -> Result<ExitCode, Error> {
    let entries: Vec<Record> = controller.error_log()?.iter().map(entry).collect();
    print(format, &entries, || match entries.is_empty() {
        true => "no errors\n".to_owned(),
        false => Record::table(&entries, &[0, 1, 2, 3, 4]),
    })
}

fn entry(entry: &ErrorLogEntry) -> Record {
    let status = entry.status();
    let command = entry.cid.get();
    let parameter = entry.parameter();
    let place = parameter.map(|(byte, bit)| format!("byte {byte} bit {bit}"));
    let mut record = Record::default();
    record.value("COUNT", "error_count", entry.error_count.get());
    record.value("QUEUE", "queue", entry.sqid.get());
    record.field("COMMAND", "command", format!("{command:#06x}"), command);
    record.value("NSID", "nsid", entry.nsid.get());
    record.value("LBA", "lba", entry.lba.get());
    record.json("status_code_type", status.kind());
    record.json("status_code", status.code());
    // Byte and bit of the submission queue entry that is in error.
    record.field("PARAMETER", "parameter", place.unwrap_or_else(|| "-".to_owned()), parameter);
    record.value("STATUS", "status", status.to_string());
    record.json("vendor_log", Some(entry.vendor_log).filter(|&id| id != 0));
    record.json("command_specific", entry.command_specific.get());
    record.json("transport_type", entry.trtype);
    record.json("transport_specific", entry.transport_specific.get());
    record
}

/// Prints Firmware Slot Information.
///
/// # Errors
/// If the page cannot be read.
pub fn firmware(controller: &Controller, format: Format) -> Result<ExitCode, Error> {
    let log = controller.firmware_slots()?;
    let slot = |(slot, revision)| {
        let active = (slot == log.active_slot()).then_some("active");
        let next = (Some(slot) == log.next_slot()).then_some("at the next reset");
        let state: Vec<&str> = active.into_iter().chain(next).collect();
        let mut record = Record::default();
        record.value("SLOT", "slot", slot);
        record.value::<String>("REVISION", "revision", revision);
        record.text("STATE", state.join(", "));
        record
    };
    let slots: Vec<Record> = log.slots().map(slot).collect();
    let table = Record::table(&slots, &[0]);
    let mut report = Record::default();
    report.json("active_slot", log.active_slot());
    // Null if the next reset keeps the running firmware.
    report.json("next_slot", log.next_slot());
    report.json("slots", slots);
    print(format, &report, || table)
}

/// Prints the Changed Namespace List. Reading the list clears it.
///
/// # Errors
/// If the page cannot be read.
pub fn changed_namespaces(controller: &Controller, format: Format) -> Result<ExitCode, Error> {
    let log = controller.changed_namespaces()?;
    let namespaces: Vec<u32> = log.ids().collect();
    let text = match (log.is_overflowed(), namespaces.is_empty()) {
        (true, _) => "more than 1024 namespaces changed\n".to_owned(),
        (false, true) => "no namespaces changed\n".to_owned(),
        (false, false) => namespaces.iter().map(|nsid| format!("{nsid}\n")).collect(),
    };
    let mut report = Record::default();
    report.json("overflowed", log.is_overflowed());
    report.json("namespaces", namespaces);
    print(format, &report, || text)
}
