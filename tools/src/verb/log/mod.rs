//! `nvio log`: prints log pages.

mod effects;
mod page;
mod raw;

use std::process::ExitCode;
use std::str::FromStr;

use clap::Args;
use nvio_driver::Controller;
use nvio_driver::spec::{log_id, lpa};

use self::raw::RawRange;
use crate::args::{ControllerArgs, Format};
use crate::error::Error;
use crate::open;
use crate::output::print;
use crate::record::Record;
use crate::units::number;
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
        let allowed =
            "a page is error, smart, firmware, changed-ns, effects, supported, or 0 to 255";
        number(text).map(Self).map_err(|_| allowed)
    }
}

/// Show a log page of the controller.
///
/// Without PAGE, the supported pages are listed.
/// With --namespace, smart and pages that are not decoded are read for that namespace.
#[derive(Debug, Args)]
pub struct Log {
    #[command(flatten)]
    device: ControllerArgs,
    /// error, smart, firmware, changed-ns, effects, supported, or the number of any other page.
    page: Option<LogName>,
    #[command(flatten)]
    range: RawRange,
    #[command(flatten)]
    format: Format,
}

impl Log {
    /// Prints a log page, or the list of pages.
    ///
    /// # Errors
    /// If the controller cannot be opened or does not have the page.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let &Self { range, format, .. } = self;
        open::with_device(&self.device, |device| {
            let (controller, nsid) = (device.controller(), self.device.namespace);
            match self.page.map(|LogName(id)| id) {
                Some(id) if range.is_given() => raw::show(controller, id, nsid, range, format),
                None | Some(log_id::SUPPORTED_LOG_PAGES) => list(controller, format),
                Some(log_id::ERROR_INFORMATION) => page::errors(controller, format),
                Some(log_id::HEALTH) => smart::show(controller, nsid, format),
                Some(log_id::FIRMWARE_SLOT) => page::firmware(controller, format),
                Some(log_id::CHANGED_NAMESPACES) => page::changed_namespaces(controller, format),
                Some(log_id::COMMAND_EFFECTS) => effects::show(controller, format),
                Some(id) => raw::show(controller, id, nsid, range, format),
            }
        })
    }
}

fn list(controller: &Controller, format: Format) -> Result<ExitCode, Error> {
    let reported = controller.identify().lpa & lpa::SUPPORTED_LOG_PAGES != 0;
    let ids: Vec<u8> = match reported {
        true => controller.supported_log_pages()?.ids().collect(),
        false => expected(controller),
    };
    let page = |&id: &u8| {
        let name = NAMES.iter().find(|(_, known)| *known == id).map(|(name, _)| *name);
        let mut page = Record::default();
        page.field("ID", "id", format!("{id:#04x}"), id);
        // The PAGE argument.
        page.optional("PAGE", "name", name);
        page.value("CONTENTS", "title", title(id));
        page
    };
    let pages: Vec<Record> = ids.iter().map(page).collect();
    let table = Record::table(&pages, &[]);
    let mut report = Record::default();
    // True if the controller lists its pages. Otherwise these are the mandatory pages and those
    // that Identify Controller announces.
    report.json("reported", reported);
    report.json("pages", pages);
    print(format, &report, || table)
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
