//! `nvio create-ns`: creates a namespace.

use std::process::ExitCode;

use clap::Args;
use nvio::Device;
use nvio_driver::NewNamespace;
use nvio_driver::spec::namespace::FormatSettings;

use super::ManageArgs;
use crate::error::Error;
use crate::units::{number, size};

/// Create a namespace (Namespace Management).
///
/// The namespace is attached to no controller unless --attach is given. The controller assigns its ID;
/// --namespace is not used.
#[derive(Debug, Args)]
pub struct CreateNs {
    #[command(flatten)]
    manage: ManageArgs,
    /// Size in bytes, whole blocks.
    #[arg(long, value_name = "SIZE", value_parser = size::<u64>, required_unless_present = "blocks")]
    size: Option<u64>,
    /// Size in logical blocks.
    #[arg(long, value_name = "N", value_parser = number::<u64>, conflicts_with = "size")]
    blocks: Option<u64>,
    /// Index of the format, as `nvio identify` lists them.
    #[arg(long, value_name = "INDEX", default_value_t = 0, value_parser = clap::value_parser!(u8).range(..64))]
    index: u8,
    /// The namespace can be attached to more than one controller.
    #[arg(long)]
    shared: bool,
    /// Attach the namespace to this controller.
    #[arg(long)]
    attach: bool,
}

impl CreateNs {
    /// Creates the namespace.
    ///
    /// # Errors
    /// If the user has not confirmed, the device cannot be opened for writing, the size is not whole
    /// blocks, or the controller rejects a command.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let device = self.manage.open()?;
        let controller = device.controller().writable()?;
        let format = FormatSettings { index: self.index, ..FormatSettings::default() };
        let new = NewNamespace { blocks: self.blocks(&device)?, format, shared: self.shared };
        let nsid = controller.create_namespace(new, self.manage.within)?;
        if !self.attach {
            return self.manage.report(nsid, &["created"]);
        }
        controller.attach_namespace(nsid, &[controller.identify().cntlid.get()])?;
        self.manage.report(nsid, &["created", "attached"])
    }

    /// Returns the size in blocks. The formats of a controller have the same index in each of its
    /// namespaces.
    fn blocks(&self, device: &Device) -> Result<u64, Error> {
        if let Some(blocks) = self.blocks {
            return Ok(blocks);
        }
        let bytes = self.size.unwrap_or(0);
        let controller = device.controller();
        let nsid = *controller.namespace_ids()?.first().ok_or(Error::UnknownBlockSize)?;
        let identify = controller.identify_namespace(nsid)?;
        let format = identify.lbaf.get(usize::from(self.index));
        let block = format.and_then(|format| 1u64.checked_shl(format.lbads.into()));
        match block.filter(|&block| block > 1) {
            None => Err(Error::UnknownBlockSize),
            Some(block) if bytes.is_multiple_of(block) => Ok(bytes / block),
            Some(block) => Err(Error::NotWholeBlocks { bytes, block }),
        }
    }
}
