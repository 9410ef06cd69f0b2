//! An open file that grows.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use nvio_ext4::Inode;
use nvio_iomap::{CachedFile, FileError, IoArgs, IoFlags};

use crate::error::Error;
use crate::file::position;
use crate::journaled_shared::JournaledShared;
use crate::place::{at, place};
use crate::writable_file::IoMode;

/// An open file of a [`JournaledVolume`](crate::JournaledVolume), which grows when it is written after its
/// end.
///
/// Direct and buffered I/O on one file see each other's data. [`io::Read`] and [`io::Write`] are
/// buffered. Calls of the volume by path and of the filesystem by inode number see it, too. Reads record
/// the time of access when the file is closed, unless
/// [`access_times`](crate::OpenOptions::access_times) is off.
///
/// # Examples
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// # let image = sample.path();
/// use std::io::{Read, Seek, SeekFrom, Write};
///
/// use nvio::IoMode;
/// use nvio::iomap::{IoArgs, IoFlags};
///
/// let volume = nvio::JournaledVolume::open(&image)?;
/// let mut file = volume.open_file("/hello.txt")?;
///
/// // Many small writes to the cache become few commands, and extents as long as possible.
/// for record in 0..1000 {
///     file.write_at(record * 10, b"0123456789")?;
/// }
/// assert_eq!(file.size(), 10_000);
/// file.sync_all()?;
///
/// // A record that is durable when the call returns: its block, its place in the file, and the size.
/// let durably = IoArgs::at(10_000).flags(IoFlags::DSYNC);
/// file.write_at_with(IoMode::Writethrough, durably, b"commit")?;
/// let mut text = [0; 6];
/// assert_eq!(file.read_at_with(IoMode::Direct, 10_000, &mut text)?, 6);
/// assert_eq!(&text, b"commit");
/// assert!(file.read_at_then(10_000, 100, |bytes| bytes == b"commit")?);
///
/// // As a stream.
/// file.seek(SeekFrom::End(0))?;
/// file.write_all(b", and more")?;
/// file.seek(SeekFrom::Current(-4))?;
/// file.read_exact(&mut text[..4])?;
/// assert_eq!(&text[..4], b"more");
///
/// // Its size and its blocks.
/// file.set_len(5000)?;
/// file.punch_hole(0, 4096)?;
/// assert_eq!(file.read_at(4090, &mut text)?, 6);
/// file.sync_data()?;
/// drop(file);
/// volume.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct JournaledFile {
    // Dropped before the device that they are on.
    file: nvio_ext4::JournaledFile,
    cached: Option<CachedFile<nvio_ext4::JournaledFile>>,
    /// Position of the stream in bytes.
    position: u64,
    access: Access,
    volume: Arc<JournaledShared>,
}

/// The calls that the options of an open file allow.
#[derive(Clone, Copy)]
pub(crate) struct Access {
    pub reads: bool,
    pub writes: bool,
    /// The stream writes at the end.
    pub appends: bool,
}

impl Access {
    pub(crate) const ALL: Self = Self { reads: true, writes: true, appends: false };
}

impl fmt::Debug for JournaledFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.fmt(f)
    }
}

impl Deref for JournaledFile {
    type Target = nvio_ext4::JournaledFile;

    fn deref(&self) -> &Self::Target {
        &self.file
    }
}

impl DerefMut for JournaledFile {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.file
    }
}

impl JournaledFile {
    pub(crate) fn new(
        file: nvio_ext4::JournaledFile,
        access: Access,
        volume: Arc<JournaledShared>,
    ) -> Self {
        Self { file, cached: None, position: 0, access, volume }
    }

    fn check_writes(&self) -> Result<(), Error> {
        match self.access.writes {
            true => Ok(()),
            false => Err(Error::NotOpenFor { operation: "writing" }),
        }
    }

    /// Returns the file in the cache, and opens it there for the first time.
    fn cached(&mut self) -> Result<&mut CachedFile<nvio_ext4::JournaledFile>, Error> {
        let Self { file, cached, volume, .. } = self;
        match cached {
            Some(cached) => Ok(cached),
            None => {
                let new = volume.filesystem.cached_file(file.inode(), &volume.cache()?)?;
                Ok(cached.insert(new))
            }
        }
    }

    /// Returns the size in bytes, with data that is only in the cache.
    ///
    /// See the [example](Self#examples).
    pub fn size(&self) -> u64 {
        match &self.cached {
            Some(cached) => cached.size(),
            None => self.file.size_now(),
        }
    }

    /// Reads at byte `pos` into `out` through the cache, and returns the number of bytes: less than
    /// `out.len()` only at the end of the file.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// Damage to the map of the file, or a failure of the device.
    pub fn read_at(&mut self, pos: u64, out: &mut [u8]) -> Result<usize, Error> {
        self.read_at_with(IoMode::Buffered, pos, out)
    }

    /// Reads as [`read_at`](Self::read_at) does, past the cache or through it.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at).
    pub fn read_at_with(&mut self, mode: IoMode, pos: u64, out: &mut [u8]) -> Result<usize, Error> {
        if !self.access.reads {
            return Err(Error::NotOpenFor { operation: "reading" });
        }
        let read = match mode {
            // A file that is never written to has no cached data.
            _ if mode == IoMode::Direct || !self.file.is_writable() => {
                let Self { file, volume, .. } = self;
                volume.with_queue(|pooled| file.read_at(&mut pooled.queue, pos, out))??
            }
            _ => self.cached()?.read_at(pos, out)?,
        };
        self.file.note_read();
        Ok(read)
    }

    /// Reads at most `length` bytes at byte `pos` past the cache, waits, and calls `f` with them: fewer
    /// only at the end of the file. Up to 1 MiB of whole blocks of the device is in DMA memory, so that
    /// nothing is copied.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at).
    pub fn read_at_then<R>(
        &mut self,
        pos: u64,
        length: usize,
        f: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, Error> {
        if !self.access.reads {
            return Err(Error::NotOpenFor { operation: "reading" });
        }
        let Self { file, volume, .. } = self;
        let read = volume.with_queue(|pooled| pooled.read(&mut **file, (pos, length), f))??;
        file.note_read();
        Ok(read)
    }

    /// Writes `data` to the bytes from `pos` on, through the cache. The device has them after
    /// [`sync_data`](Self::sync_data).
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::File`]: no space is left, the file would be too large, or a failure of the device. A part
    /// may be written.
    pub fn write_at(&mut self, pos: u64, data: &[u8]) -> Result<(), Error> {
        self.write_at_with(IoMode::Buffered, IoArgs::at(pos), data)
    }

    /// Writes `data` to the bytes from `io.pos` on, past the cache or through it, with `io.flags`:
    /// [`IoFlags::DSYNC`] makes them durable before the call returns, with all metadata that they need.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    pub fn write_at_with(&mut self, mode: IoMode, io: IoArgs, data: &[u8]) -> Result<(), Error> {
        self.check_writes()?;
        let mut io = io;
        io.flags.set(IoFlags::WRITETHROUGH, mode == IoMode::Writethrough);
        if mode == IoMode::Direct {
            match self.write_direct(io, data) {
                Err(Error::File(error)) if error.is_fall_back() => {}
                done => return done,
            }
            // Another thread uses the cached data of the range, which could not be dropped.
            io.flags = io.flags.intersection(IoFlags::DSYNC) | IoFlags::WRITETHROUGH;
        }
        let cached = self.cached()?;
        let mut done = 0;
        while done < data.len() {
            let next = IoArgs { pos: io.pos.saturating_add(done as u64), ..io };
            // A part is written before an error, which the next call returns.
            done += cached.write_from(next, &data[done..])?;
        }
        self.file.note_write();
        Ok(())
    }

    fn write_direct(&mut self, io: IoArgs, data: &[u8]) -> Result<(), Error> {
        let Self { file, volume, .. } = self;
        volume.with_queue(|pooled| file.write_at(&mut pooled.queue, io.pos, data))??;
        match io.flags.contains(IoFlags::DSYNC) {
            true => self.sync_data(),
            false => Ok(()),
        }
    }

    /// Writes the dirty data of the file to the device, and makes it durable, with its size and its map;
    /// also data that was written past the cache.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// The error of this or an earlier write through the cache, once for each open file.
    pub fn sync_data(&mut self) -> Result<(), Error> {
        match self.file.is_writable() {
            true => Ok(self.cached()?.sync_data()?),
            false => Ok(self.volume.filesystem.sync_data(self.file.inode().number())?),
        }
    }

    /// Makes the data durable as [`sync_data`](Self::sync_data) does, and all other changes of the inode.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`sync_data`](Self::sync_data).
    pub fn sync_all(&mut self) -> Result<(), Error> {
        match self.file.is_writable() {
            true => Ok(self.cached()?.sync_all()?),
            false => Ok(self.volume.filesystem.sync_inode(self.file.inode().number())?),
        }
    }

    /// Gives the file the name `link`, which must not exist: its first one, or another one. Returns the inode.
    ///
    /// See the [example](crate::JournaledVolume::create_unnamed).
    ///
    /// # Errors
    /// [`Error::Path`]: the name exists, the file has lost its last name, or there is no space.
    pub fn hard_link(&self, link: impl AsRef<[u8]>) -> Result<Inode, Error> {
        let (fs, link) = (&self.volume.filesystem, link.as_ref());
        let number = self.file.inode().number();
        place(fs, link).and_then(|to| fs.hard_link(number, to.parent, to.name)).map_err(at(link))
    }

    /// Sets the size; see [`JournaledFilesystem::truncate`](nvio_ext4::JournaledFilesystem::truncate).
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn set_len(&mut self, size: u64) -> Result<(), Error> {
        self.check_writes()?;
        let number = self.file.inode().number();
        Ok(self.volume.filesystem.truncate(number, size).map(drop)?)
    }

    /// Frees the blocks inside a range, which then reads as zeroes; see
    /// [`JournaledFilesystem::punch_hole`](nvio_ext4::JournaledFilesystem::punch_hole).
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn punch_hole(&mut self, pos: u64, length: u64) -> Result<(), Error> {
        self.check_writes()?;
        let number = self.file.inode().number();
        Ok(self.volume.filesystem.punch_hole(number, pos, length).map(drop)?)
    }
}

impl Read for JournaledFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.read_at(self.position, buf)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Write for JournaledFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let volume = Arc::clone(&self.volume);
        // Another file that appends would see the same end.
        let _appending = self.access.appends.then(|| volume.appending());
        if self.access.appends {
            self.position = self.cached()?.size();
        }
        self.write_at(self.position, buf)?;
        self.position += buf.len() as u64;
        Ok(buf.len())
    }

    /// Returns at once, as that of [`std::fs::File`] does; see [`JournaledFile::sync_data`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for JournaledFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = position(to, self.position, self.size())?;
        Ok(self.position)
    }
}
