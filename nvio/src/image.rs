//! Images: files and bytes that are read without a controller, and checks of their paths. A device
//! whose only queue pair is shared by metadata and files is read in the same way.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;
use std::sync::Arc;

use nvio_ext4::{BlockSource, SourceError};
use nvio_iomap::Image;

use crate::error::Error;

/// An image, or a part of one, that is read by system calls, from memory, or through the only queue
/// pair of a device. Cheap to clone.
///
/// # Examples
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// # let image = sample.path();
/// use nvio::VolumeQueue;
///
/// let volume = nvio::Volume::open(&image)?;
/// let queue = volume.queue()?;
/// if let VolumeQueue::Image(queue) = queue.device() {
///     let part: &nvio::ImagePart = queue.image();
///     let _another = part.clone();
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct ImagePart {
    data: Data,
    /// The part, in bytes of the image.
    range: Range<u64>,
}

#[derive(Clone)]
enum Data {
    File(Arc<File>),
    Bytes(Arc<[u8]>),
    Device(Arc<dyn BlockSource>),
}

impl ImagePart {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        check(path)?;
        let failed = |error| Error::Image { action: "open", path: path.to_owned(), error };
        let file = File::open(path).map_err(failed)?;
        let size = Image::size(&file).map_err(failed)?;
        Ok(Self { data: Data::File(Arc::new(file)), range: 0..size })
    }

    pub(crate) fn from_bytes(bytes: Arc<[u8]>) -> Self {
        let size = bytes.len() as u64;
        Self { data: Data::Bytes(bytes), range: 0..size }
    }

    /// Reads a device through `source`, which has its only queue pair.
    pub(crate) fn of_device(source: impl BlockSource + 'static) -> Self {
        let size = source.size();
        Self { data: Data::Device(Arc::new(source)), range: 0..size }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Returns the `length` bytes from byte `offset` of this part.
    pub(crate) fn slice(&self, offset: u64, length: u64) -> Result<Self, Error> {
        let size = self.bytes();
        if offset > size || length > size - offset {
            return Err(nvio_iomap::Error::OutsideDisk { addr: offset, length, size }.into());
        }
        let start = self.range.start + offset;
        Ok(Self { data: self.data.clone(), range: start..start + length })
    }

    /// Fills `buf` from byte `at` of the part.
    fn fill(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        let size = self.bytes();
        if at > size || buf.len() as u64 > size - at {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match &self.data {
            Data::File(file) => file.read_exact_at(buf, self.range.start + at),
            Data::Bytes(bytes) => Image::read_at(&**bytes, self.range.start + at, buf),
            Data::Device(source) => {
                source.read(self.range.start + at, buf).map_err(io::Error::other)
            }
        }
    }
}

impl Image for ImagePart {
    fn size(&self) -> io::Result<u64> {
        Ok(self.bytes())
    }

    fn read_at(&self, addr: u64, buf: &mut [u8]) -> io::Result<()> {
        self.fill(addr, buf)
    }
}

impl BlockSource for ImagePart {
    fn size(&self) -> u64 {
        self.bytes()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        Ok(self.fill(offset, buf)?)
    }
}

/// Checks that `path` is a regular file or a block device.
///
/// ```
/// assert!(nvio::check_image("/dev/null".as_ref()).is_err());
/// ```
///
/// # Errors
/// [`Error::NotAnImage`]; [`Error::Image`] if the type of the file cannot be read.
pub fn check(path: &Path) -> Result<(), Error> {
    let failed = |error| Error::Image { action: "open", path: path.to_owned(), error };
    let kind = fs::metadata(path).map_err(failed)?.file_type();
    let refuse = |kind| Err(Error::NotAnImage { path: path.to_owned(), kind });
    match () {
        () if kind.is_file() || kind.is_block_device() => Ok(()),
        () if kind.is_dir() => refuse("directory"),
        () if kind.is_socket() => refuse("socket"),
        () if kind.is_char_device() => refuse("character device"),
        () => refuse("pipe"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_ends_where_it_ends() {
        let image = ImagePart::from_bytes(Arc::from(&b"0123456789"[..]));
        let part = image.slice(2, 5).unwrap().slice(1, 4).unwrap();
        let mut out = [0; 4];
        part.fill(0, &mut out).unwrap();
        assert_eq!(&out, b"3456");
        assert!(part.fill(1, &mut out).is_err() && part.fill(u64::MAX, &mut out).is_err());
        assert!(image.slice(11, 0).is_err() && image.slice(5, 6).is_err());
        assert!(image.slice(1, u64::MAX).is_err());
    }

    #[test]
    fn paths_that_cannot_be_an_image() {
        let folder = tempfile::tempdir().unwrap();
        let told = |path: &Path| check(path).unwrap_err().to_string();
        assert!(told(folder.path()).contains("is a directory, not an image"));
        assert!(told(Path::new("/dev/null")).contains("character device"));
        assert!(told(&folder.path().join("no")).contains("No such file"));
        let _listener = std::os::unix::net::UnixListener::bind(folder.path().join("s")).unwrap();
        assert!(told(&folder.path().join("s")).contains("is a socket"));
    }
}
