//! Calls of a volume that change names, as futures.

use std::fmt;

use nvio_ext4::{Inode, NewFile, RenameMode};

use crate::error::Error;
use crate::file_options::FileOptions;
use crate::journaled::JournaledVolume;
use crate::journaled_file::JournaledFile;

/// A [`JournaledVolume`] whose calls are futures. Cheap to clone; tasks and threads share it.
///
/// A change of names waits for metadata that is not cached, and a sync for the journal, so each call is made
/// on a thread of the pool of the crate `blocking`, as the file calls of asynchronous runtimes are. The
/// futures run on any executor. A call whose future is dropped is made nevertheless, to its end.
///
/// [`run`](Self::run) makes a future of any other call: of the volume, its filesystem, or an open file.
///
/// # Examples
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// # let image = sample.path();
/// use futures_util::future::try_join_all;
/// use nvio::FileOptions;
/// use nvio::ext4::{NewFile, RenameMode};
///
/// let volume = nvio::JournaledVolume::open(&image)?.into_async();
/// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// runtime.block_on(async {
///     volume.create_dir_all("/logs/2026").await?;
///     volume.create_dir("/private", NewFile::with_permissions(0o700)).await?;
///     let names = (0..10).map(|at| format!("/logs/2026/{at}"));
///     try_join_all(names.map(|name| volume.write(name, "one line\n"))).await?;
///     volume.rename("/logs/2026/1", "/logs/first", RenameMode::NoReplace).await?;
///     volume.hard_link("/logs/first", "/logs/second").await?;
///     volume.symlink("logs/first", "/newest").await?;
///     let inode = volume.run(|volume| volume.set_permissions("/newest", 0o600)).await?;
///     assert_eq!((inode.size(), inode.links(), inode.permissions()), (9, 2, 0o600));
///     volume.remove_file("/newest").await?;
///     volume.remove_dir_all("/logs").await?;
///     volume.remove_dir("/private").await?;
///
///     // The calls of an open file wait on the same threads.
///     let options = FileOptions::new().write(true).create(true);
///     let mut file = volume.open_file(options, "/new").await?;
///     let file = volume.run(move |_| file.write_at(0, b"text").map(|()| file)).await?;
///     assert_eq!(file.size(), 4);
///     drop(file);
///     volume.sync().await?;
///     volume.close().await
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct AsyncVolume {
    volume: JournaledVolume,
}

impl fmt::Debug for AsyncVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.volume.fmt(f)
    }
}

impl JournaledVolume {
    /// Converts the volume to one whose calls are futures.
    ///
    /// See the [example](AsyncVolume#examples).
    pub fn into_async(self) -> AsyncVolume {
        AsyncVolume { volume: self }
    }
}

impl AsyncVolume {
    /// Returns the volume, whose calls wait.
    ///
    /// # Examples
    /// ```
    /// # let sample = nvio_testkit::image::Sample::new();
    /// let volume = nvio::JournaledVolume::open(sample.path())?.into_async();
    /// assert_eq!(volume.volume().lookup("/hello.txt").map_err(nvio::Error::File)?.size(), 12);
    /// # Ok::<(), nvio::Error>(())
    /// ```
    pub fn volume(&self) -> &JournaledVolume {
        &self.volume
    }

    /// Calls `call` with the volume on a thread for calls that wait.
    ///
    /// See the [example](Self#examples).
    pub async fn run<R: Send + 'static>(
        &self,
        call: impl FnOnce(&JournaledVolume) -> R + Send + 'static,
    ) -> R {
        let volume = self.volume.clone();
        blocking::unblock(move || call(&volume)).await
    }

    /// Creates a directory with the owner and permissions of `new`; see
    /// [`JournaledVolume::create_dir_with`].
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Path`].
    pub async fn create_dir(&self, path: impl AsRef<[u8]>, new: NewFile) -> Result<Inode, Error> {
        let path = path.as_ref().to_vec();
        self.run(move |volume| volume.create_dir_with(path, new)).await
    }

    /// Creates a directory, and those above it that do not exist; see
    /// [`JournaledVolume::create_dir_all`].
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Path`].
    pub async fn create_dir_all(&self, path: impl AsRef<[u8]>) -> Result<Inode, Error> {
        let path = path.as_ref().to_vec();
        self.run(move |volume| volume.create_dir_all(path)).await
    }

    /// Removes an empty directory; see
    /// [`JournaledVolume::remove_dir`].
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Path`].
    pub async fn remove_dir(&self, path: impl AsRef<[u8]>) -> Result<(), Error> {
        let path = path.as_ref().to_vec();
        self.run(move |volume| volume.remove_dir(path)).await
    }

    /// Removes a directory with all that is in it; see
    /// [`JournaledVolume::remove_dir_all`].
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Path`].
    pub async fn remove_dir_all(&self, path: impl AsRef<[u8]>) -> Result<(), Error> {
        let path = path.as_ref().to_vec();
        self.run(move |volume| volume.remove_dir_all(path)).await
    }

    /// Removes a name that is not a directory's; see
    /// [`JournaledVolume::remove_file`].
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Path`].
    pub async fn remove_file(&self, path: impl AsRef<[u8]>) -> Result<(), Error> {
        let path = path.as_ref().to_vec();
        self.run(move |volume| volume.remove_file(path)).await
    }

    /// Renames `from` to `to`; see [`JournaledVolume::rename_with`].
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Path`].
    pub async fn rename(
        &self,
        from: impl AsRef<[u8]>,
        to: impl AsRef<[u8]>,
        mode: RenameMode,
    ) -> Result<(), Error> {
        let (from, to) = (from.as_ref().to_vec(), to.as_ref().to_vec());
        self.run(move |volume| volume.rename_with(from, to, mode)).await
    }

    /// Creates another name of a file; see [`JournaledVolume::hard_link`].
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Path`].
    pub async fn hard_link(
        &self,
        original: impl AsRef<[u8]>,
        link: impl AsRef<[u8]>,
    ) -> Result<Inode, Error> {
        let (original, link) = (original.as_ref().to_vec(), link.as_ref().to_vec());
        self.run(move |volume| volume.hard_link(original, link)).await
    }

    /// Creates a symbolic link; see [`JournaledVolume::symlink`].
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Path`].
    pub async fn symlink(
        &self,
        target: impl AsRef<[u8]>,
        link: impl AsRef<[u8]>,
    ) -> Result<Inode, Error> {
        let (target, link) = (target.as_ref().to_vec(), link.as_ref().to_vec());
        self.run(move |volume| volume.symlink(target, link)).await
    }

    /// Sets the contents of a file; see [`JournaledVolume::write`].
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Path`].
    pub async fn write(
        &self,
        path: impl AsRef<[u8]>,
        data: impl Into<Vec<u8>>,
    ) -> Result<(), Error> {
        let (path, data) = (path.as_ref().to_vec(), data.into());
        self.run(move |volume| volume.write(path, data)).await
    }

    /// Opens a file, or creates it, as the options say; see [`FileOptions::open`].
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Path`]; [`Error::FileOptions`] for options that exclude each other.
    pub async fn open_file(
        &self,
        options: FileOptions,
        path: impl AsRef<[u8]>,
    ) -> Result<JournaledFile, Error> {
        let path = path.as_ref().to_vec();
        self.run(move |volume| options.open(volume, path)).await
    }

    /// Makes all data and all changes durable; see [`JournaledVolume::sync`].
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Iomap`].
    pub async fn sync(&self) -> Result<(), Error> {
        self.run(JournaledVolume::sync).await
    }

    /// Closes the filesystem; see [`JournaledVolume::close`].
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Iomap`].
    pub async fn close(self) -> Result<(), Error> {
        blocking::unblock(|| self.volume.close()).await
    }
}
