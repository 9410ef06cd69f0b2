//! Copies trees from the device to this machine.
//!
//! The names come from a filesystem that is not trusted. Directories of the copy are entered by
//! descriptor, never by path, and never through a symbolic link, so that no name or link of the
//! tree leads outside of the target.

mod entry_name;
mod host;
mod xattr;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use indicatif::ProgressBar;
use nvio::{Queue, Volume};
use nvio_ext4::{FileType, Inode, InodeNumber, Visit, WalkEvent};
use nvio_iomap::BOUNCE_BYTES_MAX;

use crate::error::{Error, Failures};
use crate::name::escaped;
use crate::open;
use entry_name::is_name;
use host::Place;
use xattr::{Attributes, Refused};

/// A copy in progress.
pub struct Copier<'a> {
    volume: &'a Volume,
    queue: Queue,
    buffer: Vec<u8>,
    progress: ProgressBar,
    /// Copies of files with several names, by inode number.
    links: HashMap<InodeNumber, PathBuf>,
    refused: Refused,
    failures: Failures,
}

/// A directory whose entries are being copied.
struct Frame {
    fd: OwnedFd,
    /// Its path on this machine, for messages and hard links.
    path: PathBuf,
}

impl<'a> Copier<'a> {
    /// Creates a copier that shows its progress on `progress`.
    ///
    /// # Errors
    /// If the controller has no more queues.
    pub fn new(volume: &'a Volume, progress: ProgressBar) -> Result<Self, Error> {
        host::allow_deep_trees();
        Ok(Self {
            volume,
            queue: volume.queue()?,
            buffer: vec![0; BOUNCE_BYTES_MAX],
            progress,
            links: HashMap::new(),
            refused: Refused::default(),
            failures: Failures::default(),
        })
    }

    /// Copies `inode`, found at `source`, to `target`; a directory with all its entries.
    ///
    /// # Errors
    /// If `source` cannot be read or the target cannot be created. Failures below a directory are
    /// printed.
    pub fn copy(&mut self, source: &[u8], inode: &Inode, target: &Path) -> Result<(), Error> {
        let (parent, name) = host::parent_and_name(target)?;
        let parent = host::open_directory(&parent)?;
        let place = Place { parent: parent.as_fd(), name, path: target };
        if !inode.is_dir() {
            return self.leaf(source, inode, &place);
        }
        let fd = host::make_directory(&place)?;
        self.tree(source, inode, fd, target);
        Ok(())
    }

    /// Copies the entries of a directory into a directory of this machine.
    ///
    /// # Errors
    /// If `source` cannot be read or the target cannot be created. Failures below a directory are
    /// printed.
    pub fn copy_into(&mut self, source: &[u8], inode: &Inode, target: &Path) -> Result<(), Error> {
        let fd = host::open_directory(target)?;
        self.tree(source, inode, fd, target);
        Ok(())
    }

    /// Copies a tree without recursion, because it may be deeper than the stack of a thread. An
    /// entry that cannot be copied is printed, and left out with everything below it.
    fn tree(&mut self, source: &[u8], inode: &Inode, fd: OwnedFd, at: &Path) {
        let mut first = Some(Frame { fd, path: at.to_owned() });
        // `None` for a directory that could not be created.
        let mut stack: Vec<Option<Frame>> = Vec::new();
        let mut walk = self.volume.filesystem().walk(source, inode);
        while let Some(visit) = walk.step() {
            let copied = match visit {
                Ok(visit) => match first.take() {
                    Some(first) => {
                        stack.push(Some(first));
                        Ok(())
                    }
                    None => self.visit(&visit, &mut stack),
                },
                Err(error) => Err(Error::path(walk.path())(error)),
            };
            self.report(copied);
        }
    }

    fn visit(&mut self, visit: &Visit<'_>, stack: &mut Vec<Option<Frame>>) -> Result<(), Error> {
        let &Visit { event, path: source, name, inode, .. } = visit;
        if event == WalkEvent::Leave {
            let Some(frame) = stack.pop().flatten() else { return Ok(()) };
            // Last, because each new entry changes the time of its directory.
            let attributes = self.attributes(source, inode)?;
            return host::set_metadata(frame.fd.as_fd(), inode, &attributes, &frame.path);
        }
        if event == WalkEvent::Enter {
            stack.push(None);
        }
        let above = stack.iter().rev().nth(usize::from(event == WalkEvent::Enter));
        let Some(Some(above)) = above else { return Ok(()) };
        // The filesystem has checked the name. This check keeps the copy inside its target.
        if !is_name(name) {
            let (path, entry) = (escaped(source), escaped(name));
            return Err(Error::BadName { path, entry });
        }
        let name = OsStr::from_bytes(name);
        let path = above.path.join(name);
        let place = Place { parent: above.fd.as_fd(), name, path: &path };
        match event {
            WalkEvent::Enter => {
                let fd = host::make_directory(&place)?;
                if let Some(made) = stack.last_mut() {
                    *made = Some(Frame { fd, path });
                }
                Ok(())
            }
            // Created when the walk enters it.
            _ if inode.is_dir() => Ok(()),
            _ => self.leaf(source, inode, &place),
        }
    }

    /// Prints a failure.
    pub fn report(&mut self, copied: Result<(), Error>) {
        if let Err(error) = copied {
            self.progress.suspend(|| self.failures.report(&error));
        }
    }

    /// Returns the exit code: 1 if an entry could not be copied.
    pub fn code(&self) -> ExitCode {
        self.failures.code()
    }

    /// Returns the extended attributes of `inode`, found at `source`.
    fn attributes(&self, source: &[u8], inode: &Inode) -> Result<Attributes<'_>, Error> {
        Attributes::read(self.volume.filesystem(), inode, &self.refused)
            .map_err(Error::path(source))
    }

    /// Copies an entry that is not a directory.
    fn leaf(&mut self, source: &[u8], inode: &Inode, place: &Place<'_>) -> Result<(), Error> {
        self.progress.set_message(escaped(source));
        if inode.links() <= 1 {
            return self.content(source, inode, place);
        }
        if let Some(first) = self.links.get(&inode.number()) {
            return host::link(first, inode, place);
        }
        self.content(source, inode, place)?;
        self.links.insert(inode.number(), place.path.to_owned());
        Ok(())
    }

    fn content(&mut self, source: &[u8], inode: &Inode, place: &Place<'_>) -> Result<(), Error> {
        if inode.kind() == FileType::Regular {
            return self.file(source, inode, place);
        }
        let attributes = self.attributes(source, inode)?;
        match inode.kind() {
            FileType::Symlink => {
                let target = open::target(self.volume, source, inode)?.unwrap_or_default();
                host::symlink(&target, inode, &attributes, place)
            }
            _ => host::special(inode, &attributes, place),
        }
    }

    /// Copies a regular file. Only written extents are copied: holes and unwritten ranges stay
    /// holes.
    fn file(&mut self, source: &[u8], inode: &Inode, place: &Place<'_>) -> Result<(), Error> {
        let failed = Error::path(source);
        let mut file = self.volume.filesystem().file(inode).map_err(&failed)?;
        let size = file.size();
        let target = host::create(place)?;
        for extent in file.extents() {
            let extent = extent.map_err(&failed)?;
            let end = extent.logical.saturating_add(extent.length).min(size);
            let mut at = extent.logical;
            while !extent.unwritten && at < end {
                let part = usize::try_from(end - at).unwrap_or(usize::MAX).min(self.buffer.len());
                let buffer = &mut self.buffer[..part];
                let read = file.read_at(&mut self.queue, at, buffer);
                let read = read.map_err(&failed)?;
                host::write_at(&target, &self.buffer[..read], at, place)?;
                self.progress.inc(read as u64);
                at += read as u64;
                if read == 0 {
                    break;
                }
            }
        }
        let attributes = self.attributes(source, inode)?;
        host::finish(&target, size, inode, &attributes, place)
    }
}

pub use host::base_name;
