//! An open filesystem: superblock, inodes, and the blocks that metadata is in.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::block_cache::Block;
use crate::corrupt::{Problem, Structure};
use crate::group::{self, GroupDescriptor};
use crate::inode::{self, Inode};
use crate::metadata::{self, Metadata};
use crate::open_inode::OpenInodes;
use crate::raw_superblock::SUPERBLOCK_OFFSET;
use crate::superblock::Superblock;
use crate::{Error, IncompatFeatures, Source, mmp};

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
    metadata: Metadata,
    /// Size of the device in bytes.
    device: u64,
    superblock: Superblock,
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
        let superblock = metadata::read_superblock(&source)?;
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
        let metadata = Metadata::new(Box::new(source), block, options.cache_bytes);
        let fs = Self {
            inner: Arc::new(Inner {
                metadata,
                device,
                superblock,
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
        let bytes = self.inode_bytes(number)?;
        Inode::parse(self.superblock(), number, &bytes).map_err(|error| match error {
            // The tail of a table is not initialised by all who make filesystems.
            Error::Corrupt(_) if bytes.may_be_stale => Error::InodeNotInUse { inode: number },
            error => error,
        })
    }

    /// The inode `number` as it is in its table, unchecked.
    pub(crate) fn inode_bytes(&self, number: u32) -> Result<InodeBytes, Error> {
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
        let size = usize::from(superblock.inode_size());
        let offset = u64::from(in_group).saturating_mul(u64::from(superblock.inode_size()));
        let block = self.inode_block(&descriptor, superblock.block_at(offset))?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX) & block.len().saturating_sub(1);
        let range = start..start.saturating_add(size);
        if block.get(range.clone()).is_none() {
            return Err(Structure::Inode(number).corrupt(Problem::Missing { logical: 0 }));
        }
        let may_be_stale = in_group >= per_group.saturating_sub(descriptor.unused_inodes);
        Ok(InodeBytes { block, range, may_be_stale })
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
        self.inner.metadata.superblock()
    }

    /// A block, as it is on the device now. The number has been checked.
    pub(crate) fn block_now(&self, number: u64) -> Result<Vec<u8>, Error> {
        self.inner.metadata.block_now(number)
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
        if let Some(block) = self.inner.metadata.cached(number) {
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
        self.inner.metadata.block(number)
    }

    /// `count` blocks of metadata from `start`, at most [`READ_MAX`](crate::metadata::READ_MAX)
    /// bytes, in one read at most. The range has been checked.
    pub(crate) fn blocks(&self, start: u64, count: u32) -> Result<Vec<Block>, Error> {
        self.inner.metadata.blocks(start, count)
    }
}

/// An inode in its block, as long as the superblock says.
pub(crate) struct InodeBytes {
    block: Block,
    range: Range<usize>,
    /// Whether the table was perhaps never initialised here.
    may_be_stale: bool,
}

impl Deref for InodeBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.block.get(self.range.clone()).unwrap_or_default()
    }
}
