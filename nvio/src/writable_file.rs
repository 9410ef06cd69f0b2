//! An open file that may be overwritten.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use nvio_iomap::{CachedFile, Cursor, FileError, IoArgs, IoFlags};

use crate::error::Error;
use crate::file::position;
use crate::writable_shared::WritableShared;

/// The way of a read or a write.
///
/// See the [example](WritableFile#examples).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoMode {
    /// Past the cache. A write is on the device when it returns; in its volatile cache, if it has one.
    #[default]
    Direct,
    /// Through the cache. A write is on the device after [`WritableFile::sync_data`].
    Buffered,
    /// Through the cache. The blocks of a write, and no others, are on their way to the device when it
    /// returns. Reads are as with [`Buffered`](Self::Buffered).
    Writethrough,
}

/// An open file that may be overwritten; see [`WritableVolume`](crate::WritableVolume).
///
/// Direct and buffered I/O on one file see each other's data. [`io::Read`] and [`io::Write`] are
/// buffered. The methods of [`nvio_ext4::WritableFile`] that take a
/// [`WritableQueue`](crate::WritableQueue) are available, too, and are direct.
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
/// let volume = nvio::WritableVolume::open(&image)?;
/// let mut table = volume.open_writable("/table.db")?;
///
/// // Many small writes to the cache become few commands.
/// for record in 0..1000 {
///     table.write_at_with(IoMode::Buffered, IoArgs::at(record * 100), b"0123456789")?;
/// }
/// table.sync_data()?;
///
/// // One write that is durable when it returns, and stays in the cache for readers.
/// let durably = IoArgs::at(5000).flags(IoFlags::DSYNC);
/// table.write_at_with(IoMode::Writethrough, durably, b"commit")?;
/// let mut text = [0; 6];
/// assert_eq!(table.read_at_with(IoMode::Buffered, 5000, &mut text)?, 6);
/// assert_eq!(&text, b"commit");
///
/// // As a stream.
/// table.seek(SeekFrom::Start(200))?;
/// table.write_all(b"abc")?;
/// table.seek(SeekFrom::Current(-3))?;
/// table.read_exact(&mut text)?;
/// assert_eq!(&text, b"abc345");
/// table.sync_all()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct WritableFile {
    // Dropped before the device that they are on.
    file: nvio_ext4::WritableFile,
    cached: Option<CachedFile<nvio_ext4::WritableFile>>,
    /// Position of the stream in bytes.
    position: u64,
    volume: Arc<WritableShared>,
}

impl fmt::Debug for WritableFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.fmt(f)
    }
}

impl Deref for WritableFile {
    type Target = nvio_ext4::WritableFile;

    fn deref(&self) -> &Self::Target {
        &self.file
    }
}

impl DerefMut for WritableFile {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.file
    }
}

impl WritableFile {
    pub(crate) fn new(file: nvio_ext4::WritableFile, volume: Arc<WritableShared>) -> Self {
        Self { file, cached: None, position: 0, volume }
    }

    /// Returns the file in the cache, and opens it there for the first time.
    pub(crate) fn cached(&mut self) -> Result<&mut CachedFile<nvio_ext4::WritableFile>, Error> {
        let Self { file, cached, volume, .. } = self;
        match cached {
            Some(cached) => Ok(cached),
            None => {
                let new = volume.filesystem.cached_file(file.inode(), &volume.cache()?)?;
                Ok(cached.insert(new))
            }
        }
    }

    /// Reads at byte `pos` into `out` past the cache, waits, and returns the number of bytes: less
    /// than `out.len()` only at the end of the file.
    ///
    /// See the [example](crate::WritableVolume#examples).
    ///
    /// # Errors
    /// As [`File::read_at`](crate::File::read_at).
    pub fn read_at(&mut self, pos: u64, out: &mut [u8]) -> Result<usize, Error> {
        let Self { file, volume, .. } = self;
        Ok(volume.writers.with(|| volume.queue(), |queue| file.read_at(queue, pos, out))??)
    }

    /// Reads as [`read_at`](Self::read_at) does, past the cache or through it.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at).
    pub fn read_at_with(&mut self, mode: IoMode, pos: u64, out: &mut [u8]) -> Result<usize, Error> {
        match mode {
            IoMode::Direct => self.read_at(pos, out),
            IoMode::Buffered | IoMode::Writethrough => Ok(self.cached()?.read_at(pos, out)?),
        }
    }

    /// Overwrites the bytes from `pos` on with `data`, and waits until the device has them: in its
    /// volatile cache, if it has one. Neither position nor length need be aligned.
    ///
    /// See the [example](crate::WritableVolume#examples).
    ///
    /// # Errors
    /// [`Error::File`]: a range that is not inside of the file, has a hole, or was never written is
    /// refused as a whole. After a failure of the device, it is not known which of the bytes
    /// were written.
    pub fn write_at(&mut self, pos: u64, data: &[u8]) -> Result<(), Error> {
        self.write_at_with(IoMode::Direct, IoArgs::at(pos), data)
    }

    /// Overwrites as [`write_at`](Self::write_at) does, and waits until the data is durable.
    ///
    /// See the [example](crate::WritableVolume#examples).
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    pub fn write_durably_at(&mut self, pos: u64, data: &[u8]) -> Result<(), Error> {
        let io = IoArgs::at(pos).flags(IoFlags::DSYNC);
        self.write_at_with(IoMode::Direct, io, data)
    }

    /// Overwrites the bytes from `io.pos` on with `data`, past the cache or through it, with
    /// `io.flags`: [`IoFlags::DSYNC`] makes them durable before the call returns.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at). The device's error for a write to the cache without
    /// [`IoFlags::DSYNC`] is that of the next [`sync_data`](Self::sync_data), once for each open
    /// [`WritableFile`].
    pub fn write_at_with(&mut self, mode: IoMode, io: IoArgs, data: &[u8]) -> Result<(), Error> {
        let mut io = io;
        io.flags.set(IoFlags::WRITETHROUGH, mode == IoMode::Writethrough);
        if mode == IoMode::Direct {
            let Self { file, volume, .. } = self;
            let write = |queue: &mut _| file.write_from(queue, io, &mut Cursor::new(data));
            match volume.writers.with(|| volume.queue(), write)? {
                Err(error) if error.is_fall_back() => {}
                done => return Ok(done.map(drop)?),
            }
            // Another thread uses the cached data of the range, which could not be dropped.
            io.flags = io.flags.intersection(IoFlags::DSYNC) | IoFlags::WRITETHROUGH;
            self.write_cached(io, data)?;
            let end = io.pos.saturating_add(data.len() as u64);
            self.cached()?.write_back(io.pos..end, false)?;
            return Ok(());
        }
        self.write_cached(io, data)
    }

    fn write_cached(&mut self, io: IoArgs, data: &[u8]) -> Result<(), Error> {
        let cached = self.cached()?;
        let mut done = 0;
        while done < data.len() {
            let next = IoArgs { pos: io.pos.saturating_add(done as u64), ..io };
            // A part is written before an error, which the next call returns.
            done += cached.write_from(next, &data[done..])?;
        }
        Ok(())
    }

    /// Writes the dirty data of the file to the device, and makes it durable; also data that was
    /// written past the cache.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// The error of this or an earlier write through the cache, once for each open file.
    pub fn sync_data(&mut self) -> Result<(), Error> {
        Ok(self.cached()?.sync_data()?)
    }

    /// Makes data and metadata durable. Overwriting changes no metadata, so it is as
    /// [`sync_data`](Self::sync_data).
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`sync_data`](Self::sync_data).
    pub fn sync_all(&mut self) -> Result<(), Error> {
        self.sync_data()
    }
}

impl Read for WritableFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.read_at_with(IoMode::Buffered, self.position, buf)?;
        self.position += read as u64;
        Ok(read)
    }
}

/// A write that does not fit into the file is refused as a whole.
impl Write for WritableFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_at_with(IoMode::Buffered, IoArgs::at(self.position), buf)?;
        self.position += buf.len() as u64;
        Ok(buf.len())
    }

    /// Returns at once, as that of [`std::fs::File`] does; see [`WritableFile::sync_data`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for WritableFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = position(to, self.position, self.file.size())?;
        Ok(self.position)
    }
}
