//! Copies trees from the device to this machine.
//!
//! The names come from a filesystem that is not trusted. Directories of the copy are entered by
//! descriptor, never by path, and never through a symbolic link, so that no name or link of the
//! tree leads outside of the target.

mod entry_name;
mod host;
mod place;
mod reads;
mod transfer;
mod xattr;

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;

use indicatif::ProgressBar;
use nvio::{Queue, Volume};
use nvio_ext4::{FileType, Inode, InodeNumber, Visit, WalkEvent};

use crate::error::{Error, Failures};
use crate::name::{base_name, escaped};
use crate::open;
use entry_name::is_name;
use place::{FileId, Folder, Guarded, Place, Unfinished};
use reads::Reads;
use transfer::{Entry, Transfer};
use xattr::{Attributes, Refused};

/// A copy in progress.
pub struct Copier<'a> {
    volume: &'a Volume,
    reads: Reads<Transfer, Queue>,
    progress: ProgressBar,
    /// Files with several names, by inode number.
    links: HashMap<InodeNumber, Links>,
    guarded: Guarded,
    refused: Refused,
    /// Errors of attributes that could not be read, which are still to be printed.
    unread: RefCell<Vec<Error>>,
    failures: Failures,
}

/// The names of a file that has several.
enum Links {
    /// The file is being copied. These names are waiting for it.
    Copying(Vec<Entry>),
    /// The file was copied to this path.
    Copied(PathBuf, FileId),
}

/// A directory on the current path of a walk.
struct Level {
    /// `None` if the directory could not be created.
    folder: Option<Rc<Folder>>,
    /// The name of the last entry.
    last: Vec<u8>,
}

impl Level {
    fn new(folder: Option<Rc<Folder>>) -> Self {
        Self { folder, last: Vec::new() }
    }
}

impl<'a> Copier<'a> {
    /// Creates a copier of `paths` paths that shows its progress on `progress`. It does not replace
    /// `images`.
    ///
    /// # Errors
    /// If the controller has no more queues.
    pub fn new(
        volume: &'a Volume,
        progress: ProgressBar,
        paths: usize,
        images: &[PathBuf],
    ) -> Result<Self, Error> {
        host::allow_deep_trees();
        let images = images.iter().filter_map(|path| rustix::fs::stat(path).ok());
        let images = images.map(|stat| FileId::from(&stat)).collect();
        let block = volume.filesystem().superblock().block_size().into();
        Ok(Self {
            volume,
            reads: Reads::new(volume.queue()?, block),
            progress,
            links: HashMap::new(),
            guarded: Guarded { images, made: (paths > 1).then(Default::default) },
            refused: Refused::default(),
            unread: RefCell::default(),
            failures: Failures::default(),
        })
    }

    /// Opens the directory that paths are copied into, or that has the target.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn folder(path: &Path) -> Result<Rc<Folder>, Error> {
        Folder::open(path).map(Rc::new)
    }

    /// Copies `inode`, found at `source`, to `name` in `folder`; a directory with all its entries.
    ///
    /// # Errors
    /// If `source` cannot be read or the target cannot be created. Failures below a directory are
    /// printed.
    pub fn copy(
        &mut self,
        source: &[u8],
        inode: &Inode,
        folder: &Rc<Folder>,
        name: &OsStr,
    ) -> Result<(), Error> {
        let entry = Entry {
            source: source.to_owned(),
            inode: inode.clone(),
            folder: Rc::clone(folder),
            name: name.to_owned(),
        };
        if inode.is_dir() {
            let folder = host::make_directory(&place(&entry, &self.guarded))?;
            self.tree(source, inode, folder);
            return Ok(());
        }
        let copied = self.leaf(entry);
        self.settle();
        copied
    }

    /// Copies the entries of a directory into a directory of this machine.
    ///
    /// # Errors
    /// If the target cannot be opened. Failures below the directory are printed.
    pub fn copy_into(&mut self, source: &[u8], inode: &Inode, target: &Path) -> Result<(), Error> {
        let folder = Folder::open(target)?;
        self.tree(source, inode, folder);
        Ok(())
    }

    /// Copies a tree without recursion, because it may be deeper than the stack of a thread. An
    /// entry that cannot be copied is printed, and left out with everything below it.
    fn tree(&mut self, source: &[u8], inode: &Inode, folder: Folder) {
        let mut first = Some(folder);
        let mut stack: Vec<Level> = Vec::new();
        let mut walk = self.volume.filesystem().walk(source, inode);
        while let Some(visit) = walk.step() {
            let copied = match visit {
                Ok(visit) => match first.take() {
                    Some(first) => {
                        stack.push(Level::new(Some(Rc::new(first))));
                        Ok(())
                    }
                    None => self.visit(&visit, &mut stack),
                },
                Err(error) => {
                    if let Some(level) = stack.last_mut().filter(|_| walk.failed_at_entry()) {
                        level.last = base_name(walk.path()).to_owned();
                    }
                    Err(Error::path(walk.path())(error))
                }
            };
            if matches!(copied, Err(Error::NameTwice { .. })) {
                walk.skip();
            }
            self.report(copied);
            self.settle();
        }
    }

    fn visit(&mut self, visit: &Visit<'_>, stack: &mut Vec<Level>) -> Result<(), Error> {
        let &Visit { event, path: source, name, inode, .. } = visit;
        if event == WalkEvent::Leave {
            if let Some(folder) = stack.pop().and_then(|level| level.folder) {
                folder.metadata.set(Some((source.to_owned(), inode.clone())));
                self.release(folder);
            }
            return Ok(());
        }
        let Some(above) = stack.last_mut() else { return Ok(()) };
        // The filesystem has checked the name. This check keeps the copy inside its target.
        if !is_name(name) {
            let (path, entry) = (escaped(source), escaped(name));
            return Err(Error::BadName { path, entry });
        }
        // Entries are sorted by name.
        if event == WalkEvent::Entry && above.last == name {
            return Err(Error::NameTwice { path: escaped(source) });
        }
        name.clone_into(&mut above.last);
        let folder = above.folder.clone();
        let entry = folder.map(|folder| Entry {
            source: source.to_owned(),
            inode: inode.clone(),
            folder,
            name: OsStr::from_bytes(name).to_owned(),
        });
        match (event, entry) {
            (WalkEvent::Enter, None) => stack.push(Level::new(None)),
            (WalkEvent::Enter, Some(entry)) => {
                let folder = host::make_directory(&place(&entry, &self.guarded)).map(Rc::new);
                let (folder, made) = match folder {
                    Ok(folder) => (Some(folder), Ok(())),
                    Err(error) => (None, Err(error)),
                };
                stack.push(Level::new(folder));
                return made;
            }
            // Created when the walk enters it.
            (_, Some(entry)) if !entry.inode.is_dir() => return self.leaf(entry),
            _ => {}
        }
        Ok(())
    }

    /// Prints a failure.
    pub fn report(&mut self, copied: Result<(), Error>) {
        for error in self.unread.take().into_iter().chain(copied.err()) {
            self.progress.suspend(|| self.failures.report(&error));
        }
    }

    /// Waits until everything that was begun is copied.
    pub fn drain(&mut self) {
        loop {
            let drained = self.reads.drain();
            self.report(drained.map_err(|error| nvio::Error::from(error).into()));
            if !self.settle() {
                return;
            }
        }
    }

    /// Ends the copy, and returns the exit code: 1 if an entry could not be copied.
    pub fn end(mut self) -> ExitCode {
        self.drain();
        let Reads { count, waits, .. } = self.reads;
        log::info!("{count} reads of data, with {waits} waits for the device");
        self.failures.damage(self.volume);
        self.failures.code()
    }

    /// Ends the files whose contents were copied. Returns true if there were some.
    fn settle(&mut self) -> bool {
        let mut some = false;
        loop {
            let ended = self.reads.take_ended();
            if ended.is_empty() {
                return some;
            }
            some = true;
            ended.into_iter().for_each(|transfer| self.finish(transfer));
        }
    }

    /// Gives a file its metadata and its names.
    fn finish(&mut self, transfer: Transfer) {
        let Transfer { entry, target, result, written, .. } = transfer;
        let place = place(&entry, &self.guarded);
        let copied = result.and_then(|()| {
            let Entry { source, inode, .. } = &entry;
            let attributes = self.attributes(source, inode);
            if written < inode.size() {
                let resized = target.file().set_len(inode.size());
                resized.map_err(|error| Error::host("write to", &place.path(), error))?;
            }
            target.finish(&place, |file, new| {
                host::set_metadata(file, inode, &attributes, &place.path(), new)
            })
        });
        self.linked(&entry, copied);
        self.release(entry.folder);
    }

    /// Returns the extended attributes of `inode`, found at `source`. Those that cannot be read are
    /// left out, and their errors are printed with the result of the copy.
    fn attributes(&self, source: &[u8], inode: &Inode) -> Attributes<'_> {
        let (attributes, errors) = Attributes::read(self.volume.filesystem(), inode, &self.refused);
        self.unread.borrow_mut().extend(errors.into_iter().map(Error::path(source)));
        attributes
    }

    /// Ends the copy of an entry, and links the names that were waiting for it. If it failed, the
    /// contents are copied to the next name.
    fn linked(&mut self, entry: &Entry, copied: Result<FileId, Error>) {
        let path = entry.folder.path.join(&entry.name);
        let (links, copied) = match copied {
            Ok(id) if entry.inode.links() > 1 => {
                (self.links.insert(entry.inode.number(), Links::Copied(path, id)), Ok(()))
            }
            Ok(_) => (None, Ok(())),
            Err(error) => (self.links.remove(&entry.inode.number()), Err(error)),
        };
        self.report(copied);
        if let Some(Links::Copying(waiting)) = links {
            for entry in waiting {
                let copied = self.leaf(entry);
                self.report(copied);
            }
        }
    }

    /// Sets the metadata of a directory after its last entry was created, because each new entry
    /// changes the time of its directory.
    fn release(&mut self, folder: Rc<Folder>) {
        let Some(folder) = Rc::into_inner(folder) else { return };
        let Some((source, inode)) = folder.metadata.take() else { return };
        let attributes = self.attributes(&source, &inode);
        let set = host::set_metadata(folder.fd.as_fd(), &inode, &attributes, &folder.path, None);
        self.report(set);
    }

    /// Copies an entry that is not a directory, or begins to.
    fn leaf(&mut self, entry: Entry) -> Result<(), Error> {
        self.progress.set_message(escaped(&entry.source));
        if entry.inode.links() > 1 {
            match self.links.get_mut(&entry.inode.number()) {
                Some(Links::Copying(waiting)) => {
                    waiting.push(entry);
                    return Ok(());
                }
                Some(Links::Copied(first, id)) => {
                    let place = place(&entry, &self.guarded);
                    let linked = host::link(first, *id, &entry.inode, &place);
                    if !matches!(linked, Ok(false)) {
                        self.release(entry.folder);
                        return linked.map(drop);
                    }
                }
                None => {
                    self.links.insert(entry.inode.number(), Links::Copying(Vec::new()));
                }
            }
        }
        if entry.inode.kind() == FileType::Regular {
            return self.file(entry);
        }
        let copied = self.other(&entry);
        self.linked(&entry, copied);
        self.release(entry.folder);
        Ok(())
    }

    /// Begins to copy a regular file.
    fn file(&mut self, entry: Entry) -> Result<(), Error> {
        let file = self.volume.filesystem().file(&entry.inode);
        let opened = file.map_err(Error::path(&entry.source)).and_then(|file| {
            let target = Unfinished::new(
                &entry.folder,
                &place(&entry, &self.guarded),
                host::permissions(&entry.inode),
            )?;
            Ok((file, target))
        });
        match opened {
            Ok((file, target)) => {
                self.reads.start(file, Transfer::new(entry, target, self.progress.clone()));
            }
            Err(error) => {
                self.linked(&entry, Err(error));
                self.release(entry.folder);
            }
        }
        Ok(())
    }

    /// Copies a symbolic link or a special file.
    fn other(&self, entry: &Entry) -> Result<FileId, Error> {
        let Entry { source, inode, .. } = entry;
        let place = place(entry, &self.guarded);
        let attributes = self.attributes(source, inode);
        match inode.kind() {
            FileType::Symlink => {
                let target = open::target(self.volume, source, inode)?.unwrap_or_default();
                host::symlink(&target, inode, &attributes, &place)
            }
            _ => host::special(inode, &attributes, &place),
        }
    }
}

fn place<'p>(entry: &'p Entry, guarded: &'p Guarded) -> Place<'p> {
    Place { folder: &entry.folder, name: &entry.name, source: &entry.source, guarded }
}

pub use host::{base_name as entry_name_of, parent_and_name};
