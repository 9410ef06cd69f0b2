//! The backing of a namespace: an image, memory, or none.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;
use vm_memory::mmap::MmapRegion;
use vm_memory::{ReadVolatile, VolatileMemory, VolatileMemoryError, VolatileSlice, WriteVolatile};

use crate::config::namespace::Backing;
use crate::error::Error;
use crate::host::memory::mmap_error;

/// Bytes of zeroes that are written together where no hole can be punched.
const ZEROES_BYTES: usize = 64 << 10;

/// An open backing: bytes without metadata and without a cache. Offsets and lengths are in bytes;
/// the namespace checks that they are inside it.
#[derive(Debug)]
pub(crate) enum RawStore {
    Image(Image),
    Memory(MmapRegion),
    /// Discards writes, and has no data to read.
    Null,
}

impl RawStore {
    /// Opens a backing and returns it with its size in bytes.
    pub(crate) fn open(backing: &Backing) -> Result<(Self, u64), Error> {
        match backing {
            Backing::Image { path, read_only } => {
                let (image, bytes) = Image::open(path, *read_only)?;
                Ok((Self::Image(image), bytes))
            }
            Backing::Memory(bytes) => {
                let size = usize::try_from(*bytes).map_err(io::Error::other);
                let region = size.and_then(|size| MmapRegion::new(size).map_err(mmap_error));
                let purpose = "a namespace";
                let region =
                    region.map_err(|source| Error::Memory { purpose, bytes: *bytes, source })?;
                Ok((Self::Memory(region), *bytes))
            }
            Backing::Null(bytes) => Ok((Self::Null, *bytes)),
        }
    }

    /// Reads the bytes from `offset`. Returns false if the store has no data (null).
    #[inline]
    pub(crate) fn read(&mut self, offset: u64, to: &mut VolatileSlice<'_>) -> io::Result<bool> {
        match self {
            Self::Image(image) => image.read(offset, to)?,
            Self::Memory(region) => {
                memory_at(region, offset, to.len())?
                    .copy_to_volatile_slice(to.offset(0).map_err(volatile_error)?);
            }
            Self::Null => return Ok(false),
        }
        Ok(true)
    }

    /// Writes bytes from `offset`.
    #[inline]
    pub(crate) fn write(&mut self, offset: u64, from: &VolatileSlice<'_>) -> io::Result<()> {
        match self {
            Self::Image(image) => image.write(offset, from)?,
            Self::Memory(region) => {
                from.copy_to_volatile_slice(memory_at(region, offset, from.len())?);
            }
            Self::Null => {}
        }
        Ok(())
    }

    /// Zeroes a range.
    pub(crate) fn zero(&mut self, mut offset: u64, mut len: u64) -> io::Result<()> {
        let done = match self {
            Self::Image(image) => image.punch(offset, len)?,
            Self::Memory(_) => false,
            Self::Null => true,
        };
        if done {
            return Ok(());
        }
        let most = usize::try_from(len).unwrap_or(ZEROES_BYTES).min(ZEROES_BYTES);
        let mut zeroes = vec![0; most];
        while len > 0 {
            let now = usize::try_from(len).unwrap_or(most).min(most);
            self.write(offset, &VolatileSlice::from(&mut zeroes[..now]))?;
            offset += now as u64;
            len -= now as u64;
        }
        Ok(())
    }

    /// Makes every write durable.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if let Self::Image(image) = self { image.flush() } else { Ok(()) }
    }

    /// Returns true if the backing stores writes: it neither discards nor rejects them.
    pub(crate) fn stores_writes(&self) -> bool {
        !matches!(self, Self::Null | Self::Image(Image { read_only: true, .. }))
    }

    /// Returns true if writes may be lost until they are flushed.
    pub(crate) fn is_volatile(&self) -> bool {
        matches!(self, Self::Image(Image { read_only: false, .. }))
    }
}

#[inline]
fn memory_at(region: &MmapRegion, offset: u64, len: usize) -> io::Result<VolatileSlice<'_>> {
    let offset = usize::try_from(offset).map_err(io::Error::other)?;
    region.get_slice(offset, len).map_err(volatile_error)
}

pub(crate) fn volatile_error(error: VolatileMemoryError) -> io::Error {
    match error {
        VolatileMemoryError::IOError(source) => source,
        other => io::Error::other(other),
    }
}

/// An image file or a block device.
///
/// Data moves between the page cache and host memory without a copy in between. The calls for that
/// are `read` and `write`, so the file's position is kept here. It moves only if an access does not
/// continue the one before it.
#[derive(Debug)]
pub(crate) struct Image {
    file: File,
    read_only: bool,
    /// Position of the file; `None` after an error.
    position: Option<u64>,
    /// The file was written since the last flush.
    dirty: bool,
    /// No call to punch a hole has been refused as unsupported.
    holes: bool,
}

impl Image {
    fn open(path: &Path, read_only: bool) -> Result<(Self, u64), Error> {
        let failed = |source| Error::Image { path: path.to_owned(), source };
        let kind = std::fs::metadata(path).map_err(failed)?.file_type();
        let mut options = OpenOptions::new();
        options.read(true).write(!read_only);
        if kind.is_block_device() && !read_only {
            // The kernel then refuses a device that is mounted or in use.
            options.custom_flags(i32::try_from(OFlags::EXCL.bits()).unwrap_or(0));
        } else if !kind.is_file() && !kind.is_block_device() {
            return Err(failed(io::Error::other("neither a regular file nor a block device")));
        }
        let mut file = options.open(path).map_err(failed)?;
        let locked = if read_only { file.try_lock_shared() } else { file.try_lock() };
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::ImageInUse { path: path.to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // The metadata of a block device has no size, but the device can be sought to its end.
        let bytes = file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok((Self { file, read_only, position: Some(bytes), dirty: false, holes: true }, bytes))
    }

    fn seek(&mut self, offset: u64) -> io::Result<()> {
        if self.position.take() != Some(offset) {
            self.file.seek(SeekFrom::Start(offset))?;
        }
        Ok(())
    }

    fn read(&mut self, offset: u64, to: &mut VolatileSlice<'_>) -> io::Result<()> {
        self.seek(offset)?;
        self.file.read_exact_volatile(to).map_err(volatile_error)?;
        self.position = Some(offset + to.len() as u64);
        Ok(())
    }

    fn write(&mut self, offset: u64, from: &VolatileSlice<'_>) -> io::Result<()> {
        self.seek(offset)?;
        self.dirty = true;
        self.file.write_all_volatile(from).map_err(volatile_error)?;
        self.position = Some(offset + from.len() as u64);
        Ok(())
    }

    /// Punches a hole. Returns false if the filesystem cannot.
    fn punch(&mut self, offset: u64, len: u64) -> io::Result<bool> {
        self.dirty = true;
        if !self.holes {
            return Ok(false);
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.file, flags, offset, len) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                self.holes = false;
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.dirty {
            self.file.sync_data()?;
            self.dirty = false;
        }
        Ok(())
    }
}

impl Drop for Image {
    /// Unlocks the file. Closing it is not enough: a process that another thread starts has the open
    /// files of this one, and their locks, until it executes its program.
    fn drop(&mut self) {
        if let Err(error) = self.file.unlock() {
            log::warn!("the image stays locked: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use vm_memory::Bytes;

    fn image(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn exercise(store: &mut RawStore) {
        let client = MmapRegion::<()>::new(8192).unwrap();
        let all = client.get_slice(0, 8192).unwrap();
        all.write_slice(&[0xa5; 8192], 0).unwrap();
        store.write(4096, &client.get_slice(0, 4096).unwrap()).unwrap();
        store.write(512, &client.get_slice(16, 512).unwrap()).unwrap();
        store.zero(4096 + 512, 1024).unwrap();
        store.read(0, &mut client.get_slice(0, 8192).unwrap()).unwrap();
        let mut expected = [0; 8192];
        expected[512..1024].fill(0xa5);
        expected[4096..].fill(0xa5);
        expected[4608..5632].fill(0);
        let mut found = [0; 8192];
        all.read_slice(&mut found, 0).unwrap();
        assert!(found == expected);
        found.fill(1);
        assert!(store.read(0, &mut VolatileSlice::from(&mut found[..])).unwrap());
        assert!(found == expected);
        store.flush().unwrap();
    }

    #[test]
    fn image_and_memory_hold_what_was_written() {
        let file = image(&[0; 8192]);
        let (mut store, bytes) = RawStore::open(&Backing::image(file.path(), false)).unwrap();
        assert_eq!(bytes, 8192);
        exercise(&mut store);
        // Without holes, zeroes are written.
        if let RawStore::Image(image) = &mut store {
            image.holes = false;
        }
        store.zero(0, 8192).unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), [0; 8192]);
        exercise(&mut store);
        let (mut store, _) = RawStore::open(&Backing::memory(8192)).unwrap();
        exercise(&mut store);
    }

    #[test]
    fn an_image_that_shrank_is_an_error_and_the_next_access_is_right() {
        let file = image(&[3; 8192]);
        let (mut store, _) = RawStore::open(&Backing::image(file.path(), true)).unwrap();
        let client = MmapRegion::<()>::new(4096).unwrap();
        let mut to = client.get_slice(0, 4096).unwrap();
        file.as_file().set_len(6000).unwrap();
        assert!(store.read(4096, &mut to).is_err());
        store.read(0, &mut to).unwrap();
        let mut byte = [0];
        to.read_slice(&mut byte, 4095).unwrap();
        assert_eq!(byte, [3]);
    }

    #[test]
    fn writers_exclude_others_and_readers_share() {
        let file = image(&[0; 4096]);
        let open = |read_only| RawStore::open(&Backing::image(file.path(), read_only));
        let first = open(true).unwrap();
        let second = open(true).unwrap();
        assert!(matches!(open(false), Err(Error::ImageInUse { .. })));
        drop((first, second));
        let _writer = open(false).unwrap();
        assert!(matches!(open(true), Err(Error::ImageInUse { .. })));
    }

    #[test]
    fn the_lock_ends_with_the_image_although_a_forked_process_has_the_file() {
        let file = image(&[0; 4096]);
        let (store, _) = RawStore::open(&Backing::image(file.path(), false)).unwrap();
        let RawStore::Image(image) = store else { panic!("a file is an image") };
        let _inherited = image.file.try_clone().unwrap();
        drop(image);
        RawStore::open(&Backing::image(file.path(), false)).unwrap();
    }

    #[test]
    fn file_that_is_not_an_image_is_refused() {
        for path in ["/nonexistent/image", "/dev/null", "/"] {
            let opened = RawStore::open(&Backing::image(path, true));
            assert!(matches!(opened, Err(Error::Image { .. })), "{path}");
        }
    }
}
