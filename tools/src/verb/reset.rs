//! `nvio reset`: resets a controller and brings it up once.

use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use nvio::DeviceName;

use crate::args::{ControllerArgs, DriverArgs, Format};
use crate::error::Error;
use crate::name::one_line;
use crate::open;
use crate::output::print;
use crate::record::Record;

/// Reset a controller, bring it up, and shut it down.
///
/// The steps are a function level reset, CC.EN cleared and set, the first commands, and CC.SHN.
/// Commands of other users are lost. A PCI device must be bound to vfio-pci.
#[derive(Debug, Args)]
pub struct Reset {
    /// PCI address or vfio-user:SOCKET.
    #[arg(value_name = "DEVICE")]
    device: DeviceName,
    #[command(flatten)]
    driver: DriverArgs,
    #[command(flatten)]
    format: Format,
}

impl Reset {
    /// Resets the function, brings the controller up, identifies it, and shuts it down.
    ///
    /// # Errors
    /// If the device is an image, or the controller does not become ready.
    pub fn run(&self) -> Result<ExitCode, Error> {
        if let DeviceName::Image(image) = &self.device {
            return Err(Error::NothingToReset { image: image.clone() });
        }
        let begin = Instant::now();
        // Opening a controller resets its function first.
        let (device, driver) = (self.device.clone(), self.driver.clone());
        let args = ControllerArgs { device, namespace: None, lba_size: 512, driver };
        let device = open::device(&args)?;
        let active = device.controller().namespace_ids()?.len();
        let milliseconds = begin.elapsed().as_millis();
        let identify = device.controller().identify();
        let (model, serial, firmware) = (identify.model(), identify.serial(), identify.firmware());
        let namespaces = if active == 1 { "namespace" } else { "namespaces" };
        let text = format!(
            "{}: function reset, controller ready after {milliseconds} ms, shut down again\n\
             {model}, serial {serial}, firmware {firmware}, {active} active {namespaces}\n",
            one_line(&self.device.to_string())
        );
        let mut report = Record::default();
        report.json("device", self.device.to_string());
        report.json("model", model);
        report.json("serial", serial);
        report.json("firmware", firmware);
        report.json("active_namespaces", active);
        report.json("ready_milliseconds", milliseconds);
        // Shut the controller down before reporting success.
        drop(device);
        print(self.format, &report, || text)
    }
}
