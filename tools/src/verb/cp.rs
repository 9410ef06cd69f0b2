//! `nvio cp`: copies files from the device to this machine.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use nvio::Volume;
use nvio_ext4::Inode;

use crate::args::VolumeArgs;
use crate::copy::{Copier, entry_name_of, parent_and_name};
use crate::error::Error;
use crate::name::{self, escaped, rooted};
use crate::open;
use crate::progress;

/// Copy files from the device to this machine as cp -a does.
///
/// Holes stay holes; links, modes and times are kept, and owners if run by root. No file is written
/// through a symbolic link. An existing file is replaced when its copy is complete; its other names
/// keep the old contents.
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
        if !into && (self.paths.len() > 1 || self.target.as_os_str().as_bytes().ends_with(b"/")) {
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
        let images = self.volume.images();
        let mut copier = Copier::new(&volume, progress.clone(), sources.len(), &images)?;
        let (parent, name) = match into {
            true => (self.target.clone(), None),
            false => parent_and_name(&self.target).map(|(parent, name)| (parent, Some(name)))?,
        };
        let folder = Copier::folder(&parent)?;
        let (mut paths, mut names) = (HashSet::new(), HashSet::new());
        for (source, inode) in sources.iter().zip(found) {
            if !paths.insert(components(source)) {
                let path = escaped(source);
                progress.suspend(|| eprintln!("nvio: warning: {path} is given more than once"));
                continue;
            }
            let name = name.map(OsStr::to_owned).or_else(|| entry_name_of(source));
            if !names.insert(name.clone()) || name.is_none() {
                // A file of this name may be in flight, and the first one stays.
                copier.drain();
            }
            let copied = inode.and_then(|inode| match name {
                Some(name) => copier.copy(source, &inode, &folder, &name),
                None => copier.copy_into(source, &inode, &self.target),
            });
            copier.report(copied);
        }
        let code = copier.end();
        progress.finish_and_clear();
        Ok(code)
    }
}

/// Splits a path, so that doubled slashes make no difference.
fn components(path: &[u8]) -> Vec<&[u8]> {
    path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect()
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
