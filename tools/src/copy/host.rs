//! Files on this machine: created relative to the descriptor of a directory, without ever following
//! a symbolic link.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use nvio_ext4::{Inode, Timestamp};
use rustix::fs::{self, AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::entry_name::is_name;
use super::place::{DIRECTORY, FileId, Folder, Place, PutError};
use super::xattr::Attributes;
use crate::error::Error;
use crate::name;

/// Raises the limit of open files, because a directory is open for each level of the tree.
pub fn allow_deep_trees() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(errno) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        log::debug!("RLIMIT_NOFILE stays as it is: {errno}");
    }
}

/// Splits a target into its directory and its name there.
pub fn parent_and_name(target: &Path) -> Result<(PathBuf, &OsStr), Error> {
    let name = target.file_name().ok_or_else(|| Error::host("make", target, Errno::EXIST))?;
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok((parent.unwrap_or(Path::new(".")).to_owned(), name))
}

/// Opens a directory, and creates it if it does not exist.
pub fn make_directory(place: &Place<'_>) -> Result<Folder, Error> {
    match fs::mkdirat(place.parent(), place.name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(place.error("make the directory")(errno)),
    }
    let flags = DIRECTORY.union(OFlags::NOFOLLOW);
    let fd = fs::openat(place.parent(), place.name, flags, Mode::empty());
    let fd = fd.map_err(|errno| match (errno, place.existing()) {
        (Errno::NOTDIR | Errno::LOOP, Ok(Some(stat))) => {
            place.in_the_way(fs::FileType::from_raw_mode(stat.st_mode))
        }
        _ => place.error("open")(errno),
    });
    Ok(Folder::new(fd?, place.path()))
}

/// Writes a piece of a file.
pub fn write_at(
    file: &File,
    data: &[u8],
    at: u64,
    path: impl Fn() -> PathBuf,
) -> Result<(), Error> {
    file.write_all_at(data, at).map_err(|error| Error::host("write to", &path(), error))
}

/// Sets owner, extended attributes, mode, access control lists and times of a file, in this order: a
/// change of the owner clears bits of the mode and removes capabilities, the mode may forbid setting
/// attributes and changes a list, and all of them change the times. Lists that the file inherited
/// from its directory, or had before, are removed.
///
/// `new` has the owner and the mode of a file that was just created and has no list: those that are
/// right are not set again.
pub fn set_metadata(
    fd: BorrowedFd<'_>,
    inode: &Inode,
    attributes: &Attributes<'_>,
    path: &Path,
    new: Option<&fs::Stat>,
) -> Result<(), Error> {
    let error = |action| move |errno: Errno| Error::host(action, path, errno);
    // The descriptor of a link or a special file is only a path. Some system calls refuse it, but
    // /proc has a name for it.
    let name_of_fd = format!("/proc/self/fd/{}", fd.as_raw_fd());
    static IS_ROOT: LazyLock<bool> = LazyLock::new(|| rustix::process::geteuid().is_root());
    let owned = *IS_ROOT;
    let (uid, gid) = owner(inode);
    let has_owner = |stat: &fs::Stat| {
        uid.is_none_or(|uid| uid.as_raw() == stat.st_uid)
            && gid.is_none_or(|gid| gid.as_raw() == stat.st_gid)
    };
    if owned && !new.is_some_and(has_owner) {
        fs::chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH).map_err(error("set the owner of"))?;
    }
    let set = |name: &OsStr, value: &[u8]| {
        let flags = XattrFlags::empty();
        fs::fsetxattr(fd, name, value, flags)
            .or_else(|_| fs::setxattr(&name_of_fd, name, value, flags))
    };
    attributes.set(path, false, set);
    let mode = mode(inode, owned);
    let has_mode = |stat: &fs::Stat| Mode::from_raw_mode(stat.st_mode) == mode;
    // A symbolic link has no mode and no lists.
    if !inode.is_symlink() && !new.is_some_and(has_mode) {
        let remove = |name: &str| {
            let removed = match fs::fremovexattr(fd, name) {
                Err(Errno::BADF) => fs::removexattr(&name_of_fd, name),
                removed => removed,
            };
            match removed {
                Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
                Err(errno) => Err(error("remove the access control list of")(errno)),
            }
        };
        if new.is_none() {
            remove("system.posix_acl_access")?;
        }
        if inode.is_dir() {
            remove("system.posix_acl_default")?;
        }
        let set = fs::fchmod(fd, mode).or_else(|_| fs::chmod(&name_of_fd, mode));
        set.map_err(error("set the mode of"))?;
    }
    attributes.set(path, true, set);
    fs::utimensat(fd, "", &times(inode), AtFlags::EMPTY_PATH).map_err(error("set the times of"))
}

/// Creates a symbolic link, in place of an existing one, and returns its identity.
pub fn symlink(
    target: &[u8],
    inode: &Inode,
    attributes: &Attributes<'_>,
    place: &Place<'_>,
) -> Result<FileId, Error> {
    place.put(fs::FileType::Symlink, "make the link", |name| {
        fs::symlinkat(OsStr::from_bytes(target), place.parent(), name)
    })?;
    set_metadata_of(place, inode, attributes)
}

/// Creates a hard link to a file that was copied before. Returns false if the filesystem cannot, so
/// that the contents must be copied.
pub fn link(first: &Path, id: FileId, inode: &Inode, place: &Place<'_>) -> Result<bool, Error> {
    let made = place.put(kind(inode), "make the link", |name| {
        fs::linkat(fs::CWD, first, place.parent(), name, AtFlags::empty())
    });
    match made {
        Ok(()) => {
            place.made(id);
            Ok(true)
        }
        Err(PutError::Make(_, Errno::PERM | Errno::OPNOTSUPP | Errno::MLINK | Errno::XDEV)) => {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Creates a pipe, a socket or a device node, and returns its identity.
pub fn special(
    inode: &Inode,
    attributes: &Attributes<'_>,
    place: &Place<'_>,
) -> Result<FileId, Error> {
    let (major, minor) = inode.rdev().unwrap_or_default();
    let device = fs::makedev(major, minor);
    place.put(kind(inode), "make the special file", |name| {
        fs::mknodat(place.parent(), name, kind(inode), Mode::RUSR | Mode::WUSR, device)
    })?;
    set_metadata_of(place, inode, attributes)
}

/// Sets the metadata of a link or a special file, which cannot be opened for reading, and returns
/// its identity.
fn set_metadata_of(
    place: &Place<'_>,
    inode: &Inode,
    attributes: &Attributes<'_>,
) -> Result<FileId, Error> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = fs::openat(place.parent(), place.name, flags, Mode::empty());
    let fd = fd.map_err(place.error("open"))?;
    let id = FileId::from(&fs::fstat(&fd).map_err(place.error("look at"))?);
    place.made(id);
    set_metadata(fd.as_fd(), inode, attributes, &place.path(), None)?;
    Ok(id)
}

fn kind(inode: &Inode) -> fs::FileType {
    fs::FileType::from_raw_mode(inode.mode().into())
}

/// Returns the owner to set. The largest ID means "unchanged" to chown(2) and is skipped.
fn owner(inode: &Inode) -> (Option<Uid>, Option<Gid>) {
    let valid = |id: u32| Some(id).filter(|&id| id != u32::MAX);
    (valid(inode.uid()).map(Uid::from_raw), valid(inode.gid()).map(Gid::from_raw))
}

/// Returns the permissions of a new file. The owner may write, so that attributes can be set, and
/// the other bits of the mode are set after the owner.
pub fn permissions(inode: &Inode) -> Mode {
    Mode::from_raw_mode(u32::from(inode.permissions()) & 0o777) | Mode::RUSR | Mode::WUSR
}

/// Returns the mode to set. Without the owner, set-user-ID and set-group-ID are dropped.
fn mode(inode: &Inode, owned: bool) -> Mode {
    let kept = if owned { 0o7777 } else { 0o1777 };
    Mode::from_raw_mode(u32::from(inode.permissions()) & kept)
}

fn times(inode: &Inode) -> Timestamps {
    let time =
        |time: Timestamp| Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    Timestamps { last_access: time(inode.atime()), last_modification: time(inode.mtime()) }
}

/// Returns the last component of a path on the device, if it is the name of an entry.
pub fn base_name(path: &[u8]) -> Option<OsString> {
    let last = name::base_name(path);
    is_name(last).then(|| OsStr::from_bytes(last).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_operands() {
        for (path, name) in [
            ("/a/b", Some("b")),
            ("/a/b//", Some("b")),
            ("/", None),
            ("/a/..", None),
            ("/.", None),
            ("//", None),
        ] {
            assert_eq!(base_name(path.as_bytes()).as_deref(), name.map(OsStr::new), "{path}");
        }
    }
}
