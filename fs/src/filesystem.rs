//! An open filesystem: superblock, inodes, and the blocks that metadata is in.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use zerocopy::{FromZeros, IntoBytes};

use crate::block_cache::{Block, BlockCache};
use crate::corrupt::{Problem, Structure};
use crate::group::{self, GroupDescriptor};
use crate::inode::{self, Inode};
use crate::open_inode::OpenInodes;
use crate::raw_superblock::{RawSuperblock, SUPERBLOCK_OFFSET};
use crate::superblock::Superblock;
use crate::{Error, IncompatFeatures, Source, mmp};

/// Most bytes of metadata that are read at once.
pub(crate) const READ_MAX: u32 = 256 << 10;
/// Bytes of an inode table that are read when one inode is needed.
const INODE_READ: u64 = 64 << 10;

/// How a filesystem is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Bytes of metadata blocks (inode tables, directories, extent blocks) that are kept in
    /// memory. Default 16 MiB.
    pub cache_bytes: usize,
    /// Extents and holes that each open [`File`](crate::File) remembers, at 176 bytes each at most. The
    /// extents of one extent block (at most 5,461) are remembered even if that is more. Default
    /// 65,536.
    pub extents_per_file: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { cache_bytes: 16 << 20, extents_per_file: 65_536 }
    }
}

impl Options {
    /// Sets [`cache_bytes`](Self::cache_bytes).
    #[must_use]
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Sets [`extents_per_file`](Self::extents_per_file).
    #[must_use]
    pub fn extents_per_file(mut self, extents: usize) -> Self {
        self.extents_per_file = extents;
        self
    }
}

/// An open ext2, ext3 or ext4 filesystem, read-only.
///
/// A clone is another handle to the same filesystem and costs a reference count. All methods may
/// be used by several threads at the same time.
#[derive(Clone)]
pub struct Filesystem {
    inner: Arc<Inner>,
}

struct Inner {
    source: Box<dyn Source>,
    /// Size of the device in bytes.
    device: u64,
    superblock: Superblock,
    cache: BlockCache,
    options: Options,
    open_inodes: OpenInodes,
    io_errors: AtomicU64,
}

impl fmt::Debug for Filesystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filesystem").field("superblock", self.superblock()).finish_non_exhaustive()
    }
}

impl Filesystem {
    /// Opens the filesystem on `source` with the default [`Options`].
    ///
    /// # Errors
    /// If there is no ext4 filesystem, it is damaged, larger than the device or of smaller blocks
    /// than the device's, its journal needs recovery, another host is using it, it has a feature that this crate does not support, or
    /// the source fails.
    pub fn open(source: impl Source + 'static) -> Result<Self, Error> {
        Self::open_with(source, Options::default())
    }

    /// Opens the filesystem on `source`.
    ///
    /// # Errors
    /// As [`Filesystem::open`].
    pub fn open_with(source: impl Source + 'static, options: Options) -> Result<Self, Error> {
        let device = source.size();
        let needed = SUPERBLOCK_OFFSET.saturating_mul(2);
        if device < needed {
            return Err(Error::Truncated { needed, device });
        }
        let superblock = read_superblock(&source)?;
        let (block, device_block) = (superblock.block_size(), source.block_size());
        if block < device_block {
            return Err(Error::BlockTooSmall { block, device: device_block });
        }
        let needed = superblock.blocks_count().checked_mul(u64::from(superblock.block_size()));
        match needed {
            Some(needed) if needed <= device => (),
            _ => return Err(Error::Truncated { needed: needed.unwrap_or(u64::MAX), device }),
        }
        if superblock.has(IncompatFeatures::RECOVER) {
            return Err(Error::NeedsRecovery);
        }
        let block_size = usize::try_from(superblock.block_size()).unwrap_or(usize::MAX);
        let cache = BlockCache::new(options.cache_bytes.checked_div(block_size).unwrap_or(0));
        let source = Box::new(source);
        let fs = Self {
            inner: Arc::new(Inner {
                source,
                device,
                superblock,
                cache,
                options,
                open_inodes: OpenInodes::default(),
                io_errors: AtomicU64::new(0),
            }),
        };
        mmp::check(&fs)?;
        Ok(fs)
    }

    /// The superblock, as it was when the filesystem was opened.
    pub fn superblock(&self) -> &Superblock {
        &self.inner.superblock
    }

    /// The inode `number`, which may also be one of the reserved ones.
    ///
    /// # Errors
    /// [`Error::NoSuchInode`], [`Error::InodeNotInUse`], damage to the inode or to its group's
    /// descriptor, or a failure of the source.
    pub fn inode(&self, number: u32) -> Result<Inode, Error> {
        let superblock = self.superblock();
        let no_inode = Error::NoSuchInode { inode: number, count: superblock.inodes_count() };
        let Some(index) = number.checked_sub(1).filter(|_| number <= superblock.inodes_count())
        else {
            return Err(no_inode);
        };
        let per_group = superblock.inodes_per_group();
        let (Some(group), Some(in_group)) =
            (index.checked_div(per_group), index.checked_rem(per_group))
        else {
            return Err(no_inode);
        };
        let descriptor = self.group(group)?;
        let size = u64::from(superblock.inode_size());
        let offset = u64::from(in_group).saturating_mul(size);
        let block = self.inode_block(&descriptor, superblock.block_at(offset))?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX) & block.len().saturating_sub(1);
        let bytes =
            block.get(start..).and_then(|rest| rest.get(..usize::from(superblock.inode_size())));
        let bytes = bytes
            .ok_or_else(|| Structure::Inode(number).corrupt(Problem::Missing { logical: 0 }))?;
        Inode::parse(superblock, number, bytes).map_err(|error| match error {
            // The tail of a table is not initialised by all who make filesystems.
            Error::Corrupt(_) if in_group >= per_group.saturating_sub(descriptor.unused_inodes) => {
                Error::InodeNotInUse { inode: number }
            }
            error => error,
        })
    }

    /// The root directory.
    ///
    /// # Errors
    /// As [`Filesystem::inode`], or [`Error::NotADirectory`] if it is something else.
    pub fn root(&self) -> Result<Inode, Error> {
        let root = self.named_inode(inode::ROOT, Structure::Superblock)?;
        if root.is_dir() {
            return Ok(root);
        }
        Err(Error::NotADirectory { subject: crate::Subject::Inode(inode::ROOT) })
    }

    /// The inode that something on the device refers to: that it is free is damage then.
    pub(crate) fn named_inode(&self, number: u32, by: Structure) -> Result<Inode, Error> {
        self.inode(number).map_err(|error| match error {
            Error::InodeNotInUse { inode } => by.corrupt(Problem::NameOfFreeInode { inode }),
            error => error,
        })
    }

    /// Reads and writes of files that failed since the filesystem was opened; each is in the log, too.
    /// What was refused is not among them, because it cannot be done, or not at the moment.
    pub fn io_errors(&self) -> u64 {
        self.inner.io_errors.load(Ordering::Relaxed)
    }

    pub(crate) fn count_io_error(&self) {
        self.inner.io_errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn open_inodes(&self) -> &OpenInodes {
        &self.inner.open_inodes
    }

    pub(crate) fn options(&self) -> Options {
        self.inner.options
    }

    /// Size of the device in bytes, which may be larger than the filesystem.
    pub(crate) fn device_size(&self) -> u64 {
        self.inner.device
    }

    /// The superblock, as it is on the device now.
    pub(crate) fn superblock_now(&self) -> Result<Superblock, Error> {
        read_superblock(&*self.inner.source)
    }

    /// A block, as it is on the device now. The number has been checked.
    pub(crate) fn block_now(&self, number: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; usize::try_from(self.superblock().block_size()).unwrap_or(0)];
        self.read(self.superblock().bytes(number), &mut bytes)?;
        Ok(bytes)
    }

    pub(crate) fn group(&self, group: u32) -> Result<GroupDescriptor, Error> {
        let superblock = self.superblock();
        let corrupt = |problem| Structure::GroupDescriptor(group).corrupt(problem);
        let (number, offset) = group::location(superblock, group);
        if number >= superblock.blocks_count() {
            return Err(corrupt(Problem::BlockRange { start: number, count: 1 }));
        }
        let block = self.block(number)?;
        let bytes = block
            .get(offset..)
            .and_then(|rest| rest.get(..usize::from(superblock.descriptor_size)))
            .ok_or_else(|| corrupt(Problem::Missing { logical: u64::from(group) }))?;
        GroupDescriptor::parse(superblock, group, bytes)
    }

    /// Block `index` of a group's inode table; its neighbours are read with it.
    fn inode_block(&self, descriptor: &GroupDescriptor, index: u64) -> Result<Block, Error> {
        let number = descriptor.inode_table.saturating_add(index);
        if let Some(block) = self.inner.cache.get(number) {
            return Ok(block);
        }
        let superblock = self.superblock();
        let ahead = superblock.block_at(INODE_READ).max(1);
        let first = index.checked_div(ahead).unwrap_or(0).saturating_mul(ahead);
        let table = group::inode_table_blocks(superblock);
        let count = ahead.min(table.saturating_sub(first));
        let start = descriptor.inode_table.saturating_add(first);
        let blocks = self.blocks(start, u32::try_from(count).unwrap_or(1))?;
        let at = usize::try_from(index.saturating_sub(first)).unwrap_or(usize::MAX);
        match blocks.into_iter().nth(at) {
            Some(block) => Ok(block),
            None => self.block(number),
        }
    }

    /// A block of metadata, by number; the number has been checked.
    pub(crate) fn block(&self, number: u64) -> Result<Block, Error> {
        if let Some(block) = self.inner.cache.get(number) {
            return Ok(block);
        }
        let block: Block = self.block_now(number)?.into();
        self.inner.cache.insert(number, Arc::clone(&block));
        Ok(block)
    }

    /// `count` blocks of metadata from `start`, at most [`READ_MAX`] bytes, in one read at most.
    /// The range has been checked.
    pub(crate) fn blocks(&self, start: u64, count: u32) -> Result<Vec<Block>, Error> {
        let superblock = self.superblock();
        let range = start..start.saturating_add(u64::from(count));
        let cached: Vec<Option<Block>> =
            range.clone().map(|number| self.inner.cache.get(number)).collect();
        // From the first that is missing to the last; what lies between is read again.
        let first = cached.iter().position(Option::is_none);
        let last = cached.iter().rposition(Option::is_none);
        let (Some(first), Some(last)) = (first, last) else {
            return Ok(cached.into_iter().flatten().collect());
        };
        let block_size = usize::try_from(superblock.block_size()).unwrap_or(1).max(1);
        let length = last.saturating_sub(first).saturating_add(1).saturating_mul(block_size);
        let mut bytes = vec![0; length.min(READ_MAX as usize)];
        let skip = u64::try_from(first).unwrap_or(0);
        self.read(superblock.bytes(start.saturating_add(skip)), &mut bytes)?;

        let mut fresh = bytes.chunks_exact(block_size);
        let mut blocks = Vec::with_capacity(cached.len());
        for (at, (number, cached)) in range.zip(cached).enumerate() {
            let read = if at >= first { fresh.next() } else { None };
            match (cached, read) {
                (Some(block), _) => blocks.push(block),
                (None, Some(bytes)) => {
                    let block: Block = bytes.into();
                    self.inner.cache.insert(number, Arc::clone(&block));
                    blocks.push(block);
                }
                (None, None) => blocks.push(self.block(number)?),
            }
        }
        Ok(blocks)
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Error> {
        read(&*self.inner.source, offset, bytes)
    }
}

fn read_superblock(source: &(impl Source + ?Sized)) -> Result<Superblock, Error> {
    let mut raw = RawSuperblock::new_zeroed();
    read(source, SUPERBLOCK_OFFSET, raw.as_mut_bytes())?;
    Superblock::parse(&raw)
}

fn read(source: &(impl Source + ?Sized), offset: u64, bytes: &mut [u8]) -> Result<(), Error> {
    let length = bytes.len();
    source.read(offset, bytes).map_err(|error| Error::Source { offset, length, error })
}
