//! A filesystem that is open for changes, and the changes of its metadata.

mod access;
mod acl;
pub(crate) mod attributes;
mod cleanup;
pub(crate) mod create;
pub(crate) mod delayed;
pub(crate) mod directory;
pub(crate) mod extents;
mod fast_commit;
mod features;
pub(crate) mod file;
mod file_io;
pub(crate) mod hold;
mod keeper;
mod locks;
mod names;
pub(crate) mod new_inode;
pub(crate) mod noted;
pub(crate) mod open;
mod orphans;
mod range;
pub(crate) mod rename;
mod replay;
pub(crate) mod space;
pub(crate) mod superblock;
pub(crate) mod time;
mod unlink;
pub(crate) mod write;
pub(crate) mod xattr;
mod xattr_store;

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::change::keeper::Keeper;
use crate::change::locks::{InodeLock, InodeLocks};
use crate::error::Error;
use crate::file::system_zone::SystemZone;
use crate::filesystem::Filesystem;
use crate::journal::Journal;
use crate::journal::fast_commit::Pending;
use crate::journal::handle::Handle;
use crate::mount::protection::Protection;
use crate::number::InodeNumber;

/// A [`Filesystem`] whose metadata can be changed. Changes are written through the journal, so that
/// after a loss of power each of them is there as a whole, or not at all, in the order in which they
/// were made.
///
/// A change is in memory when the call returns. It is durable when a later
/// [`sync`](Self::sync) or [`sync_inode`](Self::sync_inode) has returned. A clone is another handle
/// to the same filesystem; all methods may be called from several threads. When the last handle is
/// dropped, the filesystem is closed; [`close`](Self::close) also returns the error.
///
/// # Examples
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// # let image = sample.path();
/// use std::fs::File;
///
/// use nvio_ext4::{Filesystem, JournaledFilesystem, Options, Timestamp};
///
/// let device = File::options().read(true).write(true).open(&image)?;
/// let fs = JournaledFilesystem::open(device, Options::default())?;
/// let file = fs.lookup("/hello.txt")?.number();
/// fs.set_permissions(file, 0o640)?;
/// fs.set_owner(file, Some(1000), None)?;
/// fs.set_times(file, None, Some(Timestamp { seconds: 1_000_000_000, nanoseconds: 0 }))?;
/// // The changes are durable:
/// fs.sync_inode(file)?;
///
/// // The file grows. Its data and its new size are durable:
/// fs.write_at(file, 12, b", and more")?;
/// fs.sync_data(file)?;
/// assert_eq!(fs.allocate(file, 0, 1 << 16, true)?.size(), 22);
/// fs.punch_hole(file, 1 << 15, 1 << 15)?;
/// fs.truncate(file, 12)?;
/// // A hole of a block before the text, then without it, and blocks that read as zeroes after it:
/// let block = u64::from(fs.superblock().block_size());
/// assert_eq!(fs.insert_range(file, 0, block)?.size(), block + 12);
/// assert_eq!(fs.collapse_range(file, 0, block)?.size(), 12);
/// assert!(fs.collapse_range(file, 0, block).is_err(), "it would be empty");
/// assert_eq!(fs.zero_range(file, 12, 9000, true)?.size(), 12);
/// // All changes of all inodes are:
/// fs.sync()?;
/// // The changes are in place, and the journal is empty:
/// fs.close()?;
///
/// let inode = Filesystem::open(File::open(&image)?)?.lookup("/hello.txt")?;
/// assert_eq!((inode.permissions(), inode.uid(), inode.gid()), (0o640, 1000, 0));
/// assert!(inode.mtime() > Timestamp { seconds: 1_000_000_000, nanoseconds: 0 });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Open files
/// A file can be open while it is changed, also by its inode number.
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// # let image = sample.path();
/// use std::fs::File;
///
/// use nvio_ext4::{JournaledFilesystem, Options};
/// use nvio_iomap::{FileQueue, ImageQueue, PageCache};
///
/// let device = File::options().read(true).write(true).open(&image)?;
/// let cache = PageCache::new(ImageQueue::new(device.try_clone()?, 32)?, 1 << 20);
/// let mut queue = FileQueue::new(ImageQueue::new(device.try_clone()?, 32)?);
/// let fs = JournaledFilesystem::open(device, Options::default())?;
/// let inode = fs.lookup("/hello.txt")?;
///
/// // Through the cache: the data is durable after the sync.
/// let mut cached = fs.cached_file(&inode, &cache)?;
/// cached.write_at(12, &b", and more"[..])?;
/// assert_eq!(cached.size(), 22);
/// cached.sync_all()?;
///
/// // Past the cache: whole blocks of the device, here to a hole.
/// let mut direct = fs.open_file(&inode)?;
/// direct.write_at(&mut queue, 4096, &[7; 1024])?;
/// fs.sync_data(inode.number())?;
/// let mut text = [0; 22];
/// assert_eq!(direct.read_at(&mut queue, 0, &mut text)?, 22);
/// assert_eq!(direct.size_now(), 5120);
/// assert_eq!(&text, b"Hello, world, and more");
/// # drop((cached, direct));
/// # fs.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Names
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// # let image = sample.path();
/// use std::fs::File;
/// use std::io::ErrorKind;
///
/// use nvio_ext4::{JournaledFilesystem, NewFile, Options, RenameMode, SpecialFile};
///
/// let device = File::options().read(true).write(true).open(&image)?;
/// let fs = JournaledFilesystem::open(device, Options::default())?;
/// let root = fs.root()?.number();
/// let file = fs.lookup("/hello.txt")?.number();
///
/// assert_eq!(fs.hard_link(file, root, "second name")?.links(), 2);
/// fs.rename(root, "second name", root, "table.db", RenameMode::Replace)?;
/// assert_eq!(fs.lookup("/table.db")?.number(), file);
/// // The directory's entries are durable:
/// fs.sync_inode(root)?;
///
/// fs.rename(root, "hello.txt", root, "link", RenameMode::Exchange)?;
/// assert!(fs.lookup_no_follow("/hello.txt")?.is_symlink());
/// let error = fs.rename(root, "hello.txt", root, "link", RenameMode::NoReplace).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::AlreadyExists);
/// assert_eq!(fs.hard_link(file, root, "..").unwrap_err().kind(), ErrorKind::InvalidInput);
///
/// let new = NewFile { uid: 1000, gid: 1000, ..NewFile::with_permissions(0o750) };
/// let directory = fs.create_dir(root, "directory", new)?.number();
/// let inode = fs.create_file(directory, "file", new)?;
/// fs.write_at(inode.number(), 0, b"contents")?;
/// fs.create_symlink("file", directory, "link", new)?;
/// fs.create_special(SpecialFile::Fifo, directory, "pipe", new)?;
/// assert_eq!(fs.lookup("/directory/link")?.size(), 8);
/// assert_eq!(fs.remove_dir(root, "directory").unwrap_err().kind(), ErrorKind::DirectoryNotEmpty);
/// for name in ["file", "link", "pipe"] {
///     fs.remove_file(directory, name)?;
/// }
/// fs.remove_dir(root, "directory")?;
/// fs.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Attributes
/// Extended attributes, access control lists among them, are set and removed by their names.
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// # let image = sample.path();
/// use std::fs::File;
///
/// use nvio_ext4::{BadAttribute, Error, JournaledFilesystem, Options, XattrMode};
///
/// let device = File::options().read(true).write(true).open(&image)?;
/// let fs = JournaledFilesystem::open(device, Options::default())?;
/// let file = fs.lookup("/hello.txt")?.number();
/// let inode = fs.set_xattr(file, "user.mime_type", "text/plain", XattrMode::Create)?;
/// assert_eq!(fs.xattr(&inode, "user.mime_type")?.unwrap(), b"text/plain");
/// let inode = fs.set_xattr(file, "user.mime_type", "text/html", XattrMode::Either)?;
/// assert_eq!(fs.xattr(&inode, "user.mime_type")?.unwrap(), b"text/html");
///
/// let inode = fs.remove_xattr(file, "user.mime_type")?;
/// assert_eq!(fs.xattr(&inode, "user.mime_type")?, None);
/// match fs.set_xattr(file, "user.mime_type", "text/plain", XattrMode::Replace) {
///     Err(Error::BadAttribute { why, .. }) => assert_eq!(why, BadAttribute::Missing),
///     other => panic!("{other:?}"),
/// }
/// # fs.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct JournaledFilesystem {
    inner: Arc<Inner>,
}

struct Inner {
    fs: Filesystem,
    journal: Arc<Journal>,
    zone: SystemZone,
    locks: InodeLocks,
    is_closed: AtomicBool,
    this: Weak<Self>,
    /// The thread that keeps the multi-mount protection block, and the block.
    keeper: Mutex<Option<Keeper>>,
    protection: Option<Arc<Protection>>,
}

impl fmt::Debug for JournaledFilesystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JournaledFilesystem").field("fs", &self.inner.fs).finish_non_exhaustive()
    }
}

impl Deref for JournaledFilesystem {
    type Target = Filesystem;

    fn deref(&self) -> &Filesystem {
        &self.inner.fs
    }
}

impl JournaledFilesystem {
    fn new(
        fs: Filesystem,
        journal: Arc<Journal>,
        zone: SystemZone,
        protection: Option<Arc<Protection>>,
    ) -> Result<Self, Error> {
        let is_closed = AtomicBool::new(false);
        let locks = InodeLocks::default();
        let start = |taken: &Arc<_>| Keeper::start(Arc::clone(taken), Arc::downgrade(&journal));
        let keeper = Mutex::new(protection.as_ref().map(start).transpose()?);
        let inner = Arc::new_cyclic(|this| {
            let this = Weak::clone(this);
            Inner { fs, journal, zone, locks, is_closed, this, keeper, protection }
        });
        let changer: Weak<Inner> = Arc::downgrade(&inner);
        inner.fs.open_inodes().set_changer(changer);
        Ok(Self { inner })
    }

    /// Writes the multi-mount protection block now, if the filesystem has one. A thread of the filesystem
    /// writes it in each interval; a program that was stopped for longer, with its machine or by a signal,
    /// calls this before its next change, because another host may have taken the filesystem meanwhile.
    ///
    /// # Errors
    /// [`Error::InUse`] if another host has: nothing can be changed any more. Failures of the device.
    ///
    /// # Examples
    /// ```
    /// # let sample = nvio_testkit::image::Sample::new();
    /// # let device = std::fs::File::options().read(true).write(true).open(sample.path())?;
    /// let fs = nvio_ext4::JournaledFilesystem::open(device, nvio_ext4::Options::default())?;
    /// fs.renew_mmp()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn renew_mmp(&self) -> Result<(), Error> {
        let Some(protection) = &self.inner.protection else { return Ok(()) };
        let renewed = protection.renew();
        if let Err(Error::InUse(holder)) = &renewed {
            self.journal().lose(holder.clone());
        }
        renewed
    }

    /// Locks the blocks of an inode, for a change of several steps.
    fn lock(&self, inode: InodeNumber) -> InodeLock<'_> {
        self.inner.locks.lock(inode)
    }

    /// Returns the blocks that belong to the filesystem itself.
    fn zone(&self) -> &SystemZone {
        &self.inner.zone
    }

    fn journal(&self) -> &Journal {
        &self.inner.journal
    }

    /// Makes all changes durable that were made so far.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Sink`] or [`Error::Source`] if the device fails; [`Error::JournalAborted`] after such
    /// a failure.
    pub fn sync(&self) -> Result<(), Error> {
        self.free_unnamed(None);
        let direct = self.open_inodes().direct_writes(None);
        self.journal().sync(self)?;
        if direct.need_flush() {
            self.journal().flush()?;
        }
        direct.set_flushed();
        Ok(())
    }

    /// Makes the changes of one inode durable, and all that were made before them.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    pub fn sync_inode(&self, inode: impl Into<InodeNumber>) -> Result<(), Error> {
        self.sync_with_data(inode.into(), false)
    }

    /// Makes the data of one inode durable, with its size and its map, as fdatasync(2) does. Changes
    /// of its times or its owner alone are left to a later sync.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    pub fn sync_data(&self, inode: impl Into<InodeNumber>) -> Result<(), Error> {
        self.sync_with_data(inode.into(), true)
    }

    /// Makes the changes of an inode durable, and its direct writes, which no change of metadata follows
    /// where the file has blocks.
    fn sync_with_data(&self, inode: InodeNumber, data: bool) -> Result<(), Error> {
        let direct = self.open_inodes().direct_writes(Some(inode));
        if self.sync_changes(inode, data, direct.need_flush())? {
            self.journal().flush()?;
        }
        direct.set_flushed();
        Ok(())
    }

    /// Makes the changes of an inode durable: see [`Journal::sync_inode`].
    fn sync_changes(&self, inode: InodeNumber, data: bool, flush: bool) -> Result<bool, Error> {
        let tags = |handle: &mut Handle<'_>, pending: &Pending| {
            fast_commit::tags(handle, self.zone(), pending)
        };
        self.journal().sync_inode(self, inode, (data, flush), tags)
    }

    /// Makes all changes durable, writes them to their places, and marks the filesystem as cleanly
    /// unmounted. Handles that are left can only read then.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`sync`](Self::sync). The next open recovers the filesystem then.
    pub fn close(self) -> Result<(), Error> {
        self.free_unnamed(None);
        self.inner.close()
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fs.fmt(f)
    }
}

impl Inner {
    /// Returns a handle of the filesystem.
    ///
    /// # Errors
    /// [`Error::JournalAborted`] if its last handle is being dropped.
    fn handle(&self) -> Result<JournaledFilesystem, Error> {
        let inner = self.this.upgrade().ok_or(Error::JournalAborted)?;
        Ok(JournaledFilesystem { inner })
    }

    fn close(&self) -> Result<(), Error> {
        if self.is_closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let ended = self.journal.end(&self.fs);
        let closed = ended.and_then(|()| superblock::mark_clean(&self.fs, &self.journal));
        drop(self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take());
        let released = self.protection.as_ref().map_or(Ok(()), |taken| taken.release());
        closed.and(released)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            log::warn!("closing the filesystem: {error}; the next open recovers it");
        }
    }
}
