//! `nvio cp`: from the device to this machine.

use std::ffi::OsString;
use std::path::Path;

use nvio_ext4::Inode;

use super::rooted;
use crate::cli::VolumeArgs;
use crate::copy::{self, Copier};
use crate::error::Error;
use crate::volume::Volume;
use crate::{name, progress};

/// Copies paths of the device to `target`: into it if it is a directory, else to that name. The
/// root directory has no name; what is in it is copied.
///
/// # Errors
/// The first thing that cannot be read or made.
pub fn run(
    args: &VolumeArgs,
    sources: &[OsString],
    target: &Path,
    recursive: bool,
) -> Result<(), Error> {
    let into = target.is_dir();
    if sources.len() > 1 && !into {
        return Err(Error::TargetNotDirectory { target: target.to_owned() });
    }
    let volume = Volume::open(args)?;
    let mut found = Vec::new();
    for source in sources {
        let source = rooted(source);
        found.push((lookup(&volume, &source, recursive)?, source));
    }
    let progress = match &found[..] {
        [(inode, _)] if inode.is_file() => progress::bar(inode.size()),
        _ => progress::spinner(),
    };
    let mut copier = Copier::new(&volume, progress.clone())?;
    let result =
        found.iter().try_for_each(|(inode, source)| one(&mut copier, source, inode, target, into));
    progress.finish_and_clear();
    result
}

/// As cp does: with -r links are copied, without it files.
fn lookup(volume: &Volume, source: &[u8], recursive: bool) -> Result<Inode, Error> {
    if recursive {
        return volume.lookup_no_follow(source);
    }
    let inode = volume.lookup(source)?;
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
