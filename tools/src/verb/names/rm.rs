//! `nvio rm`: removes files and directories.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::process::ExitCode;

use clap::Args;
use nvio::JournaledVolume;

use crate::args::VolumeArgs;
use crate::error::Error;
use crate::interrupt;
use crate::name::escaped;
use crate::progress;

/// Remove files and directories.
///
/// Symbolic links are removed, not followed. The change is written through the journal. The
/// filesystem must not be mounted.
#[derive(Debug, Args)]
pub struct Rm {
    #[command(flatten)]
    volume: VolumeArgs,
    /// Remove directories with all their entries.
    #[arg(short, long)]
    recursive: bool,
    /// Ignore paths that do not exist.
    #[arg(short, long)]
    force: bool,
    /// Remove empty directories.
    #[arg(short, long)]
    dir: bool,
    /// Paths in the filesystem.
    #[arg(required_unless_present = "force")]
    paths: Vec<OsString>,
}

impl Rm {
    /// Removes each path.
    ///
    /// # Errors
    /// If the filesystem cannot be opened or closed. Other failures are printed.
    pub fn run(&self) -> Result<ExitCode, Error> {
        interrupt::report_at_end("the removal is incomplete; repeat it".to_owned());
        super::each(&self.volume, &self.paths, |volume, path| self.remove(volume, path))
    }

    fn remove(&self, volume: &JournaledVolume, path: &[u8]) -> Result<(), Error> {
        if matches!(super::last(path), b"" | b"." | b"..") {
            let path = escaped(path);
            return Err(Error::Usage(format!("{path} cannot be removed; name its entries")));
        }
        let Some(inode) = super::existing(volume, super::trimmed(path))? else {
            return match self.force {
                true => Ok(()),
                false => Ok(volume.remove_file(path)?),
            };
        };
        match inode.is_dir() {
            false => volume.remove_file(path)?,
            true if self.recursive => {
                let spinner = progress::step("removing");
                let removed = volume.remove_dir_all(path);
                spinner.finish_and_clear();
                removed?;
            }
            true if self.dir => {
                let advice = "-r removes it with all its entries";
                let advised = super::advise(ErrorKind::DirectoryNotEmpty, advice);
                volume.remove_dir(path).map_err(advised)?;
            }
            true => {
                let advice = "-r removes it with all its entries, -d if it is empty";
                return Err(Error::Directory { path: escaped(path), advice });
            }
        }
        Ok(())
    }
}
