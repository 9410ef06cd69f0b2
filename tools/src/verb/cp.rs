//! `nvio cp`: copies files from the device to this machine.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use nvio::Volume;
use nvio_ext4::Inode;

use crate::args::VolumeArgs;
use crate::copy::{Copier, base_name};
use crate::error::Error;
use crate::name::{self, rooted};
use crate::open;
use crate::progress;

/// Copy files from the device to this machine as cp -a does.
///
/// Holes stay holes; links, modes and times are kept, and owners if run by root. No file is written
/// through a symbolic link.
#[derive(Debug, Args)]
pub struct Cp {
    #[command(flatten)]
    volume: VolumeArgs,
    /// Paths in the filesystem.
    #[arg(required = true)]
    pub paths: Vec<OsString>,
    /// The target on this machine: a directory to copy into, or a new name.
    #[arg(required = true)]
    pub target: PathBuf,
    /// Copy directories with all their entries.
    #[arg(short, long)]
    pub recursive: bool,
}

impl Cp {
    /// Copies paths of the device into the target if it is a directory, else to that name. The root
    /// directory has no name, so that its entries are copied.
    ///
    /// # Errors
    /// If the filesystem cannot be opened, or several paths were to be copied to a target that is
    /// not a directory. All other failures are printed, and the copy continues.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let into = self.target.is_dir();
        if self.paths.len() > 1 && !into {
            return Err(Error::TargetNotDirectory { target: self.target.clone() });
        }
        let volume = open::volume(&self.volume)?;
        let sources: Vec<Vec<u8>> = self.paths.iter().map(|path| rooted(path)).collect();
        let lookup = |source: &Vec<u8>| lookup(&volume, source, self.recursive);
        let found: Vec<Result<Inode, Error>> = sources.iter().map(lookup).collect();
        let progress = match &found[..] {
            [Ok(inode)] if inode.is_file() => progress::bar(inode.size()),
            _ => progress::spinner(),
        };
        let mut copier = Copier::new(&volume, progress.clone())?;
        for (source, inode) in sources.iter().zip(found) {
            let target = &self.target;
            let copied = inode.and_then(|inode| match (into, base_name(source)) {
                (false, _) => copier.copy(source, &inode, target),
                (true, Some(name)) => copier.copy(source, &inode, &target.join(name)),
                (true, None) => copier.copy_into(source, &inode, target),
            });
            copier.report(copied);
        }
        progress.finish_and_clear();
        Ok(copier.code())
    }
}

/// Looks up a source as cp does: with -r a symbolic link is copied, without -r its target.
fn lookup(volume: &Volume, source: &[u8], recursive: bool) -> Result<Inode, Error> {
    if recursive {
        return Ok(volume.symlink_metadata(source)?);
    }
    let inode = volume.metadata(source)?;
    if inode.is_dir() {
        let advice = "`nvio cp -r` copies it with all its contents";
        return Err(Error::Directory { path: name::escaped(source), advice });
    }
    Ok(inode)
}
