//! `nvio chmod`: changes permissions.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;

use super::permissions::Permissions;
use crate::args::VolumeArgs;
use crate::error::Error;

/// Change the permissions of files.
///
/// The change is written through the journal. The filesystem must not be mounted.
#[derive(Debug, Args)]
pub struct Chmod {
    #[command(flatten)]
    volume: VolumeArgs,
    /// Octal (640), or as for chmod(1): u+rw,go-x.
    #[arg(allow_hyphen_values = true)]
    mode: Permissions,
    /// Paths in the filesystem.
    #[arg(required = true)]
    paths: Vec<OsString>,
}

impl Chmod {
    /// Changes the permissions of each path.
    ///
    /// # Errors
    /// If the filesystem cannot be opened or closed. Other failures are printed.
    pub fn run(&self) -> Result<ExitCode, Error> {
        super::each(&self.volume, &self.paths, |volume, inode| {
            let permissions = self.mode.of(inode.permissions(), inode.is_dir());
            volume.filesystem().set_permissions(inode.number(), permissions)
        })
    }
}
