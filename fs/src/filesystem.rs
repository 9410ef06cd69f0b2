//! An open filesystem: its superblock, its inodes, and the caches of its metadata.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::blocks::block_cache::Block;
use crate::blocks::cache::Cache;
use crate::blocks::inode_table::{InodeBytes, Near};
use crate::blocks::metadata::Metadata;
use crate::dir::changes::NameChanges;
use crate::error::{Error, Subject};
use crate::file::open_inode::OpenInodes;
use crate::format::corrupt::{Corrupt, Problem, Structure};
use crate::format::inode;
use crate::format::inode::Inode;
use crate::format::superblock::Superblock;
use crate::map::{FileMap, inline};
use crate::mount::options::Options;
use crate::number::{InodeNumber, PhysicalBlock, as_u64};
use crate::recovery::fast_commit::changes::FastCommit;
use crate::recovery::journal::summary::JournalReplay;

/// An open ext2, ext3 or ext4 filesystem, read-only.
///
/// A clone is another handle to the same filesystem and costs a reference count. All methods may be
/// called from several threads at the same time.
///
/// # Examples
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// # let image = sample.path();
/// use std::fs::File;
///
/// use nvio_ext4::{Filesystem, Options};
///
/// let fs = Filesystem::open(File::open(&image)?)?;
/// let fs = Filesystem::open_with(File::open(&image)?, Options::default().cache_bytes(4 << 20))?;
/// // With the device of an external journal, which this filesystem does not have.
/// let (image, journal) = (File::open(&image)?, File::open(&image)?);
/// assert!(Filesystem::open_with_journal(image, journal, Options::default()).is_err());
///
/// // Names.
/// let link = fs.lookup_no_follow("/link")?;
/// assert_eq!(fs.read_link(&link)?, b"hello.txt");
/// let inode = fs.lookup("/link")?;
/// assert_eq!(inode.number(), fs.lookup("/hello.txt")?.number());
/// for entry in fs.read_dir(&fs.root()?)? {
///     let entry = entry?;
///     let inode = fs.inode(entry.inode)?;
///     println!("{:>8} {}", inode.size(), entry.name.escape_ascii());
/// }
/// let mut walk = fs.walk("/", &fs.root()?);
/// while let Some(visit) = walk.step() {
///     println!("{}", visit?.path.escape_ascii());
/// }
///
/// // Contents, extents, attributes.
/// let file = fs.file(&inode)?;
/// assert_eq!(fs.extents(&inode)?.count(), 1);
/// for attribute in fs.xattrs(&inode)? {
///     println!("{}", attribute?.name.escape_ascii());
/// }
/// assert_eq!(fs.xattr(&inode, "user.comment")?, None);
/// assert!(!fs.has_acl(&inode)? && fs.acl(&inode)?.is_none());
/// assert!(fs.default_acl(&fs.root()?)?.is_none());
///
/// // The filesystem as a whole.
/// assert_eq!(fs.superblock().block_size(), 1024);
/// assert!(fs.statfs()?.free_blocks > 1000);
/// assert!(fs.recovered().is_none(), "the journal was empty");
/// assert_eq!((fs.io_errors(), fs.take_damage().len()), (0, 0));
/// let writable = fs.writable()?;
/// let file = writable.writable_file(&inode)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Filesystem {
    pub(crate) inner: Arc<Inner>,
}

/// The state shared by all handles of a filesystem.
pub(crate) struct Inner {
    pub metadata: Metadata,
    pub inodes: Cache<InodeNumber, Inode>,
    /// Size of the device, bytes.
    pub device: u64,
    pub options: Options,
    pub recovered: Option<JournalReplay>,
    pub open_inodes: Arc<OpenInodes>,
    pub fast_commit: OnceLock<FastCommit>,
    /// The numbers of the inodes that the next mount truncates to their sizes.
    pub orphans: OnceLock<HashSet<InodeNumber>>,
}

impl fmt::Debug for Filesystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filesystem").field("superblock", self.superblock()).finish_non_exhaustive()
    }
}

impl Filesystem {
    /// Returns the counts of the journal replay; `None` if the filesystem needed no recovery.
    ///
    /// See the [example](Self#examples).
    pub fn recovered(&self) -> Option<JournalReplay> {
        self.inner.recovered
    }

    /// Returns the damage that was found and that no call failed for, since the last call: a group
    /// descriptor with a wrong checksum, a hash tree that cannot be used, a broken list of orphans.
    /// At most 1,024 are listed.
    ///
    /// See the [example](Self#examples).
    pub fn take_damage(&self) -> Vec<Corrupt> {
        self.metadata().damage().take()
    }

    /// Returns the changes of fast commits, if some were replayed in memory.
    pub(crate) fn fast_commits(&self) -> Option<&FastCommit> {
        self.inner.fast_commit.get()
    }

    /// Adds damage that a read went around. Other errors are only logged.
    pub(crate) fn add_damage(&self, error: Error) {
        match error {
            Error::Corrupt(damage) => self.metadata().damage().add(*damage),
            error => log::warn!("{error}"),
        }
    }

    /// Returns the reader of metadata blocks.
    pub(crate) fn metadata(&self) -> &Metadata {
        &self.inner.metadata
    }

    /// Returns the superblock as it was when the filesystem was opened.
    ///
    /// See the [example](Self#examples).
    pub fn superblock(&self) -> &Superblock {
        self.inner.metadata.superblock()
    }

    /// Returns the inode `number`, which may be a reserved one.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::NoSuchInode`], [`Error::InodeNotInUse`], damage to the inode or to its group's
    /// descriptor, or a failure of the source.
    pub fn inode(&self, number: impl Into<InodeNumber>) -> Result<Inode, Error> {
        let number = number.into();
        if let Some(inode) = self.inner.inodes.get(number) {
            return Ok(inode);
        }
        let version = self.metadata().version();
        let inode = self.parse_inode(number, &self.inode_bytes(number)?)?;
        // Do not cache inodes during recovery, because fast commits may still change them.
        if self.inner.orphans.get().is_some() && inode.links() > 0 {
            let keep = || self.inner.inodes.insert(number, inode.clone());
            self.metadata().keep_parsed(version, keep);
        }
        Ok(inode)
    }

    /// Parses an inode and applies the changes of recovery to it.
    pub(crate) fn parse_inode(
        &self,
        number: InodeNumber,
        bytes: &InodeBytes,
    ) -> Result<Inode, Error> {
        Inode::parse(self.superblock(), number, bytes).or_else(|error| match error {
            // Some versions of mkfs do not initialise the end of an inode table.
            Error::Corrupt(_) if bytes.may_be_stale => Err(Error::InodeNotInUse { inode: number }),
            Error::InodeNotInUse { .. } if self.metadata().is_unlinked(number) => {
                Inode::parse_orphan(self.superblock(), number, bytes)
            }
            error => Err(error),
        })
    }

    /// Returns the bytes of inode `number`, unchecked, from its table or from a fast commit.
    pub(crate) fn inode_bytes(&self, number: InodeNumber) -> Result<InodeBytes, Error> {
        self.inode_bytes_near(number, &mut Near::default())
    }

    /// Returns the bytes of inode `number`, like [`Self::inode_bytes`]. `near` is the location of
    /// the last inode, which saves lookups in the caches.
    pub(crate) fn inode_bytes_near(
        &self,
        number: InodeNumber,
        near: &mut Near,
    ) -> Result<InodeBytes, Error> {
        match self.inner.fast_commit.get().and_then(|changes| changes.inode(number)) {
            Some(block) => Ok(InodeBytes::patched(block)),
            None => self.inner.metadata.table_bytes(number, near),
        }
    }

    /// Returns the whole space for inline data in the inode, which may be longer or shorter than
    /// the file. The rest of a longer file is zero.
    pub(crate) fn inline_data(&self, inode: &Inode) -> Result<Box<[u8]>, Error> {
        let number = inode.number();
        inline::data(self.superblock(), number, &self.inode_bytes(number)?)
    }

    /// Returns the map of an inode, with the changes of fast commits and pending truncations.
    pub(crate) fn map<'a>(&'a self, inode: &'a Inode) -> FileMap<'a> {
        let Inner { metadata, fast_commit, orphans, .. } = &*self.inner;
        let number = inode.number();
        FileMap {
            metadata,
            inode,
            changes: fast_commit.get().and_then(|changes| changes.ranges(number)),
            is_truncated: orphans.get().is_some_and(|orphans| orphans.contains(&number)),
        }
    }

    /// Returns the changes of fast commits to a directory's names.
    pub(crate) fn name_changes(&self, directory: InodeNumber) -> Option<&Arc<NameChanges>> {
        self.inner.fast_commit.get()?.names(directory)
    }

    /// Returns the inode after `number` in the list of orphans; 0 after the last.
    pub(crate) fn next_orphan(&self, number: InodeNumber) -> Result<InodeNumber, Error> {
        inode::next_orphan(number, &self.inode_bytes(number)?)
    }

    /// Returns the root directory.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`Filesystem::inode`], or [`Error::NotADirectory`] if the inode is not a directory.
    pub fn root(&self) -> Result<Inode, Error> {
        let root = self.named_inode(InodeNumber::ROOT, Structure::Superblock)?;
        if root.is_dir() {
            return Ok(root);
        }
        Err(Error::NotADirectory { subject: Subject::Inode(InodeNumber::ROOT) })
    }

    /// Returns the inode that the structure `by` refers to. A reference to a free inode is damage.
    pub(crate) fn named_inode(&self, number: InodeNumber, by: Structure) -> Result<Inode, Error> {
        self.inode(number).map_err(|error| match error {
            Error::InodeNotInUse { inode } => by.corrupt(Problem::NameOfFreeInode { inode }),
            error => error,
        })
    }

    /// Returns the number of reads and writes of files that failed since the filesystem was opened;
    /// each is also logged. Requests that were rejected as invalid, unsupported or busy are not
    /// counted.
    ///
    /// See the [example](Self#examples).
    pub fn io_errors(&self) -> u64 {
        self.inner.open_inodes.io_errors()
    }

    pub(crate) fn open_inodes(&self) -> &Arc<OpenInodes> {
        &self.inner.open_inodes
    }

    pub(crate) fn options(&self) -> Options {
        self.inner.options
    }

    /// Returns the size of the device in bytes, which may be larger than the filesystem.
    pub(crate) fn device_size(&self) -> u64 {
        self.inner.device
    }

    /// Returns a block of metadata. The caller has checked the number.
    pub(crate) fn block(&self, number: PhysicalBlock) -> Result<Block, Error> {
        self.inner.metadata.block(number)
    }

    /// Returns the maximum of one read-ahead in bytes; 0 if read-ahead is off.
    pub(crate) fn read_ahead(&self) -> u64 {
        self.superblock().bytes(as_u64(self.inner.metadata.ahead()))
    }

    /// Reads ahead blocks that will be needed, in parallel, from the first on up to the limit of a
    /// read-ahead. Numbers may be out of range or repeated. A block that fails is read again when
    /// it is needed.
    pub(crate) fn prefetch(&self, wanted: impl IntoIterator<Item = PhysicalBlock>) {
        self.inner.metadata.prefetch(wanted);
    }
}
