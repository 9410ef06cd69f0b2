//! `nvio mv`: renames files and directories.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;
use nvio::ext4::RenameMode;

use super::Target;
use crate::args::VolumeArgs;
use crate::error::{Error, Failures};
use crate::name::rooted;
use crate::open;

/// Rename files and directories, or move them to another directory.
///
/// A file of the new name is replaced, and so is an empty directory by a directory. The change is
/// written through the journal. The filesystem must not be mounted.
#[derive(Debug, Args)]
pub struct Mv {
    #[command(flatten)]
    volume: VolumeArgs,
    /// Fail for a name that exists, and do not replace it.
    #[arg(short, long, conflicts_with = "exchange")]
    no_clobber: bool,
    /// Exchange the two names, which must exist. TO is not a directory to move into.
    #[arg(long)]
    exchange: bool,
    /// Paths in the filesystem.
    #[arg(required = true, value_name = "FROM")]
    from: Vec<OsString>,
    /// The directory to move into, or the new name.
    #[arg(required = true, value_name = "TO")]
    to: OsString,
}

impl Mv {
    /// Renames each path.
    ///
    /// # Errors
    /// If the filesystem cannot be opened or closed, or several paths have a target that is not a
    /// directory. Other failures are printed.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let mode = match (self.exchange, self.no_clobber) {
            (true, _) => RenameMode::Exchange,
            (_, true) => RenameMode::NoReplace,
            _ => RenameMode::Replace,
        };
        if self.exchange && self.from.len() > 1 {
            return Err(Error::Usage("--exchange needs two paths".to_owned()));
        }
        let volume = open::journaled_volume(&self.volume)?;
        let mut failures = Failures::default();
        let target = match self.exchange {
            true => None,
            false => Some(Target::new(&volume, &self.to, self.from.len())?),
        };
        for from in &self.from {
            let from = rooted(from);
            let to = target.as_ref().map_or_else(|| rooted(&self.to), |target| target.of(&from));
            failures.absorb(volume.rename_with(&from, &to, mode))?;
        }
        volume.close()?;
        Ok(failures.code())
    }
}
