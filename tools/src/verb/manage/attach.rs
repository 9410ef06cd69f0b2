//! `nvio attach-ns` and `nvio detach-ns`: the controllers of a namespace.

use std::process::ExitCode;

use clap::Args;
use nvio::Device;

use super::ManageArgs;
use crate::error::Error;

/// Attach the namespace --namespace to controllers.
#[derive(Debug, Args)]
pub struct AttachNs {
    #[command(flatten)]
    manage: ManageArgs,
    #[command(flatten)]
    to: ControllerIds,
}

/// Detach the namespace --namespace from controllers.
///
/// Its data stays, but is inaccessible. The controller is reset first.
#[derive(Debug, Args)]
pub struct DetachNs {
    #[command(flatten)]
    manage: ManageArgs,
    #[command(flatten)]
    from: ControllerIds,
}

/// Controllers of the subsystem.
#[derive(Clone, Debug, Args)]
struct ControllerIds {
    /// IDs of controllers, as `nvio identify` shows them. By default this controller.
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    controllers: Vec<u16>,
}

impl ControllerIds {
    fn of(&self, device: &Device) -> Vec<u16> {
        match self.controllers.is_empty() {
            true => vec![device.controller().identify().cntlid.get()],
            false => self.controllers.clone(),
        }
    }
}

impl AttachNs {
    /// Attaches the namespace.
    ///
    /// # Errors
    /// If the user has not confirmed or named no namespace, the device cannot be opened for writing, or
    /// the controller rejects the command.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let nsid = self.manage.nsid()?;
        let device = self.manage.open()?;
        device.controller().writable()?.attach_namespace(nsid, &self.to.of(&device))?;
        self.manage.report(nsid, &["attached"])
    }
}

impl DetachNs {
    /// Detaches the namespace.
    ///
    /// # Errors
    /// As [`AttachNs::run`].
    pub fn run(&self) -> Result<ExitCode, Error> {
        let nsid = self.manage.nsid()?;
        let device = self.manage.open()?;
        device.controller().writable()?.detach_namespace(nsid, &self.from.of(&device))?;
        self.manage.report(nsid, &["detached"])
    }
}
