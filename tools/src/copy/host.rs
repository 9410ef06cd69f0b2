//! Files on this machine: created relative to the descriptor of a directory, without ever following
//! a symbolic link.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nvio_ext4::{Inode, Timestamp};
use rustix::fs::{self, AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::entry_name::is_name;
use super::xattr::Attributes;
use crate::error::Error;
use crate::name;

/// A name in an open directory.
pub struct Place<'a> {
    /// The directory.
    pub parent: BorrowedFd<'a>,
    /// The name in it.
    pub name: &'a OsStr,
    /// The whole path, for messages only.
    pub path: &'a Path,
}

impl Place<'_> {
    fn error(&self, action: &'static str) -> impl Fn(Errno) -> Error + '_ {
        move |errno| Error::host(action, self.path, errno)
    }

    /// Returns the type of the existing file, or `None` if there is none.
    fn kind(&self) -> Result<Option<fs::FileType>, Error> {
        match fs::statat(self.parent, self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(fs::FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.error("look at")(errno)),
        }
    }

    fn in_the_way(&self, kind: fs::FileType) -> Error {
        let kind = match kind {
            fs::FileType::Symlink => "a symbolic link, which is not followed",
            fs::FileType::Directory => "a directory",
            fs::FileType::RegularFile => "a file",
            _ => "a special file",
        };
        Error::InTheWay { target: self.path.to_owned(), kind }
    }

    /// Removes the existing file if `replaceable` is true of its type. Other types are an error.
    fn clear(&self, replaceable: impl Fn(fs::FileType) -> bool) -> Result<(), Error> {
        match self.kind()? {
            None => Ok(()),
            Some(kind) if replaceable(kind) => {
                fs::unlinkat(self.parent, self.name, AtFlags::empty())
                    .map_err(self.error("replace"))
            }
            Some(kind) => Err(self.in_the_way(kind)),
        }
    }

    /// Sets the metadata of a link or a special file, which cannot be opened for reading.
    fn set_metadata(&self, inode: &Inode, attributes: &Attributes<'_>) -> Result<(), Error> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(self.parent, self.name, flags, Mode::empty());
        set_metadata(fd.map_err(self.error("open"))?.as_fd(), inode, attributes, self.path)
    }
}

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

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens a directory that the user named. Symbolic links are followed here.
pub fn open_directory(path: &Path) -> Result<OwnedFd, Error> {
    fs::open(path, DIRECTORY, Mode::empty()).map_err(|errno| Error::host("open", path, errno))
}

/// Opens a directory, and creates it if it does not exist.
pub fn make_directory(place: &Place<'_>) -> Result<OwnedFd, Error> {
    match fs::mkdirat(place.parent, place.name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(place.error("make the directory")(errno)),
    }
    let flags = DIRECTORY.union(OFlags::NOFOLLOW);
    fs::openat(place.parent, place.name, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOTDIR | Errno::LOOP => match place.kind() {
            Ok(Some(kind)) => place.in_the_way(kind),
            _ => place.error("open")(errno),
        },
        errno => place.error("open")(errno),
    })
}

/// Creates an empty file, or truncates an existing one.
pub fn create(place: &Place<'_>) -> Result<File, Error> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Without NONBLOCK, opening a pipe would wait for its reader.
    let flags = flags | OFlags::NONBLOCK;
    let fd = fs::openat(place.parent, place.name, flags, Mode::RUSR | Mode::WUSR);
    let fd = fd.map_err(|errno| match place.kind() {
        Ok(Some(kind)) if kind != fs::FileType::RegularFile => place.in_the_way(kind),
        _ => place.error("make")(errno),
    })?;
    let stat = fs::fstat(&fd).map_err(place.error("look at"))?;
    let kind = fs::FileType::from_raw_mode(stat.st_mode);
    if kind != fs::FileType::RegularFile {
        return Err(place.in_the_way(kind));
    }
    if stat.st_size != 0 {
        fs::ftruncate(&fd, 0).map_err(place.error("empty"))?;
    }
    Ok(File::from(fd))
}

/// Writes a piece of a file.
pub fn write_at(file: &File, data: &[u8], at: u64, place: &Place<'_>) -> Result<(), Error> {
    file.write_all_at(data, at).map_err(|error| Error::host("write to", place.path, error))
}

/// Sets the size and the metadata of a file.
pub fn finish(
    file: &File,
    size: u64,
    inode: &Inode,
    attributes: &Attributes<'_>,
    place: &Place<'_>,
) -> Result<(), Error> {
    file.set_len(size).map_err(|error| Error::host("write to", place.path, error))?;
    set_metadata(file.as_fd(), inode, attributes, place.path)
}

/// Sets owner, extended attributes, mode, access control lists and times of a file, in this order: a
/// change of the owner clears bits of the mode and removes capabilities, the mode may forbid setting
/// attributes and changes a list, and all of them change the times.
pub fn set_metadata(
    fd: BorrowedFd<'_>,
    inode: &Inode,
    attributes: &Attributes<'_>,
    path: &Path,
) -> Result<(), Error> {
    let error = |action| move |errno: Errno| Error::host(action, path, errno);
    // The descriptor of a link or a special file is only a path. Some system calls refuse it, but
    // /proc has a name for it.
    let name_of_fd = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let owned = rustix::process::geteuid().is_root();
    if owned {
        let (uid, gid) = owner(inode);
        fs::chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH).map_err(error("set the owner of"))?;
    }
    let set = |name: &OsStr, value: &[u8]| {
        let flags = XattrFlags::empty();
        fs::fsetxattr(fd, name, value, flags)
            .or_else(|_| fs::setxattr(&name_of_fd, name, value, flags))
    };
    attributes.set(path, false, set);
    // A symbolic link has no mode.
    if !inode.is_symlink() {
        let mode = mode(inode, owned);
        let set = fs::fchmod(fd, mode).or_else(|_| fs::chmod(&name_of_fd, mode));
        set.map_err(error("set the mode of"))?;
    }
    attributes.set(path, true, set);
    fs::utimensat(fd, "", &times(inode), AtFlags::EMPTY_PATH).map_err(error("set the times of"))
}

/// Creates a symbolic link, in place of an existing one.
pub fn symlink(
    target: &[u8],
    inode: &Inode,
    attributes: &Attributes<'_>,
    place: &Place<'_>,
) -> Result<(), Error> {
    place.clear(|kind| kind == fs::FileType::Symlink)?;
    fs::symlinkat(OsStr::from_bytes(target), place.parent, place.name)
        .map_err(place.error("make the link"))?;
    place.set_metadata(inode, attributes)
}

/// Creates a hard link to a file that was copied before.
pub fn link(first: &Path, inode: &Inode, place: &Place<'_>) -> Result<(), Error> {
    let kind = fs::FileType::from_raw_mode(inode.mode().into());
    place.clear(|there| there == kind)?;
    fs::linkat(fs::CWD, first, place.parent, place.name, AtFlags::empty())
        .map_err(place.error("make the link"))
}

/// Creates a pipe, a socket or a device node.
pub fn special(inode: &Inode, attributes: &Attributes<'_>, place: &Place<'_>) -> Result<(), Error> {
    let kind = fs::FileType::from_raw_mode(inode.mode().into());
    let (major, minor) = inode.rdev().unwrap_or_default();
    place.clear(|there| there == kind)?;
    let device = fs::makedev(major, minor);
    fs::mknodat(place.parent, place.name, kind, Mode::RUSR | Mode::WUSR, device)
        .map_err(place.error("make the special file"))?;
    place.set_metadata(inode, attributes)
}

/// Returns the owner to set. The largest ID means "unchanged" to chown(2) and is skipped.
fn owner(inode: &Inode) -> (Option<Uid>, Option<Gid>) {
    let valid = |id: u32| Some(id).filter(|&id| id != u32::MAX);
    (valid(inode.uid()).map(Uid::from_raw), valid(inode.gid()).map(Gid::from_raw))
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
    use std::fs as std_fs;
    use std::os::unix::fs::symlink as std_symlink;

    fn place<'a>(parent: &'a OwnedFd, name: &'a str) -> Place<'a> {
        Place { parent: parent.as_fd(), name: name.as_ref(), path: name.as_ref() }
    }

    #[test]
    fn copy_does_not_write_through_a_link() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let precious = outside.path().join("precious");
        std_fs::write(&precious, "precious").unwrap();
        std_symlink(&precious, inside.path().join("file")).unwrap();
        std_symlink(outside.path(), inside.path().join("directory")).unwrap();
        std_symlink(outside.path().join("new"), inside.path().join("dangling")).unwrap();
        let fd = open_directory(inside.path()).unwrap();
        for name in ["file", "dangling", "directory"] {
            let error = create(&place(&fd, name)).unwrap_err();
            assert!(error.to_string().contains("symbolic link, which is not followed"), "{error}");
        }
        let error = make_directory(&place(&fd, "directory")).unwrap_err();
        assert!(matches!(error, Error::InTheWay { .. }), "{error}");
        assert_eq!(std_fs::read_to_string(&precious).unwrap(), "precious");
        assert_eq!(std_fs::read_dir(outside.path()).unwrap().count(), 1);
    }

    #[test]
    fn existing_files_are_truncated_or_in_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let fd = open_directory(folder.path()).unwrap();
        std_fs::write(folder.path().join("file"), "longer than before").unwrap();
        let file = create(&place(&fd, "file")).unwrap();
        write_at(&file, b"new", 2, &place(&fd, "file")).unwrap();
        assert_eq!(std_fs::read(folder.path().join("file")).unwrap(), b"\0\0new");
        let error = make_directory(&place(&fd, "file")).unwrap_err();
        assert!(error.to_string().contains("is a file; remove it first"), "{error}");
        make_directory(&place(&fd, "directory")).unwrap();
        make_directory(&place(&fd, "directory")).unwrap();
        assert!(matches!(create(&place(&fd, "directory")), Err(Error::InTheWay { .. })));
        fs::mknodat(&fd, "pipe", fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert!(matches!(create(&place(&fd, "pipe")), Err(Error::InTheWay { .. })));
    }

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
