//! The verbs that change metadata, through the journal.

mod attribute_value;
pub mod chmod;
pub mod chown;
pub mod fallocate;
pub mod permissions;
pub mod recover;
pub mod setfattr;
pub mod touch;
pub mod truncate;

use std::ffi::OsString;
use std::process::ExitCode;

use nvio::{Inode, JournaledVolume, ext4};

use crate::args::VolumeArgs;
use crate::error::{Error, Failures};
use crate::name::rooted;
use crate::open;

/// Opens the filesystem, calls `change` for each path, and closes the filesystem: all changes are
/// then durable. A failure is printed, and the other paths are changed.
fn each(
    args: &VolumeArgs,
    paths: &[OsString],
    change: impl Fn(&JournaledVolume, &Inode) -> Result<Inode, ext4::Error>,
) -> Result<ExitCode, Error> {
    let volume = open::journaled_volume(args)?;
    let mut failures = Failures::default();
    for path in paths {
        let path = rooted(path);
        let changed = volume.lookup(&path).and_then(|inode| change(&volume, &inode));
        if let Err(error) = changed {
            failures.report(&Error::path(&path)(error));
        }
    }
    volume.close()?;
    Ok(failures.code())
}
