//! `nvio reset`: resets a controller and brings it up once.

use std::time::Instant;

use nvio::DeviceName;
use serde::Serialize;

use crate::args::{ControllerArgs, Format};
use crate::error::Error;
use crate::open;
use crate::output::Output;

#[derive(Serialize)]
struct Report {
    device: String,
    model: String,
    serial: String,
    firmware: String,
    active_namespaces: usize,
    /// Time from the reset to the end of the first commands.
    ready_milliseconds: u128,
}

/// Resets the function, brings the controller up, identifies it, and shuts it down.
///
/// # Errors
/// If the device is an image, or the controller does not become ready.
pub fn run(name: &DeviceName, format: Format) -> Result<(), Error> {
    if let DeviceName::Image(image) = name {
        return Err(Error::NothingToReset { image: image.clone() });
    }
    let begin = Instant::now();
    // Opening a controller resets its function first.
    let args = ControllerArgs { device: name.clone(), namespace: None, lba_size: 512 };
    let device = open::device(&args)?;
    let active_namespaces = device.controller().namespace_ids()?.len();
    let ready_milliseconds = begin.elapsed().as_millis();
    let identify = device.controller().identify();
    let report = Report {
        device: name.to_string(),
        model: identify.model(),
        serial: identify.serial(),
        firmware: identify.firmware(),
        active_namespaces,
        ready_milliseconds,
    };
    // Shut the controller down before reporting success.
    drop(device);
    let mut out = Output::new();
    if format.json {
        out.json(&report)?;
    } else {
        out.line(&format!(
            "{}: function reset, controller ready after {ready_milliseconds} ms, shut down again",
            crate::name::one_line(&report.device)
        ))?;
        let Report { model, serial, firmware, .. } = &report;
        let count = if active_namespaces == 1 { "namespace" } else { "namespaces" };
        out.line(&format!(
            "{model}, serial {serial}, firmware {firmware}, {active_namespaces} active {count}"
        ))?;
    }
    out.flush()
}
