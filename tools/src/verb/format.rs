//! `nvio format`: formats a namespace.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use nvio_driver::WritableNamespace;
use nvio_driver::spec::namespace::{FormatSettings, erase};

use crate::args::{ControllerArgs, DestroyArgs, Format};
use crate::error::Error;
use crate::open;
use crate::output::{exact_size, print};
use crate::record::Record;
use crate::units::{size, time};

/// Format a namespace, which destroys all of its data.
///
/// Without options the namespace keeps its format. `nvio identify` lists the formats. The controller is
/// reset first.
#[derive(Debug, Args)]
pub struct FormatVerb {
    #[command(flatten)]
    device: ControllerArgs,
    /// Index of the format.
    #[arg(long, value_name = "INDEX", value_parser = clap::value_parser!(u8).range(..64), conflicts_with_all = ["block_size", "metadata"])]
    index: Option<u8>,
    /// Select a format by its logical block.
    #[arg(long, value_name = "SIZE", value_parser = size::<u32>)]
    block_size: Option<u32>,
    /// Select a format by its bytes of metadata for each block. By default none.
    #[arg(long, value_name = "SIZE", value_parser = size::<u16>)]
    metadata: Option<u16>,
    /// Transfer metadata at the end of each block, not in a separate buffer.
    #[arg(long)]
    extended: bool,
    /// Type of protection information, 1 to 3; 0 is none.
    #[arg(long, value_name = "0..3", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=3))]
    protection: u8,
    /// Store protection information in the first bytes of the metadata, not in the last.
    #[arg(long)]
    protection_first: bool,
    /// Secure erase.
    #[arg(long, value_name = "KIND", default_value = "none")]
    erase: Erase,
    /// Longest time of the command, such as 30m.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = time)]
    within: Duration,
    #[command(flatten)]
    destroy: DestroyArgs,
    #[command(flatten)]
    format: Format,
}

/// A secure erase (Base 5.14, SES).
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Erase {
    /// No secure erase.
    None,
    /// All user data is erased.
    UserData,
    /// The key that user data is encrypted with is deleted.
    Cryptographic,
}

impl FormatVerb {
    /// Formats the namespace.
    ///
    /// # Errors
    /// If the user has not confirmed, the device cannot be opened for writing, the namespace does not
    /// have the format, or the controller rejects the command.
    pub fn run(&self) -> Result<ExitCode, Error> {
        self.destroy.check(&self.device.device)?;
        let device = open::writable_device(&self.device)?;
        let nsid = device.namespace(self.device.namespace)?.id();
        let controller = device.controller().writable()?;
        let namespace = controller.writable_namespace(nsid)?;
        let settings = FormatSettings {
            index: self.index_of(&namespace)?,
            extended: self.extended,
            protection: self.protection,
            first: self.protection_first,
            erase: match self.erase {
                Erase::None => erase::NONE,
                Erase::UserData => erase::USER_DATA,
                Erase::Cryptographic => erase::CRYPTOGRAPHIC,
            },
        };
        let namespace = controller.format(namespace, settings, self.within)?;
        let (size, block_size) = (namespace.bytes(), namespace.block_size());
        let metadata = namespace.identify().format().ms.get();
        let mut report = Record::default();
        report.json("namespace", nsid);
        report.json("format", settings.index);
        report.json("block_size", block_size);
        report.json("metadata_size", metadata);
        report.json("size", size);
        print(self.format, &report, || {
            format!(
                "namespace {nsid}: formatted, {} in blocks of {block_size} bytes with {metadata} bytes \
                 of metadata\n",
                exact_size(size.into())
            )
        })
    }

    /// Returns the index of the format that the options select.
    fn index_of(&self, namespace: &WritableNamespace) -> Result<u8, Error> {
        if let Some(index) = self.index {
            return Ok(index);
        }
        let identify = namespace.identify();
        if self.block_size.is_none() && self.metadata.is_none() {
            return Ok(FormatSettings::from_namespace(identify.flbas, identify.dps).index);
        }
        let block_size = self.block_size.unwrap_or(namespace.block_size());
        let metadata = self.metadata.unwrap_or(0);
        namespace.find_format(block_size, metadata).ok_or(Error::NoFormat {
            block_size,
            metadata,
            nsid: namespace.id(),
        })
    }
}
