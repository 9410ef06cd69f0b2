//! The arguments, memory and results of requests.

use std::fmt;

use bitflags::bitflags;
use nvio_driver::DmaBuf;

bitflags! {
    /// Options of a request.
    ///
    /// See the [example](IoArgs#examples).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct IoFlags: u16 {
        /// Fails with "again" instead of waiting for metadata, room in the queue, memory, or the
        /// writeback of cached data (RWF_NOWAIT).
        const NOWAIT = 1 << 0;
        /// Makes a write durable before it completes (RWF_DSYNC).
        const DSYNC = 1 << 1;
        /// Writes all or nothing, also if the power fails (RWF_ATOMIC).
        const ATOMIC = 1 << 2;
        /// Copies through private memory, so that the caller's memory may change while a write is
        /// in flight.
        const BOUNCE = 1 << 3;
        /// Returns the bytes moved before the first byte of the caller's memory that cannot be
        /// accessed, instead of an error.
        const PARTIAL = 1 << 4;
        /// Makes the submission wait until the request is done. The next poll returns the result.
        const FORCE_WAIT = 1 << 5;
        /// Rejects positions and lengths that are not multiples of the filesystem's block.
        const FSBLOCK_ALIGNED = 1 << 6;
        /// Treats memory that is not resident as inaccessible.
        const NOFAULT = 1 << 7;
        /// Calls the filesystem's hooks; see [`OpenFile`](crate::OpenFile).
        const HOOKS = 1 << 8;
        /// Takes the generic path.
        const GENERIC = 1 << 9;
        /// Drops the data from the cache at completion.
        const DONTCACHE = 1 << 10;
        /// Starts the I/O of a buffered write before the call returns (RWF_WRITETHROUGH); see
        /// [`CachedFile`](crate::CachedFile). Direct I/O refuses it.
        const WRITETHROUGH = 1 << 11;
    }
}

/// The arguments of a request on a file, apart from its memory and direction.
///
/// # Examples
/// ```
/// use nvio_iomap::{IoArgs, IoFlags};
///
/// // A durable write at byte 8192, of which the caller wrote 100 bytes before by other means.
/// let args = IoArgs::at(8192).token(7).flags(IoFlags::DSYNC).done_before(100);
/// assert_eq!((args.pos, args.token, args.done_before), (8192, 7, 100));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoArgs {
    /// Position in the file, in bytes.
    pub pos: u64,
    /// Number that the result carries.
    pub token: u64,
    /// Options.
    pub flags: IoFlags,
    /// Bytes before `pos` that the caller moved already. They are added to the result.
    pub done_before: u64,
}

impl IoArgs {
    /// Creates the arguments of a request at byte `pos`, with token 0 and no flags.
    ///
    /// See the [example](Self#examples).
    pub const fn at(pos: u64) -> Self {
        Self { pos, token: 0, flags: IoFlags::empty(), done_before: 0 }
    }

    /// Sets [`token`](Self::token).
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub const fn token(mut self, token: u64) -> Self {
        self.token = token;
        self
    }

    /// Sets [`flags`](Self::flags).
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub const fn flags(mut self, flags: IoFlags) -> Self {
        self.flags = flags;
        self
    }

    /// Sets [`done_before`](Self::done_before).
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub const fn done_before(mut self, bytes: u64) -> Self {
        self.done_before = bytes;
        self
    }
}

/// The memory of a request. The queue owns it until the result returns it.
///
/// # Examples
/// ```
/// use nvio_driver::Arena;
/// use nvio_iomap::Memory;
///
/// let memory = Memory::from(vec![0; 1000]);
/// assert_eq!(memory.len(), 1000);
/// assert_eq!(memory.into_bytes(), Some(vec![0; 1000]));
///
/// let arena = Arena::detached(1 << 20)?;
/// let memory = Memory::from(arena.alloc(4096)?);
/// assert_eq!(memory.into_dma().map(|buf| buf.len()), Some(4096));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[non_exhaustive]
pub enum Memory {
    /// One DMA buffer, which the device accesses without a copy.
    Dma(DmaBuf),
    /// DMA buffers for consecutive ranges of the file. The length of each is a multiple of the
    /// device's block.
    Vectored(Vec<DmaBuf>),
    /// Memory that the device cannot access. The data is bounced.
    Bytes(Vec<u8>),
}

impl Memory {
    /// Returns the length in bytes.
    ///
    /// See the [example](Self#examples).
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        match self {
            Self::Dma(buf) => buf.len(),
            Self::Vectored(bufs) => bufs.iter().map(DmaBuf::len).sum(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    /// Passes the `n` bytes at `at`, in runs, to `visit`, each with the number of bytes before it.
    /// Returns the number of bytes passed: fewer than `n` at the end of the memory.
    pub(crate) fn visit(
        &mut self,
        at: usize,
        n: usize,
        mut visit: impl FnMut(usize, &mut [u8]),
    ) -> usize {
        let (mut start, mut done) = (0, 0);
        let mut pass = |buf: &mut [u8]| {
            let from = (at + done).checked_sub(start).and_then(|from| buf.get_mut(from..));
            if let Some(run) = from {
                let bytes = run.len().min(n - done);
                visit(done, &mut run[..bytes]);
                done += bytes;
            }
            start += buf.len();
        };
        match self {
            Self::Dma(buf) => pass(buf),
            Self::Bytes(bytes) => pass(bytes),
            Self::Vectored(bufs) => bufs.iter_mut().for_each(|buf| pass(buf)),
        }
        done
    }

    /// Returns the memory in order, in as few parts as there are.
    pub(crate) fn parts(&mut self) -> Vec<&mut [u8]> {
        match self {
            Self::Dma(buf) => vec![buf],
            Self::Bytes(bytes) => vec![bytes],
            Self::Vectored(bufs) => bufs.iter_mut().map(|buf| &mut buf[..]).collect(),
        }
    }

    /// Returns the memory, if it is one part.
    pub(crate) fn as_one(&mut self) -> Option<&mut [u8]> {
        match self {
            Self::Dma(buf) => Some(buf),
            Self::Bytes(bytes) => Some(bytes),
            Self::Vectored(_) => None,
        }
    }

    /// Returns the DMA buffer, if the memory is one.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn into_dma(self) -> Option<DmaBuf> {
        match self {
            Self::Dma(buf) => Some(buf),
            _ => None,
        }
    }

    /// Returns the bytes, if the memory is [`Memory::Bytes`].
    ///
    /// See the [example](Self#examples).
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
///
/// See the [example](crate::FileQueue#examples).
#[derive(Debug)]
pub struct Done<E> {
    /// Token of the request.
    pub token: u64,
    /// Bytes moved, including [`IoArgs::done_before`]: less than the length of the memory only at
    /// the end of the file.
    pub result: Result<usize, E>,
    /// The memory. After a failed read its contents are undefined. `None` if the device may still
    /// access the memory, which is then never used again.
    pub memory: Option<Memory>,
}

/// A request that was not submitted, or failed, with its memory.
///
/// See the [example](crate::FileQueue#examples).
pub type Rejected<E, P = Memory> = nvio_driver::Rejected<E, P>;

/// A request that failed after the caller waited for it. After an error of a read the contents of
/// the memory are undefined. The payload is `None` if the device may still access the memory: it
/// is not reused before the controller is closed.
///
/// See the [example](crate::FileQueue#examples).
pub type Failed<E> = Rejected<E, Option<Memory>>;
