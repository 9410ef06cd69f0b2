//! `nvio smart`: the health of a drive.

use nvio_driver::Controller;
use nvio_driver::spec::{HealthLog, critical_warning};
use serde::Serialize;

use crate::args::{ControllerArgs, Format};
use crate::error::Error;
use crate::open;
use crate::output::{Output, human_size};

/// Bits of the critical warning, and the text for each.
const WARNINGS: [(u8, &str); 6] = [
    (critical_warning::SPARE, "spare below its threshold"),
    (critical_warning::TEMPERATURE, "temperature beyond a threshold"),
    (critical_warning::RELIABILITY, "reliability degraded"),
    (critical_warning::READ_ONLY, "media read-only"),
    (critical_warning::VOLATILE_BACKUP, "backup of volatile memory failed"),
    (critical_warning::PERSISTENT_MEMORY, "persistent memory region read-only or unreliable"),
];

#[derive(Serialize)]
struct Report {
    critical_warning: u8,
    critical_warnings: Vec<String>,
    /// Null if the controller does not report it.
    temperature_celsius: Option<i32>,
    warning_temperature_celsius: Option<i32>,
    critical_temperature_celsius: Option<i32>,
    temperature_sensors: Vec<Sensor>,
    available_spare_percent: u8,
    available_spare_threshold_percent: u8,
    percentage_used: u8,
    endurance_group_warning: u8,
    data_read_bytes: u128,
    data_written_bytes: u128,
    host_read_commands: u128,
    host_write_commands: u128,
    controller_busy_minutes: u128,
    power_cycles: u128,
    power_on_hours: u128,
    unsafe_shutdowns: u128,
    media_errors: u128,
    error_log_entries: u128,
    warning_temperature_minutes: u32,
    critical_temperature_minutes: u32,
    /// Transitions of host-controlled thermal management, for temperatures 1 and 2.
    thermal_management_transitions: [u32; 2],
    thermal_management_seconds: [u32; 2],
}

#[derive(Serialize)]
struct Sensor {
    sensor: usize,
    celsius: i32,
}

/// Prints SMART / Health Information of the controller or of a namespace.
///
/// # Errors
/// If the controller cannot be opened, or the log page cannot be read.
pub fn run(args: &ControllerArgs, format: Format) -> Result<(), Error> {
    let device = open::device(args)?;
    show(device.controller(), args.namespace, format)
}

/// Prints SMART / Health Information of an open controller.
///
/// # Errors
/// If the log page cannot be read.
pub fn show(controller: &Controller, nsid: Option<u32>, format: Format) -> Result<(), Error> {
    let log = controller.health(nsid)?;
    let identify = controller.identify();
    let report = report(&log, identify.wctemp.get(), identify.cctemp.get());
    let mut out = Output::new();
    if format.json {
        out.json(&report)?
    } else {
        out.text(&text(&report))?
    }
    out.flush()
}

/// Converts Kelvin to Celsius. 0 means that the temperature is not reported.
fn celsius(kelvin: u16) -> Option<i32> {
    (kelvin != 0).then(|| i32::from(kelvin) - 273)
}

fn report(log: &HealthLog, warning: u16, critical: u16) -> Report {
    let sensors = (1..).zip(log.temperature_sensors.iter());
    let sensors = sensors
        .filter_map(|(sensor, kelvin)| Some(Sensor { sensor, celsius: celsius(kelvin.get())? }));
    Report {
        critical_warning: log.critical_warning,
        critical_warnings: warnings(log.critical_warning),
        temperature_celsius: celsius(log.temperature()),
        warning_temperature_celsius: celsius(warning),
        critical_temperature_celsius: celsius(critical),
        temperature_sensors: sensors.collect(),
        available_spare_percent: log.available_spare,
        available_spare_threshold_percent: log.available_spare_threshold,
        percentage_used: log.percentage_used,
        endurance_group_warning: log.endurance_group_warning,
        data_read_bytes: HealthLog::data_unit_bytes(log.data_units_read),
        data_written_bytes: HealthLog::data_unit_bytes(log.data_units_written),
        host_read_commands: log.host_reads.get(),
        host_write_commands: log.host_writes.get(),
        controller_busy_minutes: log.busy_minutes.get(),
        power_cycles: log.power_cycles.get(),
        power_on_hours: log.power_on_hours.get(),
        unsafe_shutdowns: log.unsafe_shutdowns.get(),
        media_errors: log.media_errors.get(),
        error_log_entries: log.error_log_entries.get(),
        warning_temperature_minutes: log.warning_temperature_minutes.get(),
        critical_temperature_minutes: log.critical_temperature_minutes.get(),
        thermal_management_transitions: log.thermal_transitions.map(|count| count.get()),
        thermal_management_seconds: log.thermal_seconds.map(|seconds| seconds.get()),
    }
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

fn text(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: String| text.push_str(&format!("{key:<26}{value}\n"));
    let degrees = |celsius: Option<i32>| celsius.map_or("-".to_owned(), |c| format!("{c} °C"));
    let warnings = report.critical_warnings.join(", ");
    line("Critical warning", if warnings.is_empty() { "none".to_owned() } else { warnings });
    line("Temperature", degrees(report.temperature_celsius));
    line("Warning temperature", degrees(report.warning_temperature_celsius));
    line("Critical temperature", degrees(report.critical_temperature_celsius));
    for Sensor { sensor, celsius } in &report.temperature_sensors {
        line(&format!("Temperature sensor {sensor}"), degrees(Some(*celsius)));
    }
    let threshold = report.available_spare_threshold_percent;
    let spare = report.available_spare_percent;
    line("Available spare", format!("{spare} % (threshold {threshold} %)"));
    line("Endurance used", format!("{} %", report.percentage_used));
    line("Endurance group warning", format!("{:#04x}", report.endurance_group_warning));
    line("Data read", size(report.data_read_bytes));
    line("Data written", size(report.data_written_bytes));
    line("Read commands", report.host_read_commands.to_string());
    line("Write commands", report.host_write_commands.to_string());
    line("Controller busy", format!("{} min", report.controller_busy_minutes));
    line("Power cycles", report.power_cycles.to_string());
    line("Power on", format!("{} h", report.power_on_hours));
    line("Unsafe shutdowns", report.unsafe_shutdowns.to_string());
    line("Media errors", report.media_errors.to_string());
    line("Error log entries", report.error_log_entries.to_string());
    line("Above warning temp.", format!("{} min", report.warning_temperature_minutes));
    line("Above critical temp.", format!("{} min", report.critical_temperature_minutes));
    let thermal = report.thermal_management_transitions.iter();
    for (at, (count, seconds)) in (1..).zip(thermal.zip(report.thermal_management_seconds)) {
        line(&format!("Thermal management {at}"), format!("{count} times, {seconds} s"));
    }
    text
}

fn size(bytes: u128) -> String {
    match u64::try_from(bytes) {
        Ok(small) => format!("{bytes} bytes ({})", human_size(small)),
        Err(_) => format!("{bytes} bytes"),
    }
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
        assert_eq!(
            report.critical_warnings,
            ["spare below its threshold", "media read-only", "reserved bits 0x40"]
        );
        assert_eq!(report.temperature_celsius, Some(27));
        assert_eq!(report.warning_temperature_celsius, Some(70));
        assert_eq!(report.critical_temperature_celsius, None);
        assert_eq!(report.temperature_sensors.len(), 1);
        let shown = text(&report);
        for line in [
            "Temperature               27 °C",
            "Critical temperature      -",
            "Temperature sensor 2      -1 °C",
            "Available spare           7 % (threshold 10 %)",
            "Endurance used            130 %",
            "Data read                 0 bytes (0 B)",
            "Data written              8589934592000 bytes (8.59 TB)",
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
