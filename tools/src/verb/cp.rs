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
use crate::interrupt;
use crate::name::{self, escaped};
use crate::open;
use crate::operand::{InodeArgs, Operand, Operands};
use crate::progress;

/// Copy files from the device to this machine as cp -a does.
///
/// Holes stay holes; links, modes and times are kept, and owners if run by root. No file is written
/// through a symbolic link. An existing file is replaced when its copy is complete; its other names
/// keep the old contents.
#[derive(Debug, Args)]
#[command(allow_missing_positional = true)]
pub struct Cp {
    #[command(flatten)]
    volume: VolumeArgs,
    /// Paths in the filesystem: names, shell patterns, or <N> for inode N.
    #[arg(required_unless_present = "inode")]
    pub paths: Vec<OsString>,
    #[command(flatten)]
    inodes: InodeArgs,
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
        let volume = open::volume(&self.volume)?;
        let operands = Operands::new(&volume, &self.paths, &self.inodes).all;
        let into = self.target.is_dir();
        if !into && (operands.len() > 1 || self.target.as_os_str().as_bytes().ends_with(b"/")) {
            return Err(self.not_a_directory(operands.len()));
        }
        let lookup = |operand: Operand| {
            let inode = lookup(&volume, &operand, self.recursive)?;
            Ok((operand.path, inode))
        };
        let sources: Vec<Result<(Vec<u8>, Inode), Error>> =
            operands.into_iter().map(|operand| operand.and_then(lookup)).collect();
        let progress = match &sources[..] {
            [Ok((_, inode))] if inode.is_file() => progress::bar(inode.size()),
            _ => progress::spinner(),
        };
        let target = self.target.display().to_string();
        let report = format!("{target}: the copy is incomplete, each file in it is complete");
        interrupt::report_at_end(name::one_line(&report));
        let images = self.volume.images();
        let mut copier = Copier::new(&volume, progress.clone(), sources.len(), &images)?;
        let (parent, name) = match into {
            true => (self.target.clone(), None),
            false => parent_and_name(&self.target).map(|(parent, name)| (parent, Some(name)))?,
        };
        let folder = Copier::folder(&parent)?;
        let (mut paths, mut names) = (HashSet::new(), HashSet::new());
        for source in sources {
            let (source, inode) = match source {
                Ok(source) => source,
                Err(error) => {
                    copier.report(Err(error));
                    continue;
                }
            };
            if !paths.insert(components(&source)) {
                let path = escaped(&source);
                let warning = format!("warning: {path} is given more than once");
                progress.suspend(|| interrupt::say(&warning));
                continue;
            }
            let name = name.map(OsStr::to_owned).or_else(|| entry_name_of(&source));
            if !names.insert(name.clone()) || name.is_none() {
                // A file of this name may be in flight, and the first one stays.
                copier.drain();
            }
            let copied = match name {
                Some(name) => copier.copy(&source, &inode, &folder, &name),
                None => copier.copy_into(&source, &inode, &self.target),
            };
            copier.report(copied);
        }
        let code = copier.end();
        progress.finish_and_clear();
        Ok(code)
    }

    /// Returns the error of a target that must be a directory.
    fn not_a_directory(&self, paths: usize) -> Error {
        let components: PathBuf = self.target.components().collect();
        let state = match components.symlink_metadata() {
            Ok(_) => "is not a directory",
            Err(_) => "does not exist",
        };
        let advice = match paths {
            0 | 1 => "leave out the slash to copy to that name",
            _ => "several paths can only be copied into a directory",
        };
        Error::TargetNotDirectory { target: self.target.clone(), state, advice }
    }
}

/// Splits a path, so that doubled slashes make no difference.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.map(<[u8]>::to_vec).collect()
}

/// Looks up a source as cp does: with -r a symbolic link is copied, without -r its target.
fn lookup(volume: &Volume, source: &Operand, recursive: bool) -> Result<Inode, Error> {
    if recursive {
        return source.symlink_metadata(volume);
    }
    let inode = source.metadata(volume)?;
    if inode.is_dir() {
        let advice = "`nvio cp -r` copies it with all its contents";
        return Err(Error::Directory { path: escaped(&source.path), advice });
    }
    Ok(inode)
}
