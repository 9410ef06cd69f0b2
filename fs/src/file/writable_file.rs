//! Open files whose data can be overwritten, and the checks of each write.

use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;

use nvio_iomap::{FileRef, Mapper, Mapping, MappingKind, Op};

use crate::error::Error;
use crate::error::reasons::Protected;
use crate::file::File;
use crate::file::open_inode::OpenInode;
use crate::file::system_zone::SystemZone;
use crate::format::corrupt::{Problem, Structure};
use crate::map::builder::hole;

/// A [`File`] that can be overwritten; see [`WritableFilesystem`](crate::WritableFilesystem).
///
/// # Examples
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// # let image = sample.path();
/// # let fs = nvio_ext4::Filesystem::open(std::fs::File::open(&image)?)?;
/// use std::fs::File;
/// use std::io::IoSlice;
///
/// use nvio_iomap::{Cursor, FileQueue, ImageQueue, IoArgs, IoFlags};
///
/// let device = File::options().read(true).write(true).open(&image)?;
/// let mut queue = FileQueue::new(ImageQueue::new(device, 32)?);
/// // Fails if the filesystem needs recovery, has errors, or is mounted.
/// let writable = fs.writable()?;
/// let mut file = writable.writable_file(&fs.lookup("/table.db")?)?;
///
/// // Checks a range without writing to it.
/// file.check_range(0, 100_000)?;
/// assert!(file.check_range(99_996, 5).is_err(), "past the end");
///
/// // Waits: bytes of any memory at any position inside of the file.
/// file.write_at(&mut queue, 99_995, b"nvio!")?;
/// assert!(file.write_at(&mut queue, 99_996, b"nvio!").is_err(), "past the end");
/// file.write_vectored_at(&mut queue, 0, &[IoSlice::new(b"head"), IoSlice::new(b"body")])?;
/// let durably = IoArgs::at(8192).flags(IoFlags::DSYNC);
/// file.write_from(&mut queue, durably, &mut Cursor::new(&b"text"[..]))?;
/// let (buf, n) = file.write_with(&mut queue, durably, vec![8; 4096])?;
/// assert_eq!((buf.len(), n), (4096, 4096));
///
/// // Does not wait.
/// let buf = queue.alloc(4096)?;
/// file.submit_write(&mut queue, 16384, buf, 1)?;
/// file.submit_write_with(&mut queue, IoArgs::at(20480).token(2), vec![9; 512])?;
/// queue.ring();
/// while file.in_flight() > 0 {
///     queue.poll(usize::MAX, |done| assert!(done.result.is_ok(), "request {}", done.token));
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct WritableFile {
    file: File,
    /// The inode that may be written to. It can differ from `file`, which the caller can replace.
    opened: FileRef<OpenInode>,
    system_zone: Arc<SystemZone>,
    /// The last mapping that was found to be outside the system zone.
    sound: Mapping,
    /// A range of the file whose blocks are known to be allocated and written.
    checked: Range<u64>,
    /// The write may extend to the end of the device's last block; the caller has filled the rest
    /// with zeroes.
    pub(crate) with_tail: bool,
}

impl fmt::Debug for WritableFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WritableFile").field("inode", self.file.inode()).finish_non_exhaustive()
    }
}

impl Deref for WritableFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl DerefMut for WritableFile {
    fn deref_mut(&mut self) -> &mut File {
        &mut self.file
    }
}

impl WritableFile {
    pub(crate) fn new(file: File, system_zone: Arc<SystemZone>) -> Self {
        let opened = file.inode_shared().clone();
        Self { file, opened, system_zone, sound: hole(0, 0), checked: 0..0, with_tail: false }
    }

    /// Returns the mapping of `pos`, if its blocks are allocated, written and outside the system
    /// zone.
    fn overwritable(&mut self, pos: u64, op: Op) -> Result<Mapping, Error> {
        let inode = self.file.inode().number();
        let mapping = self.file.begin(pos, 1, op.difference(Op::WRITE.union(Op::ZERO)))?;
        match mapping.kind {
            MappingKind::Mapped => (),
            MappingKind::Unwritten => return Err(Error::Unwritten { inode, pos }),
            _ => return Err(Error::Hole { inode, pos }),
        }
        if mapping != self.sound {
            let superblock = self.file.filesystem().superblock();
            let blocks = superblock.blocks_at(mapping.addr, mapping.length);
            if let Some(area) = self.system_zone.overlap(blocks) {
                let (start, count) = (blocks.start(), blocks.count());
                let problem = Problem::Overlap { start, count, area };
                return Err(Structure::BlockMap { inode }.corrupt(problem));
            }
            self.sound = mapping;
        }
        Ok(mapping)
    }

    /// Checks that the bytes from `pos` on can be overwritten. A caller that divides a large write
    /// checks it as a whole first, because each write checks its own range only.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::PastEnd`], [`Error::Hole`], [`Error::Unwritten`], or damage to the map.
    pub fn check_range(&mut self, pos: u64, length: u64) -> Result<(), Error> {
        match length {
            0 => Ok(()),
            length => self.begin_write(pos, length, Op::WRITE).map(drop),
        }
    }

    /// Checks the whole range before the first command is submitted, so that a rejected write has
    /// changed nothing. Returns the mapping of the first byte.
    pub(crate) fn begin_write(&mut self, pos: u64, length: u64, op: Op) -> Result<Mapping, Error> {
        let (inode, size) = (self.file.inode().number(), self.file.size());
        if !self.opened.is_same(self.file.inode_shared()) {
            return Err(Error::Protected { inode, why: Protected::NotOpened });
        }
        let end = pos.saturating_add(length);
        // A block of the device is at most as large as a block of the filesystem. The cache writes
        // whole blocks of the filesystem, and has filled the rest with zeroes.
        let block = u64::from(self.file.block_size());
        let whole = self.with_tail || op.contains(Op::WRITEBACK);
        let limit = if whole { size.next_multiple_of(block) } else { size };
        if end > limit {
            return Err(Error::PastEnd { inode, end, size });
        }
        let mapping = self.overwritable(pos, op)?;
        // The maps of open files do not change, so the result stays valid.
        let checked = self.checked.start <= pos && end <= self.checked.end;
        if mapping.end() < end && !checked {
            let mut next = mapping.end();
            // The loop ends, because each mapping ends after the position that was requested.
            while next < end {
                next = self.overwritable(next, op)?.end();
            }
            self.checked = pos..end;
        }
        Ok(mapping)
    }
}

/// Reads are mapped like those of a [`File`]. For a write, the first [`begin`](Mapper::begin)
/// checks the whole range: it must be inside the file, in written blocks.
impl Mapper for WritableFile {
    type OpenFile = OpenInode;

    #[inline]
    fn open_file(&self) -> &FileRef<OpenInode> {
        self.file.inode_shared()
    }

    #[inline]
    fn size(&self) -> u64 {
        self.file.size()
    }

    #[inline]
    fn page_end(&self, state: &OpenInode) -> u64 {
        self.file.page_end(state)
    }

    #[inline]
    fn block_size(&self) -> u32 {
        self.file.block_size()
    }

    #[inline]
    fn is_plain(&self, state: &OpenInode) -> bool {
        self.file.is_plain(state)
    }

    /// # Errors
    /// As [`File`]. For writes also [`Error::Hole`], [`Error::Unwritten`], [`Error::PastEnd`], and
    /// [`Error::Corrupt`] if a block is in the system zone.
    #[inline]
    fn begin(&mut self, pos: u64, length: u64, op: Op) -> Result<Mapping, Error> {
        match op.intersects(Op::WRITE.union(Op::ZERO)) {
            false => self.file.begin(pos, length, op),
            true => self.begin_write(pos, length, op),
        }
    }

    #[inline]
    fn refresh(&mut self) -> Result<bool, Error> {
        self.file.refresh()
    }

    fn read_inline(&mut self, mapping: &Mapping, pos: u64, out: &mut [u8]) -> Result<(), Error> {
        self.file.read_inline(mapping, pos, out)
    }
}
