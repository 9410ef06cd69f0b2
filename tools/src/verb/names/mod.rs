//! The verbs that create, rename and remove names, through the journal.

pub mod ln;
pub mod mkdir;
pub mod mv;
pub mod rm;

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;

use nvio::{Inode, JournaledVolume};

use crate::args::VolumeArgs;
use crate::error::{Error, Failures};
use crate::name::{base_name, join, rooted};
use crate::open;

/// Opens the filesystem, calls `change` for each path, and closes the filesystem: all changes are then
/// durable. A failure is printed, and the other paths are changed.
fn each(
    args: &VolumeArgs,
    paths: &[OsString],
    change: impl Fn(&JournaledVolume, &[u8]) -> Result<(), Error>,
) -> Result<ExitCode, Error> {
    let volume = open::journaled_volume(args)?;
    let mut failures = Failures::default();
    for path in paths {
        failures.absorb(change(&volume, &rooted(path)))?;
    }
    volume.close()?;
    Ok(failures.code())
}

/// Adds the next step to an error of this kind.
fn advise(kind: ErrorKind, advice: &str) -> impl Fn(nvio::Error) -> Error + '_ {
    move |error| match error.kind() == kind {
        true => Error::Usage(format!("{}; {advice}", Error::from(error).line())),
        false => error.into(),
    }
}

/// Returns the inode of a path, without following a symbolic link. A name that does not exist has none.
fn existing(volume: &JournaledVolume, path: &[u8]) -> Result<Option<Inode>, Error> {
    match volume.lookup_no_follow(path) {
        Ok(inode) => Ok(Some(inode)),
        Err(nvio::ext4::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(Error::path(path)(error)),
    }
}

/// Returns the path without slashes at its end.
fn trimmed(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
    path.get(..end).unwrap_or_default()
}

/// Returns the last name of a path; the root directory has none.
fn last(path: &[u8]) -> &[u8] {
    let path = trimmed(path);
    path.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
}

/// A target of several sources, or of one.
pub struct Target {
    path: Vec<u8>,
    is_directory: bool,
}

impl Target {
    /// Looks up the target of `sources` sources.
    ///
    /// # Errors
    /// [`Error::TargetNotDirectory`] if it must be a directory, and is not.
    pub fn new(volume: &JournaledVolume, path: &OsString, sources: usize) -> Result<Self, Error> {
        let path = rooted(path);
        let found = volume.lookup(&path);
        let is_directory = found.as_ref().is_ok_and(Inode::is_dir);
        if is_directory || sources == 1 {
            return Ok(Self { path, is_directory });
        }
        let state = if found.is_ok() { "is not a directory" } else { "does not exist" };
        let advice = "several paths need a directory; `nvio mkdir` creates one";
        let target = PathBuf::from(std::ffi::OsStr::from_bytes(&path));
        Err(Error::TargetNotDirectory { target, state, advice })
    }

    /// Returns the target's path, or that of the source's last name in it.
    pub fn of(&self, source: &[u8]) -> Vec<u8> {
        match self.is_directory {
            true => join(&self.path, base_name(source)),
            false => self.path.clone(),
        }
    }
}
