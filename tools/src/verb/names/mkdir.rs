//! `nvio mkdir`: creates directories.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::process::ExitCode;

use clap::Args;
use nvio::ext4::NewFile;

use crate::args::VolumeArgs;
use crate::error::Error;
use crate::verb::change::permissions::Permissions;

/// Permissions of the directories above one that is created with -p.
const PARENTS: u16 = 0o755;

/// Create directories.
///
/// They belong to user 0 and group 0; `nvio chown` gives them to others. The change is written
/// through the journal. The filesystem must not be mounted.
#[derive(Debug, Args)]
pub struct Mkdir {
    #[command(flatten)]
    volume: VolumeArgs,
    /// Create missing directories above, too. A directory that exists is not an error.
    #[arg(short, long)]
    parents: bool,
    /// Permissions: octal (750), or as for chmod(1), of a=rwx: go-w.
    #[arg(short, long, allow_hyphen_values = true, default_value = "755")]
    mode: Permissions,
    /// Paths in the filesystem.
    #[arg(required = true)]
    paths: Vec<OsString>,
}

impl Mkdir {
    /// Creates each directory.
    ///
    /// # Errors
    /// If the filesystem cannot be opened or closed. Other failures are printed.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let new = NewFile::with_permissions(self.mode.of(0o777, true));
        super::each(&self.volume, &self.paths, |volume, path| {
            if self.parents {
                let end = super::trimmed(path).len() - super::last(path).len();
                let above = path.get(..end).unwrap_or_default();
                volume.create_dir_all_with(above, NewFile::with_permissions(PARENTS))?;
                if volume.lookup(path).is_ok_and(|inode| inode.is_dir()) {
                    return Ok(());
                }
            }
            let created = volume.create_dir_with(path, new);
            let advice = "-p creates the directories above it, too";
            created.map(drop).map_err(super::advise(ErrorKind::NotFound, advice))
        })
    }
}
