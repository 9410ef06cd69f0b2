//! The errors of iomap.

use nvio_driver::spec::Status;

use crate::contract::io_args::IoFlags;

/// The error of a bio.
///
/// See the [example](crate::Queue#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BioError {
    /// The status that the controller reported.
    #[error("{0}")]
    Status(Status),
    /// The data does not match its guard. The log has the LBA, and all bits of a wider guard.
    #[error("guard {found:#06x} in the metadata, {expected:#06x} of the data")]
    Guard {
        /// CRC of the data, the low 16 bits.
        expected: u16,
        /// Guard in the protection information, the low 16 bits.
        found: u16,
    },
    /// The data belongs to another block. The log has the LBA.
    #[error("reference tag {found:#010x}, which is that of another block")]
    ReferenceTag {
        /// Reference tag in the protection information, the low 32 bits.
        found: u32,
    },
    /// The operating system failed an access to an image; 0 where there is no error number.
    #[error("access to the image: {}", std::io::Error::from_raw_os_error(*.errno))]
    System {
        /// The operating system's error number (errno).
        errno: i32,
    },
    /// The data arrived without all of its protection information.
    #[error("protection information is missing")]
    Unprotected,
}

// Each completion carries the result, which must fit into a register.
const _: () = assert!(size_of::<Result<(), BioError>>() <= 8);

/// An error of iomap.
///
/// # Examples
/// ```
/// # use nvio_iomap::{FileRef, Mapper, Mapping, Op, OpenFile};
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
/// use nvio_iomap::{Error, FileError, FileQueue, ImageQueue};
///
/// let mut queue = FileQueue::new(ImageQueue::new(vec![7; 1 << 20], 1)?);
/// // Blocks are 512 bytes, so DMA memory of one cannot be read at byte 100.
/// let buf = queue.alloc(512)?;
/// let rejected = queue.submit_read(&mut file, 100, buf, 0).unwrap_err();
/// assert!(matches!(rejected.error, Error::Misaligned { pos: 100, .. }));
/// // Other errors that a caller handles: room in the queue, EAGAIN, buffered I/O.
/// let error = rejected.error;
/// assert!(!error.is_busy() && !error.is_again() && !error.is_fall_back());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The filesystem returned a mapping that breaks the contract of
    /// [`Mapper::begin`](crate::Mapper::begin).
    #[error("mapping [{offset}, +{length}) does not serve position {pos}")]
    BadMapping {
        /// Position that was to be mapped.
        pos: u64,
        /// Start of the mapping.
        offset: u64,
        /// Length of the mapping.
        length: u64,
    },
    /// The filesystem returned a stale mapping again and again.
    #[error("the mapping of position {pos} stays stale")]
    Stale {
        /// Position that was to be mapped.
        pos: u64,
    },
    /// The body of an iteration moved further than its mapping.
    #[error("advance by {by} bytes exceeds the {left} bytes that are left of the mapping")]
    AdvanceTooFar {
        /// Bytes moved.
        by: u64,
        /// Bytes that were left.
        left: u64,
    },
    /// Position, length or device address is not a multiple of the device's block (EINVAL).
    #[error("position {pos} and length {length} are not multiples of the device's {align} bytes")]
    Misaligned {
        /// Position, bytes.
        pos: u64,
        /// Length, bytes.
        length: u64,
        /// Required alignment in bytes.
        align: u64,
    },
    /// The data of a delayed allocation is in the cache, which direct I/O does not look into.
    #[error("position {pos} is a delayed allocation, which direct I/O cannot read")]
    Delalloc {
        /// Position in the file, bytes.
        pos: u64,
    },
    /// The mapping is inline data, which the filesystem does not implement.
    #[error("the filesystem does not implement the inline data at position {pos}")]
    NoInlineData {
        /// Position in the file, bytes.
        pos: u64,
    },
    /// A range is not inside the disk or partition.
    #[error("bytes {addr} + {length} are outside the {size} bytes of the disk or partition")]
    OutsideDisk {
        /// First byte.
        addr: u64,
        /// Bytes.
        length: u64,
        /// Size of the disk or partition in bytes.
        size: u64,
    },
    /// The memory does not begin at a multiple of the device's alignment (EINVAL).
    #[error("memory at I/O address {iova:#x} does not begin at a multiple of {align} bytes")]
    MisalignedMemory {
        /// I/O virtual address of the first byte.
        iova: u64,
        /// Required alignment in bytes.
        align: u64,
    },
    /// A write needs blocks that are not allocated. Direct I/O does not allocate.
    #[error("a write at position {pos} needs blocks to be allocated, which direct I/O does not do")]
    NoBlocks {
        /// Position in the file, bytes.
        pos: u64,
    },
    /// An atomic write cannot be one command to one mapping (EINVAL).
    #[error(
        "an atomic write of {length} bytes at position {pos}: {most} bytes can be written so there"
    )]
    NotAtomic {
        /// Position in the file, bytes.
        pos: u64,
        /// Bytes.
        length: u64,
        /// Most bytes that one command can write to the mapping there, all or nothing.
        most: u64,
    },
    /// The flags are not valid for the operation (EINVAL).
    #[error("{0:?} is not valid for this operation")]
    Flags(IoFlags),
    /// The queue is for reading only.
    #[error("the queue is for reading only")]
    ReadOnly,
    /// The queue is full: wait for a completion, then try again (EAGAIN).
    #[error("the queue is full: poll it, then try again")]
    Busy,
    /// The request cannot be served without waiting (EAGAIN).
    #[error("not possible without waiting")]
    WouldBlock,
    /// The caller's memory could not be accessed (EFAULT).
    #[error("the memory of byte {at} of the request cannot be accessed")]
    Fault {
        /// Offset in the request of the first such byte.
        at: u64,
    },
    /// No memory is left to bounce through (ENOMEM).
    #[error("no DMA memory to bounce through: use a larger arena")]
    NoMemory,
    /// Direct I/O is not possible, but buffered I/O is (ENOTBLK).
    #[error("direct I/O cannot be done at position {pos}: use buffered I/O")]
    FallBack {
        /// Position in the file, bytes.
        pos: u64,
    },
    /// A transfer failed on the device.
    #[error("{what} of {length} bytes at position {pos} of the file: {error}")]
    Bio {
        /// "read" or "write".
        what: &'static str,
        /// First byte of the file.
        pos: u64,
        /// Bytes of the command; 0 if the memory did not come back.
        length: usize,
        /// The error of the bio.
        error: BioError,
    },
    /// Data was written, but the flush that makes it durable failed.
    #[error("flush: {error}")]
    Flush {
        /// The error of the bio.
        error: BioError,
    },
    /// Part of a buffer did not come back from the queue.
    #[error("the queue lost part of a buffer of {length} bytes")]
    LostBuffer {
        /// Size of the buffer.
        length: usize,
    },
    /// The operating system does not report the size of an image.
    #[error("the size of the image is not known: {error}")]
    Image {
        /// The error of the operating system.
        error: std::io::Error,
    },
    /// The driver failed.
    #[error(transparent)]
    Driver(#[from] nvio_driver::Error),
}

impl Error {
    /// Converts an error of the driver. A full queue is [`Error::Busy`].
    pub(crate) fn from_driver(error: nvio_driver::Error) -> Self {
        match error {
            nvio_driver::Error::QueueFull { .. } => Self::Busy,
            error => Self::Driver(error),
        }
    }

    /// Returns true if the queue was full. The same call succeeds after a poll or a wait has
    /// returned results.
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Busy)
    }
}

/// The error of a filesystem, as iomap tests it.
///
/// See the [example](Error#examples).
pub trait FileError: std::error::Error + From<Error> + Send {
    /// Returns true if the call may succeed later (EAGAIN).
    ///
    /// See the [example](Error#examples).
    fn is_again(&self) -> bool;

    /// Returns true if the queue was full. A poll makes room.
    ///
    /// See the [example](Error#examples).
    fn is_busy(&self) -> bool;

    /// Returns true if buffered I/O may succeed (ENOTBLK).
    ///
    /// See the [example](Error#examples).
    fn is_fall_back(&self) -> bool;
}

impl FileError for Error {
    fn is_again(&self) -> bool {
        matches!(self, Self::Busy | Self::WouldBlock)
    }

    fn is_busy(&self) -> bool {
        Self::is_busy(self)
    }

    fn is_fall_back(&self) -> bool {
        matches!(self, Self::FallBack { .. })
    }
}
