//! Files that are created in a filesystem: names, links and existing targets. `put` and `tar --extract`
//! use it.

pub mod attributes;
pub mod data;

use std::process::ExitCode;

use indicatif::ProgressBar;
use nvio::ext4::{Error as FsError, InodeNumber, JournaledFilesystem, NewFile, RenameMode};
use nvio::{Inode, JournaledVolume};

use crate::error::{Error, Failures};
use crate::name::escaped;

/// A name to be created in the filesystem.
#[derive(Clone, Copy)]
pub struct To<'a> {
    /// The directory.
    pub parent: InodeNumber,
    /// The name in it.
    pub name: &'a [u8],
    /// The path, for messages.
    pub path: &'a [u8],
}

/// A filesystem in which files are created.
pub struct Creator<'v> {
    /// The filesystem.
    pub volume: &'v JournaledVolume,
    /// Shows the number of bytes of data.
    pub bar: ProgressBar,
    buffer: Vec<u8>,
    failures: Failures,
}

impl<'v> Creator<'v> {
    /// Creates no file yet.
    pub fn new(volume: &'v JournaledVolume, bar: ProgressBar) -> Self {
        Self { volume, bar, buffer: Vec::new(), failures: Failures::default() }
    }

    /// Returns the filesystem.
    pub fn fs(&self) -> &'v JournaledFilesystem {
        self.volume.filesystem()
    }

    /// Prints a failure, and continues.
    pub fn report(&mut self, result: Result<(), Error>) {
        if let Err(error) = result {
            let failures = &mut self.failures;
            self.bar.suspend(|| failures.report(&error));
        }
    }

    /// Returns the exit code.
    pub fn code(&self) -> ExitCode {
        self.failures.code()
    }

    /// Creates a name by `make`, and calls `fill` for its inode. An existing file is replaced after that.
    ///
    /// # Errors
    /// If the file cannot be created, or the error of `fill`. The name is then as it was before.
    pub fn place(
        &mut self,
        to: To<'_>,
        make: impl Fn(&JournaledFilesystem, &[u8]) -> Result<Inode, FsError>,
        fill: impl FnOnce(&mut Self, &Inode) -> Result<(), Error>,
    ) -> Result<InodeNumber, Error> {
        let error = Error::path(to.path);
        let temporary = temporary();
        let (inode, name) = match make(self.fs(), to.name) {
            Err(FsError::AlreadyExists { .. }) => {
                self.check_replaceable(to)?;
                (make(self.fs(), &temporary).map_err(&error)?, &temporary[..])
            }
            made => (made.map_err(&error)?, to.name),
        };
        let mut done = fill(self, &inode);
        if done.is_ok() && name != to.name {
            let (parent, mode) = (to.parent, RenameMode::Replace);
            done = self.fs().rename(parent, name, parent, to.name, mode).map_err(&error);
        }
        if done.is_err()
            && let Err(error) = self.fs().remove_file(to.parent, name)
        {
            self.report(Err(Error::path(to.path)(error)));
        }
        done.map(|()| inode.number())
    }

    /// Gives a file another name. Returns false if it cannot have more.
    ///
    /// # Errors
    /// If the name cannot be created.
    pub fn link(&mut self, first: InodeNumber, to: To<'_>) -> Result<bool, Error> {
        let fs = self.fs();
        let error = Error::path(to.path);
        match fs.hard_link(first, to.parent, to.name) {
            Ok(_) => Ok(true),
            Err(FsError::TooManyLinks { .. } | FsError::InodeNotInUse { .. }) => Ok(false),
            Err(FsError::AlreadyExists { .. }) => {
                let existing = self.check_replaceable(to)?;
                if existing.number() != first {
                    let temporary = temporary();
                    let (parent, mode) = (to.parent, RenameMode::Replace);
                    fs.hard_link(first, parent, &temporary).map_err(&error)?;
                    fs.rename(parent, temporary, parent, to.name, mode).map_err(&error)?;
                }
                Ok(true)
            }
            Err(other) => Err(error(other)),
        }
    }

    /// Creates a directory, unless it exists.
    ///
    /// # Errors
    /// If it cannot be created, or another file has the name.
    pub fn directory(&self, to: To<'_>, new: NewFile) -> Result<Inode, Error> {
        match self.fs().create_dir(to.parent, to.name, new) {
            Err(FsError::AlreadyExists { .. }) => {
                let existing = self.existing(to)?;
                let is_dir = existing.as_ref().is_some_and(Inode::is_dir);
                existing.filter(|_| is_dir).ok_or_else(|| in_the_way(to, "not a directory"))
            }
            created => created.map_err(Error::path(to.path)),
        }
    }

    /// Returns the file that has the name.
    ///
    /// # Errors
    /// If the directory is damaged or cannot be read.
    pub fn existing(&self, to: To<'_>) -> Result<Option<Inode>, Error> {
        let fs = self.fs();
        let found = fs.inode(to.parent).and_then(|parent| fs.lookup_in(&parent, to.name));
        found.map_err(Error::path(to.path))
    }

    /// Returns the existing file of a name. A directory is not replaced.
    fn check_replaceable(&self, to: To<'_>) -> Result<Inode, Error> {
        let gone = || Error::path(to.path)(FsError::NotFound { path: to.path.into() });
        let existing = self.existing(to)?.ok_or_else(gone)?;
        if existing.is_dir() { Err(in_the_way(to, "a directory")) } else { Ok(existing) }
    }
}

/// Returns the error of a name that another kind of file has.
pub fn in_the_way(to: To<'_>, kind: &'static str) -> Error {
    Error::InTheWay { target: escaped(to.path).into(), kind }
}

/// Returns the name that a file has until it is complete, if it is to replace another one.
fn temporary() -> Vec<u8> {
    format!(".nvio-new-{}", std::process::id()).into_bytes()
}
