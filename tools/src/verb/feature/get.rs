//! `nvio get-feature`: shows the features of a controller.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use nvio_driver::spec::status;
use nvio_driver::{Controller, Error as DriverError, FeatureValue};

use super::{FeatureName, NAMES, described};
use crate::args::{ControllerArgs, Format};
use crate::error::Error;
use crate::name::hex;
use crate::open;
use crate::output::print;
use crate::record::Record;
use crate::units::number;

/// Show a feature of a controller, or all those with a name.
#[derive(Debug, Args)]
pub struct GetFeature {
    #[command(flatten)]
    device: ControllerArgs,
    /// arbitration, power-management, temperature-threshold, error-recovery, write-cache, queues,
    /// interrupt-coalescing, interrupt-vector, write-atomicity, async-events, keep-alive, or the number
    /// of any feature.
    feature: Option<FeatureName>,
    /// The value to show.
    #[arg(long, value_name = "WHICH", default_value = "current")]
    value: Which,
    /// Part of the feature (CDW11), such as an interrupt vector.
    #[arg(long, value_name = "N", default_value = "0", value_parser = number::<u32>)]
    select: u32,
    #[command(flatten)]
    format: Format,
}

/// A value of a feature.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Which {
    /// The value in use.
    Current,
    /// The value of the manufacturer.
    Default,
    /// The value after a reset.
    Saved,
}

impl GetFeature {
    /// Prints features. JSON is an object for one feature, else an array.
    ///
    /// # Errors
    /// If the controller cannot be opened, or does not have the feature.
    pub fn run(&self) -> Result<ExitCode, Error> {
        open::with_device(&self.device, |device| match self.feature {
            Some(FeatureName(id)) => {
                let record = self.read(device.controller(), id)?;
                print(self.format, &record, || Record::table([&record], &[]))
            }
            None => {
                let all = self.all(device.controller())?;
                print(self.format, &all, || Record::table(&all, &[]))
            }
        })
    }

    /// Reads all features with a name that the controller has.
    fn all(&self, controller: &Controller) -> Result<Vec<Record>, Error> {
        let mut all = Vec::new();
        for (_, id) in NAMES {
            match self.read(controller, id) {
                Ok(record) => all.push(record),
                Err(DriverError::Command { status, .. })
                    if status.bare() == status::INVALID_FIELD => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(all)
    }

    fn read(&self, controller: &Controller, id: u8) -> Result<Record, DriverError> {
        let value = match self.value {
            Which::Current => FeatureValue::Current,
            Which::Default => FeatureValue::Default,
            Which::Saved => FeatureValue::Saved,
        };
        let nsid = self.device.namespace.unwrap_or(0);
        let (value, data) = controller.feature(id, nsid, value, self.select)?;
        let mut record = described(id, value);
        let length = data.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        let data = data.get(..length).unwrap_or_default();
        if !data.is_empty() {
            record.field("DATA", "data", hex(data), hex(data));
        }
        Ok(record)
    }
}
