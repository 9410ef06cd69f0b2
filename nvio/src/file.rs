//! An open file.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use nvio_ext4::{AsyncFile, Inode, OpenInode};
use nvio_iomap::{FileRef, Mapper, Mapping, Op};

use crate::error::Error;
use crate::shared::Shared;

/// An open regular file of a [`Volume`](crate::Volume).
///
/// A file is read at positions with [`read_at`](Self::read_at), as a stream with [`io::Read`] and
/// [`io::Seek`], or through a [`Queue`](crate::Queue), which takes it as its first argument. It
/// remembers where its extents are, so that a range that was read once is read again without
/// metadata. Threads open a file each.
///
/// # Examples
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// # let image = sample.path();
/// use std::io::{BufRead, BufReader, Seek, SeekFrom};
///
/// let volume = nvio::Volume::open(&image)?;
/// let mut file = volume.open_file("/list.txt")?;
/// assert_eq!((file.size(), file.metadata().uid()), (14, 0));
///
/// // At a position: until the buffer or the file ends, or exactly.
/// let mut word = [0; 3];
/// file.read_exact_at(4, &mut word)?;
/// assert_eq!(&word, b"two");
/// assert_eq!(file.read_at(13, &mut word)?, 1);
///
/// // Without a copy.
/// assert_eq!(file.read_at_then(8, 100, |bytes| bytes.to_vec())?, b"three\n");
///
/// // As a stream.
/// file.seek(SeekFrom::Start(4))?;
/// let lines: Result<Vec<_>, _> = BufReader::new(&mut file).lines().collect();
/// assert_eq!(lines?, ["two", "three"]);
///
/// // With the calls of the ext4 crate.
/// let extent = file.as_ext4().extents().next().transpose()?;
/// assert_eq!(extent.map(|extent| extent.logical), Some(0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct File {
    // Dropped before the device that it is on.
    file: nvio_ext4::File,
    /// Position of the stream in bytes.
    position: u64,
    volume: Arc<Shared>,
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File")
            .field("inode", self.file.inode())
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl File {
    pub(crate) fn new(file: nvio_ext4::File, volume: Arc<Shared>) -> Self {
        Self { file, position: 0, volume }
    }

    /// Returns the size in bytes.
    ///
    /// See the [example](Self#examples).
    pub fn size(&self) -> u64 {
        self.file.size()
    }

    /// Returns the inode, as it was when the file was opened.
    ///
    /// See the [example](Self#examples).
    pub fn metadata(&self) -> &Inode {
        self.file.inode()
    }

    /// Reads at byte `pos` into `out`, waits, and returns the number of bytes: less than
    /// `out.len()` only at the end of the file, 0 at or past it. Neither position nor length need
    /// be aligned. The data is copied once, from DMA memory.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::File`] if the map of the file is damaged or the device fails. The part of `out`
    /// that did not arrive is unchanged.
    pub fn read_at(&mut self, pos: u64, out: &mut [u8]) -> Result<usize, Error> {
        let file = &mut self.file;
        Ok(self.volume.with_reader(|queue| file.read_at(queue, pos, out))??)
    }

    /// Reads at most `length` bytes at byte `pos`, waits, and calls `f` with them: fewer only at the end
    /// of the file. Up to 1 MiB of whole blocks of the device is in DMA memory, so that nothing is copied.
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
        let file = &mut self.file;
        Ok(self.volume.with_pooled(|pooled| pooled.read(file, (pos, length), f))??)
    }

    /// Fills `out` from byte `pos`, and waits.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at); [`Error::UnexpectedEnd`] if the file ends before.
    pub fn read_exact_at(&mut self, pos: u64, out: &mut [u8]) -> Result<(), Error> {
        let (length, size) = (out.len(), self.size());
        match self.read_at(pos, out)? {
            read if read == length => Ok(()),
            _ => Err(Error::UnexpectedEnd { size, end: pos.saturating_add(length as u64) }),
        }
    }

    /// Converts the file to one whose reads are futures, on an
    /// [`AsyncQueue`](crate::AsyncQueue).
    pub fn into_async(self) -> AsyncFile<Self> {
        AsyncFile::new(self)
    }

    /// Returns the file of [`nvio_ext4`](crate::ext4), for extents and reads with flags.
    ///
    /// See the [example](Self#examples).
    pub fn as_ext4(&mut self) -> &mut nvio_ext4::File {
        &mut self.file
    }
}

impl Read for File {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.read_at(self.position, buf)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = position(to, self.position, self.size())?;
        Ok(self.position)
    }
}

/// Returns the position in a stream of `size` bytes after a seek from `current`.
pub(crate) fn position(to: SeekFrom, current: u64, size: u64) -> io::Result<u64> {
    let target = match to {
        SeekFrom::Start(at) => Some(at),
        SeekFrom::Current(by) => current.checked_add_signed(by),
        SeekFrom::End(by) => size.checked_add_signed(by),
    };
    target.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// A queue takes the file as it takes one of [`nvio_ext4`](crate::ext4).
impl Mapper for File {
    type OpenFile = OpenInode;

    #[inline]
    fn open_file(&self) -> &FileRef<OpenInode> {
        self.file.open_file()
    }

    #[inline]
    fn size(&self) -> u64 {
        self.file.size()
    }

    #[inline]
    fn page_end(&self, state: &OpenInode) -> u64 {
        self.file.page_end(state)
    }

    #[inline]
    fn block_size(&self) -> u32 {
        self.file.block_size()
    }

    #[inline]
    fn is_plain(&self, state: &OpenInode) -> bool {
        self.file.is_plain(state)
    }

    #[inline(always)]
    fn begin(&mut self, pos: u64, length: u64, op: Op) -> Result<Mapping, nvio_ext4::Error> {
        self.file.begin(pos, length, op)
    }

    fn read_inline(
        &mut self,
        mapping: &Mapping,
        pos: u64,
        out: &mut [u8],
    ) -> Result<(), nvio_ext4::Error> {
        self.file.read_inline(mapping, pos, out)
    }
}
