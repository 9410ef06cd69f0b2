//! Copying trees from the device to this machine.
//!
//! The names come from a filesystem nobody vouches for. Directories of the copy are entered by
//! descriptor, never by path, and never through a symbolic link, so that nothing is written
//! outside of the target whatever the names and links of the tree are.

mod host;
mod xattr;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::vec::IntoIter;

use indicatif::ProgressBar;
use nvio_ext4::{FileQueue, FileType, Inode};
use nvio_iomap::PIECE;

use crate::error::Error;
use crate::volume::Volume;
use crate::walk::{Named, Seen, join};
use host::Place;
use xattr::{Attributes, Refused};

/// A copy in progress.
pub struct Copier<'a> {
    volume: &'a Volume,
    queue: FileQueue,
    buffer: Vec<u8>,
    progress: ProgressBar,
    /// Where files with several names went, by inode number.
    links: HashMap<u32, PathBuf>,
    seen: Seen,
    refused: Refused,
}

/// A directory that is being filled.
struct Frame {
    fd: OwnedFd,
    /// Where it is on the device.
    source: Vec<u8>,
    /// Where it is here, for messages and hard links.
    path: PathBuf,
    inode: Inode,
    left: IntoIter<Named>,
}

impl<'a> Copier<'a> {
    /// A copier that shows its progress on `progress`.
    ///
    /// # Errors
    /// If the controller has no queue left.
    pub fn new(volume: &'a Volume, progress: ProgressBar) -> Result<Self, Error> {
        host::allow_deep_trees();
        Ok(Self {
            volume,
            queue: volume.queue()?,
            buffer: vec![0; PIECE],
            progress,
            links: HashMap::new(),
            seen: Seen::default(),
            refused: Refused::default(),
        })
    }

    /// Copies `inode`, found at `source`, to `target`; a directory with all that is in it.
    ///
    /// # Errors
    /// The first thing that cannot be read or made.
    pub fn copy(&mut self, source: &[u8], inode: &Inode, target: &Path) -> Result<(), Error> {
        let (parent, name) = host::parent_and_name(target)?;
        let parent = host::open_directory(&parent)?;
        let place = Place { parent: parent.as_fd(), name, path: target };
        if !inode.is_dir() {
            return self.leaf(source, inode, &place);
        }
        let fd = host::make_directory(&place)?;
        self.tree(source, inode, fd, target)
    }

    /// Copies what is in a directory into one of this machine.
    ///
    /// # Errors
    /// The first thing that cannot be read or made.
    pub fn copy_into(&mut self, source: &[u8], inode: &Inode, target: &Path) -> Result<(), Error> {
        let fd = host::open_directory(target)?;
        self.tree(source, inode, fd, target)
    }

    /// With a stack of its own: a tree may be deeper than this thread's.
    fn tree(&mut self, source: &[u8], inode: &Inode, fd: OwnedFd, at: &Path) -> Result<(), Error> {
        // Two operands may have directories in common.
        self.seen = Seen::default();
        let mut stack = vec![self.enter(source.to_vec(), inode, fd, at.to_owned(), 0)?];
        while let Some(mut frame) = stack.pop() {
            let Some(Named { name, inode }) = frame.left.next() else {
                // Last: filling a directory changes its time.
                let attributes = self.attributes(&frame.source, &frame.inode)?;
                host::set_metadata(frame.fd.as_fd(), &frame.inode, &attributes, &frame.path)?;
                continue;
            };
            let source = join(&frame.source, &name);
            let name = OsStr::from_bytes(&name);
            let path = frame.path.join(name);
            let place = Place { parent: frame.fd.as_fd(), name, path: &path };
            if inode.is_dir() {
                let fd = host::make_directory(&place)?;
                stack.push(frame);
                let below = self.enter(source, &inode, fd, path, stack.len())?;
                stack.push(below);
            } else {
                self.leaf(&source, &inode, &place)?;
                stack.push(frame);
            }
        }
        Ok(())
    }

    fn enter(
        &mut self,
        source: Vec<u8>,
        inode: &Inode,
        fd: OwnedFd,
        path: PathBuf,
        depth: usize,
    ) -> Result<Frame, Error> {
        self.seen.enter(&source, inode.number(), depth)?;
        let left = self.volume.entries(&source, inode)?.into_iter();
        Ok(Frame { fd, source, path, inode: inode.clone(), left })
    }

    /// The extended attributes of `inode`, found at `source`.
    fn attributes(&self, source: &[u8], inode: &Inode) -> Result<Attributes<'_>, Error> {
        Attributes::read(&self.volume.filesystem, inode, &self.refused).map_err(Error::path(source))
    }

    /// Copies what is no directory.
    fn leaf(&mut self, source: &[u8], inode: &Inode, place: &Place<'_>) -> Result<(), Error> {
        self.progress.set_message(crate::name::escaped(source));
        if inode.links() > 1 {
            if let Some(first) = self.links.get(&inode.number()) {
                return host::link(first, inode, place);
            }
            self.links.insert(inode.number(), place.path.to_owned());
        }
        if inode.kind() == FileType::Regular {
            return self.file(source, inode, place);
        }
        let attributes = self.attributes(source, inode)?;
        match inode.kind() {
            FileType::Symlink => {
                let target = self.volume.target(source, inode)?.unwrap_or_default();
                host::symlink(&target, inode, &attributes, place)
            }
            _ => host::special(inode, &attributes, place),
        }
    }

    /// Only what the extents say is written; holes and unwritten ranges stay holes.
    fn file(&mut self, source: &[u8], inode: &Inode, place: &Place<'_>) -> Result<(), Error> {
        let failed = Error::path(source);
        let mut file = self.volume.filesystem.file(inode).map_err(&failed)?;
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
