//! Names in the directories of a copy, and how a file gets a name without loss of another one.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use nvio_ext4::Inode;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::Error;
use crate::interrupt::{self, Temporary};
use crate::name::escaped;

/// The identity of a file on this machine: its device and its inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl From<&Stat> for FileId {
    #[allow(clippy::useless_conversion, reason = "the widths differ between platforms")]
    fn from(stat: &Stat) -> Self {
        Self { device: stat.st_dev.into(), inode: stat.st_ino.into() }
    }
}

/// An open directory of the copy.
pub struct Folder {
    /// The directory.
    pub fd: OwnedFd,
    /// Its path on this machine, for messages and hard links.
    pub path: PathBuf,
    /// Files that the copy has created here, unless [`Guarded`] has them.
    made: RefCell<HashSet<FileId>>,
    /// New files have an access control list.
    has_default_list: OnceCell<bool>,
    /// The path and the inode to take the metadata from, after the last entry was created.
    pub metadata: Cell<Option<(Vec<u8>, Inode)>>,
}

impl Folder {
    /// Creates the record of an open directory.
    pub fn new(fd: OwnedFd, path: PathBuf) -> Self {
        let (made, has_default_list) = (RefCell::default(), OnceCell::new());
        Self { fd, path, made, has_default_list, metadata: Cell::default() }
    }

    /// Returns true if new files may inherit an access control list.
    fn has_default_list(&self) -> bool {
        *self.has_default_list.get_or_init(|| {
            let size = fs::fgetxattr(&self.fd, "system.posix_acl_default", &mut [0_u8; 0]);
            !matches!(size, Err(Errno::NODATA | Errno::OPNOTSUPP))
        })
    }

    /// Opens a directory that the user named. Symbolic links are followed here.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let fd = fs::open(path, DIRECTORY, Mode::empty());
        Ok(Self::new(fd.map_err(|errno| Error::host("open", path, errno))?, path.to_owned()))
    }
}

/// Files that a copy must not replace.
#[derive(Default)]
pub struct Guarded {
    /// All files that the copy has created, if it copies several paths.
    pub made: Option<RefCell<HashSet<FileId>>>,
    /// The images that the copy reads.
    pub images: Vec<FileId>,
}

/// A name in an open directory.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The directory.
    pub folder: &'a Folder,
    /// The name in it.
    pub name: &'a OsStr,
    /// The path in the filesystem that is copied to here, for messages.
    pub source: &'a [u8],
    /// Files that must not be replaced.
    pub guarded: &'a Guarded,
}

pub const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Place<'_> {
    /// Returns the descriptor of the directory.
    pub fn parent(&self) -> BorrowedFd<'_> {
        self.folder.fd.as_fd()
    }

    /// Returns the path on this machine.
    pub fn path(&self) -> PathBuf {
        self.folder.path.join(self.name)
    }

    /// Returns a function that converts the failure of an operation.
    pub fn error(&self, action: &'static str) -> impl Fn(Errno) -> Error + '_ {
        move |errno| Error::host(action, &self.path(), errno)
    }

    /// Returns the existing file, or `None` if there is none.
    pub fn existing(&self) -> Result<Option<Stat>, Error> {
        match fs::statat(self.parent(), self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.error("look at")(errno)),
        }
    }

    /// Returns the error about an existing file of another type.
    pub fn in_the_way(&self, kind: FileType) -> Error {
        let kind = match kind {
            FileType::Symlink => "a symbolic link, which is not followed",
            FileType::Directory => "a directory",
            FileType::RegularFile => "a file",
            _ => "a special file",
        };
        Error::InTheWay { target: self.path(), kind }
    }

    /// Checks that the existing file, if there is one, may be replaced by one of type `kind`.
    ///
    /// # Errors
    /// [`Error::InTheWay`] if it has another type, [`Error::JustCreated`] if this copy has created
    /// it, [`Error::IsTheImage`] if it is read from.
    pub fn check_replaceable(&self, kind: FileType) -> Result<bool, Error> {
        let Some(stat) = self.existing()? else { return Ok(false) };
        let (there, id) = (FileType::from_raw_mode(stat.st_mode), FileId::from(&stat));
        if self.guarded.images.contains(&id) {
            return Err(Error::IsTheImage { target: self.path() });
        }
        if self.all_made().borrow().contains(&id) {
            let by = escaped(self.source);
            return Err(Error::JustCreated { target: self.path(), by });
        }
        if there != kind {
            return Err(self.in_the_way(there));
        }
        Ok(true)
    }

    /// Creates the name by `make`. An existing file of type `kind` is replaced in one step, so that
    /// the name is never missing, and other names of the existing file keep its contents.
    ///
    /// # Errors
    /// As [`check_replaceable`](Self::check_replaceable), and the failure of `make`.
    pub fn put(
        &self,
        kind: FileType,
        action: &'static str,
        make: impl Fn(&OsStr) -> Result<(), Errno>,
    ) -> Result<(), PutError> {
        let failed = |errno| PutError::Make(self.error(action)(errno), errno);
        match make(self.name) {
            Err(Errno::EXIST) => {}
            result => return result.map_err(failed),
        }
        self.check_replaceable(kind)?;
        let spare = spare_name();
        let _no_signal_leaves_the_spare_name = interrupt::hold();
        make(&spare).map_err(failed)?;
        let renamed = fs::renameat(self.parent(), &spare, self.parent(), self.name);
        // The name is left if the rename failed, or if both names were one file.
        let _ = fs::unlinkat(self.parent(), &spare, AtFlags::empty());
        Ok(renamed.map_err(self.error("replace"))?)
    }

    /// Records that the copy has created this file.
    pub fn made(&self, id: FileId) {
        self.all_made().borrow_mut().insert(id);
    }

    /// Returns the files among which an existing file is looked for. Paths may lead to one
    /// directory, but the entries of a single tree only meet in their directory.
    fn all_made(&self) -> &RefCell<HashSet<FileId>> {
        self.guarded.made.as_ref().unwrap_or(&self.folder.made)
    }
}

/// A failure of [`Place::put`].
pub enum PutError {
    /// The file could not be created.
    Make(Error, Errno),
    /// The existing file cannot be replaced.
    Other(Error),
}

impl From<Error> for PutError {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<PutError> for Error {
    fn from(error: PutError) -> Self {
        match error {
            PutError::Make(error, _) | PutError::Other(error) => error,
        }
    }
}

/// Returns a name that no file of a copy has.
fn spare_name() -> OsString {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!(".nvio-{}-{number}.part", std::process::id()).into()
}

/// A regular file that is being written, and has no name or a temporary one until
/// [`finish`](Self::finish). A copy that fails half way leaves no file.
pub struct Unfinished {
    file: File,
    /// The temporary name, on filesystems that have no files without a name.
    spare: Option<(Temporary, OsString)>,
    folder: Rc<Folder>,
}

impl Unfinished {
    /// Creates an empty file in `folder`. A file without a name has the permissions `mode`, one with
    /// a temporary name is private.
    ///
    /// # Errors
    /// If the directory cannot be written to.
    pub fn new(folder: &Rc<Folder>, place: &Place<'_>, mode: Mode) -> Result<Self, Error> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let unfinished =
            |fd: OwnedFd, spare| Self { file: fd.into(), spare, folder: folder.clone() };
        match fs::openat(&folder.fd, ".", flags | OFlags::TMPFILE, mode) {
            Ok(fd) => return Ok(unfinished(fd, None)),
            // The filesystem or the kernel does not know files without a name.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {}
            Err(errno) => return Err(place.error("make")(errno)),
        }
        let spare = spare_name();
        let new = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let private = Mode::RUSR | Mode::WUSR;
        let create = || fs::openat(&folder.fd, &spare, flags | new, private);
        let (temporary, fd) =
            Temporary::create(create, |_| folder.path.join(&spare)).map_err(place.error("make"))?;
        Ok(unfinished(fd, Some((temporary, spare))))
    }

    /// Returns the file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file its metadata and its name, in place of an existing regular file, and returns
    /// its identity.
    ///
    /// # Errors
    /// If the metadata cannot be set, and as [`Place::put`].
    pub fn finish(
        mut self,
        place: &Place<'_>,
        set_metadata: impl FnOnce(BorrowedFd<'_>, Option<&Stat>) -> Result<(), Error>,
    ) -> Result<FileId, Error> {
        let stat = fs::fstat(&self.file).map_err(place.error("look at"))?;
        let id = FileId::from(&stat);
        set_metadata(self.file.as_fd(), Some(&stat).filter(|_| !self.folder.has_default_list()))?;
        let parent = self.folder.fd.as_fd();
        if let Some((_, spare)) = &self.spare {
            place.check_replaceable(FileType::RegularFile)?;
            let renamed = fs::renameat(parent, spare, parent, place.name);
            renamed.map_err(place.error("make"))?;
            self.spare = None;
        } else {
            place.put(FileType::RegularFile, "make", |name| {
                match fs::linkat(&self.file, "", parent, name, AtFlags::EMPTY_PATH) {
                    // The quick call is for root only. /proc has a name for the file.
                    Err(Errno::NOENT) => {
                        let file = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                        fs::linkat(fs::CWD, &*file, parent, name, AtFlags::SYMLINK_FOLLOW)
                    }
                    linked => linked,
                }
            })?;
        }
        place.made(id);
        Ok(id)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some((_, spare)) = &self.spare {
            let _ = fs::unlinkat(&self.folder.fd, spare, AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::host::make_directory;
    use super::*;
    use std::fs as std_fs;
    use std::io::Write;
    use std::os::unix::fs::symlink;

    fn place<'a>(folder: &'a Folder, guarded: &'a Guarded, name: &'a str) -> Place<'a> {
        Place { folder, name: name.as_ref(), source: b"/source", guarded }
    }

    /// Creates a file, with a name from the beginning or not.
    fn create(folder: &Rc<Folder>, name: &str, has_name: bool) -> Result<FileId, Error> {
        let guarded = Guarded::default();
        let place = place(folder, &guarded, name);
        let mut new = Unfinished::new(folder, &place, Mode::RUSR | Mode::WUSR)?;
        if has_name {
            let spare = spare_name();
            let path = folder.path.join(&spare);
            let created = Temporary::create(|| File::create_new(&path), |_| path.clone());
            let (temporary, file) = created.unwrap();
            (new.file, new.spare) = (file, Some((temporary, spare)));
        }
        new.file().write_all(b"new").unwrap();
        new.finish(&place, |_, _| Ok(()))
    }

    #[test]
    fn copy_does_not_write_through_a_link() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let precious = outside.path().join("precious");
        std_fs::write(&precious, "precious").unwrap();
        symlink(&precious, inside.path().join("file")).unwrap();
        symlink(outside.path(), inside.path().join("directory")).unwrap();
        symlink(outside.path().join("new"), inside.path().join("dangling")).unwrap();
        let folder = Rc::new(Folder::open(inside.path()).unwrap());
        for name in ["file", "dangling", "directory"] {
            for has_name in [false, true] {
                let error = create(&folder, name, has_name).unwrap_err();
                let text = error.to_string();
                assert!(text.contains("symbolic link, which is not followed"), "{text}");
            }
        }
        let guarded = Guarded::default();
        let error = make_directory(&place(&folder, &guarded, "directory")).err().unwrap();
        assert!(matches!(error, Error::InTheWay { .. }), "{error}");
        assert_eq!(std_fs::read_to_string(&precious).unwrap(), "precious");
        assert_eq!(std_fs::read_dir(outside.path()).unwrap().count(), 1);
        assert_eq!(std_fs::read_dir(inside.path()).unwrap().count(), 3, "no temporary file");
    }

    #[test]
    fn existing_files_are_replaced_or_in_the_way() {
        for has_name in [false, true] {
            let target = tempfile::tempdir().unwrap();
            let file = target.path().join("file");
            std_fs::write(&file, "longer than before").unwrap();
            std_fs::hard_link(&file, target.path().join("other")).unwrap();
            let folder = Rc::new(Folder::open(target.path()).unwrap());
            create(&folder, "file", has_name).unwrap();
            assert_eq!(std_fs::read(&file).unwrap(), b"new");
            assert_eq!(std_fs::read(target.path().join("other")).unwrap(), b"longer than before");
            let error = create(&folder, "file", has_name).unwrap_err();
            assert!(matches!(error, Error::JustCreated { .. }), "{error}");
            let guarded = Guarded::default();
            let error = make_directory(&place(&folder, &guarded, "file")).err().unwrap();
            assert!(error.to_string().contains("is a file; remove it first"), "{error}");
            make_directory(&place(&folder, &guarded, "directory")).unwrap();
            make_directory(&place(&folder, &guarded, "directory")).unwrap();
            fs::mknodat(&folder.fd, "pipe", FileType::Fifo, Mode::RWXU, 0).unwrap();
            for name in ["directory", "pipe"] {
                let error = create(&folder, name, has_name).unwrap_err();
                assert!(matches!(error, Error::InTheWay { .. }), "{error}");
            }
            assert_eq!(std_fs::read_dir(target.path()).unwrap().count(), 4);
        }
    }
}
