//! `nvio reset`: a controller is reset and brought up once.

use std::time::Instant;

use nvio::DeviceName;
use serde::Serialize;

use crate::cli::{ControllerArgs, Format};
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
    /// From before the reset until the controller had answered its first commands.
    ready_milliseconds: u128,
}

/// Resets the function, brings the controller up, asks who it is, and shuts it down in order.
///
/// # Errors
/// For an image, which has nothing to reset; if the controller does not come up.
pub fn run(name: &DeviceName, format: Format) -> Result<(), Error> {
    if let DeviceName::Image(image) = name {
        return Err(Error::NothingToReset { image: image.clone() });
    }
    let begin = Instant::now();
    // To attach is to reset: the driver starts from a function that was just reset.
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
    // Shut down before it is said that all went well.
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
