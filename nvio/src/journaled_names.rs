//! Files and directories that are created, renamed and removed by path.

use nvio_ext4::{Error as FsError, Inode, NewFile, RenameMode, SpecialFile, Subject};

use crate::error::Error;
use crate::file_options::FileOptions;
use crate::journaled::JournaledVolume;
use crate::journaled_file::{Access, JournaledFile};
use crate::place::{at, place, place_of_directory, split};

/// Permissions of a new directory.
const DIRECTORY_PERMISSIONS: u16 = 0o777;

impl JournaledVolume {
    /// Creates the directory `path`, and returns its inode.
    ///
    /// See the [example](Self#names).
    ///
    /// # Errors
    /// [`Error::Path`]: the name exists, its directory does not, or there is no space.
    pub fn create_dir(&self, path: impl AsRef<[u8]>) -> Result<Inode, Error> {
        self.create_dir_with(path, NewFile::with_permissions(DIRECTORY_PERMISSIONS))
    }

    /// Creates the directory `path` with this owner and these permissions, and returns its inode.
    ///
    /// See the [example](Self#names).
    ///
    /// # Errors
    /// As [`create_dir`](Self::create_dir).
    pub fn create_dir_with(&self, path: impl AsRef<[u8]>, new: NewFile) -> Result<Inode, Error> {
        let (fs, path) = (self.filesystem(), path.as_ref());
        if split(path).1.is_empty() {
            return Err(at(path)(FsError::AlreadyExists { name: path.into() }));
        }
        let place = place_of_directory(fs, path);
        place.and_then(|to| fs.create_dir(to.parent, to.name, new)).map_err(at(path))
    }

    /// Creates the directory `path` and those above it that do not exist. Returns its inode, also if it
    /// existed.
    ///
    /// See the [example](Self#names).
    ///
    /// # Errors
    /// [`Error::Path`]: a name on the path is not that of a directory, or there is no space. Directories that
    /// were created stay.
    pub fn create_dir_all(&self, path: impl AsRef<[u8]>) -> Result<Inode, Error> {
        self.create_dir_all_with(path, NewFile::with_permissions(DIRECTORY_PERMISSIONS))
    }

    /// Creates the directory `path` and those above it that do not exist, all with this owner and these
    /// permissions. Returns its inode, also if it existed.
    ///
    /// See the [example](Self#names).
    ///
    /// # Errors
    /// As [`create_dir_all`](Self::create_dir_all).
    pub fn create_dir_all_with(
        &self,
        path: impl AsRef<[u8]>,
        new: NewFile,
    ) -> Result<Inode, Error> {
        let (fs, path) = (self.filesystem(), path.as_ref());
        let mut ends: Vec<usize> = ends_of_names(path).collect();
        // The names that are to be created, the deepest first.
        let mut missing = Vec::new();
        let mut here = loop {
            let Some(end) = ends.pop() else { break fs.root().map_err(at(path))? };
            let prefix = path.split_at(end).0;
            match fs.lookup(prefix) {
                Ok(inode) if inode.is_dir() => break inode,
                Ok(_) => {
                    let subject = Subject::Path(prefix.into());
                    return Err(at(prefix)(FsError::NotADirectory { subject }));
                }
                Err(FsError::NotFound { .. }) => missing.push(prefix),
                Err(error) => return Err(at(prefix)(error)),
            }
        };
        while let Some(prefix) = missing.pop() {
            here = match fs.create_dir(here.number(), split(prefix).1, new) {
                // Another thread was faster, the name is that of a link, or it is "." or "..".
                Err(FsError::AlreadyExists { .. } | FsError::InvalidName { .. }) => {
                    fs.lookup(prefix)
                }
                created => created,
            }
            .map_err(at(prefix))?;
        }
        Ok(here)
    }

    /// Removes the empty directory `path`.
    ///
    /// See the [example](Self#names).
    ///
    /// # Errors
    /// [`Error::Path`]: it does not exist, is not a directory, or is not empty.
    pub fn remove_dir(&self, path: impl AsRef<[u8]>) -> Result<(), Error> {
        let (fs, path) = (self.filesystem(), path.as_ref());
        let place = place_of_directory(fs, path);
        place.and_then(|from| fs.remove_dir(from.parent, from.name)).map_err(at(path))
    }

    /// Removes the name `path` of a file that is not a directory. A symbolic link is not followed. The file is
    /// freed when it has no other name and is not open.
    ///
    /// See the [example](Self#names).
    ///
    /// # Errors
    /// [`Error::Path`]: it does not exist, is a directory, or must not be changed.
    pub fn remove_file(&self, path: impl AsRef<[u8]>) -> Result<(), Error> {
        let (fs, path) = (self.filesystem(), path.as_ref());
        let place = place(fs, path);
        place.and_then(|from| fs.remove_file(from.parent, from.name)).map_err(at(path))
    }

    /// Renames `from` to `to`. If `to` exists, it is replaced: a directory only if it is empty.
    ///
    /// See the [example](Self#names).
    ///
    /// # Errors
    /// As [`rename_with`](Self::rename_with).
    pub fn rename(&self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Result<(), Error> {
        self.rename_with(from, to, RenameMode::Replace)
    }

    /// Renames `from` to `to`, with a choice for a `to` that exists; see
    /// [`nvio_ext4::JournaledFilesystem::rename`].
    /// Symbolic links are not followed.
    ///
    /// See the [example](Self#names).
    ///
    /// # Errors
    /// [`Error::Path`], with the path that it concerns.
    pub fn rename_with(
        &self,
        from: impl AsRef<[u8]>,
        to: impl AsRef<[u8]>,
        mode: RenameMode,
    ) -> Result<(), Error> {
        let (fs, from, to) = (self.filesystem(), from.as_ref(), to.as_ref());
        let source = place_of_directory(fs, from).map_err(at(from))?;
        let target = place_of_directory(fs, to).map_err(at(to))?;
        // A slash after a name is only for a directory.
        if split(from).2 || split(to).2 {
            let (parent, name, _) = split(from);
            let inode = fs.lookup_no_follow([parent, name].concat()).map_err(at(from))?;
            if !inode.is_dir() {
                let subject = Subject::Path(from.into());
                return Err(at(from)(FsError::NotADirectory { subject }));
            }
        }
        let renamed = fs.rename(source.parent, source.name, target.parent, target.name, mode);
        renamed.map_err(|error| match error {
            FsError::AlreadyExists { .. }
            | FsError::IsADirectory { .. }
            | FsError::NotADirectory { .. }
            | FsError::DirectoryNotEmpty { .. } => at(to)(error),
            FsError::NotFound { .. } if fs.lookup_no_follow(from).is_ok() => at(to)(error),
            error => at(from)(error),
        })
    }

    /// Adds the name `link` for the file `original`, which is not a directory, and returns its inode. If
    /// `original` is a symbolic link, the link gets the name, not its target.
    ///
    /// See the [example](Self#names).
    ///
    /// # Errors
    /// [`Error::Path`], with the path that it concerns.
    pub fn hard_link(
        &self,
        original: impl AsRef<[u8]>,
        link: impl AsRef<[u8]>,
    ) -> Result<Inode, Error> {
        let (fs, original, link) = (self.filesystem(), original.as_ref(), link.as_ref());
        let inode = fs.lookup_no_follow(original).map_err(at(original))?.number();
        let to = place(fs, link).map_err(at(link))?;
        fs.hard_link(inode, to.parent, to.name).map_err(|error| match error {
            FsError::Protected { inode: number, .. } if number == inode => at(original)(error),
            error => at(link)(error),
        })
    }

    /// Creates the symbolic link `link` to `target`, which need not exist, and returns its inode.
    ///
    /// See the [example](Self#names).
    ///
    /// # Errors
    /// [`Error::Path`]: as [`create_dir`](Self::create_dir), and if the target is empty or too long.
    pub fn symlink(
        &self,
        target: impl AsRef<[u8]>,
        link: impl AsRef<[u8]>,
    ) -> Result<Inode, Error> {
        self.symlink_with(target, link, NewFile::default())
    }

    /// Creates a symbolic link with this owner. Its permissions are always 0o777.
    ///
    /// See the [example](Self#names).
    ///
    /// # Errors
    /// As [`symlink`](Self::symlink).
    pub fn symlink_with(
        &self,
        target: impl AsRef<[u8]>,
        link: impl AsRef<[u8]>,
        new: NewFile,
    ) -> Result<Inode, Error> {
        let (fs, link) = (self.filesystem(), link.as_ref());
        let place = place(fs, link);
        place.and_then(|to| fs.create_symlink(target, to.parent, to.name, new)).map_err(at(link))
    }

    /// Creates a device, a named pipe or a socket at `path`, and returns its inode.
    ///
    /// See the [example](Self#names).
    ///
    /// # Errors
    /// As [`create_dir`](Self::create_dir).
    pub fn create_special(
        &self,
        special: SpecialFile,
        path: impl AsRef<[u8]>,
        new: NewFile,
    ) -> Result<Inode, Error> {
        let (fs, path) = (self.filesystem(), path.as_ref());
        let place = place(fs, path);
        place.and_then(|to| fs.create_special(special, to.parent, to.name, new)).map_err(at(path))
    }

    /// Opens the regular file `path` for writing, with size 0. It is created if it does not exist.
    /// [`FileOptions`] open it in other ways.
    ///
    /// # Errors
    /// As [`FileOptions::open`].
    ///
    /// # Examples
    /// ```
    /// # let sample = nvio_testkit::image::Sample::new();
    /// use std::io::Write;
    ///
    /// let volume = nvio::JournaledVolume::open(sample.path())?;
    /// let mut file = volume.create("/new.txt")?;
    /// writeln!(file, "a line")?;
    /// file.sync_all()?;
    /// drop(file);
    /// assert_eq!(volume.lookup("/new.txt")?.size(), 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create(&self, path: impl AsRef<[u8]>) -> Result<JournaledFile, Error> {
        FileOptions::new().write(true).create(true).truncate(true).open(self, path)
    }

    /// Creates a regular file without a name near the directory `path`, as open(2) does with
    /// `O_TMPFILE`. It is freed when it is closed, unless [`hard_link`](JournaledFile::hard_link) gave it a name.
    ///
    /// # Errors
    /// [`Error::Path`]: the directory does not exist, or there is no space.
    ///
    /// # Examples
    /// ```
    /// # let sample = nvio_testkit::image::Sample::new();
    /// use nvio::ext4::NewFile;
    ///
    /// let volume = nvio::JournaledVolume::open(sample.path())?;
    /// let mut file = volume.create_unnamed("/", NewFile::with_permissions(0o644))?;
    /// file.write_at(0, b"all of it")?;
    /// // Other programs find the whole file or none.
    /// file.hard_link("/complete")?;
    /// assert_eq!(volume.lookup("/complete").map_err(nvio::Error::File)?.links(), 1);
    /// # Ok::<(), nvio::Error>(())
    /// ```
    pub fn create_unnamed(
        &self,
        path: impl AsRef<[u8]>,
        new: NewFile,
    ) -> Result<JournaledFile, Error> {
        let (fs, path) = (self.filesystem(), path.as_ref());
        let directory = fs.lookup(path).map_err(at(path))?.number();
        let file = fs.create_unnamed(directory, new).map_err(at(path))?;
        Ok(self.opened(file, Access::ALL))
    }

    /// Sets the contents of the file `path`, which is created if it does not exist. The file is durable
    /// after [`sync`](Self::sync).
    ///
    /// See the [example](Self#names).
    ///
    /// # Errors
    /// As [`create`](Self::create). If there is no space for all data, a part of it is written.
    pub fn write(&self, path: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Result<(), Error> {
        let path = path.as_ref();
        let file = self.create(path)?;
        let number = file.inode().number();
        let written = self.filesystem().write_at(number, 0, data.as_ref());
        written.map(drop).map_err(at(path))
    }
}

/// Returns the ends of the names of a path.
fn ends_of_names(path: &[u8]) -> impl Iterator<Item = usize> + '_ {
    let byte = |at: usize| path.get(at).copied().unwrap_or(b'/');
    (1..=path.len()).filter(move |&end| byte(end) == b'/' && byte(end - 1) != b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_the_names_of_a_path() {
        assert_eq!(ends_of_names(b"/a//bc/").collect::<Vec<_>>(), [2, 6]);
        assert_eq!(ends_of_names(b"a/./b").collect::<Vec<_>>(), [1, 3, 5]);
        assert_eq!(ends_of_names(b"//").count(), 0);
    }
}
