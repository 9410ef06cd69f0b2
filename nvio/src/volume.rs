//! An open filesystem, and the calls in the shape of `std::fs`.

use std::fmt;
use std::sync::Arc;

use nvio_ext4::{DirEntry, Filesystem, Inode};

use crate::device::Device;
use crate::error::Error;
use crate::file::File;
use crate::location::Location;
use crate::options::OpenOptions;
use crate::queue::{AsyncQueue, Queue};
use crate::shared::Shared;

/// Largest file in bytes that [`Volume::read`] reads into memory as a whole.
///
/// See the [example](Volume#examples).
pub const READ_BYTES_MAX: u64 = 1 << 30;

/// An open filesystem on a device, for reading. Cheap to clone; threads share it.
///
/// Paths are bytes from the root directory, so that both `&str` and `&[u8]` serve; symbolic links
/// are followed unless a method says otherwise. Calls that wait share a few queues of the volume;
/// a thread that polls has a [`Queue`] of its own.
///
/// # Examples
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// # let image = sample.path();
/// use nvio::Volume;
///
/// let volume = Volume::open(&image)?;
/// assert_eq!(volume.read("/hello.txt")?, b"Hello, world");
/// assert_eq!(volume.read_to_string("/etc/hostname")?, "worker-7\n");
/// let error = volume.read("/goodbye.txt").unwrap_err();
/// assert_eq!(error.to_string(), "/goodbye.txt: no such file or directory");
///
/// assert!(volume.exists("/link")?);
/// assert_eq!(volume.metadata("/link")?.size(), 12);
/// assert!(volume.symlink_metadata("/link")?.is_symlink());
/// assert_eq!(volume.read_link("/link")?, b"hello.txt");
/// for entry in volume.read_dir("/")? {
///     println!("{}", entry?.name.escape_ascii());
/// }
///
/// // For bytes at positions, for a thread that polls, and for futures.
/// let file = volume.open_file("/hello.txt")?;
/// let queue = volume.queue()?;
/// let async_queue = volume.async_queue()?;
///
/// // The layers below. This image is read with system calls, so there is no controller.
/// assert_eq!(volume.filesystem().superblock().block_size(), 1024);
/// assert!(volume.device().is_none());
///
/// // An image in memory.
/// let volume = Volume::from_bytes(std::fs::read(image)?)?;
/// assert!(volume.exists("/hello.txt")?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Volume {
    shared: Arc<Shared>,
}

impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Volume")
            .field("filesystem", self.shared.filesystem())
            .finish_non_exhaustive()
    }
}

impl Volume {
    /// Opens the filesystem at `location` with the default [`OpenOptions`]: on the PCI address of a
    /// device that is bound to vfio-pci, on `vfio-user:SOCKET`, or in the image at a path. A
    /// [`Location`] also selects namespace and partition.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`OpenOptions::open`].
    pub fn open(location: impl Into<Location>) -> Result<Self, Error> {
        OpenOptions::new().open(location)
    }

    /// Opens the filesystem in `bytes`, an image in memory, with the default [`OpenOptions`].
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`OpenOptions::open`].
    pub fn from_bytes(bytes: impl Into<Arc<[u8]>>) -> Result<Self, Error> {
        OpenOptions::new().open_bytes(bytes)
    }

    pub(crate) fn new(shared: Shared) -> Self {
        Self { shared: Arc::new(shared) }
    }

    /// Reads a whole file of at most [`READ_BYTES_MAX`] bytes.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Path`] if there is no such file or it is damaged, [`Error::TooLarge`], or a failure
    /// of the device.
    pub fn read(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>, Error> {
        let path = path.as_ref();
        let mut file =
            self.shared.filesystem().file(&self.metadata(path)?).map_err(Error::path(path))?;
        let size = file.size();
        let too_large = || Error::TooLarge { path: path.into(), size, max: READ_BYTES_MAX };
        let length = usize::try_from(size.min(READ_BYTES_MAX + 1)).map_err(|_| too_large())?;
        let mut bytes = Vec::new();
        if size > READ_BYTES_MAX || bytes.try_reserve_exact(length).is_err() {
            return Err(too_large());
        }
        bytes.resize(length, 0);
        let read = self.shared.with_reader(|queue| file.read_at(queue, 0, &mut bytes))?;
        bytes.truncate(read.map_err(Error::path(path))?);
        Ok(bytes)
    }

    /// Reads a whole file as text.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`read`](Self::read), and [`Error::NotUtf8`].
    pub fn read_to_string(&self, path: impl AsRef<[u8]>) -> Result<String, Error> {
        let path = path.as_ref();
        let not_text = |_| Error::NotUtf8 { path: path.into() };
        String::from_utf8(self.read(path)?).map_err(not_text)
    }

    /// Returns the inode at `path`: type, size, owner, times and the other fields of `stat`.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Path`] if the path does not exist or is damaged.
    pub fn metadata(&self, path: impl AsRef<[u8]>) -> Result<Inode, Error> {
        let path = path.as_ref();
        self.shared.filesystem().lookup(path).map_err(Error::path(path))
    }

    /// Returns the inode at `path`, which may be a symbolic link: a link in the last component is
    /// not followed.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`metadata`](Self::metadata).
    pub fn symlink_metadata(&self, path: impl AsRef<[u8]>) -> Result<Inode, Error> {
        let path = path.as_ref();
        self.shared.filesystem().lookup_no_follow(path).map_err(Error::path(path))
    }

    /// Returns true if `path` exists.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Path`] if that is not known, because of damage or a failure of the device.
    pub fn exists(&self, path: impl AsRef<[u8]>) -> Result<bool, Error> {
        match self.metadata(path) {
            Ok(_) => Ok(true),
            Err(Error::Path { error: nvio_ext4::Error::NotFound { .. }, .. }) => Ok(false),
            Err(Error::Path { error: nvio_ext4::Error::NotADirectory { .. }, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns the target of the symbolic link at `path`.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Path`] if there is no symbolic link, or it is damaged.
    pub fn read_link(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>, Error> {
        let path = path.as_ref();
        let inode = self.symlink_metadata(path)?;
        self.shared.filesystem().read_link(&inode).map_err(Error::path(path))
    }

    /// Returns the entries of the directory at `path`, without "." and "..", in the order in which
    /// they are stored.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Path`] if there is no directory, or it is damaged.
    pub fn read_dir(&self, path: impl AsRef<[u8]>) -> Result<ReadDir, Error> {
        let path = path.as_ref();
        let inode = self.metadata(path)?;
        let entries = self.shared.filesystem().read_dir(&inode).map_err(Error::path(path))?;
        Ok(ReadDir { entries, path: path.to_vec(), _volume: Arc::clone(&self.shared) })
    }

    /// Opens the regular file at `path` for reading.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Path`] if there is no such file, or it is damaged.
    pub fn open_file(&self, path: impl AsRef<[u8]>) -> Result<File, Error> {
        let path = path.as_ref();
        let inode = self.metadata(path)?;
        let file = self.shared.filesystem().file(&inode).map_err(Error::path(path))?;
        Ok(File::new(file, Arc::clone(&self.shared)))
    }

    /// Opens a regular file by its inode for reading.
    ///
    /// # Errors
    /// [`Error::File`] if it is no regular file, or it is damaged.
    ///
    /// # Examples
    /// ```
    /// # let sample = nvio_testkit::image::Sample::new();
    /// let volume = nvio::Volume::open(sample.path())?;
    /// let inode = volume.metadata("/hello.txt")?;
    /// assert_eq!(volume.open_inode(&inode)?.size(), 12);
    /// # Ok::<(), nvio::Error>(())
    /// ```
    pub fn open_inode(&self, inode: &Inode) -> Result<File, Error> {
        let file = self.shared.filesystem().file(inode).map_err(Error::File)?;
        Ok(File::new(file, Arc::clone(&self.shared)))
    }

    /// Creates a queue, for a thread that polls.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// If the controller has no more queues, or the arena no room.
    pub fn queue(&self) -> Result<Queue, Error> {
        Ok(Queue::new(self.shared.queue()?, Arc::clone(&self.shared)))
    }

    /// Creates a queue whose requests are futures.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`queue`](Self::queue).
    pub fn async_queue(&self) -> Result<AsyncQueue, Error> {
        Ok(self.queue()?.into_async())
    }

    /// Returns the filesystem, for everything that has no shorter form here: walks, extents,
    /// extended attributes, the superblock. Drop clones of it before the volume.
    ///
    /// See the [example](Self#examples).
    pub fn filesystem(&self) -> &Filesystem {
        self.shared.filesystem()
    }

    /// Returns the controller that the filesystem is on. `None` for an image that is read without
    /// one.
    ///
    /// See the [example](Self#examples).
    pub fn device(&self) -> Option<&Device> {
        self.shared.device()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

/// The entries of a directory; see [`Volume::read_dir`]. After an error there are no more items.
///
/// See the [example](Volume#examples).
#[derive(Debug)]
pub struct ReadDir {
    entries: nvio_ext4::ReadDir,
    path: Vec<u8>,
    _volume: Arc<Shared>,
}

impl Iterator for ReadDir {
    type Item = Result<DirEntry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.entries.next()?.map_err(Error::path(&self.path)))
    }
}

impl std::iter::FusedIterator for ReadDir {}
