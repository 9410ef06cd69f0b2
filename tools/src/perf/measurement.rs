//! A finished run: what a report is made of.

use nvio_perf::outcome::Outcome;

use crate::perf::change::Against;
use crate::perf::environment::Environment;
use crate::perf::settings::{Settings, Way};

/// A device or file, and its measurement.
#[derive(Clone, Debug)]
pub struct Row {
    /// Name of the device, and of the file on it.
    pub name: String,
    /// Index of the device in [`Environment::devices`].
    pub device: usize,
    /// The file, if it is not the whole device.
    pub path: Option<String>,
    /// Bytes that requests went to.
    pub bytes: u64,
    /// The threads of the row, merged.
    pub outcome: Outcome,
    /// Number of threads.
    pub threads: usize,
}

/// A finished run.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// The settings.
    pub settings: Settings,
    /// The machine and the devices.
    pub environment: Environment,
    /// The devices and files.
    pub rows: Vec<Row>,
    /// All rows merged.
    pub total: Outcome,
    /// Cost of one reading of the clock in nanoseconds.
    pub clock_cost: f64,
    /// The user has ended the run.
    pub is_interrupted: bool,
    /// The comparison with an earlier run.
    pub baseline: Option<Against>,
}

impl Measurement {
    /// Returns the way of requests on files. `None` if there are none.
    pub fn way(&self) -> Option<&'static str> {
        (self.settings.way != Way::Raw).then(|| self.settings.way.name())
    }

    /// Returns the rows, and the total if there are several.
    pub fn with_total(&self) -> impl Iterator<Item = (&str, &Outcome)> {
        let total = (self.rows.len() > 1).then_some(("total", &self.total));
        self.rows.iter().map(|row| (row.name.as_str(), &row.outcome)).chain(total)
    }
}
