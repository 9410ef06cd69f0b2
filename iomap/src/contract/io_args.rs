//! What is asked for, and what comes back.

use std::fmt;

use bitflags::bitflags;
use nvio_driver::DmaBuf;

bitflags! {
    /// How a request is to be served.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct IoFlags: u16 {
        /// Fail with "again" rather than wait: for metadata, for a slot of the queue, for dirty
        /// cached data (RWF_NOWAIT).
        const NOWAIT = 1 << 0;
        /// A write is durable when it is done (RWF_DSYNC).
        const DSYNC = 1 << 1;
        /// A write is done all or not at all, also when the power fails (RWF_ATOMIC).
        const ATOMIC = 1 << 2;
        /// Copy through private memory: the caller's may change while a write is in flight.
        const BOUNCE = 1 << 3;
        /// When the caller's memory cannot be accessed, return what was moved before.
        const PARTIAL = 1 << 4;
        /// Submitting waits until the request is done; its result comes from the next poll.
        const FORCE_WAIT = 1 << 5;
        /// Position and length are multiples of the filesystem's block, not only the device's.
        const FSBLOCK_ALIGNED = 1 << 6;
        /// Memory that would have to be faulted in counts as inaccessible.
        const NOFAULT = 1 << 7;
        /// The filesystem's hooks are called: see [`OpenFile`](crate::OpenFile).
        const HOOKS = 1 << 8;
        /// The generic path, whatever the request is like.
        const GENERIC = 1 << 9;
        /// Drop the data from the cache when done.
        const DONTCACHE = 1 << 10;
    }
}

/// A request on a file, but for its memory and its direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoArgs {
    /// First byte of the file.
    pub pos: u64,
    /// Comes back with the result.
    pub token: u64,
    /// How it is to be served.
    pub flags: IoFlags,
    /// Bytes that the caller has moved already, in front of `pos`: added to the result.
    pub done_before: u64,
}

impl IoArgs {
    /// A request at `pos` with neither token nor flags.
    pub const fn at(pos: u64) -> Self {
        Self { pos, token: 0, flags: IoFlags::empty(), done_before: 0 }
    }

    /// Sets [`token`](Self::token).
    #[must_use]
    pub const fn token(mut self, token: u64) -> Self {
        self.token = token;
        self
    }

    /// Sets [`flags`](Self::flags).
    #[must_use]
    pub const fn flags(mut self, flags: IoFlags) -> Self {
        self.flags = flags;
        self
    }

    /// Sets [`done_before`](Self::done_before).
    #[must_use]
    pub const fn done_before(mut self, bytes: u64) -> Self {
        self.done_before = bytes;
        self
    }
}

/// The memory of a request. It moves in, and comes back with the result.
#[non_exhaustive]
pub enum Memory {
    /// One DMA buffer: no copy.
    Dma(DmaBuf),
    /// Several, which follow each other in the file; each a multiple of the device's block.
    Vectored(Vec<DmaBuf>),
    /// Memory that the device cannot reach: bounced.
    Bytes(Vec<u8>),
}

impl Memory {
    /// Bytes.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        match self {
            Self::Dma(buf) => buf.len(),
            Self::Vectored(bufs) => bufs.iter().map(DmaBuf::len).sum(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    /// The DMA buffer, if it is one.
    #[inline]
    pub fn into_dma(self) -> Option<DmaBuf> {
        match self {
            Self::Dma(buf) => Some(buf),
            _ => None,
        }
    }

    /// The bytes, if they are ordinary memory.
    #[inline]
    pub fn into_bytes(self) -> Option<Vec<u8>> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }
}

impl fmt::Debug for Memory {
    /// Writes the length of the memory, never its contents.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Dma(_) => "Dma",
            Self::Vectored(_) => "Vectored",
            Self::Bytes(_) => "Bytes",
        };
        write!(f, "{kind}({} bytes)", self.len())
    }
}

impl From<DmaBuf> for Memory {
    #[inline]
    fn from(buf: DmaBuf) -> Self {
        Self::Dma(buf)
    }
}

impl From<Vec<DmaBuf>> for Memory {
    fn from(bufs: Vec<DmaBuf>) -> Self {
        Self::Vectored(bufs)
    }
}

impl From<Vec<u8>> for Memory {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

/// A request that is done.
#[derive(Debug)]
pub struct Done<E> {
    /// What was given with it.
    pub token: u64,
    /// Bytes moved, with those moved before; less than the memory has only at the end of the file.
    pub result: Result<usize, E>,
    /// The memory. After an error of a read its contents are not defined. `None` if the device may
    /// still access it: it is given up.
    pub memory: Option<Memory>,
}

/// A request that was not submitted, or failed, with its memory.
pub type Rejected<E, P = Memory> = nvio_driver::Rejected<E, P>;

/// A request that failed after the caller waited for it. After an error of a read the contents of
/// the memory are undefined. The payload is `None` if the device may still access the memory: it
/// is not reused before the controller is closed.
pub type Failed<E> = Rejected<E, Option<Memory>>;
