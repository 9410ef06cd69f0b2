//! Replay of the names that fast commits add to directories, and remove from them.

use crate::change::directory::{Directory, check_name};
use crate::dir::changes::NameChanges;
use crate::error::Error;
use crate::file::system_zone::SystemZone;
use crate::format::corrupt::{Problem, Structure};
use crate::format::file_type::FileType;
use crate::format::inode::Inode;
use crate::format::time::Timestamp;
use crate::journal::handle::{Handle, Stop};
use crate::number::InodeNumber;
use crate::recovery::fast_commit::changes::FastCommit;

/// Changes the entries of all directories. Inodes and their counts of links are as they will be.
pub(super) fn apply(
    handle: &mut Handle<'_>,
    zone: &SystemZone,
    commits: &FastCommit,
    time: Timestamp,
) -> Result<(), Stop> {
    let mut directories: Vec<_> = commits.names.iter().collect();
    directories.sort_unstable_by_key(|&(number, _)| *number);
    for (&number, names) in directories {
        match handle.inode(number) {
            Ok(directory) if directory.is_dir() => {
                apply_to(handle, zone, directory, names, time)?;
            }
            // The directory was removed later.
            Ok(_) | Err(Stop::Fail(Error::InodeNotInUse { .. })) => (),
            Err(stop) => return Err(stop),
        }
    }
    Ok(())
}

/// Changes the entries of one directory.
fn apply_to(
    handle: &mut Handle<'_>,
    zone: &SystemZone,
    mut directory: Inode,
    names: &NameChanges,
    time: Timestamp,
) -> Result<(), Stop> {
    for (_, inode, kind) in names.added() {
        check_target(handle, directory.number(), inode, kind)?;
    }
    let mut entries = match names.parent() {
        Some(parent) => Directory::create(handle, zone, &mut directory, parent, time)?,
        None => Directory::new(handle, zone, &mut directory, time)?,
    };
    for name in names.removed() {
        if let Some(found) = entries.find(name)? {
            entries.remove(found.place)?;
        }
    }
    for (name, inode, kind) in names.added() {
        check_name(name)?;
        match entries.find(name)? {
            Some(found) if found.inode == inode => (),
            Some(found) => entries.replace(found.place, inode, kind)?,
            None => entries.add(name, inode, kind)?,
        }
    }
    handle.set_inode(directory)
}

/// Rejects an added name whose inode is not in use afterwards, or is of another kind.
fn check_target(
    handle: &Handle<'_>,
    directory: InodeNumber,
    number: InodeNumber,
    kind: FileType,
) -> Result<(), Stop> {
    match handle.inode(number) {
        Ok(inode) if inode.kind() == kind => Ok(()),
        Ok(_) | Err(Stop::Fail(Error::InodeNotInUse { .. } | Error::NoSuchInode { .. })) => {
            let structure = Structure::DirectoryBlock { inode: directory, index: 0 };
            Err(structure.corrupt(Problem::NameOfFreeInode { inode: number }).into())
        }
        Err(stop) => Err(stop),
    }
}
