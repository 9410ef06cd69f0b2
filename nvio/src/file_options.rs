//! The options of an open file.

use nvio_ext4::{Error as FsError, Inode, MAX_SYMLINKS, NewFile};

use crate::error::Error;
use crate::journaled::JournaledVolume;
use crate::journaled_file::{Access, JournaledFile};
use crate::place::{at, place, split};

/// Options of a file that is opened or created in a [`JournaledVolume`], in the shape of
/// [`std::fs::OpenOptions`].
///
/// # Examples
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// use std::io::{Read, Seek, Write};
///
/// use nvio::FileOptions;
///
/// let volume = nvio::JournaledVolume::open(sample.path())?;
/// let options = FileOptions::new().read(true).write(true).create_new(true).mode(0o640).owner(7, 8);
/// let mut file = options.open(&volume, "/new.txt")?;
/// file.write_all(b"first")?;
/// file.rewind()?;
/// let mut text = String::new();
/// file.read_to_string(&mut text)?;
/// assert_eq!((&*text, file.inode().permissions(), file.inode().uid()), ("first", 0o640, 7));
///
/// let error = options.open(&volume, "/new.txt").unwrap_err();
/// assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
///
/// let mut log = FileOptions::new().append(true).create(true).open(&volume, "/new.txt")?;
/// log.write_all(b" and second")?;
/// assert_eq!(file.size(), 16);
/// assert!(log.read(&mut [0]).is_err(), "it is open for writing only");
/// FileOptions::new().write(true).truncate(true).open(&volume, "/new.txt")?;
/// assert_eq!(file.size(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct FileOptions {
    read: bool,
    write: bool,
    append: bool,
    truncate: bool,
    create: bool,
    create_new: bool,
    new: NewFile,
}

impl Default for FileOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl FileOptions {
    /// Returns options of which none is set. A file that they create has the permissions 0o666, and belongs
    /// to user 0 and group 0.
    ///
    /// See the [example](Self#examples).
    pub fn new() -> Self {
        let new = NewFile::with_permissions(0o666);
        let [read, write, append, truncate, create, create_new] = [false; 6];
        Self { read, write, append, truncate, create, create_new, new }
    }

    /// Opens the file for reading.
    ///
    /// See the [example](Self#examples).
    pub fn read(mut self, read: bool) -> Self {
        self.read = read;
        self
    }

    /// Opens the file for writing.
    ///
    /// See the [example](Self#examples).
    pub fn write(mut self, write: bool) -> Self {
        self.write = write;
        self
    }

    /// Opens the file for writing at its end: each write of [`std::io::Write`] goes to the end that the file
    /// has then. Writes at a position go there.
    ///
    /// See the [example](Self#examples).
    pub fn append(mut self, append: bool) -> Self {
        self.append = append;
        self
    }

    /// Sets the size of an existing file to 0.
    ///
    /// See the [example](Self#examples).
    pub fn truncate(mut self, truncate: bool) -> Self {
        self.truncate = truncate;
        self
    }

    /// Creates the file if it does not exist. A symbolic link without a target gets its target.
    ///
    /// See the [example](Self#examples).
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Creates the file, and fails if the name exists, also as a symbolic link. `create` and `truncate` have
    /// no effect then.
    ///
    /// See the [example](Self#examples).
    pub fn create_new(mut self, create_new: bool) -> Self {
        self.create_new = create_new;
        self
    }

    /// Sets the permissions of a file that is created. No umask is subtracted.
    ///
    /// See the [example](Self#examples).
    pub fn mode(mut self, permissions: u16) -> Self {
        self.new.permissions = permissions;
        self
    }

    /// Sets user and group of a file that is created.
    ///
    /// See the [example](Self#examples).
    pub fn owner(mut self, uid: u32, gid: u32) -> Self {
        (self.new.uid, self.new.gid) = (uid, gid);
        self
    }

    /// Opens the regular file `path` of `volume`.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::FileOptions`] for options that exclude each other. [`Error::Path`]: the file does not exist
    /// or exists, is not a regular file, must not be written to, or there is no space.
    pub fn open(
        self,
        volume: &JournaledVolume,
        path: impl AsRef<[u8]>,
    ) -> Result<JournaledFile, Error> {
        let path = path.as_ref();
        let access = self.access()?;
        let fs = volume.filesystem();
        let (inode, is_new) = self.find(volume, path)?;
        let mut file = match access.writes {
            true => fs.open_file(&inode),
            false => fs.open_file_for_reading(&inode),
        }
        .map_err(at(path))?;
        if self.truncate && !is_new {
            let inode = fs.truncate(inode.number(), 0).map_err(at(path))?;
            file = fs.open_file(&inode).map_err(at(path))?;
        }
        Ok(volume.opened(file, access))
    }

    /// Checks the options as open(2) and the standard library do.
    fn access(self) -> Result<Access, Error> {
        let writes = self.write || self.append;
        let reason = match () {
            () if !self.read && !writes => "neither for reading nor for writing",
            () if !writes && (self.create || self.create_new || self.truncate) => {
                "create and truncate need write or append"
            }
            () if self.append && self.truncate && !self.create_new => {
                "append and truncate exclude each other"
            }
            () => return Ok(Access { reads: self.read, writes, appends: self.append }),
        };
        Err(Error::FileOptions { reason })
    }

    /// Looks the file up, or creates it. Returns true for a new one.
    fn find(self, volume: &JournaledVolume, path: &[u8]) -> Result<(Inode, bool), Error> {
        let fs = volume.filesystem();
        let failed = at(path);
        // The place of the file, at the end of symbolic links.
        let mut end = path.to_vec();
        for _ in 0..=MAX_SYMLINKS {
            if !self.create_new {
                match fs.lookup(&end) {
                    Err(FsError::NotFound { .. }) if self.create => {}
                    found => return found.map(|inode| (inode, false)).map_err(failed),
                }
            }
            let place = place(fs, &end).map_err(&failed)?;
            match fs.create_file(place.parent, place.name, self.new) {
                Err(FsError::AlreadyExists { .. }) if !self.create_new => {}
                created => return created.map(|inode| (inode, true)).map_err(failed),
            }
            // A link without a target, or a file that another thread has created.
            let inode = fs.lookup_no_follow(&end).map_err(&failed)?;
            if inode.is_symlink() {
                let target = fs.read_link(&inode).map_err(&failed)?;
                let parent = if target.starts_with(b"/") { &[] } else { split(&end).0 };
                end = [parent, &target].concat();
            }
        }
        Err(failed(FsError::SymlinkLoop { path: path.into() }))
    }
}
