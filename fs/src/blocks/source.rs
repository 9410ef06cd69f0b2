//! The interface through which metadata is read.

use crate::number::as_u64;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// An error of a source.
///
/// See the [example](BlockSource#examples).
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// A source of metadata: a device, a partition or an image.
///
/// Offsets are in bytes from the start of the filesystem. Requests may have any alignment and any
/// length up to 256 KiB. They are within [`Self::size`]. Several threads may read at the same time.
///
/// # Examples
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// # let image = sample.path();
/// use nvio_ext4::{BlockSource, Filesystem, ReadRange, SourceError};
///
/// /// An image in memory.
/// struct Bytes(Vec<u8>);
///
/// impl BlockSource for Bytes {
///     fn size(&self) -> u64 {
///         self.0.len() as u64
///     }
///     fn block_size(&self) -> u32 {
///         512
///     }
///     fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
///         let data = usize::try_from(offset).ok().and_then(|start| self.0.get(start..));
///         let data = data.and_then(|data| data.get(..buf.len())).ok_or("outside of the image")?;
///         buf.copy_from_slice(data);
///         Ok(())
///     }
///     fn read_many(&self, ranges: &mut [ReadRange<'_>]) {
///         // A device reads them in parallel.
///         for range in ranges {
///             range.result = self.read(range.offset, range.buf);
///         }
///     }
/// }
///
/// let source = Bytes(std::fs::read(image)?);
/// let mut superblock = [0; 1024];
/// let mut ranges = [ReadRange::new(1024, &mut superblock)];
/// source.read_many(&mut ranges);
/// assert!(ranges[0].result.is_ok());
/// let fs = Filesystem::open(source)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait BlockSource: Send + Sync {
    /// Returns the size of the device in bytes. It is called once, when the filesystem is opened.
    ///
    /// See the [example](Self#examples).
    fn size(&self) -> u64;

    /// Returns the logical block size of the device in bytes, or 1 if the source has none. A
    /// filesystem with smaller blocks is rejected. It is called once, when the filesystem is
    /// opened.
    ///
    /// See the [example](Self#examples).
    fn block_size(&self) -> u32 {
        1
    }

    /// Fills `buf` with the bytes at `offset`.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// Any error of the device, or a range past its end. The contents of `buf` are then undefined.
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError>;

    /// Fills several buffers, and stores the result of each in its range. A source that supports it
    /// keeps many requests in flight; the default implementation reads one range after the other.
    ///
    /// See the [example](Self#examples).
    fn read_many(&self, ranges: &mut [ReadRange<'_>]) {
        for range in ranges {
            range.result = self.read(range.offset, range.buf);
        }
    }
}

/// One of several ranges to read; see [`BlockSource::read_many`].
///
/// See the [example](BlockSource#examples).
#[derive(Debug)]
pub struct ReadRange<'b> {
    /// First byte, from the start of the filesystem.
    pub offset: u64,
    /// Destination of the data.
    pub buf: &'b mut [u8],
    /// Result of the read. After an error the contents of `buf` are undefined.
    pub result: Result<(), SourceError>,
}

impl<'b> ReadRange<'b> {
    /// Creates a range whose result is an error until it is read.
    ///
    /// See the [example](BlockSource#examples).
    pub fn new(offset: u64, buf: &'b mut [u8]) -> Self {
        Self { offset, buf, result: Err(io::Error::from(io::ErrorKind::NotConnected).into()) }
    }
}

/// An image, or a block device of the kernel.
impl BlockSource for File {
    fn size(&self) -> u64 {
        // The metadata of a block device has no length, but its end can be found by seeking.
        let mut file = self;
        file.seek(SeekFrom::End(0)).unwrap_or(0)
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        Ok(self.read_exact_at(buf, offset)?)
    }
}

impl BlockSource for [u8] {
    fn size(&self) -> u64 {
        as_u64(self.len())
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|start| Some(start..start.checked_add(buf.len())?))
            .and_then(|range| self.get(range))
            .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        buf.copy_from_slice(bytes);
        Ok(())
    }
}

impl BlockSource for Vec<u8> {
    fn size(&self) -> u64 {
        self.as_slice().size()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        self.as_slice().read(offset, buf)
    }
}

impl<S: BlockSource + ?Sized> BlockSource for Arc<S> {
    fn size(&self) -> u64 {
        (**self).size()
    }

    fn block_size(&self) -> u32 {
        (**self).block_size()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        (**self).read(offset, buf)
    }

    fn read_many(&self, ranges: &mut [ReadRange<'_>]) {
        (**self).read_many(ranges);
    }
}

impl<S: BlockSource + ?Sized> BlockSource for Box<S> {
    fn size(&self) -> u64 {
        (**self).size()
    }

    fn block_size(&self) -> u32 {
        (**self).block_size()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        (**self).read(offset, buf)
    }

    fn read_many(&self, ranges: &mut [ReadRange<'_>]) {
        (**self).read_many(ranges);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded() {
        let source: Arc<[u8]> = Arc::from(&b"0123456789"[..]);
        let mut buf = [0; 4];
        source.read(6, &mut buf).unwrap();
        assert_eq!((&buf, BlockSource::size(&source)), (b"6789", 10));
        assert!(source.read(7, &mut buf).is_err());
        assert!(source.read(u64::MAX, &mut buf).is_err());
        source.read(10, &mut []).unwrap();
    }

    #[test]
    fn many_ranges_have_a_result_each() {
        let source: Box<dyn BlockSource> = Box::new(Arc::new(b"0123456789".to_vec()));
        let (mut a, mut b, mut c) = ([0; 3], [0; 2], [0; 1]);
        let mut ranges =
            [ReadRange::new(7, &mut a), ReadRange::new(9, &mut b), ReadRange::new(0, &mut c)];
        assert!(ranges.iter().all(|range| range.result.is_err()));
        source.read_many(&mut ranges);
        assert_eq!(ranges.each_ref().map(|range| range.result.is_ok()), [true, false, true]);
        assert_eq!((&a, &c), (b"789", b"0"));
    }

    #[test]
    fn files_are_bounded() {
        let file = File::open(std::env::current_exe().unwrap()).unwrap();
        let size = BlockSource::size(&file);
        assert!(size > 4);
        let mut buf = [0; 4];
        BlockSource::read(&file, 0, &mut buf).unwrap();
        assert_eq!(&buf, b"\x7fELF");
        assert!(BlockSource::read(&file, size - 3, &mut buf).is_err());
    }
}
