//! A filesystem whose metadata can be changed.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex};

use nvio_ext4::{Inode, JournaledFilesystem, Timestamp, XattrMode};

use crate::error::Error;
use crate::journaled_file::{Access, JournaledFile};
use crate::journaled_shared::JournaledShared;
use crate::location::Location;
use crate::options::OpenOptions;
use crate::pool::Pool;

/// A filesystem whose files can grow and shrink, and whose metadata can be changed, through its
/// journal. Cheap to clone; threads share it. It dereferences to the
/// [filesystem](JournaledFilesystem), which has the calls by inode number.
///
/// A change is in memory when a call returns, and durable after [`sync`](Self::sync).
/// No other program may have the filesystem open. A filesystem that was not unmounted is recovered
/// first, on the device.
///
/// # Examples
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// # let image = sample.path();
/// let volume = nvio::OpenOptions::new().open_journaled(&image)?;
/// volume.write_at("/hello.txt", 12, b" and more")?;
/// volume.set_permissions("/hello.txt", 0o600)?;
/// volume.truncate("/table.db", 1000)?;
/// volume.close()?;
///
/// let volume = nvio::JournaledVolume::open(&image)?;
/// assert!(volume.recovered().is_none(), "it was closed");
/// drop(volume);
///
/// let volume = nvio::Volume::open(&image)?;
/// assert_eq!(volume.read("/hello.txt")?, b"Hello, world and more");
/// assert_eq!(volume.metadata("/hello.txt")?.permissions(), 0o600);
/// assert_eq!(volume.read("/table.db")?.len(), 1000);
/// # Ok::<(), nvio::Error>(())
/// ```
///
/// # Names
/// The calls are those of [`std::fs`], with paths in the filesystem. A new file belongs to user 0 and group
/// 0, and has the permissions 0o666, a directory 0o777: no umask is subtracted. The calls whose names end
/// in `_with`, and [`FileOptions`](crate::FileOptions), set others.
///
/// They wait for metadata that is not cached. Threads may call them at one time. The calls of an
/// [`AsyncVolume`](crate::AsyncVolume) are futures.
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// # let image = sample.path();
/// use std::io::ErrorKind;
///
/// use nvio::ext4::{NewFile, RenameMode, SpecialFile};
///
/// let volume = nvio::JournaledVolume::open(&image)?;
/// volume.create_dir("/logs")?;
/// volume.create_dir_all("/logs/2026/01")?;
/// volume.write("/logs/2026/01/first", "one line\n")?;
/// volume.rename("/logs/2026/01/first", "/logs/first")?;
/// volume.hard_link("/logs/first", "/logs/second")?;
/// volume.symlink("logs/first", "/newest")?;
/// assert_eq!(volume.lookup("/newest").unwrap().links(), 2);
///
/// let private = NewFile { uid: 1000, gid: 1000, ..NewFile::with_permissions(0o700) };
/// assert_eq!(volume.create_dir_with("/private", private)?.uid(), 1000);
/// volume.create_dir_all_with("/private/a/b", private)?;
/// volume.create_special(SpecialFile::Fifo, "/private/pipe", private)?;
/// volume.symlink_with("pipe", "/private/link", private)?;
///
/// let error = volume.rename_with("/newest", "/logs", RenameMode::NoReplace).unwrap_err();
/// assert_eq!(error.to_string(), "/logs: exists already");
/// assert_eq!(volume.remove_dir("/logs").unwrap_err().kind(), ErrorKind::DirectoryNotEmpty);
/// volume.remove_file("/newest")?;
/// volume.remove_dir_all("/logs")?;
/// volume.remove_dir_all("/private")?;
/// assert_eq!(volume.remove_dir("/logs").unwrap_err().kind(), ErrorKind::NotFound);
/// volume.close()?;
/// # Ok::<(), nvio::Error>(())
/// ```
#[derive(Clone)]
pub struct JournaledVolume {
    inner: Arc<JournaledShared>,
}

impl fmt::Debug for JournaledVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let filesystem = &self.inner.filesystem;
        f.debug_struct("JournaledVolume").field("filesystem", filesystem).finish_non_exhaustive()
    }
}

impl Deref for JournaledVolume {
    type Target = JournaledFilesystem;

    fn deref(&self) -> &JournaledFilesystem {
        &self.inner.filesystem
    }
}

impl OpenOptions {
    /// Opens the filesystem at `location` for changes of metadata.
    ///
    /// See the [example](JournaledVolume#examples).
    ///
    /// # Errors
    /// As [`open_writable`](Self::open_writable). [`Error::NotWritable`] says which feature or state
    /// of the filesystem is not supported; nothing was written then.
    pub fn open_journaled(&self, location: impl Into<Location>) -> Result<JournaledVolume, Error> {
        let location = location.into();
        let device = self.device(&location, true)?;
        let refused = |error| Error::NotWritable { device: location.device.to_string(), error };
        let filesystem =
            JournaledFilesystem::open(device.block_device(&location)?, self.filesystem);
        let filesystem = filesystem.map_err(refused)?;
        let disk = device.writable_disk(&location)?;
        let (queues, cache, appends) = (Pool::new(), Mutex::default(), Mutex::default());
        let (cache_bytes, depth) = (self.page_cache(), self.queue_depth);
        let inner = JournaledShared {
            queues,
            cache,
            cache_bytes,
            depth,
            appends,
            filesystem,
            disk,
            device,
        };
        Ok(JournaledVolume { inner: Arc::new(inner) })
    }
}

impl JournaledVolume {
    /// Returns the filesystem, whose calls take inode numbers.
    ///
    /// # Examples
    /// ```
    /// # let sample = nvio_testkit::image::Sample::new();
    /// let volume = nvio::JournaledVolume::open(sample.path())?;
    /// let inode = volume.lookup("/hello.txt").map_err(nvio::Error::File)?;
    /// let allocated = volume.filesystem().allocate(inode.number(), 0, 1 << 16, true);
    /// assert_eq!(allocated.map_err(nvio::Error::File)?.blocks_512(), 128);
    /// # Ok::<(), nvio::Error>(())
    /// ```
    pub fn filesystem(&self) -> &JournaledFilesystem {
        &self.inner.filesystem
    }

    /// Opens the filesystem at `location` with the default [`OpenOptions`] for changes of metadata.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`OpenOptions::open_journaled`].
    pub fn open(location: impl Into<Location>) -> Result<Self, Error> {
        OpenOptions::new().open_journaled(location)
    }

    /// Opens the regular file at `path`, which exists, for reading and writing.
    /// [`FileOptions`](crate::FileOptions) open it in other ways, and create it.
    ///
    /// See the [example](JournaledFile#examples).
    ///
    /// # Errors
    /// [`Error::Path`] if there is no such file, it is damaged, or it may not be written to.
    pub fn open_file(&self, path: impl AsRef<[u8]>) -> Result<JournaledFile, Error> {
        let file = self.at(path.as_ref(), JournaledFilesystem::open_file)?;
        Ok(self.opened(file, Access::ALL))
    }

    /// Opens a regular file by its inode for reading and writing.
    ///
    /// # Errors
    /// [`Error::File`] if the inode is not a regular file, was freed, is damaged, or may not be written to.
    ///
    /// # Examples
    /// ```
    /// # let sample = nvio_testkit::image::Sample::new();
    /// use nvio::ext4::{InodeNumber, NewFile};
    ///
    /// let volume = nvio::JournaledVolume::open(sample.path())?;
    /// let new = NewFile::with_permissions(0o644);
    /// let inode = volume.filesystem().create_file(InodeNumber::ROOT, "new", new)?;
    /// let mut file = volume.open_inode(&inode)?;
    /// file.write_at(0, b"text")?;
    /// assert_eq!(file.size(), 4);
    /// # Ok::<(), nvio::Error>(())
    /// ```
    pub fn open_inode(&self, inode: &Inode) -> Result<JournaledFile, Error> {
        Ok(self.opened(self.inner.filesystem.open_file(inode)?, Access::ALL))
    }

    /// Opens a regular file by its inode for reading, also one that may not be written to: for instance an
    /// immutable one, or one with block pointers.
    ///
    /// # Errors
    /// [`Error::File`] if the inode is not a regular file, was freed, or is damaged.
    ///
    /// # Examples
    /// ```
    /// # let sample = nvio_testkit::image::Sample::with(&["-O", "^extents,^64bit"]);
    /// let volume = nvio::JournaledVolume::open(sample.path())?;
    /// let inode = volume.filesystem().lookup("/hello.txt")?;
    /// assert!(volume.open_inode(&inode).is_err(), "it has block pointers");
    /// let mut text = [0; 5];
    /// volume.open_inode_for_reading(&inode)?.read_at(0, &mut text)?;
    /// assert_eq!(&text, b"Hello");
    /// # Ok::<(), nvio::Error>(())
    /// ```
    pub fn open_inode_for_reading(&self, inode: &Inode) -> Result<JournaledFile, Error> {
        let access = Access { writes: false, ..Access::ALL };
        Ok(self.opened(self.inner.filesystem.open_file_for_reading(inode)?, access))
    }

    /// Returns an open file of this volume.
    pub(crate) fn opened(&self, file: nvio_ext4::JournaledFile, access: Access) -> JournaledFile {
        JournaledFile::new(file, access, Arc::clone(&self.inner))
    }

    /// Makes all data and all changes durable that were written so far, through any open file.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Iomap`]: a failure of the device. An error of a write through the cache
    /// is that of the next sync of its file.
    ///
    /// # Examples
    /// ```
    /// # let sample = nvio_testkit::image::Sample::new();
    /// let volume = nvio::JournaledVolume::open(sample.path())?;
    /// volume.open_file("/hello.txt")?.write_at(0, b"J")?;
    /// volume.set_permissions("/table.db", 0o600)?;
    /// volume.sync()?;
    /// # Ok::<(), nvio::Error>(())
    /// ```
    pub fn sync(&self) -> Result<(), Error> {
        self.inner.sync_cache()?;
        self.inner.filesystem.sync().map_err(Error::File)
    }

    /// Writes `data` at byte `pos` of the file at `path`, which grows if it ends before the data does;
    /// see [`JournaledFilesystem::write_at`].
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Path`].
    pub fn write_at(&self, path: impl AsRef<[u8]>, pos: u64, data: &[u8]) -> Result<Inode, Error> {
        self.at(path.as_ref(), |fs, inode| fs.write_at(inode.number(), pos, data))
    }

    /// Sets the size of the file at `path`; see [`JournaledFilesystem::truncate`].
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Path`].
    pub fn truncate(&self, path: impl AsRef<[u8]>, size: u64) -> Result<Inode, Error> {
        self.at(path.as_ref(), |fs, inode| fs.truncate(inode.number(), size))
    }

    /// Sets the lower twelve bits of the mode of the file at `path`; see
    /// [`JournaledFilesystem::set_permissions`].
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Path`].
    pub fn set_permissions(
        &self,
        path: impl AsRef<[u8]>,
        permissions: u16,
    ) -> Result<Inode, Error> {
        self.at(path.as_ref(), |fs, inode| fs.set_permissions(inode.number(), permissions))
    }

    /// Sets owner, group or both of the file at `path`; see [`JournaledFilesystem::set_owner`].
    ///
    /// # Errors
    /// [`Error::Path`].
    ///
    /// # Examples
    /// ```
    /// # let sample = nvio_testkit::image::Sample::new();
    /// let volume = nvio::JournaledVolume::open(sample.path())?;
    /// let inode = volume.set_owner("/hello.txt", Some(1000), None)?;
    /// assert_eq!((inode.uid(), inode.gid()), (1000, 0));
    /// # Ok::<(), nvio::Error>(())
    /// ```
    pub fn set_owner(
        &self,
        path: impl AsRef<[u8]>,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<Inode, Error> {
        self.at(path.as_ref(), |fs, inode| fs.set_owner(inode.number(), uid, gid))
    }

    /// Sets the times of the last access and the last change of the file at `path`; see
    /// [`JournaledFilesystem::set_times`].
    ///
    /// # Errors
    /// [`Error::Path`].
    ///
    /// # Examples
    /// ```
    /// # let sample = nvio_testkit::image::Sample::new();
    /// let volume = nvio::JournaledVolume::open(sample.path())?;
    /// let time = nvio::ext4::Timestamp { seconds: 1_000_000_000, nanoseconds: 5 };
    /// assert_eq!(volume.set_times("/hello.txt", None, Some(time))?.mtime(), time);
    /// # Ok::<(), nvio::Error>(())
    /// ```
    pub fn set_times(
        &self,
        path: impl AsRef<[u8]>,
        atime: Option<Timestamp>,
        mtime: Option<Timestamp>,
    ) -> Result<Inode, Error> {
        self.at(path.as_ref(), |fs, inode| fs.set_times(inode.number(), atime, mtime))
    }

    /// Sets the extended attribute `name` (such as `user.mime_type`) of the file at `path`; see
    /// [`JournaledFilesystem::set_xattr`].
    ///
    /// # Errors
    /// [`Error::Path`].
    ///
    /// # Examples
    /// ```
    /// # let sample = nvio_testkit::image::Sample::new();
    /// use nvio::ext4::XattrMode;
    ///
    /// let volume = nvio::JournaledVolume::open(sample.path())?;
    /// let (path, name) = ("/hello.txt", "user.mime_type");
    /// let inode = volume.set_xattr(path, name, "text/plain", XattrMode::Create)?;
    /// assert_eq!(volume.filesystem().xattr(&inode, name).unwrap().unwrap(), b"text/plain");
    /// let inode = volume.remove_xattr(path, name)?;
    /// assert_eq!(volume.filesystem().xattr(&inode, name).unwrap(), None);
    /// # Ok::<(), nvio::Error>(())
    /// ```
    pub fn set_xattr(
        &self,
        path: impl AsRef<[u8]>,
        name: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        mode: XattrMode,
    ) -> Result<Inode, Error> {
        self.at(path.as_ref(), |fs, inode| fs.set_xattr(inode.number(), name, value, mode))
    }

    /// Removes the extended attribute `name` of the file at `path`; see
    /// [`JournaledFilesystem::remove_xattr`].
    ///
    /// See the [example](Self::set_xattr).
    ///
    /// # Errors
    /// [`Error::Path`].
    pub fn remove_xattr(
        &self,
        path: impl AsRef<[u8]>,
        name: impl AsRef<[u8]>,
    ) -> Result<Inode, Error> {
        self.at(path.as_ref(), |fs, inode| fs.remove_xattr(inode.number(), name))
    }

    /// Makes all changes durable, writes them to their places, and marks the filesystem as cleanly
    /// unmounted. Handles that are left can only read then.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::File`]: the next open recovers the filesystem.
    pub fn close(self) -> Result<(), Error> {
        self.inner.sync_cache()?;
        self.inner.filesystem.clone().close().map_err(Error::File)
    }

    /// Calls `change` with the inode at `path`.
    fn at<T>(
        &self,
        path: &[u8],
        change: impl FnOnce(&JournaledFilesystem, &Inode) -> Result<T, nvio_ext4::Error>,
    ) -> Result<T, Error> {
        let filesystem = &self.inner.filesystem;
        let result = filesystem.lookup(path).and_then(|inode| change(filesystem, &inode));
        result.map_err(Error::path(path))
    }
}
