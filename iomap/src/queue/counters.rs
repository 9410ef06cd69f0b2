//! Counts of requests and commands, by path and reason.

/// The reason why a request did not take the simple path.
///
/// See the [example](Counters#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The simple path is switched off.
    Off,
    /// The request is a write.
    Write,
    /// The memory is not one DMA buffer.
    Memory,
    /// The length is 0, or more than the filesystem's block.
    Length,
    /// A flag excludes the path: GENERIC, PARTIAL, BOUNCE and others.
    Flags,
    /// The filesystem's hooks must be called.
    Hooks,
    /// The caller moved bytes before.
    DoneBefore,
    /// The range is not inside the file.
    EndOfFile,
    /// The file is encrypted or has verity.
    Encoded,
    /// The mapping is a hole, unwritten or inline: no command can read it.
    NotMapped,
    /// The mapping ends before the request.
    PartlyMapped,
    /// The data is protected by checksums, or the device cannot reach the memory.
    Integrity,
    /// The device needs several commands.
    Split,
}

const REASONS: usize = Reason::Split as usize + 1;

/// Counts since the queue was created.
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
/// use nvio_iomap::{FileQueue, ImageQueue, Reason};
///
/// let mut queue = FileQueue::new(ImageQueue::new(vec![7; 1 << 20], 32)?);
/// // Ordinary memory is bounced on the generic path.
/// queue.read_at(&mut file, 0, &mut [0; 100])?;
/// let counters = queue.counters();
/// assert_eq!((counters.simple, counters.generic, counters.commands), (0, 1, 1));
/// assert_eq!(counters.bounced, 1);
/// assert_eq!(counters.fell_back(Reason::Write), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests that the simple path served.
    pub simple: u64,
    /// Requests that the generic path served.
    pub generic: u64,
    /// Commands whose data was copied through private memory.
    pub bounced: u64,
    /// Commands of the generic path.
    pub commands: u64,
    /// Requests whose end was deferred work.
    pub deferred: u64,
    fallbacks: [u64; REASONS],
}

impl Counters {
    /// Requests that did not take the simple path, for `reason`.
    ///
    /// See the [example](Self#examples).
    pub fn fell_back(&self, reason: Reason) -> u64 {
        self.fallbacks[reason as usize]
    }

    pub(crate) fn fall_back(&mut self, reason: Reason) {
        self.fallbacks[reason as usize] += 1;
    }
}
