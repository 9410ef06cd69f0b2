//! `nvio partitions`: the partition table of a device, and the contents of each partition.

use std::process::ExitCode;

use clap::Args;
use nvio::Partition;

use crate::args::{ControllerArgs, Format};
use crate::error::Error;
use crate::interrupt;
use crate::name;
use crate::open;
use crate::output::print;
use crate::record::Record;

/// List the partitions of a device and their contents.
///
/// Each has a number, its start and size in bytes, type, name and content.
#[derive(Debug, Args)]
pub struct Partitions {
    #[command(flatten)]
    device: ControllerArgs,
    #[command(flatten)]
    format: Format,
}

impl Partitions {
    /// Prints the partitions. Damage that was passed over is printed to standard error.
    ///
    /// # Errors
    /// If the device cannot be opened, or has no partition table that can be read.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let found = open::partitions(&self.device)?;
        let device = self.device.device.to_string();
        let rows: Vec<Record> = found.partitions.iter().map(described).collect();
        let text = Record::table(&rows, &[0, 1, 2]);
        let mut report = Record::default();
        report.json("device", device.clone());
        report.json("table", found.scheme.to_string());
        report.json("block_size", found.block_size);
        report.json("device_block_size", found.device_block_size);
        report.json("partitions", rows);
        report.json("warnings", found.warnings.clone());
        let code = print(self.format, &report, || match text.is_empty() {
            true => format!("no partitions in the {}\n", found.scheme),
            false => text,
        })?;
        for warning in &found.warnings {
            interrupt::say(&name::one_line(&format!("{device}: {warning}")));
        }
        Ok(code)
    }
}

fn described(partition: &Partition) -> Record {
    let text = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let mut record = Record::default();
    record.value("NUMBER", "number", partition.number);
    record.value("START", "start", partition.start);
    record.value("SIZE", "size", partition.size);
    // The table has a larger size if the device ends before the partition does.
    record.json("table_size", partition.table_size);
    record.field("TYPE", "type", partition.kind.to_string(), partition.kind.code());
    record.json("type_name", partition.kind.to_string());
    record.field("NAME", "name", text(&partition.name), partition.name.clone());
    record.optional("CONTENT", "content", partition.content.map(|format| format.name));
    record
}
