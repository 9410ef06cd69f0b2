//! A queue over an image: a file of the host, or bytes in memory.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use nvio_driver::{Arena, DmaBuf, Handler, Rejected};

use crate::device::bio::{Bio, BioDone, BioOp, Queue, WriteQueue};
use crate::error::{BioError, Error};

/// Logical block of an image, as a power of two.
const BLOCK_SHIFT: u32 = 9;
/// Most bytes of one bio.
const TRANSFER_BYTES_MAX: usize = 1 << 20;
/// Memory that one queue bounces through, in bytes.
const ARENA_BYTES: usize = 32 << 20;

/// The bytes of a disk, without a controller.
///
/// # Examples
/// ```
/// use nvio_iomap::Image;
///
/// let mut image = vec![0; 4096];
/// assert_eq!(Image::size(&image)?, 4096);
/// image.write_at(512, b"hello")?;
/// Image::flush(&mut image)?;
/// let mut text = [0; 5];
/// image.read_at(512, &mut text)?;
/// assert_eq!(&text, b"hello");
/// assert!(image.read_at(4092, &mut text).is_err(), "past the end");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Image {
    /// Returns the size in bytes.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// If the operating system does not report the size.
    fn size(&self) -> io::Result<u64>;

    /// Fills `buf` with the bytes at `addr`.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// If the range is outside of the image, or the operating system fails to read it.
    fn read_at(&self, addr: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Writes `data` at `addr`. Only called for a [`WritableImage`].
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// If the range is outside of the image, or the operating system fails to write it.
    fn write_at(&mut self, addr: u64, data: &[u8]) -> io::Result<()> {
        let _ = (addr, data);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Makes earlier writes durable.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// If the operating system fails to write them.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An [`Image`] that accepts writes.
pub trait WritableImage: Image {}

impl Image for File {
    fn size(&self) -> io::Result<u64> {
        use std::io::{Seek, SeekFrom};
        // The end is sought because the metadata of a block device has no size.
        let mut file = self;
        file.seek(SeekFrom::End(0))
    }

    fn read_at(&self, addr: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buf, addr)
    }

    fn write_at(&mut self, addr: u64, data: &[u8]) -> io::Result<()> {
        self.write_all_at(data, addr)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// A file that was opened for reading only fails each write (EBADF).
impl WritableImage for File {}

impl Image for [u8] {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, addr: u64, buf: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(addr).unwrap_or(usize::MAX);
        let data = self.get(start..).and_then(|rest| rest.get(..buf.len()));
        buf.copy_from_slice(data.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl Image for Vec<u8> {
    fn size(&self) -> io::Result<u64> {
        self.as_slice().size()
    }

    fn read_at(&self, addr: u64, buf: &mut [u8]) -> io::Result<()> {
        self.as_slice().read_at(addr, buf)
    }

    fn write_at(&mut self, addr: u64, data: &[u8]) -> io::Result<()> {
        let start = usize::try_from(addr).unwrap_or(usize::MAX);
        let place = self.get_mut(start..).and_then(|rest| rest.get_mut(..data.len()));
        place.ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(data);
        Ok(())
    }
}

impl WritableImage for Vec<u8> {}

impl<T: Image + ?Sized> Image for &T {
    fn size(&self) -> io::Result<u64> {
        (**self).size()
    }

    fn read_at(&self, addr: u64, buf: &mut [u8]) -> io::Result<()> {
        (**self).read_at(addr, buf)
    }
}

impl<T: Image + ?Sized> Image for Arc<T> {
    fn size(&self) -> io::Result<u64> {
        (**self).size()
    }

    fn read_at(&self, addr: u64, buf: &mut [u8]) -> io::Result<()> {
        (**self).read_at(addr, buf)
    }
}

/// A queue to an [`Image`], for reading files without an NVMe controller; a [`WriteQueue`] if the
/// image is a [`WritableImage`].
///
/// Each bio is executed while it is submitted, by a system call or a copy. Its result comes from
/// [`poll`](Queue::poll), as from a device. The logical block is 512 bytes.
///
/// # Examples
/// ```
/// # use nvio_iomap::{Error, FileRef, Mapper, Mapping, Op, OpenFile};
/// # struct NoState;
/// # impl OpenFile for NoState {
/// #     type Error = Error;
/// # }
/// # struct OneExtent(FileRef<NoState>);
/// # impl Mapper for OneExtent {
/// #     type OpenFile = NoState;
/// #     fn open_file(&self) -> &FileRef<NoState> {
/// #         &self.0
/// #     }
/// #     fn size(&self) -> u64 {
/// #         1 << 20
/// #     }
/// #     fn block_size(&self) -> u32 {
/// #         4096
/// #     }
/// #     fn begin(&mut self, _pos: u64, _length: u64, _op: Op) -> Result<Mapping, Error> {
/// #         Ok(Mapping::mapped(0, 1 << 20, 0))
/// #     }
/// # }
/// # let mut file = OneExtent(FileRef::new(NoState));
/// use nvio_iomap::{FileQueue, ImageQueue};
///
/// let disk: Vec<u8> = (0..1 << 20).map(|at| (at / 4096) as u8).collect();
/// let mut queue = FileQueue::new(ImageQueue::new(disk, 32)?);
/// // `file` maps its first byte to the first byte of the disk.
/// let mut out = [0; 100];
/// assert_eq!(queue.read_at(&mut file, 4046, &mut out)?, 100);
/// assert_eq!((out[49], out[50]), (0, 1));
/// assert_eq!(queue.device().image().len(), 1 << 20);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ImageQueue<T, C> {
    image: T,
    size: u64,
    depth: usize,
    arena: Arena,
    /// Results that were not polled yet.
    done: VecDeque<BioDone<C>>,
}

impl<T, C> fmt::Debug for ImageQueue<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, depth, .. } = self;
        f.debug_struct("ImageQueue")
            .field("size", size)
            .field("depth", depth)
            .finish_non_exhaustive()
    }
}

impl<T: Image, C> ImageQueue<T, C> {
    /// Creates a queue with room for `depth` bios, at least one.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Image`] if the size of the image is not known; [`Error::Driver`] if there is no
    /// memory for buffers.
    pub fn new(image: T, depth: usize) -> Result<Self, Error> {
        let size = image.size().map_err(|error| Error::Image { error })?;
        let (depth, arena) = (depth.max(1), Arena::detached(ARENA_BYTES)?);
        Ok(Self { image, size, depth, arena, done: VecDeque::with_capacity(depth) })
    }

    /// Returns the image.
    ///
    /// See the [example](Self#examples).
    pub fn image(&self) -> &T {
        &self.image
    }

    fn execute(&mut self, bio: &mut Bio<C>) -> io::Result<()> {
        match bio.op {
            BioOp::Read => self.image.read_at(bio.addr, &mut bio.buf),
            BioOp::Write => {
                self.image.write_at(bio.addr, &bio.buf)?;
                if bio.fua { self.image.flush() } else { Ok(()) }
            }
        }
    }

    fn check(&self, bio: &Bio<C>) -> Result<(), Error> {
        let (addr, length, size) = (bio.addr, bio.buf.len() as u64, self.size);
        let align = 1 << BLOCK_SHIFT;
        match addr.checked_add(length) {
            _ if self.done.len() >= self.depth => Err(Error::Busy),
            _ if (addr | length) & (align - 1) != 0 => {
                Err(Error::Misaligned { pos: addr, length, align })
            }
            Some(end) if end <= size => Ok(()),
            _ => Err(Error::OutsideDisk { addr, length, size }),
        }
    }
}

fn system_error(error: &io::Error) -> BioError {
    log::warn!("access to the image: {error}");
    BioError::System { errno: error.raw_os_error().unwrap_or(0) }
}

impl<T: Image, C> Queue<C> for ImageQueue<T, C> {
    fn block_shift(&self) -> u32 {
        BLOCK_SHIFT
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn capacity(&self) -> usize {
        self.depth
    }

    fn max_transfer(&self) -> usize {
        TRANSFER_BYTES_MAX
    }

    fn submit(&mut self, mut bio: Bio<C>) -> Result<(), Rejected<Error, Bio<C>>> {
        if let Err(error) = self.check(&bio) {
            return Err(Rejected { error, payload: bio });
        }
        let result = self.execute(&mut bio).map_err(|error| system_error(&error));
        self.done.push_back(BioDone { tag: bio.tag, buf: bio.buf, result });
        Ok(())
    }

    fn flush(&mut self, tag: C) -> Result<(), Rejected<Error, C>> {
        if self.done.len() >= self.depth {
            return Err(Rejected { error: Error::Busy, payload: tag });
        }
        let buf = match self.arena.alloc(0) {
            Ok(empty) => empty,
            Err(error) => return Err(Rejected { error: error.into(), payload: tag }),
        };
        let result = self.image.flush().map_err(|error| system_error(&error));
        self.done.push_back(BioDone { tag, buf, result });
        Ok(())
    }

    fn ring(&mut self) {}

    fn poll(&mut self, limit: usize, handler: &mut impl Handler<BioDone<C>>) -> usize {
        let count = self.done.len().min(limit);
        self.done.drain(..count).for_each(|done| handler.completed(done));
        count
    }

    fn wait(&mut self, done: impl FnMut(BioDone<C>)) -> Result<usize, Error> {
        let count = self.done.len();
        self.done.drain(..).for_each(done);
        Ok(count)
    }

    fn alloc(&mut self, bytes: usize) -> Result<DmaBuf, Error> {
        Ok(self.arena.alloc(bytes)?)
    }

    fn alloc_uncleared(&mut self, bytes: usize) -> Result<DmaBuf, Error> {
        Ok(self.arena.alloc_uncleared(bytes)?)
    }
}

impl<T: WritableImage, C> WriteQueue<C> for ImageQueue<T, C> {}
