//! Open files that grow: buffered writes reserve blocks, writeback allocates them, and the end of the
//! I/O makes the data reachable.

use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nvio_iomap::{
    CachedFile, EndIo, FileRef, Mapper, Mapping, MappingFlags, MappingKind, Op, PageCache,
};

use crate::change::delayed::Delayed;
use crate::change::hold::Closing;
use crate::change::space::{How, Times};
use crate::change::{Inner, JournaledFilesystem};
use crate::error::Error;
use crate::file::open_inode::{Changer, OpenInode};
use crate::file::{File, cached};
use crate::format::inode::Inode;
use crate::number::InodeNumber;

/// An open [`File`] of a [`JournaledFilesystem`], which grows when it is written after its end, and gets
/// blocks where it has none. Opened by [`JournaledFilesystem::open_file`], for direct I/O, or
/// by [`JournaledFilesystem::cached_file`].
///
/// Data is durable after a sync; a write to new blocks is there as a whole, or not at all, block by block,
/// after a loss of power.
///
/// See the [example](JournaledFilesystem#open-files).
pub struct JournaledFile {
    file: File,
    fs: Closing,
    is_writable: bool,
    /// Blocks that the last [`begin`](Mapper::begin) reserved.
    new: Range<u64>,
    /// End of the last mapping of a request.
    continues: Option<u64>,
}

impl fmt::Debug for JournaledFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JournaledFile").field("inode", self.file.inode()).finish_non_exhaustive()
    }
}

impl Deref for JournaledFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl DerefMut for JournaledFile {
    fn deref_mut(&mut self) -> &mut File {
        &mut self.file
    }
}

impl Drop for JournaledFile {
    fn drop(&mut self) {
        let open = self.file.open_inode();
        self.fs.record_read(open);
        if let Err(error) = self.fs.record_times(open) {
            log::warn!("inode {}: the time of the last write is lost: {error}", open.number());
        }
    }
}

impl JournaledFilesystem {
    /// Opens the regular file `inode` for direct reads and writes through a
    /// [`FileQueue`](crate::FileQueue).
    ///
    /// See the [example](Self#open-files).
    ///
    /// # Errors
    /// As [`Filesystem::file`](crate::Filesystem::file), and those of [`allocate`](Self::allocate) that
    /// depend on the inode.
    pub fn open_file(&self, inode: &Inode) -> Result<JournaledFile, Error> {
        self.check_map(inode)?;
        self.open_file_for_reading(inode)
    }

    /// Opens the regular file `inode` as [`open_file`](Self::open_file) does, also if it may not be written
    /// to: one that is immutable or append-only, with block pointers, with inline data, or with a feature
    /// that only readers know. Writes to it fail then.
    ///
    /// # Errors
    /// As [`Filesystem::file`](crate::Filesystem::file).
    ///
    /// # Examples
    /// ```
    /// # let sample = nvio_testkit::image::Sample::with(&["-O", "^extents,^64bit"]);
    /// # use std::fs::File;
    /// # use nvio_ext4::{JournaledFilesystem, Options};
    /// # use nvio_iomap::{FileQueue, ImageQueue};
    /// # let device = File::options().read(true).write(true).open(sample.path())?;
    /// # let mut queue = FileQueue::new(ImageQueue::new(device.try_clone()?, 32)?);
    /// # let fs = JournaledFilesystem::open(device, Options::default())?;
    /// let inode = fs.lookup("/hello.txt")?;
    /// assert!(fs.open_file(&inode).is_err(), "it has block pointers");
    /// let mut file = fs.open_file_for_reading(&inode)?;
    /// assert!(!file.is_writable());
    /// let mut text = [0; 5];
    /// assert_eq!(file.read_at(&mut queue, 0, &mut text)?, 5);
    /// assert_eq!(&text, b"Hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open_file_for_reading(&self, inode: &Inode) -> Result<JournaledFile, Error> {
        let file = self.file(inode)?;
        let is_writable = self.check_map(file.inode()).is_ok();
        self.check_is_there(inode)?;
        let fs = Closing(self.clone());
        Ok(JournaledFile { file, fs, is_writable, new: 0..0, continues: None })
    }

    /// Returns the inode `number` as [`inode`](crate::Filesystem::inode) does, with the size and the times that
    /// the data in the cache gives it.
    ///
    /// # Errors
    /// As [`inode`](crate::Filesystem::inode).
    ///
    /// # Examples
    /// ```
    /// # let sample = nvio_testkit::image::Sample::new();
    /// # use std::fs::File;
    /// # use nvio_ext4::{JournaledFilesystem, Options};
    /// # use nvio_iomap::{ImageQueue, PageCache};
    /// let device = File::options().read(true).write(true).open(sample.path())?;
    /// let cache = PageCache::new(ImageQueue::new(device.try_clone()?, 32)?, 1 << 20);
    /// let fs = JournaledFilesystem::open(device, Options::default())?;
    /// let inode = fs.lookup("/hello.txt")?;
    /// let mut file = fs.cached_file(&inode, &cache)?;
    /// file.write_at(12, &b", and more"[..])?;
    /// assert_eq!(fs.inode(inode.number())?.size(), 12, "on the device");
    /// let now = fs.inode_now(inode.number())?;
    /// assert_eq!(now.size(), 22);
    /// assert!(now.mtime() > inode.mtime());
    ///
    /// let mut other = fs.open_file(&inode)?;
    /// other.note_write();
    /// other.note_read();
    /// let now = fs.inode_now(inode.number())?;
    /// assert!(now.atime() >= now.mtime());
    /// # drop((file, other));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn inode_now(&self, number: impl Into<InodeNumber>) -> Result<Inode, Error> {
        let number = number.into();
        let mut inode = self.inode(number)?;
        if let Some(open) = self.open_inodes().find(number) {
            let open = open.state();
            if let Some(cached) = open.cached_data() {
                inode.set_size(cached.size());
            }
            if let Some(time) = open.modified.time() {
                inode.set_mtime(time);
                inode.set_ctime(time);
            }
            self.add_access(&mut inode, open);
        }
        Ok(inode)
    }

    /// Opens the regular file `inode` for buffered I/O in `cache`, whose queue is on the filesystem's
    /// device. Handles of one file share its cached data.
    ///
    /// A write reserves blocks, so that the data can be written back later. The calls of this
    /// filesystem by inode number respect cached data.
    ///
    /// See the [example](Self#open-files).
    ///
    /// # Errors
    /// As [`open_file`](Self::open_file); [`Error::OtherCache`] if the file is open in another cache.
    pub fn cached_file(
        &self,
        inode: &Inode,
        cache: &PageCache,
    ) -> Result<CachedFile<JournaledFile>, Error> {
        // Changes by inode number, which have the lock, do not see a cache that is opened meanwhile.
        let _lock = self.lock(inode.number());
        let file = self.open_file(inode)?;
        file.check_device(cache.device_size())?;
        cached::open(file, cache)
    }

    /// Returns the blocks that have bytes of a range of a file.
    fn blocks_of(&self, pos: u64, length: u64) -> Range<u64> {
        let bits = self.superblock().geometry.block_bits;
        let rest = 1u64.wrapping_shl(bits).wrapping_sub(1);
        let end = pos.saturating_add(length).saturating_add(rest);
        pos.wrapping_shr(bits)..end.wrapping_shr(bits)
    }

    /// Records the time of the last write to cached data in the inode.
    fn record_times(&self, open: &OpenInode) -> Result<(), Error> {
        match open.modified.take() {
            Some(time) => self.set_modified(open.number(), time),
            None => Ok(()),
        }
    }
}

/// [`EndIo::private`] of writes from the cache.
const CACHED: u64 = 1;

/// Number of blocks that are reserved ahead for a file that grows.
const AHEAD: u64 = 1024;

impl Changer for Inner {
    fn end_write(&self, open: &OpenInode, end: &EndIo) -> Result<(), Error> {
        let fs = self.handle()?;
        let last = end.pos.saturating_add(end.bytes);
        let blocks = fs.blocks_of(end.pos, end.bytes);
        if end.failed || end.bytes == 0 {
            // The blocks stay unwritten. Cached data is dirty again.
            if end.private != CACHED {
                lock(&open.delayed).release(fs.superblock(), blocks);
            }
            return Ok(());
        }
        // A direct write ends now; its own note is taken back.
        let written = open.modified.take();
        let times = if end.private == CACHED { Times::Of(written) } else { Times::Now };
        let how = How { is_reserved: true, needs_flush: !end.durable, times };
        fs.convert(open.number(), blocks.clone(), last, how)?;
        if end.private != CACHED
            && let Some(cached) = open.cached_data()
        {
            cached.raise_size(last);
        }
        lock(&open.delayed).release(fs.superblock(), blocks);
        Ok(())
    }

    fn sync(&self, open: &OpenInode, data: bool, flush: bool) -> Result<bool, Error> {
        let fs = self.handle()?;
        if !data {
            fs.record_times(open)?;
        }
        fs.sync_changes(open.number(), data, flush)
    }
}

fn lock(delayed: &Mutex<Delayed>) -> MutexGuard<'_, Delayed> {
    delayed.lock().unwrap_or_else(PoisonError::into_inner)
}

impl JournaledFile {
    /// Returns the size of the file on the device, in bytes, also after changes by others.
    ///
    /// See the [example](JournaledFilesystem#open-files).
    pub fn size_now(&self) -> u64 {
        self.file.open_inode().size()
    }

    /// Returns false if writes fail, because the file may not be written to.
    ///
    /// See the [example](JournaledFilesystem::open_file_for_reading).
    #[inline]
    pub fn is_writable(&self) -> bool {
        self.is_writable
    }

    /// Notes a write to cached data, whose time the inode gets with the data, at the latest when the last
    /// handle is closed. The cache does not call the file for each overwrite, so a caller whose users look
    /// at the time does.
    ///
    /// See the [example](JournaledFilesystem::inode_now).
    #[inline]
    pub fn note_write(&self) {
        self.file.open_inode().modified.note();
    }

    /// Notes a read, whose time the inode gets when a handle of the file is closed, as
    /// [`record_access`](JournaledFilesystem::record_access) does. Queues and the cache do not note
    /// reads.
    ///
    /// See the [example](JournaledFilesystem::inode_now).
    #[inline]
    pub fn note_read(&self) {
        self.file.open_inode().accessed.note_once();
    }

    /// Returns the filesystem of the file.
    pub(super) fn journaled(&self) -> &JournaledFilesystem {
        &self.fs
    }

    fn number(&self) -> InodeNumber {
        self.file.inode().number()
    }

    fn delayed(&self) -> MutexGuard<'_, Delayed> {
        lock(&self.file.open_inode().delayed)
    }

    fn blocks(&self, pos: u64, length: u64) -> Range<u64> {
        self.fs.blocks_of(pos, length)
    }

    /// Returns a mapping of blocks without a place.
    fn without_place(&self, kind: MappingKind, blocks: Range<u64>) -> Mapping {
        let superblock = self.fs.superblock();
        let length = superblock.bytes(blocks.end.saturating_sub(blocks.start));
        Mapping { kind, ..Mapping::hole(superblock.bytes(blocks.start), length) }
    }

    /// Returns the part of a mapping up to the end of `blocks`.
    fn until(&self, mapping: Mapping, blocks: &Range<u64>) -> Mapping {
        let end = self.fs.superblock().bytes(blocks.end);
        let length = mapping.length.min(end.saturating_sub(mapping.offset));
        Mapping { length, ..mapping }
    }

    fn reserve(&self, blocks: Range<u64>, hole: bool) -> Result<(), Error> {
        let delayed = &self.file.open_inode().delayed;
        self.fs.journal().reserve(&self.fs, delayed, blocks, hole)
    }

    /// Reserves blocks of a hole for the next writes, which follow each other.
    fn reserve_ahead(&self, blocks: Range<u64>) {
        let delayed = &self.file.open_inode().delayed;
        self.fs.journal().reserve_ahead(&self.fs, delayed, blocks, self.file.map_number());
    }

    /// Maps a range for a write to the cache: blocks are reserved where there are none.
    fn begin_buffered(&mut self, pos: u64, length: u64) -> Result<Mapping, Error> {
        let blocks = self.blocks(pos, length);
        let mut delayed = self.delayed();
        let is_new = delayed.use_ahead(&blocks, self.file.map_number());
        let known = if is_new { Some(blocks.clone()) } else { delayed.hole_at(blocks.start) };
        drop(delayed);
        if let Some(hole) = known {
            if is_new {
                self.new = hole.clone();
            }
            return Ok(self.without_place(MappingKind::Delalloc, hole));
        }
        let mapping = self.file.begin(pos, length, Op::empty())?;
        match mapping.kind {
            MappingKind::Unwritten => {
                let mapping = self.until(mapping, &blocks);
                // Blocks for the nodes of the tree, if the conversion divides the extent.
                self.reserve(self.blocks(pos, mapping.end().saturating_sub(pos)), false)?;
                Ok(mapping)
            }
            MappingKind::Hole => {
                let end = self.blocks(pos, mapping.end().saturating_sub(pos)).end;
                let hole = blocks.start..blocks.end.min(end);
                let next = self.delayed().next_hole(hole.clone());
                let hole = hole.start..next.unwrap_or(hole.end);
                self.reserve(hole.clone(), true)?;
                self.new = hole.clone();
                if self.continues == Some(pos) && next.is_none() {
                    self.reserve_ahead(hole.end..end.min(hole.end.saturating_add(AHEAD)));
                }
                Ok(self.without_place(MappingKind::Delalloc, hole))
            }
            _ => Ok(mapping),
        }
    }

    /// Maps a range for a write to the device: blocks are allocated where there are none.
    fn begin_placed(&mut self, pos: u64, length: u64, op: Op) -> Result<Mapping, Error> {
        let is_promised = op.contains(Op::WRITEBACK);
        // The loop ends when no other thread changes the map meanwhile.
        loop {
            self.file.renew()?;
            let mapping = self.file.begin(pos, length, Op::empty())?;
            match mapping.kind {
                MappingKind::Unwritten => {
                    if let Some(mapping) = self.begin_unwritten(pos, length, mapping, op)? {
                        return Ok(mapping);
                    }
                }
                MappingKind::Hole => return self.allocate(pos, length, is_promised),
                _ => return Ok(mapping),
            }
        }
    }

    /// Notes a write to unwritten blocks of the device. Returns `None` if the mapping is out of date.
    fn begin_unwritten(
        &mut self,
        pos: u64,
        length: u64,
        mapping: Mapping,
        op: Op,
    ) -> Result<Option<Mapping>, Error> {
        let mapping = self.until(mapping, &self.blocks(pos, length));
        let part = self.blocks(pos, mapping.end().saturating_sub(pos));
        if !op.contains(Op::WRITEBACK) {
            self.reserve(part.clone(), false)?;
            // From here on no call moves the blocks, but one may have moved them before.
            if self.file.renew()? {
                self.delayed().release(self.fs.superblock(), part);
                return Ok(None);
            }
        }
        self.delayed().allocated(self.fs.superblock(), part);
        Ok(Some(mapping))
    }

    /// Allocates blocks for a hole: for all that is reserved there, because it is dirty and will be
    /// written, too.
    fn allocate(&mut self, pos: u64, length: u64, is_promised: bool) -> Result<Mapping, Error> {
        let mut blocks = self.blocks(pos, length);
        if let Some(hole) = self.delayed().hole_at(blocks.start) {
            blocks.end = blocks.end.max(hole.end);
        } else if !is_promised {
            self.reserve(blocks.clone(), false)?;
        }
        // The time of a write to the cache is that of its end.
        let times = if is_promised { Times::Of(None) } else { Times::Now };
        let how = How { is_reserved: is_promised, needs_flush: false, times };
        let end = self.fs.fill_hole(self.number(), blocks.clone(), how)?;
        let allocated = blocks.start..end.min(blocks.end);
        self.delayed().allocated(self.fs.superblock(), allocated.clone());
        if !is_promised {
            // Only the blocks of this write will be converted.
            self.delayed().release(self.fs.superblock(), allocated.end..blocks.end);
        }
        self.file.renew()?;
        let mapping = self.file.begin(pos, length, Op::empty())?;
        let mapping = self.until(mapping, &allocated);
        Ok(Mapping { flags: mapping.flags.union(MappingFlags::NEW), ..mapping })
    }

    /// Zeroes the rest of the last block on the device, before a direct write after the end of the file.
    fn prepare_direct(&mut self, pos: u64) -> Result<(), Error> {
        self.file.renew()?;
        match self.file.open_inode().cached_data() {
            // The request itself has written the last block.
            _ if self.continues == Some(pos) => Ok(()),
            _ if pos <= self.file.size() => Ok(()),
            Some(cached) => cached.zero_tail(pos),
            None => self.fs.zero_tail(self.number(), pos),
        }
    }
}

/// Reads are mapped like those of a [`File`]. A write to the cache reserves blocks, any other write
/// allocates them.
impl Mapper for JournaledFile {
    type OpenFile = OpenInode;

    #[inline]
    fn open_file(&self) -> &FileRef<OpenInode> {
        self.file.inode_shared()
    }

    #[inline]
    fn size(&self) -> u64 {
        self.file.open_inode().size()
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

    #[inline]
    fn refresh(&mut self) -> Result<bool, Error> {
        self.continues = None;
        self.file.refresh()
    }

    /// # Errors
    /// As [`File`]. For writes also [`Error::NoSpace`], [`Error::FileTooLarge`], and those of a change of
    /// metadata.
    #[inline]
    fn begin(&mut self, pos: u64, length: u64, op: Op) -> Result<Mapping, Error> {
        if op.contains(Op::DIRECT) && !op.contains(Op::WRITE) {
            return self.file.begin(pos, length, op);
        }
        self.begin_other(pos, length, op)
    }

    #[inline]
    fn end(&mut self, _: &Mapping, pos: u64, _: u64, processed: u64, _: Op) -> Result<(), Error> {
        self.continues = Some(pos.saturating_add(processed));
        let new = std::mem::take(&mut self.new);
        let used = if processed > 0 { self.blocks(pos, processed).end } else { 0 };
        if used < new.end {
            self.delayed().release(self.fs.superblock(), new.start.max(used)..new.end);
        }
        Ok(())
    }

    fn private(&self) -> u64 {
        CACHED
    }

    fn read_inline(&mut self, mapping: &Mapping, pos: u64, out: &mut [u8]) -> Result<(), Error> {
        self.file.read_inline(mapping, pos, out)
    }
}

impl JournaledFile {
    /// Maps a range for buffered I/O or for a write.
    fn begin_other(&mut self, pos: u64, length: u64, op: Op) -> Result<Mapping, Error> {
        if !op.contains(Op::WRITE) {
            // Requests of the cache do not ask for a new map.
            self.file.renew()?;
            return self.file.begin(pos, length, op.difference(Op::ZERO));
        }
        if !self.is_writable {
            self.fs.check_map(self.file.inode())?;
        }
        let number = self.number();
        let end = pos.checked_add(length).ok_or(Error::FileTooLarge { inode: number })?;
        self.fs.check_end(number, end)?;
        let device = Op::DIRECT.union(Op::WRITEBACK).union(Op::WRITETHROUGH);
        if op.contains(Op::DIRECT) {
            self.prepare_direct(pos)?;
        }
        let mapping = match op.intersects(device) {
            true => self.begin_placed(pos, length, op)?,
            false => {
                self.file.renew()?;
                self.begin_buffered(pos, length)?
            }
        };
        if mapping.kind == MappingKind::Mapped {
            self.check_place(&mapping)?;
        }
        if !op.contains(Op::WRITEBACK) {
            self.note_write();
        }
        Ok(mapping)
    }

    /// Rejects a mapping to blocks of the filesystem itself.
    fn check_place(&self, mapping: &Mapping) -> Result<(), Error> {
        let superblock = self.fs.superblock();
        let blocks = superblock.blocks_at(mapping.addr, mapping.length);
        self.fs.check_place(self.number(), blocks)
    }
}
