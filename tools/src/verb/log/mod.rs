//! `nvio log`: prints log pages.

mod effects;
mod page;
mod raw;

use std::str::FromStr;

use nvio_driver::Controller;
use nvio_driver::spec::{log_id, lpa};
use serde::Serialize;

use crate::args::{ControllerArgs, Format, RawRange};
use crate::error::Error;
use crate::open;
use crate::output::Output;
use crate::table::Table;
use crate::verb::smart;

/// The log page that a command line names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogName(u8);

/// Names of decoded pages.
const NAMES: [(&str, u8); 6] = [
    ("error", log_id::ERROR_INFORMATION),
    ("smart", log_id::HEALTH),
    ("firmware", log_id::FIRMWARE_SLOT),
    ("changed-ns", log_id::CHANGED_NAMESPACES),
    ("effects", log_id::COMMAND_EFFECTS),
    ("supported", log_id::SUPPORTED_LOG_PAGES),
];

impl FromStr for LogName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        if let Some((_, id)) = NAMES.iter().find(|(name, _)| *name == text) {
            return Ok(Self(*id));
        }
        let number = match text.strip_prefix("0x") {
            Some(digits) => u8::from_str_radix(digits, 16),
            None => text.parse(),
        };
        let allowed =
            "a page is error, smart, firmware, changed-ns, effects, supported, or 0 to 255";
        number.map(Self).map_err(|_| allowed)
    }
}

/// Prints a log page, or the list of pages.
///
/// # Errors
/// If the controller cannot be opened or does not have the page.
pub fn run(
    args: &ControllerArgs,
    page: Option<LogName>,
    range: RawRange,
    format: Format,
) -> Result<(), Error> {
    let device = open::device(args)?;
    let controller = device.controller();
    let is_raw = range.length.is_some() || range.offset.is_some();
    match page.map(|LogName(id)| id) {
        Some(id) if is_raw => raw::show(controller, id, args.namespace, range, format),
        None | Some(log_id::SUPPORTED_LOG_PAGES) => list(controller, format),
        Some(log_id::ERROR_INFORMATION) => page::errors(controller, format),
        Some(log_id::HEALTH) => smart::show(controller, args.namespace, format),
        Some(log_id::FIRMWARE_SLOT) => page::firmware(controller, format),
        Some(log_id::CHANGED_NAMESPACES) => page::changed_namespaces(controller, format),
        Some(log_id::COMMAND_EFFECTS) => effects::show(controller, format),
        Some(id) => raw::show(controller, id, args.namespace, range, format),
    }
}

#[derive(Serialize)]
struct Pages {
    /// True if the controller lists its pages. Otherwise these are the mandatory pages and those
    /// that Identify Controller announces.
    reported: bool,
    pages: Vec<Page>,
}

#[derive(Serialize)]
struct Page {
    id: u8,
    /// The PAGE argument of `nvio log`.
    name: Option<&'static str>,
    title: &'static str,
}

fn list(controller: &Controller, format: Format) -> Result<(), Error> {
    let reported = controller.identify().lpa & lpa::SUPPORTED_LOG_PAGES != 0;
    let ids = match reported {
        true => controller.supported_log_pages()?.ids().collect(),
        false => expected(controller),
    };
    let name = |id| NAMES.iter().find(|(_, known)| *known == id).map(|(name, _)| *name);
    let pages = ids.into_iter().map(|id| Page { id, name: name(id), title: title(id) });
    let pages = Pages { reported, pages: pages.collect() };
    let mut out = Output::new();
    if format.json {
        out.json(&pages)?;
    } else {
        let mut table = Table::new(&["ID", "PAGE", "CONTENTS"], &[]);
        for Page { id, name, title } in &pages.pages {
            table.row([format!("{id:#04x}"), name.unwrap_or("-").into(), (*title).into()]);
        }
        out.text(&table.render())?;
    }
    out.flush()
}

/// Returns the pages of a controller that does not list them (Base 5.17.2.1: LPA, OAES, OACS).
fn expected(controller: &Controller) -> Vec<u8> {
    let identify = controller.identify();
    let log = |bit: u8| identify.lpa >> bit & 1 != 0;
    let optional = [
        (identify.oaes.get() >> 8 & 1 != 0, log_id::CHANGED_NAMESPACES),
        (log(1), log_id::COMMAND_EFFECTS),
        (identify.oacs.get() >> 4 & 1 != 0, 0x06),
        (log(3), 0x07),
        (log(3), 0x08),
        (log(4), 0x0d),
    ];
    let mandatory = [log_id::ERROR_INFORMATION, log_id::HEALTH, log_id::FIRMWARE_SLOT];
    let offered = optional.into_iter().filter_map(|(there, id)| there.then_some(id));
    mandatory.into_iter().chain(offered).collect()
}

/// Returns the name of a page (Base 5.16.1, figure 202).
fn title(id: u8) -> &'static str {
    match id {
        0x00 => "Supported Log Pages",
        0x01 => "Error Information",
        0x02 => "SMART / Health Information",
        0x03 => "Firmware Slot Information",
        0x04 => "Changed Namespace List",
        0x05 => "Commands Supported and Effects",
        0x06 => "Device Self-test",
        0x07 => "Telemetry Host-Initiated",
        0x08 => "Telemetry Controller-Initiated",
        0x09 => "Endurance Group Information",
        0x0a => "Predictable Latency Per NVM Set",
        0x0b => "Predictable Latency Event Aggregate",
        0x0c => "Asymmetric Namespace Access",
        0x0d => "Persistent Event Log",
        0x0e => "LBA Status Information",
        0x0f => "Endurance Group Event Aggregate",
        0x10 => "Media Unit Status",
        0x11 => "Supported Capacity Configuration List",
        0x12 => "Feature Identifiers Supported and Effects",
        0x13 => "NVMe-MI Commands Supported and Effects",
        0x14 => "Command and Feature Lockdown",
        0x15 => "Boot Partition",
        0x16 => "Rotational Media Information",
        0x70 => "Discovery",
        0x80 => "Reservation Notification",
        0x81 => "Sanitize Status",
        0xc0.. => "vendor specific",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_names_and_numbers() {
        let parsed = |text: &str| text.parse::<LogName>();
        assert_eq!(parsed("error"), Ok(LogName(1)));
        assert_eq!(parsed("changed-ns"), Ok(LogName(4)));
        assert_eq!((parsed("0xc0"), parsed("192")), (Ok(LogName(192)), Ok(LogName(192))));
        for text in ["", "0x", "256", "0x100", "-1", "Error"] {
            assert!(parsed(text).is_err(), "{text:?}");
        }
    }
}
