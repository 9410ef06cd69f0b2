//! `nvio delete-ns`: deletes a namespace.

use std::process::ExitCode;

use clap::Args;

use super::ManageArgs;
use crate::error::Error;

/// Delete the namespace --namespace with all of its data.
///
/// The command is Namespace Management. The controller is reset first.
#[derive(Debug, Args)]
pub struct DeleteNs {
    #[command(flatten)]
    manage: ManageArgs,
}

impl DeleteNs {
    /// Deletes the namespace.
    ///
    /// # Errors
    /// If the user has not confirmed or named no namespace, the device cannot be opened for writing, or
    /// the controller rejects the command.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let nsid = self.manage.nsid()?;
        let device = self.manage.open()?;
        device.controller().writable()?.delete_namespace(nsid, self.manage.within)?;
        self.manage.report(nsid, &["deleted"])
    }
}
