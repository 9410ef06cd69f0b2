//! `nvio set-feature`: changes a feature of a controller.

use std::process::ExitCode;

use clap::Args;
use nvio_driver::FeatureValue;

use super::{FeatureName, described};
use crate::args::{ControllerArgs, Format};
use crate::error::Error;
use crate::open;
use crate::output::print;
use crate::record::Record;
use crate::units::number;

/// Change a feature of a controller, and show its value.
///
/// Without --save the value is lost when the command ends, because the controller is then reset.
/// Features that the driver depends on, and those whose value is a data structure, are refused.
#[derive(Debug, Args)]
pub struct SetFeature {
    #[command(flatten)]
    device: ControllerArgs,
    /// The name or the number of the feature, as for get-feature.
    feature: FeatureName,
    /// The value (CDW11), in decimal or with 0x in hexadecimal.
    #[arg(value_parser = number::<u32>)]
    value: u32,
    /// Keep the value across resets.
    #[arg(long)]
    save: bool,
    #[command(flatten)]
    format: Format,
}

impl SetFeature {
    /// Sets the feature, and reads it.
    ///
    /// # Errors
    /// If the device cannot be opened for writing, or the controller rejects the value.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let device = open::writable_device(&self.device)?;
        let controller = device.controller().writable()?;
        let FeatureName(id) = self.feature;
        let nsid = self.device.namespace.unwrap_or(0);
        controller.set_feature(id, nsid, self.value, self.save)?;
        // The value has the selector of some features, too.
        let (value, _) = controller.feature(id, nsid, FeatureValue::Current, self.value)?;
        let record = described(id, value);
        print(self.format, &record, || Record::table([&record], &[]))
    }
}
