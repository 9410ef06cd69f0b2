//! `nvio smart`: the health of a drive.

use std::process::ExitCode;

use clap::Args;
use nvio_driver::Controller;
use nvio_driver::spec::{HealthLog, critical_warning};
use serde_json::json;

use crate::args::{ControllerArgs, Format};
use crate::error::Error;
use crate::open;
use crate::output::{exact_size, print};
use crate::record::Record;

/// Bits of the critical warning, and the text for each.
const WARNINGS: [(u8, &str); 6] = [
    (critical_warning::SPARE, "spare below its threshold"),
    (critical_warning::TEMPERATURE, "temperature beyond a threshold"),
    (critical_warning::RELIABILITY, "reliability degraded"),
    (critical_warning::READ_ONLY, "media read-only"),
    (critical_warning::VOLATILE_BACKUP, "backup of volatile memory failed"),
    (critical_warning::PERSISTENT_MEMORY, "persistent memory region read-only or unreliable"),
];

/// Show the health of a drive: temperature, wear, errors.
///
/// The source is the log page SMART / Health Information.
#[derive(Debug, Args)]
pub struct Smart {
    #[command(flatten)]
    device: ControllerArgs,
    #[command(flatten)]
    format: Format,
}

impl Smart {
    /// Prints SMART / Health Information of the controller or of a namespace.
    ///
    /// # Errors
    /// If the controller cannot be opened, or the log page cannot be read.
    pub fn run(&self) -> Result<ExitCode, Error> {
        open::with_device(&self.device, |device| {
            show(device.controller(), self.device.namespace, self.format)
        })
    }
}

/// Prints SMART / Health Information of an open controller.
///
/// # Errors
/// If the log page cannot be read.
pub fn show(controller: &Controller, nsid: Option<u32>, format: Format) -> Result<ExitCode, Error> {
    let log = controller.health(nsid)?;
    let identify = controller.identify();
    let report = report(&log, identify.wctemp.get(), identify.cctemp.get());
    print(format, &report, || text(&report))
}

fn report(log: &HealthLog, warning: u16, critical: u16) -> Record {
    let mut report = Record::default();
    let warnings = warnings(log.critical_warning);
    let text = if warnings.is_empty() { "none".to_owned() } else { warnings.join(", ") };
    report.json("critical_warning", log.critical_warning);
    report.field("Critical warning", "critical_warnings", text, warnings);
    for (heading, key, kelvin) in [
        ("Temperature", "temperature_celsius", log.temperature()),
        ("Warning temperature", "warning_temperature_celsius", warning),
        ("Critical temperature", "critical_temperature_celsius", critical),
    ] {
        report.field(heading, key, degrees(celsius(kelvin)), celsius(kelvin));
    }
    let mut sensors = Vec::new();
    for (number, kelvin) in (1..).zip(log.temperature_sensors) {
        let Some(celsius) = celsius(kelvin.get()) else { continue };
        report.text(format!("Temperature sensor {number}"), degrees(Some(celsius)));
        sensors.push(json!({ "sensor": number, "celsius": celsius }));
    }
    report.json("temperature_sensors", sensors);
    let (spare, threshold) = (log.available_spare, log.available_spare_threshold);
    let text = format!("{spare} % (threshold {threshold} %)");
    report.field("Available spare", "available_spare_percent", text, spare);
    report.json("available_spare_threshold_percent", threshold);
    report.unit("Endurance used", "percentage_used", log.percentage_used, "%");
    let warning = log.endurance_group_warning;
    let text = format!("{warning:#04x}");
    report.field("Endurance group warning", "endurance_group_warning", text, warning);
    for (heading, key, units) in [
        ("Data read", "data_read_bytes", log.data_units_read),
        ("Data written", "data_written_bytes", log.data_units_written),
    ] {
        let bytes = HealthLog::data_unit_bytes(units);
        report.field(heading, key, exact_size(bytes), bytes);
    }
    report.value("Read commands", "host_read_commands", log.host_reads.get());
    report.value("Write commands", "host_write_commands", log.host_writes.get());
    report.unit("Controller busy", "controller_busy_minutes", log.busy_minutes.get(), "min");
    report.value("Power cycles", "power_cycles", log.power_cycles.get());
    report.unit("Power on", "power_on_hours", log.power_on_hours.get(), "h");
    report.value("Unsafe shutdowns", "unsafe_shutdowns", log.unsafe_shutdowns.get());
    report.value("Media errors", "media_errors", log.media_errors.get());
    report.value("Error log entries", "error_log_entries", log.error_log_entries.get());
    let (warning, critical) = (log.warning_temperature_minutes, log.critical_temperature_minutes);
    report.unit("Above warning temp.", "warning_temperature_minutes", warning.get(), "min");
    report.unit("Above critical temp.", "critical_temperature_minutes", critical.get(), "min");
    let transitions = log.thermal_transitions.map(|count| count.get());
    let seconds = log.thermal_seconds.map(|seconds| seconds.get());
    for (at, (count, seconds)) in (1..).zip(transitions.into_iter().zip(seconds)) {
        report.text(format!("Thermal management {at}"), format!("{count} times, {seconds} s"));
    }
    report.json("thermal_management_transitions", transitions);
    report.json("thermal_management_seconds", seconds);
    report
}

fn text(report: &Record) -> String {
    report.render("", 26)
}

/// Converts Kelvin to Celsius. 0 means that the temperature is not reported.
fn celsius(kelvin: u16) -> Option<i32> {
    (kelvin != 0).then(|| i32::from(kelvin) - 273)
}

fn degrees(celsius: Option<i32>) -> String {
    celsius.map_or("-".to_owned(), |celsius| format!("{celsius} °C"))
}

fn warnings(bits: u8) -> Vec<String> {
    let known = WARNINGS.iter().filter(|(bit, _)| bits & bit != 0);
    let mut names: Vec<String> = known.map(|(_, name)| (*name).to_owned()).collect();
    let rest = WARNINGS.iter().fold(bits, |rest, (bit, _)| rest & !bit);
    if rest != 0 {
        names.push(format!("reserved bits {rest:#04x}"));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromBytes;

    fn health(fill: impl Fn(usize) -> u8) -> HealthLog {
        let bytes: Vec<u8> = (0..size_of::<HealthLog>()).map(fill).collect();
        HealthLog::read_from_bytes(&bytes).unwrap()
    }

    #[test]
    fn every_field_is_shown() {
        let first = [0b0100_1001u8, 0x2c, 0x01, 7, 10, 130, 4];
        let log = health(|at| match at {
            // Data units written: 2^24; sensor 2: 272 K.
            51 | 203 => 1,
            202 => 16,
            _ => first.get(at).copied().unwrap_or(0),
        });
        let report = report(&log, 343, 0);
        let json = serde_json::to_value(&report).unwrap();
        let warnings = ["spare below its threshold", "media read-only", "reserved bits 0x40"];
        assert_eq!(json["critical_warnings"], json!(warnings));
        assert_eq!(json["temperature_celsius"], 27);
        assert_eq!(json["warning_temperature_celsius"], 70);
        assert_eq!(json["critical_temperature_celsius"], json!(null));
        assert_eq!(json["temperature_sensors"], json!([{ "sensor": 2, "celsius": -1 }]));
        let shown = text(&report);
        for line in [
            "Temperature               27 °C",
            "Critical temperature      -",
            "Temperature sensor 2      -1 °C",
            "Available spare           7 % (threshold 10 %)",
            "Endurance used            130 %",
            "Data read                 0 bytes (0 B)",
            "Data written              8589934592000 bytes (7.81 TiB)",
        ] {
            assert!(shown.lines().any(|found| found == line), "no {line:?} in\n{shown}");
        }
    }

    #[test]
    fn any_bytes_can_be_shown() {
        let report = report(&health(|_| 0xff), u16::MAX, u16::MAX);
        assert!(text(&report).contains(&format!("{} bytes\n", u128::MAX)));
        let json = serde_json::to_string(&report).unwrap();
        assert!(json.contains(&u128::MAX.to_string()));
    }
}
