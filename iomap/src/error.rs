//! What can go wrong between a file and its device.

/// An error of this layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The filesystem gave a mapping that breaks the contract of
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
    /// The filesystem gave a mapping that is out of date, again and again.
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
        /// Alignment needed, bytes.
        align: u64,
    },
    /// The data of a delayed allocation is in the cache, which direct I/O does not look into.
    #[error("position {pos} is a delayed allocation, which direct I/O cannot read")]
    Delalloc {
        /// Position in the file, bytes.
        pos: u64,
    },
    /// The mapping is inline data, but the filesystem gave no way to read it.
    #[error("the filesystem does not give the inline data at position {pos}")]
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
    /// The queue is full: wait for a completion, then try again (EAGAIN).
    #[error("the queue is full")]
    Busy,
    /// A read failed on the device.
    #[error("read of {length} bytes at byte {addr} of the disk: {status}")]
    Read {
        /// First byte on the disk or partition.
        addr: u64,
        /// Bytes.
        length: usize,
        /// The controller's status.
        status: nvio_driver::spec::Status,
    },
    /// A buffer did not come back whole from the queue.
    #[error("the queue lost a part of a buffer of {length} bytes")]
    LostBuffer {
        /// Size of the buffer.
        length: usize,
    },
    /// The driver failed.
    #[error(transparent)]
    Driver(#[from] nvio_driver::Error),
}
