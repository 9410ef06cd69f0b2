//! `nvio ln`: creates links.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use clap::Args;
use nvio::JournaledVolume;

use super::Target;
use crate::args::VolumeArgs;
use crate::error::{Error, Failures};
use crate::name::rooted;
use crate::open;

/// Create a hard link or a symbolic link.
///
/// If LINK is a directory, the link is created in it, with the last name of TARGET. The change is
/// written through the journal. The filesystem must not be mounted.
#[derive(Debug, Args)]
pub struct Ln {
    #[command(flatten)]
    volume: VolumeArgs,
    /// Create a symbolic link. TARGET is its text, and need not exist.
    #[arg(short, long)]
    symbolic: bool,
    /// Replace a file of the name LINK.
    #[arg(short, long)]
    force: bool,
    /// The file that the link leads to.
    #[arg(value_name = "TARGET")]
    target: OsString,
    /// The new name.
    #[arg(value_name = "LINK")]
    link: OsString,
}

impl Ln {
    /// Creates the link.
    ///
    /// # Errors
    /// If the filesystem cannot be opened or closed. Other failures are printed.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let volume = open::journaled_volume(&self.volume)?;
        let link = Target::new(&volume, &self.link, 1)?.of(self.target.as_bytes());
        let mut failures = Failures::default();
        let made = match self.make(&volume, &link) {
            Err(error) if self.force && error.kind() == ErrorKind::AlreadyExists => {
                self.replace(&volume, &link)
            }
            made => made,
        };
        let advice = "-f replaces a file of this name";
        failures.absorb(made.map_err(super::advise(ErrorKind::AlreadyExists, advice)))?;
        volume.close()?;
        Ok(failures.code())
    }

    fn make(&self, volume: &JournaledVolume, link: &[u8]) -> Result<(), nvio::Error> {
        match self.symbolic {
            true => volume.symlink(self.target.as_bytes(), link),
            false => volume.hard_link(rooted(&self.target), link),
        }
        .map(drop)
    }

    /// Creates the link with another name, which then takes the place of the existing one.
    fn replace(&self, volume: &JournaledVolume, link: &[u8]) -> Result<(), nvio::Error> {
        let link = super::trimmed(link);
        let above = link.len() - super::last(link).len();
        let above = link.get(..above).unwrap_or_default();
        let temporary = [above, format!(".nvio-ln-{}", std::process::id()).as_bytes()].concat();
        self.make(volume, &temporary)?;
        let renamed = volume.rename(&temporary, link);
        // After a failure, and if both names are those of one file, it is still there.
        match volume.remove_file(&temporary) {
            Err(error) if error.kind() != ErrorKind::NotFound => renamed.and(Err(error)),
            _ => renamed,
        }
    }
}
