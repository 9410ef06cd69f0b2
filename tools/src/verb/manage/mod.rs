//! Namespace management: `nvio create-ns`, `delete-ns`, `attach-ns` and `detach-ns`.

pub mod attach;
pub mod create;
pub mod delete;

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use nvio::Device;

use crate::args::{ControllerArgs, DestroyArgs, Format};
use crate::error::Error;
use crate::open;
use crate::output::print;
use crate::record::Record;
use crate::units::time;

/// Options of all these verbs.
#[derive(Clone, Debug, Args)]
pub struct ManageArgs {
    #[command(flatten)]
    pub device: ControllerArgs,
    /// Longest time of the command, such as 30m.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = time)]
    pub within: Duration,
    #[command(flatten)]
    pub destroy: DestroyArgs,
    #[command(flatten)]
    pub format: Format,
}

impl ManageArgs {
    /// Opens the device after the user has confirmed.
    fn open(&self) -> Result<Device, Error> {
        self.destroy.check(&self.device.device)?;
        open::writable_device(&self.device)
    }

    /// Returns the ID of the namespace, which the user must give.
    fn nsid(&self) -> Result<u32, Error> {
        self.device.namespace.ok_or(Error::NoNamespaceGiven)
    }

    /// Prints that a namespace was changed.
    fn report(&self, nsid: u32, actions: &[&'static str]) -> Result<ExitCode, Error> {
        let mut report = Record::default();
        report.json("namespace", nsid);
        report.json("actions", actions.to_vec());
        print(self.format, &report, || format!("namespace {nsid}: {}\n", actions.join(", ")))
    }
}
