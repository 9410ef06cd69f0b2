//! The log page Commands Supported and Effects.

use std::process::ExitCode;

use nvio_driver::Controller;
use nvio_driver::spec::CommandEffects;

use crate::args::Format;
use crate::error::Error;
use crate::output::print;
use crate::record::Record;

/// Bits of an entry (Base 5.16.1.6, figure 211).
const EFFECTS: [(u32, &str); 5] = [
    (CommandEffects::CHANGES_CONTENT, "changes blocks"),
    (CommandEffects::CHANGES_NAMESPACE, "changes namespace capabilities"),
    (CommandEffects::CHANGES_INVENTORY, "changes the inventory of namespaces"),
    (CommandEffects::CHANGES_CONTROLLER, "changes controller capabilities"),
    (CommandEffects::UUID_SELECTION, "UUID selection"),
];

/// Prints the commands that a controller supports.
///
/// # Errors
/// If the page cannot be read.
pub fn show(controller: &Controller, format: Format) -> Result<ExitCode, Error> {
    let log = controller.command_effects()?;
    let (admin, io) = (commands("admin", &log.admin), commands("I/O", &log.io));
    let table = Record::table(admin.iter().chain(&io), &[]);
    let mut report = Record::default();
    report.json("admin", admin);
    report.json("io", io);
    print(format, &report, || table)
}

/// Describes the supported commands of a kind: `admin` or `I/O`.
fn commands<T: Copy + Into<u32>>(kind: &'static str, entries: &[T; 256]) -> Vec<Record> {
    let numbered = (0..=u8::MAX).zip(entries.iter().map(|&entry| entry.into()));
    let supported = numbered.filter(|(_, entry)| entry & CommandEffects::SUPPORTED != 0);
    supported.map(|(opcode, entry)| command(kind, opcode, entry)).collect()
}

fn command(kind: &'static str, opcode: u8, entry: u32) -> Record {
    let (name, first_vendor) =
        if kind == "admin" { (admin(opcode), 0xc0) } else { (io(opcode), 0x80) };
    let other = if opcode >= first_vendor { "vendor specific" } else { "unknown" };
    let known = EFFECTS.iter().filter(|(bit, _)| entry & bit != 0);
    let mut effects: Vec<&str> = known.map(|(_, effect)| *effect).collect();
    effects.extend(match CommandEffects::submission(entry) {
        0 => None,
        1 => Some("alone on its namespace"),
        2 => Some("alone on the controller"),
        _ => Some("reserved execution restriction"),
    });
    let mut record = Record::default();
    record.text("KIND", kind);
    record.field("OPCODE", "opcode", format!("{opcode:#04x}"), opcode);
    record.field("COMMAND", "name", name.unwrap_or(other), name);
    record.field("EFFECTS", "effects", effects.join(", "), effects);
    record.json("entry", entry);
    record
}

/// Returns the name of an admin command (Base 5, figure 138).
fn admin(opcode: u8) -> Option<&'static str> {
    Some(match opcode {
        0x00 => "Delete I/O Submission Queue",
        0x01 => "Create I/O Submission Queue",
        0x02 => "Get Log Page",
        0x04 => "Delete I/O Completion Queue",
        0x05 => "Create I/O Completion Queue",
        0x06 => "Identify",
        0x08 => "Abort",
        0x09 => "Set Features",
        0x0a => "Get Features",
        0x0c => "Asynchronous Event Request",
        0x0d => "Namespace Management",
        0x10 => "Firmware Commit",
        0x11 => "Firmware Image Download",
        0x14 => "Device Self-test",
        0x15 => "Namespace Attachment",
        0x18 => "Keep Alive",
        0x19 => "Directive Send",
        0x1a => "Directive Receive",
        0x1c => "Virtualization Management",
        0x1d => "NVMe-MI Send",
        0x1e => "NVMe-MI Receive",
        0x20 => "Capacity Management",
        0x24 => "Lockdown",
        0x7c => "Doorbell Buffer Config",
        0x80 => "Format NVM",
        0x81 => "Security Send",
        0x82 => "Security Receive",
        0x84 => "Sanitize",
        0x86 => "Get LBA Status",
        _ => return None,
    })
}

/// Returns the name of an I/O command (Base 7, NVM 3).
fn io(opcode: u8) -> Option<&'static str> {
    Some(match opcode {
        0x00 => "Flush",
        0x01 => "Write",
        0x02 => "Read",
        0x04 => "Write Uncorrectable",
        0x05 => "Compare",
        0x08 => "Write Zeroes",
        0x09 => "Dataset Management",
        0x0c => "Verify",
        0x0d => "Reservation Register",
        0x0e => "Reservation Report",
        0x11 => "Reservation Acquire",
        0x15 => "Reservation Release",
        0x19 => "Copy",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_are_named_and_any_entry_can_be_shown() {
        let write = serde_json::to_value(command("I/O", 0x01, 0x0001_0003)).unwrap();
        let effects = ["changes blocks", "alone on its namespace"];
        assert_eq!(write["effects"], serde_json::json!(effects));
        let all = [u32::MAX; 256];
        let records = ["admin", "I/O"].map(|kind| commands(kind, &all)).into_iter().flatten();
        let text = Record::table(&records.collect::<Vec<_>>(), &[]);
        assert_eq!(text.lines().count(), 513);
        assert!(text.contains("reserved execution restriction"));
        assert!(text.lines().any(|line| line.starts_with("I/O    0x80    vendor specific")));
        assert!(commands("I/O", &[!1u32; 256]).is_empty());
    }
}
