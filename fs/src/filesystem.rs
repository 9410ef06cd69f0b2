//! An open filesystem: its superblock, its inodes, and the caches of its metadata.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::blocks::block_cache::Block;
use crate::blocks::cache::Cache;
use crate::blocks::inode_table::InodeBytes;
use crate::blocks::metadata::Metadata;
use crate::error::Error;
use crate::file::open_inode::OpenInodes;
use crate::format::corrupt::{Problem, Structure};
use crate::format::group;
use crate::format::group::GroupDescriptor;
use crate::format::inode;
use crate::format::inode::Inode;
use crate::format::superblock::Superblock;
use crate::mount::options::Options;
use crate::recovery::fast_commit::{FastCommit, NameChanges, Ranges};
use crate::recovery::journal::{JournalReplay, Overlay};
use crate::recovery::orphans::Orphans;

/// An open ext2, ext3 or ext4 filesystem, read-only.
///
/// A clone is another handle to the same filesystem and costs a reference count. All methods may be
/// called from several threads at the same time.
#[derive(Clone)]
pub struct Filesystem {
    pub(crate) inner: Arc<Inner>,
}

/// The state shared by all handles of a filesystem.
pub(crate) struct Inner {
    pub metadata: Metadata,
    pub groups: Cache<u32, GroupDescriptor>,
    pub inodes: Cache<u32, Inode>,
    /// Size of the device, bytes.
    pub device: u64,
    pub superblock: Superblock,
    pub options: Options,
    pub recovered: Option<JournalReplay>,
    pub open_inodes: OpenInodes,
    pub fast_commit: OnceLock<FastCommit>,
    pub orphans: OnceLock<Orphans>,
    pub io_errors: AtomicU64,
}

impl fmt::Debug for Filesystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filesystem").field("superblock", self.superblock()).finish_non_exhaustive()
    }
}

impl Filesystem {
    /// Returns the counts of the journal replay; `None` if the filesystem needed no recovery.
    pub fn recovered(&self) -> Option<JournalReplay> {
        self.inner.recovered
    }

    /// Returns the overlay of blocks with newer contents in the journal, if the journal was
    /// replayed.
    pub(crate) fn overlay(&self) -> Option<&Overlay> {
        self.inner.metadata.overlay()
    }

    /// Returns the superblock as it was when the filesystem was opened.
    pub fn superblock(&self) -> &Superblock {
        &self.inner.superblock
    }

    /// Returns the inode `number`, which may be a reserved one.
    ///
    /// # Errors
    /// [`Error::NoSuchInode`], [`Error::InodeNotInUse`], damage to the inode or to its group's
    /// descriptor, or a failure of the source.
    pub fn inode(&self, number: u32) -> Result<Inode, Error> {
        if let Some(inode) = self.inner.inodes.get(number) {
            return Ok(inode);
        }
        let inode = self.parse_inode(number, &self.inode_bytes(number)?)?;
        // Do not cache inodes during recovery, because fast commits may still change them.
        if self.inner.orphans.get().is_some() {
            self.inner.inodes.insert(number, inode.clone());
        }
        Ok(inode)
    }

    /// Parses an inode and applies the changes of recovery to it.
    pub(crate) fn parse_inode(&self, number: u32, bytes: &InodeBytes) -> Result<Inode, Error> {
        Inode::parse(self.superblock(), number, bytes).map_err(|error| match error {
            // Some versions of mkfs do not initialise the end of an inode table.
            Error::Corrupt(_) if bytes.may_be_stale => Error::InodeNotInUse { inode: number },
            error => error,
        })
    }

    /// Returns the changes of fast commits to a file's map.
    pub(crate) fn range_changes(&self, number: u32) -> Option<&Ranges> {
        self.inner.fast_commit.get()?.ranges(number)
    }

    /// Returns the changes of fast commits to a directory's names.
    pub(crate) fn name_changes(&self, directory: u32) -> Option<&Arc<NameChanges>> {
        self.inner.fast_commit.get()?.names(directory)
    }

    /// Returns true if the next mount truncates the inode to its size.
    pub(crate) fn is_truncated(&self, number: u32) -> bool {
        self.inner.orphans.get().is_some_and(|orphans| orphans.contains(number))
    }

    /// Returns the inode after `number` in the list of orphans; 0 after the last.
    pub(crate) fn next_orphan(&self, number: u32) -> Result<u32, Error> {
        inode::next_orphan(number, &self.inode_bytes(number)?)
    }

    /// Returns the root directory.
    ///
    /// # Errors
    /// As [`Filesystem::inode`], or [`Error::NotADirectory`] if the inode is not a directory.
    pub fn root(&self) -> Result<Inode, Error> {
        let root = self.named_inode(inode::ROOT, Structure::Superblock)?;
        if root.is_dir() {
            return Ok(root);
        }
        Err(Error::NotADirectory { subject: crate::error::Subject::Inode(inode::ROOT) })
    }

    /// Returns the inode that the structure `by` refers to. A reference to a free inode is damage.
    pub(crate) fn named_inode(&self, number: u32, by: Structure) -> Result<Inode, Error> {
        self.inode(number).map_err(|error| match error {
            Error::InodeNotInUse { inode } => by.corrupt(Problem::NameOfFreeInode { inode }),
            error => error,
        })
    }

    /// Returns the number of reads and writes of files that failed since the filesystem was opened;
    /// each is also logged. Requests that were rejected as invalid, unsupported or busy are not
    /// counted.
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

    /// Returns the size of the device in bytes, which may be larger than the filesystem.
    pub(crate) fn device_size(&self) -> u64 {
        self.inner.device
    }

    /// Reads the superblock from the device again.
    pub(crate) fn superblock_now(&self) -> Result<Superblock, Error> {
        self.inner.metadata.superblock()
    }

    /// Reads a block from the device again. The caller has checked the number.
    pub(crate) fn block_now(&self, number: u64) -> Result<Vec<u8>, Error> {
        self.inner.metadata.block_now(number)
    }

    pub(crate) fn group(&self, group: u32) -> Result<GroupDescriptor, Error> {
        if let Some(descriptor) = self.inner.groups.get(group) {
            return Ok(descriptor);
        }
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
        let descriptor = GroupDescriptor::parse(superblock, group, bytes)?;
        self.inner.groups.insert(group, descriptor);
        Ok(descriptor)
    }

    /// Returns a block of metadata. The caller has checked the number.
    pub(crate) fn block(&self, number: u64) -> Result<Block, Error> {
        self.inner.metadata.block(number)
    }

    /// Returns the maximum of one read-ahead in bytes; 0 if read-ahead is off.
    pub(crate) fn read_ahead(&self) -> u64 {
        self.superblock().bytes(u64::try_from(self.inner.metadata.ahead()).unwrap_or(0))
    }

    /// Returns true if a block is cached.
    pub(crate) fn is_cached(&self, number: u64) -> bool {
        self.inner.metadata.is_cached(number)
    }

    /// Reads ahead blocks that will be needed, in parallel, from the first on up to the limit of a
    /// read-ahead. Numbers may be out of range or repeated. A block that fails is read again when
    /// it is needed.
    pub(crate) fn prefetch(&self, wanted: impl IntoIterator<Item = Range<u64>>) {
        let end = self.superblock().blocks_count();
        let inside = |range: Range<u64>| range.start.min(end)..range.end.min(end);
        self.inner.metadata.prefetch(wanted.into_iter().map(inside));
    }
}
