//! Open files: mapping, reads and overwrites.

pub(crate) mod cached;
pub(crate) mod open_inode;
pub(crate) mod read;
pub(crate) mod system_zone;
pub(crate) mod writable;
pub(crate) mod writable_file;
pub(crate) mod write;

use std::fmt;

use nvio_iomap::{FileRef, Mapper, Mapping, MappingKind, Op, OpenFile, page_end};

use crate::error::{Error, Unsupported};
use crate::file::open_inode::{Handle, OpenInode, Plain};
use crate::filesystem::Filesystem;
use crate::format::corrupt::{Problem, Structure};
use crate::format::file_type::FileType;
use crate::format::inode::Inode;
use crate::format::inode_flags::InodeFlags;
use crate::map::cache::MapCache;
use crate::map::extents::Extents;
use crate::map::inline;
use crate::number::LogicalBlock;

impl Filesystem {
    /// Opens the regular file `inode`.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::IsADirectory`], [`Error::NotAFile`]; [`Error::UnsupportedInode`] for an encrypted
    /// file; damage if the size is above the maximum of a file.
    pub fn file(&self, inode: &Inode) -> Result<File, Error> {
        let number = inode.number();
        match inode.kind() {
            FileType::Regular => (),
            FileType::Directory => return Err(Error::IsADirectory { inode: number }),
            kind => return Err(Error::NotAFile { inode: number, kind }),
        }
        let mut file = File {
            cache: MapCache::new(self.options().extents_per_file),
            handle: Handle::new(self.open_inodes().open(number)),
            block_size: self.superblock().block_size(),
            inline: Box::default(),
            inode: inode.clone(),
            fs: self.clone(),
        };
        file.load()?;
        Ok(file)
    }

    /// Returns the extents of an inode with blocks: a file, a directory, or a long symbolic link.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::NotAFile`] for an inode without blocks.
    pub fn extents(&self, inode: &Inode) -> Result<Extents, Error> {
        let (number, kind) = (inode.number(), inode.kind());
        match kind {
            FileType::Regular | FileType::Directory => (),
            FileType::Symlink if !inode.is_fast_symlink(self.superblock()) => (),
            _ => return Err(Error::NotAFile { inode: number, kind }),
        }
        Ok(Extents::new(self, inode))
    }
}

/// An open regular file. It caches its map, so that a range that was mapped before needs no
/// metadata I/O.
///
/// # Examples
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// # let image = sample.path();
/// # let fs = nvio_ext4::Filesystem::open(std::fs::File::open(&image)?)?;
/// use std::io::IoSliceMut;
///
/// use nvio_iomap::{FileQueue, ImageQueue, IoArgs};
///
/// let mut queue = FileQueue::new(ImageQueue::new(std::fs::File::open(&image)?, 32)?);
/// let mut file = fs.file(&fs.lookup("/table.db")?)?;
/// assert_eq!((file.size(), file.inode().uid()), (100_000, 0));
/// assert_eq!(file.open_inode().number(), file.inode().number());
/// assert_eq!(file.filesystem().superblock().block_size(), 1024);
/// for extent in file.extents().until(file.size()) {
///     let extent = extent?;
///     println!("{} bytes at {} are at {}", extent.length, extent.logical, extent.physical);
/// }
///
/// // Waits: into memory of any kind, at any position.
/// let mut bytes = [0; 1000];
/// assert_eq!(file.read_at(&mut queue, 99_990, &mut bytes)?, 10, "the end of the file");
/// let (mut head, mut body) = ([0; 16], [0; 100]);
/// let mut parts = [IoSliceMut::new(&mut head), IoSliceMut::new(&mut body)];
/// assert_eq!(file.read_vectored_at(&mut queue, 0, &mut parts)?, 116);
/// let (_, n) = file.read_with(&mut queue, IoArgs::at(0), vec![0; 5000])?;
/// assert_eq!(n, 5000);
///
/// // Does not wait: blocks into DMA memory without a copy, or bytes into other memory.
/// for block in 0..8 {
///     let buf = queue.alloc(4096)?;
///     file.submit_read(&mut queue, block * 4096, buf, block)?;
/// }
/// file.submit_read_with(&mut queue, IoArgs::at(1).token(8), vec![0; 100])?;
/// queue.ring();
/// while file.in_flight() > 0 {
///     queue.poll(usize::MAX, |done| assert!(done.result.is_ok(), "request {}", done.token));
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct File {
    cache: MapCache,
    handle: Handle,
    block_size: u32,
    /// The data of a file with inline data. Empty until the first mapping.
    inline: Box<[u8]>,
    inode: Inode,
    fs: Filesystem,
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("inode", &self.inode).finish_non_exhaustive()
    }
}

impl File {
    /// Returns the size in bytes.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn size(&self) -> u64 {
        self.inode.size()
    }

    /// Returns the inode as it was when the file was opened.
    ///
    /// See the [example](Self#examples).
    pub fn inode(&self) -> &Inode {
        &self.inode
    }

    /// Returns the filesystem of the file.
    ///
    /// See the [example](Self#examples).
    pub fn filesystem(&self) -> &Filesystem {
        &self.fs
    }

    /// Returns the number of reads and writes of this file that are in flight through any of its
    /// handles.
    ///
    /// See the [example](Self#examples).
    pub fn in_flight(&self) -> usize {
        self.handle.inode.in_flight()
    }

    /// Returns the state shared by all handles of this file.
    ///
    /// See the [example](Self#examples).
    pub fn open_inode(&self) -> &OpenInode {
        self.handle.inode.state()
    }

    #[inline]
    pub(crate) fn inode_shared(&self) -> &FileRef<OpenInode> {
        &self.handle.inode
    }

    /// Rejects a queue of another size than the filesystem's device, because the blocks of the file
    /// are not on the queue's device.
    pub(crate) fn check_device(&self, queue: u64) -> Result<(), Error> {
        match self.fs.device_size() {
            device if device == queue => Ok(()),
            device => Err(Error::OtherDevice { queue, device }),
        }
    }

    /// Copies from a block that has newer contents in the journal.
    fn read_replaced(&self, mapping: &Mapping, pos: u64, out: &mut [u8]) -> Result<(), Error> {
        let no_data = || Error::NoInlineData { inode: self.inode.number() };
        if mapping.kind != MappingKind::Inline {
            return Err(no_data());
        }
        let block = self.fs.block(self.fs.superblock().physical_at(mapping.addr))?;
        let start = pos.checked_sub(mapping.offset).and_then(|at| usize::try_from(at).ok());
        let bytes = start.and_then(|start| block.get(start..)?.get(..out.len()));
        out.copy_from_slice(bytes.ok_or_else(no_data)?);
        Ok(())
    }

    /// Returns the extents of the file in order; see [`Extents`].
    ///
    /// See the [example](Self#examples).
    pub fn extents(&self) -> Extents {
        Extents::new(&self.fs, &self.inode)
    }

    /// Returns the number of the map that the handle has.
    #[inline]
    pub(crate) fn map_number(&self) -> u64 {
        self.handle.map_number()
    }

    /// Reads the inode again if its map was changed. Returns true if it was.
    #[inline]
    pub(crate) fn renew(&mut self) -> Result<bool, Error> {
        if self.handle.is_current() { Ok(false) } else { self.load().map(|()| true) }
    }

    /// Reads the inode again, if its size or its map was changed since it was read last, and forgets the
    /// old map.
    #[cold]
    #[inline(never)]
    fn load(&mut self) -> Result<(), Error> {
        let number = self.handle.inode.state().map_number();
        // A filesystem that is only read has no newer one, and the caller may have changed this one.
        if self.fs.metadata().can_change() {
            self.inode = self.fs.inode(self.inode.number())?;
        }
        let inode = &self.inode;
        check_readable(inode)?;
        let size = inode.size();
        Problem::verify_max("size", size, self.fs.superblock().position(LogicalBlock::END))
            .map_err(|problem| Structure::Inode(inode.number()).corrupt(problem))?;
        let is_plain = !inode.flags().intersects(InodeFlags::ENCRYPT.union(InodeFlags::VERITY));
        let page_end = page_end(size, self.block_size, is_plain);
        self.cache = MapCache::new(self.fs.options().extents_per_file);
        self.handle.has_map(number, Plain { is_plain, page_end, size });
        Ok(())
    }

    /// Returns the mapping that contains `pos`, and reads the surrounding part of the map if it is
    /// not cached.
    #[cold]
    #[inline(never)]
    fn find(&mut self, pos: u64, op: Op) -> Result<&Mapping, Error> {
        if !self.cache.select(pos) {
            self.read_map(pos, op)?;
            self.cache.select(pos);
        }
        // After the last logical block, only the byte at `u64::MAX` is in no mapping.
        let Self { fs, inode, cache, .. } = self;
        cache.find_selected(pos).ok_or_else(|| {
            let logical = fs.superblock().whole_blocks(pos);
            Structure::BlockMap { inode: inode.number() }.corrupt(Problem::Missing { logical })
        })
    }

    /// Reads the part of the map around `pos`. The loop ends, because the map was changed during each
    /// turn but the last.
    fn read_map(&mut self, pos: u64, op: Op) -> Result<(), Error> {
        if op.contains(Op::NOWAIT) {
            return Err(Error::WouldBlock { inode: self.inode.number(), pos });
        }
        if self.inode.has_inline_data() {
            self.inline = self.fs.inline_data(&self.inode)?;
        }
        let logical = self.fs.superblock().logical_at(pos);
        loop {
            self.renew()?;
            // The byte before `pos` is mapped, so the reader is sequential: read ahead the next
            // leaves.
            if pos.checked_sub(1).is_none_or(|before| self.cache.select(before)) {
                self.fs.map(&self.inode).prefetch(logical);
            }
            let run = self.fs.map(&self.inode).data_run(logical);
            if self.handle.is_current() {
                self.cache.insert(run?);
                return Ok(());
            }
        }
    }
}

/// Mappings are not cut to the requested length. A mapping is an extent, or the hole between two
/// extents within the range of an extent block. Ranges past the end of the file are mapped as well.
impl Mapper for File {
    type OpenFile = OpenInode;

    #[inline]
    fn open_file(&self) -> &FileRef<OpenInode> {
        &self.handle.inode
    }

    #[inline]
    fn size(&self) -> u64 {
        self.inode.size()
    }

    #[inline]
    fn page_end(&self, state: &OpenInode) -> u64 {
        state.page_end()
    }

    #[inline]
    fn block_size(&self) -> u32 {
        self.block_size
    }

    #[inline]
    fn is_plain(&self, state: &OpenInode) -> bool {
        state.is_plain()
    }

    /// # Errors
    /// Damage to the map or a failure of the source; [`Error::WouldBlock`] with [`Op::NOWAIT`] if
    /// the answer is not cached; [`Error::ReadOnly`] with [`Op::WRITE`] or [`Op::ZERO`].
    // Always inlined, because every read calls it.
    #[inline(always)]
    fn begin(&mut self, pos: u64, _length: u64, op: Op) -> Result<Mapping, Error> {
        if op.intersects(Op::WRITE.union(Op::ZERO)) {
            return Err(Error::ReadOnly { inode: self.inode.number() });
        }
        let mapping = if let Some(mapping) = self.cache.find_head(pos) {
            mapping
        } else {
            self.find(pos, op)?
        };
        Ok(*mapping)
    }

    #[inline]
    fn refresh(&mut self) -> Result<bool, Error> {
        let open = self.handle.inode.state();
        if open.is_cached() {
            open.write_size_back()?;
        }
        self.renew()
    }

    fn read_inline(&mut self, mapping: &Mapping, pos: u64, out: &mut [u8]) -> Result<(), Error> {
        if !self.inode.has_inline_data() {
            return self.read_replaced(mapping, pos, out);
        }
        inline::copy(&self.inline, pos, out);
        Ok(())
    }
}

/// Returns an error if the inode's blocks are encrypted.
fn check_readable(inode: &Inode) -> Result<(), Error> {
    if inode.flags().contains(InodeFlags::ENCRYPT) {
        return Err(Error::UnsupportedInode {
            inode: inode.number(),
            what: Unsupported::Encrypted,
        });
    }
    Ok(())
}
