//! `nvio cp`: copies files from the device to this machine.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use nvio::Volume;
use nvio_ext4::Inode;

use crate::args::VolumeArgs;
use crate::copy::{self, Copier};
use crate::error::Error;
use crate::name::{self, rooted};
use crate::open;
use crate::progress;

/// Copies paths of the device to `target`: into it if it is a directory, else to that name. The
/// root directory has no name, so that its entries are copied.
///
/// # Errors
/// If the filesystem cannot be opened, or several paths were to be copied to a target that is not a
/// directory. All other failures are printed, and the copy continues.
pub fn run(
    args: &VolumeArgs,
    sources: &[OsString],
    target: &Path,
    recursive: bool,
) -> Result<ExitCode, Error> {
    let into = target.is_dir();
    if sources.len() > 1 && !into {
        return Err(Error::TargetNotDirectory { target: target.to_owned() });
    }
    let volume = open::volume(args)?;
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for source in sources {
        let source = rooted(source);
        match lookup(&volume, &source, recursive) {
            Ok(inode) => found.push((inode, source)),
            Err(error) => missing.push(error),
        }
    }
    let progress = match &found[..] {
        [(inode, _)] if inode.is_file() => progress::bar(inode.size()),
        _ => progress::spinner(),
    };
    let mut copier = Copier::new(&volume, progress.clone())?;
    for error in missing {
        copier.report(Err(error));
    }
    for (inode, source) in &found {
        let copied = one(&mut copier, source, inode, target, into);
        copier.report(copied);
    }
    progress.finish_and_clear();
    Ok(copier.code())
}

/// Looks up a source as cp does: with -r a symbolic link is copied, without -r its target.
fn lookup(volume: &Volume, source: &[u8], recursive: bool) -> Result<Inode, Error> {
    if recursive {
        return Ok(volume.symlink_metadata(source)?);
    }
    let inode = volume.metadata(source)?;
    if inode.is_dir() {
        return Err(Error::DirectoryNotCopied { path: name::escaped(source) });
    }
    Ok(inode)
}

fn one(
    copier: &mut Copier<'_>,
    source: &[u8],
    inode: &Inode,
    target: &Path,
    into: bool,
) -> Result<(), Error> {
    match (into, copy::base_name(source)) {
        (false, _) => copier.copy(source, inode, target),
        (true, Some(name)) => copier.copy(source, inode, &target.join(name)),
        (true, None) => copier.copy_into(source, inode, target),
    }
}
