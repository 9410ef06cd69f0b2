//! The log page Commands Supported and Effects.

use nvio_driver::Controller;
use nvio_driver::spec::CommandEffects;
use serde::Serialize;

use crate::args::Format;
use crate::error::Error;
use crate::output::Output;
use crate::table::Table;

/// Bits of an entry (Base 5.16.1.6, figure 211).
const EFFECTS: [(u32, &str); 5] = [
    (CommandEffects::CHANGES_CONTENT, "changes blocks"),
    (CommandEffects::CHANGES_NAMESPACE, "changes namespace capabilities"),
    (CommandEffects::CHANGES_INVENTORY, "changes the inventory of namespaces"),
    (CommandEffects::CHANGES_CONTROLLER, "changes controller capabilities"),
    (CommandEffects::UUID_SELECTION, "UUID selection"),
];

#[derive(Serialize)]
struct Report {
    admin: Vec<Command>,
    io: Vec<Command>,
}

#[derive(Serialize)]
struct Command {
    opcode: u8,
    name: Option<&'static str>,
    effects: Vec<&'static str>,
    /// The entry of the controller.
    entry: u32,
}

/// Prints the commands that a controller supports.
///
/// # Errors
/// If the page cannot be read.
pub fn show(controller: &Controller, format: Format) -> Result<(), Error> {
    let log = controller.command_effects()?;
    let report = Report { admin: commands(&log.admin, admin), io: commands(&log.io, io) };
    let mut out = Output::new();
    if format.json {
        out.json(&report)?;
    } else {
        out.text(&table(&report))?;
    }
    out.flush()
}

fn commands<T: Copy + Into<u32>>(
    entries: &[T; 256],
    name: fn(u8) -> Option<&'static str>,
) -> Vec<Command> {
    let numbered = (0..=u8::MAX).map(|opcode| (opcode, entries[usize::from(opcode)].into()));
    let supported = numbered.filter(|(_, entry)| entry & CommandEffects::SUPPORTED != 0);
    supported.map(|(opcode, entry)| command(opcode, name(opcode), entry)).collect()
}

fn command(opcode: u8, name: Option<&'static str>, entry: u32) -> Command {
    let known = EFFECTS.iter().filter(|(bit, _)| entry & bit != 0);
    let mut effects: Vec<&str> = known.map(|(_, effect)| *effect).collect();
    match CommandEffects::submission(entry) {
        0 => {}
        1 => effects.push("alone on its namespace"),
        2 => effects.push("alone on the controller"),
        _ => effects.push("reserved execution restriction"),
    }
    Command { opcode, name, effects, entry }
}

fn table(report: &Report) -> String {
    let mut table = Table::new(&["KIND", "OPCODE", "COMMAND", "EFFECTS"], &[]);
    for (kind, first_vendor, commands) in
        [("admin", 0xc0, &report.admin), ("I/O", 0x80, &report.io)]
    {
        for Command { opcode, name, effects, .. } in commands {
            let other = if *opcode >= first_vendor { "vendor specific" } else { "unknown" };
            let name = name.unwrap_or(other).to_owned();
            table.row([kind.to_owned(), format!("{opcode:#04x}"), name, effects.join(", ")]);
        }
    }
    table.render()
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
        let write = command(0x01, io(0x01), 0x0001_0003);
        assert_eq!(write.effects, ["changes blocks", "alone on its namespace"]);
        let all = [u32::MAX; 256];
        let text = table(&Report { admin: commands(&all, admin), io: commands(&all, io) });
        assert_eq!(text.lines().count(), 513);
        assert!(text.contains("reserved execution restriction"));
        assert!(text.lines().any(|line| line.starts_with("I/O    0x80    vendor specific")));
        assert!(commands(&[!1u32; 256], io).is_empty());
    }
}
