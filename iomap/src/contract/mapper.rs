//! The mapping contract between a filesystem and iomap.

use bitflags::bitflags;

use crate::contract::open_file::{FileRef, OpenFile};
use crate::error::Error;

/// Bytes of a page, the unit of the page path.
///
/// See the [example](Mapper#examples).
pub const PAGE: u32 = 4096;

/// The kind of a mapping.
///
/// See the [example](Mapping#examples).
// As wide as the flags: then a mapping has no padding, which would be copied byte by byte.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MappingKind {
    /// Blocks with data.
    // Zero, so that one test finds it together with the flags.
    Mapped = 0,
    /// No blocks: reads return zeroes.
    Hole,
    /// Space is reserved but not allocated: the data is in the cache only.
    Delalloc,
    /// Blocks without data: reads return zeroes, whatever the device holds.
    Unwritten,
    /// The data is in the filesystem's metadata; see [`Mapper::read_inline`].
    Inline,
}

bitflags! {
    /// Properties of a mapping. The filesystem sets them; a body of [`iterate`](crate::iterate) may
    /// set [`STALE`](Self::STALE).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct MappingFlags: u32 {
        /// The blocks were just allocated. Their parts outside the write must be zeroed.
        const NEW = 1 << 0;
        /// Metadata that the data depends on is not durable yet.
        const DIRTY = 1 << 1;
        /// The blocks are shared with another file.
        const SHARED = 1 << 2;
        /// The mapping joins several records of the filesystem.
        const MERGED = 1 << 3;
        /// The mapping may not be joined with the one before it.
        const BOUNDARY = 1 << 4;
        /// The data is protected by checksums that cover it end to end.
        const INTEGRITY = 1 << 5;
        /// Writes go to blocks that are chosen at completion.
        const ANON_WRITE = 1 << 6;
        /// Writes within the mapping are atomic.
        const ATOMIC = 1 << 7;
        /// The blocks past the data must be zeroed.
        const ZERO_TAIL = 1 << 8;
        /// The size of the file changed under the operation.
        const SIZE_CHANGED = 1 << 14;
        /// The mapping is out of date: the range must be mapped again.
        const STALE = 1 << 15;
    }
}

bitflags! {
    /// The operation that a mapping is needed for: a read, unless a flag names another.
    ///
    /// See the [example](iterate#examples).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Op: u16 {
        /// Data will be written.
        const WRITE = 1 << 0;
        /// The range will be zeroed.
        const ZERO = 1 << 1;
        /// The mapping itself is wanted (FIEMAP), not the data.
        const REPORT = 1 << 2;
        /// The cache is bypassed.
        const DIRECT = 1 << 3;
        /// Fails with "again" instead of waiting for metadata I/O, room or memory.
        const NOWAIT = 1 << 4;
        /// Only blocks that are allocated and written may be touched.
        const OVERWRITE_ONLY = 1 << 5;
        /// All or nothing.
        const ATOMIC = 1 << 6;
        /// Drops the data from the cache at completion.
        const DONTCACHE = 1 << 7;
        /// The data of a buffered write is written to the device at once. The filesystem allocates
        /// blocks, and never answers with [`MappingKind::Delalloc`].
        const WRITETHROUGH = 1 << 8;
        /// Cached data is about to be written to the device. The filesystem allocates blocks that it
        /// had only reserved, and never answers with [`MappingKind::Delalloc`].
        const WRITEBACK = 1 << 9;
    }
}

/// The place of `[offset, offset + length)` of a file.
///
/// # Examples
/// ```
/// use nvio_iomap::{Mapping, MappingFlags, MappingKind};
///
/// // 1 MiB of the file from byte 4096 on is at byte 65536 of the device.
/// let mapping = Mapping::mapped(4096, 1 << 20, 65536);
/// assert_eq!(mapping.end(), (1 << 20) + 4096);
/// assert_eq!(mapping.device_address(5000), Some(66440));
/// assert_eq!(mapping.device_address(4095), None);
///
/// let hole = Mapping::hole(0, 4096);
/// assert_eq!((hole.kind, hole.device_address(0)), (MappingKind::Hole, None));
/// let fresh = Mapping { flags: MappingFlags::NEW, ..Mapping::unwritten(0, 4096, 65536) };
/// assert_eq!(fresh.kind, MappingKind::Unwritten);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Position of the first byte covered.
    pub offset: u64,
    /// Bytes covered, at least 1.
    pub length: u64,
    /// Byte address on the device of `offset`; 0 without blocks.
    pub addr: u64,
    /// The kind.
    pub kind: MappingKind,
    /// Further properties.
    pub flags: MappingFlags,
}

impl Mapping {
    /// Creates a mapping of a hole.
    ///
    /// See the [example](Self#examples).
    pub const fn hole(offset: u64, length: u64) -> Self {
        let flags = MappingFlags::empty();
        Self { offset, length, addr: 0, kind: MappingKind::Hole, flags }
    }

    /// Creates a mapping of blocks with data, from byte `addr` of the device on.
    ///
    /// See the [example](Self#examples).
    pub const fn mapped(offset: u64, length: u64, addr: u64) -> Self {
        Self { addr, kind: MappingKind::Mapped, ..Self::hole(offset, length) }
    }

    /// Creates a mapping of unwritten blocks, from byte `addr` of the device on.
    ///
    /// See the [example](Self#examples).
    pub const fn unwritten(offset: u64, length: u64, addr: u64) -> Self {
        Self { addr, kind: MappingKind::Unwritten, ..Self::hole(offset, length) }
    }

    /// Returns the position after the last byte covered, in bytes; saturates at `u64::MAX`.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }

    /// Returns the number of bytes from `pos` to the end of the mapping; 0 if the mapping breaks the
    /// contract of [`Mapper::begin`] for `pos`.
    #[inline]
    pub(crate) fn bytes_from(&self, pos: u64) -> u64 {
        match pos.checked_sub(self.offset) {
            Some(before) if !self.flags.contains(MappingFlags::STALE) => {
                self.length.saturating_sub(before)
            }
            _ => 0,
        }
    }

    /// Returns the device address of `pos`. `None` if the mapping has no blocks or does not cover
    /// `pos`, or if the address overflows.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn device_address(&self, pos: u64) -> Option<u64> {
        let has_blocks = matches!(self.kind, MappingKind::Mapped | MappingKind::Unwritten);
        let inside = pos.checked_sub(self.offset).filter(|&delta| delta < self.length)?;
        if has_blocks { self.addr.checked_add(inside) } else { None }
    }
}

/// The error of a [`Mapper`]'s filesystem.
pub type ErrorOf<M> = <<M as Mapper>::OpenFile as OpenFile>::Error;

/// Returns [`Mapper::page_end`] for a file of `size` bytes in blocks of `block_size` bytes.
///
/// See the [example](Mapper#examples).
#[inline]
pub fn page_end(size: u64, block_size: u32, plain: bool) -> u64 {
    match plain && block_size >= PAGE {
        true => (size + 1).saturating_sub(u64::from(PAGE)),
        false => 0,
    }
}

/// An open file, as the filesystem implements it: maps ranges of the file to the device.
///
/// # Examples
/// ```
/// use nvio_iomap::{
///     Error, ErrorOf, FileQueue, FileRef, ImageQueue, Mapper, Mapping, MappingKind, Op, OpenFile,
///     page_end,
/// };
/// # struct NoState;
/// # impl OpenFile for NoState {
/// #     type Error = Error;
/// # }
///
/// /// A file whose data is in memory, as that of a small file is in its inode.
/// struct Inline(FileRef<NoState>, Vec<u8>);
///
/// impl Mapper for Inline {
///     type OpenFile = NoState;
///
///     fn open_file(&self) -> &FileRef<NoState> {
///         &self.0
///     }
///     fn size(&self) -> u64 {
///         self.1.len() as u64
///     }
///     fn block_size(&self) -> u32 {
///         4096
///     }
///     fn is_plain(&self, _state: &NoState) -> bool {
///         true
///     }
///     fn page_end(&self, state: &NoState) -> u64 {
///         page_end(self.size(), self.block_size(), self.is_plain(state))
///     }
///     fn refresh(&mut self) -> Result<bool, Error> {
///         Ok(false) // The map does not change while the file is open.
///     }
///     fn begin(&mut self, _pos: u64, _length: u64, _op: Op) -> Result<Mapping, Error> {
///         Ok(Mapping { kind: MappingKind::Inline, ..Mapping::mapped(0, self.size(), 0) })
///     }
///     fn end(
///         &mut self,
///         _mapping: &Mapping,
///         _pos: u64,
///         _length: u64,
///         _processed: u64,
///         _op: Op,
///     ) -> Result<(), ErrorOf<Self>> {
///         Ok(()) // A filesystem releases here what `begin` has locked.
///     }
///     fn private(&self) -> u64 {
///         0 // A filesystem finds its record of the write by it.
///     }
///     fn read_inline(&mut self, _: &Mapping, pos: u64, out: &mut [u8]) -> Result<(), Error> {
///         let start = pos as usize;
///         out.copy_from_slice(&self.1[start..start + out.len()]);
///         Ok(())
///     }
///     fn write_inline(&mut self, _: &Mapping, pos: u64, data: &[u8]) -> Result<(), Error> {
///         let start = pos as usize;
///         self.1[start..start + data.len()].copy_from_slice(data);
///         Ok(())
///     }
/// }
///
/// let mut queue = FileQueue::new(ImageQueue::new(vec![0; 1 << 20], 32)?);
/// let mut file = Inline(FileRef::new(NoState), vec![1; 1000]);
/// queue.write_at(&mut file, 0, &[2; 512])?;
/// let mut bytes = [0; 4];
/// assert_eq!(queue.read_at(&mut file, 510, &mut bytes)?, 4);
/// assert_eq!(bytes, [2, 2, 1, 1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Mapper {
    /// The state that requests in flight share.
    ///
    /// See the [example](Self#examples).
    type OpenFile: OpenFile;

    /// Returns the handle of the shared state.
    ///
    /// See the [example](Self#examples).
    fn open_file(&self) -> &FileRef<Self::OpenFile>;

    /// Returns the size of the file in bytes (i_size), less than 2^63.
    ///
    /// See the [example](Self#examples).
    fn size(&self) -> u64;

    /// Returns the filesystem's block in bytes, a power of two and no less than the device's.
    ///
    /// See the [example](Self#examples).
    fn block_size(&self) -> u32;

    /// Returns the position before which a read of [`PAGE`] bytes can be one command, because it is
    /// inside the file, no more than a block, and [plain](Self::is_plain). Each read asks for it, so
    /// a filesystem may store the number. `state` is that of [`open_file`](Self::open_file), which a
    /// request has at hand.
    ///
    /// See the [example](Self#examples).
    #[inline]
    fn page_end(&self, state: &Self::OpenFile) -> u64 {
        page_end(self.size(), self.block_size(), self.is_plain(state))
    }

    /// Returns true if the device holds the data as it is: neither encrypted nor to be verified
    /// (verity), and no newer in a cache. Reads of other files ask
    /// [`OpenFile::write_back`] first. `state` is that of [`open_file`](Self::open_file).
    ///
    /// See the [example](Self#examples).
    #[inline]
    fn is_plain(&self, state: &Self::OpenFile) -> bool {
        let _ = state;
        true
    }

    /// Forgets what [`size`](Self::size) and [`begin`](Self::begin) would answer from an old map.
    /// Called before the first `begin` of a request that is not on the fast paths, after the request
    /// was [counted](FileRef::in_flight), and again after cached data was written back, which may have given
    /// it blocks. The fast paths are taken only while the file is [plain](Self::is_plain), and before its [`page_end`](Self::page_end): a filesystem whose maps
    /// change while files are open answers no and 0 there, until each handle has the new map.
    ///
    /// Returns true if the size may be another.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// The error of the filesystem, which fails the request.
    #[inline]
    fn refresh(&mut self) -> Result<bool, ErrorOf<Self>> {
        Ok(false)
    }

    /// Maps the range at `pos`.
    ///
    /// The mapping must have `offset <= pos`, `length > 0`, `end() > pos`, and must not be
    /// [`MappingFlags::STALE`]. It may be shorter or longer than `length`.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// The error of the filesystem. [`Mapper::end`] is not called then.
    fn begin(&mut self, pos: u64, length: u64, op: Op) -> Result<Mapping, ErrorOf<Self>>;

    /// Called once for each successful [`Mapper::begin`], on every path and before the next one,
    /// with the arguments of `begin` and the number of bytes processed.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// The error ends the operation. It is the result of the operation if nothing was processed.
    #[inline]
    fn end(
        &mut self,
        mapping: &Mapping,
        pos: u64,
        length: u64,
        processed: u64,
        op: Op,
    ) -> Result<(), ErrorOf<Self>> {
        let _ = (mapping, pos, length, processed, op);
        Ok(())
    }

    /// Returns the value that [`EndIo::private`](crate::EndIo::private) has at the end of a write to
    /// the mapping that [`begin`](Self::begin) returned last.
    ///
    /// See the [example](Self#examples).
    fn private(&self) -> u64 {
        0
    }

    /// Fills `out` with the bytes at `pos` of a [`MappingKind::Inline`] mapping.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// If the range is not inside the inline data. The default always fails.
    fn read_inline(
        &mut self,
        mapping: &Mapping,
        pos: u64,
        out: &mut [u8],
    ) -> Result<(), ErrorOf<Self>> {
        let _ = (mapping, out);
        Err(Error::NoInlineData { pos }.into())
    }

    /// Replaces the bytes at `pos` of a [`MappingKind::Inline`] mapping by `data`.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`read_inline`](Self::read_inline).
    fn write_inline(
        &mut self,
        mapping: &Mapping,
        pos: u64,
        data: &[u8],
    ) -> Result<(), ErrorOf<Self>> {
        let _ = (mapping, data);
        Err(Error::NoInlineData { pos }.into())
    }
}
