//! `nvio recover`: replays the journal on the device.

use std::process::ExitCode;

use clap::Args;

use crate::args::{Format, VolumeArgs};
use crate::error::Error;
use crate::open;
use crate::output::print;
use crate::record::Record;

/// Replay the journal of a filesystem that was not unmounted.
///
/// The device is changed as by the next mount, and marked as cleanly unmounted. All other verbs that
/// read do so in memory.
#[derive(Debug, Args)]
pub struct Recover {
    #[command(flatten)]
    volume: VolumeArgs,
    #[command(flatten)]
    format: Format,
}

impl Recover {
    /// Recovers the filesystem, and prints what was done.
    ///
    /// # Errors
    /// If the filesystem cannot be opened or closed.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let volume = open::journaled_volume(&self.volume)?;
        let recovered = volume.recovered();
        volume.close()?;
        let replay = recovered.unwrap_or_default();
        let mut report = Record::default();
        report.json("recovered", recovered.is_some());
        report.json("transactions", replay.transactions);
        report.json("blocks", replay.blocks);
        report.json("revoked", replay.revoked);
        print(self.format, &report, || match recovered {
            Some(_) => format!(
                "replayed {} transactions: {} blocks were written to their places\n",
                replay.transactions, replay.blocks
            ),
            None => "the filesystem was cleanly unmounted\n".to_owned(),
        })
    }
}
