//! The files of a tree, created on the device.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, Metadata, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::vec;

use indicatif::ProgressBar;
use nvio::ext4::{Error as FsError, InodeNumber, JournaledFilesystem, NewFile, SpecialFile};
use nvio::{Inode, JournaledVolume};
use rustix::fs::OFlags;

use super::{attributes, contents};
use crate::create::{Creator, To};
use crate::error::Error;
use crate::name::{join, one_line};

/// A directory whose entries are being copied.
struct Level {
    source: PathBuf,
    /// The attributes to set when all entries are there, because each of them changes the times.
    metadata: Option<Metadata>,
    inode: InodeNumber,
    path: Vec<u8>,
    entries: vec::IntoIter<OsString>,
}

/// A copy in progress.
pub struct Putter<'v> {
    creator: Creator<'v>,
    recursive: bool,
    preserve: bool,
    /// Device and inode number of the images that must not be copied into themselves.
    images: Vec<(u64, u64)>,
    /// Copies of files with several names, by device and inode number of the source.
    links: HashMap<(u64, u64), InodeNumber>,
}

impl<'v> Putter<'v> {
    /// Creates a copy of nothing yet.
    pub fn new(
        volume: &'v JournaledVolume,
        recursive: bool,
        preserve: bool,
        bar: ProgressBar,
        images: &[PathBuf],
    ) -> Self {
        let id = |image: &PathBuf| fs::metadata(image).ok().map(|file| (file.dev(), file.ino()));
        let images = images.iter().filter_map(id).collect();
        let creator = Creator::new(volume, bar);
        Self { creator, recursive, preserve, images, links: HashMap::new() }
    }

    /// Prints a failure, and continues.
    pub fn report(&mut self, result: Result<(), Error>) {
        self.creator.report(result);
    }

    /// Returns the exit code.
    pub fn end(&self) -> ExitCode {
        self.creator.code()
    }

    /// Copies a file, or with -r a tree, to a name.
    ///
    /// # Errors
    /// If the file cannot be copied. Failures below it are printed.
    pub fn put(&mut self, source: &Path, to: To<'_>) -> Result<(), Error> {
        let metadata = match self.recursive {
            true => fs::symlink_metadata(source),
            false => fs::metadata(source),
        };
        let metadata = metadata.map_err(|error| Error::host("read", source, error))?;
        if !self.recursive && metadata.is_dir() {
            let advice = "`nvio put -r` copies it with all its contents";
            let path = one_line(&source.display().to_string());
            return Err(Error::Directory { path, advice });
        }
        match self.entry(source, &metadata, to)? {
            Some(level) => self.walk(level),
            None => Ok(()),
        }
    }

    /// Copies the entries of a directory into another one.
    ///
    /// # Errors
    /// If the directory cannot be listed. Failures below it are printed.
    pub fn entries(&mut self, source: &Path, into: &Inode, path: &[u8]) -> Result<(), Error> {
        let metadata = fs::metadata(source).map_err(|error| Error::host("read", source, error))?;
        if !metadata.is_dir() || !self.recursive {
            let advice = "`nvio put -r` copies its contents";
            let path = one_line(&source.display().to_string());
            return Err(Error::Directory { path, advice });
        }
        let level = Level::new(source, self.preserve.then_some(metadata), into.number(), path)?;
        self.walk(level)
    }

    /// Copies the entries of a directory, and of all directories below it.
    fn walk(&mut self, top: Level) -> Result<(), Error> {
        let mut levels = vec![top];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.entries.next() else {
                if let Some(Level { source, metadata: Some(metadata), inode, path, .. }) =
                    levels.pop()
                {
                    let attributes = attributes::read(&mut self.creator, &source, &metadata);
                    self.creator.set_attributes(inode, &path, &attributes);
                    self.creator.set_times(inode, &path, &attributes);
                }
                continue;
            };
            let source = level.source.join(&name);
            let path = join(&level.path, name.as_bytes());
            let to = To { parent: level.inode, name: name.as_bytes(), path: &path };
            let metadata = fs::symlink_metadata(&source);
            let put = metadata
                .map_err(|error| Error::host("read", &source, error))
                .and_then(|metadata| self.entry(&source, &metadata, to));
            match put {
                Ok(level) => levels.extend(level),
                Err(error) => self.report(Err(error)),
            }
        }
        Ok(())
    }

    /// Copies one file. Returns a directory, whose entries are to be copied next.
    fn entry(
        &mut self,
        source: &Path,
        metadata: &Metadata,
        to: To<'_>,
    ) -> Result<Option<Level>, Error> {
        let id = (metadata.dev(), metadata.ino());
        if metadata.is_dir() {
            return self.directory(source, metadata, to).map(Some);
        }
        let first = self.links.get(&id).copied();
        if let Some(first) = first
            && self.creator.link(first, to)?
        {
            return Ok(None);
        }
        let kind = metadata.file_type();
        let special = match () {
            () if metadata.is_file() => {
                self.file(source, metadata, to)?;
                return Ok(None);
            }
            () if metadata.is_symlink() => {
                let error = |error| Error::host("read the link", source, error);
                let target = fs::read_link(source).map_err(error)?;
                let target = target.as_os_str().as_bytes().to_vec();
                let new = self.new_file(metadata);
                let make = |fs: &JournaledFilesystem, name: &[u8]| {
                    fs.create_symlink(&target, to.parent, name, new)
                };
                self.place(source, metadata, to, make, |_, _| Ok(()))?;
                return Ok(None);
            }
            () if kind.is_fifo() => SpecialFile::Fifo,
            () if kind.is_socket() => SpecialFile::Socket,
            () if kind.is_char_device() => {
                SpecialFile::CharDevice(major(metadata), minor(metadata))
            }
            () => SpecialFile::BlockDevice(major(metadata), minor(metadata)),
        };
        if !self.recursive {
            let path = one_line(&source.display().to_string());
            let line = format!("{path} is not a regular file; `nvio put -r` copies it as it is");
            return Err(Error::Usage(line));
        }
        let new = self.new_file(metadata);
        let make = |fs: &JournaledFilesystem, name: &[u8]| {
            fs.create_special(special, to.parent, name, new)
        };
        self.place(source, metadata, to, make, |_, _| Ok(()))?;
        Ok(None)
    }

    /// Creates a directory, unless it exists.
    fn directory(&self, source: &Path, metadata: &Metadata, to: To<'_>) -> Result<Level, Error> {
        let inode = self.creator.directory(to, self.new_file(metadata))?;
        let metadata = self.preserve.then(|| metadata.clone());
        Level::new(source, metadata, inode.number(), to.path)
    }

    /// Copies a regular file.
    fn file(&mut self, source: &Path, metadata: &Metadata, to: To<'_>) -> Result<(), Error> {
        let error = |error| Error::host("open", source, error);
        let mut options = OpenOptions::new();
        // A pipe that has taken the place of the file does not block.
        let flags = OFlags::NONBLOCK.union(OFlags::NOFOLLOW).bits().cast_signed();
        let source_path = match self.recursive {
            true => source.to_owned(),
            false => source.canonicalize().map_err(error)?,
        };
        let file = options.read(true).custom_flags(flags).open(source_path).map_err(error)?;
        let metadata_now = file.metadata().map_err(error)?;
        if self.images.contains(&(metadata.dev(), metadata.ino())) {
            let path = one_line(&source.display().to_string());
            let line = format!("{path} is not copied: it is the image that is written to");
            return Err(Error::Usage(line));
        }
        let new = self.new_file(metadata);
        let make = |fs: &JournaledFilesystem, name: &[u8]| fs.create_file(to.parent, name, new);
        let fill = |creator: &mut Creator<'_>, inode: &Inode| {
            contents::copy(creator, (source, &file, metadata_now.len()), (inode, to.path))
        };
        self.place(source, metadata, to, make, fill)
    }

    /// Creates a name by `make`, calls `fill` for its inode, and sets its attributes. An existing file is
    /// replaced after that.
    fn place(
        &mut self,
        source: &Path,
        metadata: &Metadata,
        to: To<'_>,
        make: impl Fn(&JournaledFilesystem, &[u8]) -> Result<Inode, FsError>,
        fill: impl FnOnce(&mut Creator<'v>, &Inode) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let preserve = self.preserve;
        let number = self.creator.place(to, make, |creator, inode| {
            fill(creator, inode)?;
            if preserve {
                let attributes = attributes::read(creator, source, metadata);
                creator.set_attributes(inode.number(), to.path, &attributes);
                creator.set_times(inode.number(), to.path, &attributes);
            }
            Ok(())
        })?;
        if metadata.nlink() > 1 {
            self.links.insert((metadata.dev(), metadata.ino()), number);
        }
        Ok(())
    }

    fn new_file(&self, metadata: &Metadata) -> NewFile {
        let bits = u16::try_from(metadata.mode() & 0o7777).unwrap_or(0);
        match self.preserve {
            true => NewFile {
                uid: metadata.uid(),
                gid: metadata.gid(),
                ..NewFile::with_permissions(bits)
            },
            false => NewFile::with_permissions(bits & 0o777),
        }
    }
}

impl Level {
    /// Lists a directory of this machine.
    fn new(
        source: &Path,
        metadata: Option<Metadata>,
        inode: InodeNumber,
        path: &[u8],
    ) -> Result<Self, Error> {
        let name = |entry: std::io::Result<fs::DirEntry>| entry.map(|entry| entry.file_name());
        let names =
            fs::read_dir(source).and_then(|all| all.map(name).collect::<Result<Vec<_>, _>>());
        let mut names = names.map_err(|error| Error::host("list", source, error))?;
        names.sort_unstable();
        let (source, path, entries) = (source.to_owned(), path.to_vec(), names.into_iter());
        Ok(Self { source, metadata, inode, path, entries })
    }
}

fn major(metadata: &Metadata) -> u32 {
    rustix::fs::major(metadata.rdev())
}

fn minor(metadata: &Metadata) -> u32 {
    rustix::fs::minor(metadata.rdev())
}
