//! An open filesystem: superblock, inodes, and the blocks that metadata is in.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::block_cache::Block;
use crate::cache::Cache;
use crate::corrupt::{Problem, Structure};
use crate::fast_commit::{self, FastCommit, NameChanges, Ranges};
use crate::group::{self, GroupDescriptor};
use crate::inode::{self, Inode};
use crate::journal::{self, JournalReplay, Overlay, Recovered};
use crate::metadata::{self, Metadata};
use crate::open_inode::OpenInodes;
use crate::orphans::Orphans;
use crate::superblock::Superblock;
use crate::{CompatFeatures, Error, IncompatFeatures, Source, mmp};

/// Bytes of an inode table that are read when one inode is needed, with read-ahead.
const INODE_READ: u64 = 64 << 10;
/// Group descriptors that are kept.
const DESCRIPTORS: usize = 4096;

/// What is done with a filesystem whose journal needs recovery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recovery {
    /// The journal is replayed in memory: the filesystem is seen as it will be after the next
    /// mount, and the device stays as it is.
    #[default]
    Replay,
    /// It is refused with [`Error::NeedsRecovery`].
    Refuse,
}

/// How a filesystem is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Bytes of metadata blocks (inode tables, directories, extent blocks) that are kept in
    /// memory. Default 16 MiB.
    pub cache_bytes: usize,
    /// Bytes of metadata that are read ahead at a time, at most a quarter of `cache_bytes`: the
    /// neighbours of an inode, the next blocks of a directory or of a file's map, and what a
    /// [`Walk`](crate::Walk) comes to next. All that is wanted at a time is asked of the source
    /// together ([`Source::read_many`]). With 0 each block is read alone, when it is needed.
    /// Default 4 MiB.
    pub read_ahead: usize,
    /// Inodes that are kept in memory, at about 300 bytes each. Default 4,096.
    pub cached_inodes: usize,
    /// Extents and holes that each open [`File`](crate::File) remembers, at 176 bytes each at most. The
    /// extents of one extent block (at most 5,461) are remembered even if that is more. Default
    /// 65,536.
    pub extents_per_file: usize,
    /// What is done if the journal needs recovery. Default [`Recovery::Replay`].
    pub recovery: Recovery,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 16 << 20,
            read_ahead: 4 << 20,
            cached_inodes: 4096,
            extents_per_file: 65_536,
            recovery: Recovery::default(),
        }
    }
}

impl Options {
    /// Sets [`cache_bytes`](Self::cache_bytes).
    #[must_use]
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Sets [`read_ahead`](Self::read_ahead).
    #[must_use]
    pub fn read_ahead(mut self, bytes: usize) -> Self {
        self.read_ahead = bytes;
        self
    }

    /// Sets [`cached_inodes`](Self::cached_inodes).
    #[must_use]
    pub fn cached_inodes(mut self, inodes: usize) -> Self {
        self.cached_inodes = inodes;
        self
    }

    /// Sets [`extents_per_file`](Self::extents_per_file).
    #[must_use]
    pub fn extents_per_file(mut self, extents: usize) -> Self {
        self.extents_per_file = extents;
        self
    }

    /// Sets [`recovery`](Self::recovery).
    #[must_use]
    pub fn recovery(mut self, recovery: Recovery) -> Self {
        self.recovery = recovery;
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
    groups: Cache<u32, GroupDescriptor>,
    inodes: Cache<u32, Inode>,
    /// Size of the device in bytes.
    device: u64,
    superblock: Superblock,
    options: Options,
    recovered: Option<JournalReplay>,
    open_inodes: OpenInodes,
    fast_commit: OnceLock<FastCommit>,
    orphans: OnceLock<Orphans>,
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
    /// than the device's, its journal is needed and is damaged or on another device, another host
    /// is using it, it has a feature that this crate does not support, or the source fails.
    pub fn open(source: impl Source + 'static) -> Result<Self, Error> {
        Self::open_with(source, Options::default())
    }

    /// Opens the filesystem on `source`.
    ///
    /// # Errors
    /// As [`Filesystem::open`].
    pub fn open_with(source: impl Source + 'static, options: Options) -> Result<Self, Error> {
        Self::open_on(Arc::new(source), None, options)
    }

    /// Opens the filesystem on `source`, whose journal is on a device of its own, `journal`. That
    /// is read only if the journal needs recovery, but is checked to be the right one.
    ///
    /// # Errors
    /// As [`Filesystem::open`]; [`Error::WrongJournal`].
    pub fn open_with_journal(
        source: impl Source + 'static,
        journal: impl Source + 'static,
        options: Options,
    ) -> Result<Self, Error> {
        Self::open_on(Arc::new(source), Some(Arc::new(journal)), options)
    }

    fn open_on(
        source: Arc<dyn Source>,
        journal: Option<Arc<dyn Source>>,
        options: Options,
    ) -> Result<Self, Error> {
        let superblock = metadata::read_superblock(&*source)?;
        let fs = Self::as_it_is(Arc::clone(&source), superblock, options)?;
        check_size(fs.superblock(), fs.device_size())?;
        mmp::check(&fs)?;
        let superblock = fs.superblock();
        let has_journal = superblock.compat_features().contains(CompatFeatures::HAS_JOURNAL);
        if !superblock.has(IncompatFeatures::RECOVER) || !has_journal {
            if let Some(journal) = journal {
                journal::identify_external(&fs, &*journal)?;
            }
            return fs.with_orphans();
        }
        if options.recovery == Recovery::Refuse {
            return Err(Error::NeedsRecovery);
        }
        let journal = match journal {
            Some(journal) => journal::find_external(&fs, journal)?,
            None if superblock.has_external_journal() => {
                return Err(Error::NeedsJournal { uuid: superblock.journal_uuid });
            }
            None => journal::find_internal(&fs, Arc::clone(&source))?,
        };
        let recovered = journal::recover(&fs, journal)?;
        fs.recovered_to(source, recovered)
    }

    /// The filesystem as it is after recovery; this is what is on the device.
    fn recovered_to(&self, source: Arc<dyn Source>, recovered: Recovered) -> Result<Self, Error> {
        let Recovered { mut summary, overlay, next_tid, fast_commit_area } = recovered;
        let JournalReplay { transactions, blocks, revoked, .. } = summary;
        log::info!(
            "journal replayed in memory: {transactions} transaction(s), {blocks} block(s), \
             {revoked} revoked; the next is transaction {next_tid}"
        );
        // The superblock is journalled like everything else.
        let before = self.superblock();
        let superblock = metadata::replayed_superblock(&*source, &overlay, before)?;
        let (value, expected) = (superblock.block_size().into(), before.block_size().into());
        if value != expected {
            let problem = Problem::Mismatch { field: "block size", value, expected };
            return Err(Structure::Superblock.corrupt(problem));
        }
        check_size(&superblock, self.device_size())?;
        let (device, options) = (self.device_size(), self.options());
        let mut fs = Self::over(source, superblock, Some(overlay), device, options);
        let changes = match fast_commit_area {
            Some(mut area) => fast_commit::replay(&fs, &mut area, next_tid)?,
            None => None,
        };
        if let Some(changes) = changes {
            summary.fast_commits = changes.commits();
            let _ = fs.inner.fast_commit.set(changes);
        }
        if let Some(inner) = Arc::get_mut(&mut fs.inner) {
            inner.recovered = Some(summary);
        }
        fs.with_orphans()
    }

    /// The filesystem with the changes of fast commits; it keeps no inodes.
    #[cfg(test)]
    pub(crate) fn with_fast_commits(self, changes: FastCommit) -> Self {
        let _ = self.inner.fast_commit.set(changes);
        self
    }

    /// The filesystem as it is when the orphans have been seen to.
    fn with_orphans(self) -> Result<Self, Error> {
        let _ = self.inner.orphans.set(Orphans::read(&self)?);
        Ok(self)
    }

    /// The filesystem as its blocks are on `source`, whether or not they are complete, up to date
    /// and in use.
    pub(crate) fn as_it_is(
        source: Arc<dyn Source>,
        superblock: Superblock,
        options: Options,
    ) -> Result<Self, Error> {
        let (block, device_block) = (superblock.block_size(), source.block_size());
        if block < device_block {
            return Err(Error::BlockTooSmall { block, device: device_block });
        }
        let device = source.size();
        Ok(Self::over(source, superblock, None, device, options))
    }

    /// A filesystem with this superblock, which has been checked.
    fn over(
        source: Arc<dyn Source>,
        superblock: Superblock,
        overlay: Option<Overlay>,
        device: u64,
        options: Options,
    ) -> Self {
        let block_size = superblock.block_size();
        Self {
            inner: Arc::new(Inner {
                metadata: Metadata::new(source, overlay, block_size, &options),
                groups: Cache::new(DESCRIPTORS),
                inodes: Cache::new(options.cached_inodes),
                device,
                superblock,
                options,
                recovered: None,
                open_inodes: OpenInodes::default(),
                fast_commit: OnceLock::new(),
                orphans: OnceLock::new(),
                io_errors: AtomicU64::new(0),
            }),
        }
    }

    /// What of the journal was replayed when the filesystem was opened; `None` if it needed no
    /// recovery.
    pub fn recovered(&self) -> Option<JournalReplay> {
        self.inner.recovered
    }

    /// The blocks that the journal has newer contents of, if it was replayed.
    pub(crate) fn overlay(&self) -> Option<&Overlay> {
        self.inner.metadata.overlay()
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
        if let Some(inode) = self.inner.inodes.get(number) {
            return Ok(inode);
        }
        let inode = self.parse_inode(number, &self.inode_bytes(number)?)?;
        // While orphans are collected, what they lose is not known yet.
        if self.inner.orphans.get().is_some() {
            self.inner.inodes.insert(number, inode.clone());
        }
        Ok(inode)
    }

    /// The inode that is in `bytes`, as it is after a mount.
    pub(crate) fn parse_inode(&self, number: u32, bytes: &InodeBytes) -> Result<Inode, Error> {
        let inode =
            Inode::parse(self.superblock(), number, bytes).map_err(|error| match error {
                // The tail of a table is not initialised by all who make filesystems.
                Error::Corrupt(_) if bytes.may_be_stale => Error::InodeNotInUse { inode: number },
                error => error,
            })?;
        let inode = match self.inner.fast_commit.get() {
            Some(changes) => changes.counted(self, inode)?,
            None => inode,
        };
        match self.inner.orphans.get() {
            Some(orphans) if orphans.contains(number) => {
                let blocks = orphans.blocks_512(self, &inode)?;
                Ok(inode.with_blocks_512(blocks))
            }
            _ => Ok(inode),
        }
    }

    /// What fast commits have changed of a file's map.
    pub(crate) fn range_changes(&self, number: u32) -> Option<&Ranges> {
        self.inner.fast_commit.get()?.ranges(number)
    }

    /// What fast commits have changed of a directory's names.
    pub(crate) fn name_changes(&self, directory: u32) -> Option<&Arc<NameChanges>> {
        self.inner.fast_commit.get()?.names(directory)
    }

    /// Whether the next mount truncates the inode to its size.
    pub(crate) fn is_truncated(&self, number: u32) -> bool {
        self.inner.orphans.get().is_some_and(|orphans| orphans.contains(number))
    }

    /// The inode after `number` in the list of orphans; 0 after the last.
    pub(crate) fn next_orphan(&self, number: u32) -> Result<u32, Error> {
        inode::next_orphan(number, &self.inode_bytes(number)?)
    }

    /// The inode `number` as it is in its table, or as fast commits left it, unchecked.
    pub(crate) fn inode_bytes(&self, number: u32) -> Result<InodeBytes, Error> {
        self.inode_bytes_near(number, &mut Near::default())
    }

    /// The same for one inode after the other.
    pub(crate) fn inode_bytes_near(
        &self,
        number: u32,
        near: &mut Near,
    ) -> Result<InodeBytes, Error> {
        if let Some(block) = self.inner.fast_commit.get().and_then(|changes| changes.inode(number))
        {
            let (block, range) = (Arc::clone(block), 0..block.len());
            return Ok(InodeBytes { block, range, may_be_stale: false });
        }
        let place = self.inode_place(number, near)?;
        let at = place.block();
        let block = match &near.block {
            Some((number, block)) if *number == at => Arc::clone(block),
            _ => {
                let block = self.inode_block(&place)?;
                near.block = Some((at, Arc::clone(&block)));
                block
            }
        };
        place.bytes(number, block)
    }

    /// The blocks that inodes are in, whose numbers are in order. Group descriptors are read for that.
    /// What is no inode, or cannot be found, is left out.
    pub(crate) fn inode_blocks(&self, numbers: &[u32]) -> Vec<Range<u64>> {
        let superblock = self.superblock();
        let group_of =
            |number: &u32| number.checked_sub(1)?.checked_div(superblock.inodes_per_group());
        let unknown = numbers
            .chunk_by(|a, b| group_of(a) == group_of(b))
            .filter_map(|group| group_of(group.first()?))
            .filter(|&group| !self.inner.groups.contains(group))
            .map(|group| group::location(superblock, group).0);
        self.prefetch(unknown.map(|number| number..number.saturating_add(1)));

        let mut near = Near::default();
        let mut blocks: Vec<Range<u64>> = Vec::new();
        for &number in numbers {
            let Ok(place) = self.inode_place(number, &mut near) else { continue };
            let block = place.block();
            match blocks.last_mut() {
                Some(last) if last.contains(&block) => {}
                Some(last) if last.end == block => last.end = block.saturating_add(1),
                _ => blocks.push(block..block.saturating_add(1)),
            }
        }
        blocks
    }

    /// Where in the filesystem the inode `number` is, bytes.
    pub(crate) fn inode_address(&self, number: u32) -> Result<u64, Error> {
        let place = self.inode_place(number, &mut Near::default())?;
        Ok(place.address(self.superblock()))
    }

    /// Where the inode `number` is.
    fn inode_place(&self, number: u32, near: &mut Near) -> Result<InodePlace, Error> {
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
        let descriptor = match near.group {
            Some((number, descriptor)) if number == group => descriptor,
            _ => near.group.insert((group, self.group(group)?)).1,
        };
        let offset = u64::from(in_group).saturating_mul(u64::from(superblock.inode_size()));
        let mask = u64::from(superblock.block_size()).saturating_sub(1);
        let start = usize::try_from(offset & mask).unwrap_or(usize::MAX);
        Ok(InodePlace {
            table: descriptor.inode_table,
            index: superblock.block_at(offset),
            range: start..start.saturating_add(usize::from(superblock.inode_size())),
            may_be_stale: in_group >= per_group.saturating_sub(descriptor.unused_inodes),
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
        self.inner.metadata.superblock()
    }

    /// A block, as it is on the device now. The number has been checked.
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

    /// The block of an inode table; its neighbours are read with it.
    fn inode_block(&self, place: &InodePlace) -> Result<Block, Error> {
        let number = place.block();
        if !self.inner.metadata.is_cached(number) {
            let superblock = self.superblock();
            let ahead = superblock.block_at(INODE_READ).max(1);
            let first = place.index.checked_div(ahead).unwrap_or(0).saturating_mul(ahead);
            let end = first.saturating_add(ahead).min(group::inode_table_blocks(superblock));
            let in_table = |index: u64| place.table.saturating_add(index);
            self.prefetch(std::iter::once(in_table(first)..in_table(end)));
        }
        self.block(number)
    }

    /// A block of metadata, by number; the number has been checked.
    pub(crate) fn block(&self, number: u64) -> Result<Block, Error> {
        self.inner.metadata.block(number)
    }

    /// Most bytes of metadata that are read ahead at a time; 0 for none.
    pub(crate) fn read_ahead(&self) -> u64 {
        self.superblock().bytes(u64::try_from(self.inner.metadata.ahead()).unwrap_or(0))
    }

    /// Whether a block is in memory.
    pub(crate) fn is_cached(&self, number: u64) -> bool {
        self.inner.metadata.is_cached(number)
    }

    /// Reads blocks that will be needed, all at once: those that come first, as far as the limit for
    /// that goes. Numbers may be wrong, blocks be named twice; what fails is read again when it
    /// is needed.
    pub(crate) fn prefetch(&self, wanted: impl IntoIterator<Item = Range<u64>>) {
        let end = self.superblock().blocks_count();
        let inside = |range: Range<u64>| range.start.min(end)..range.end.min(end);
        self.inner.metadata.prefetch(wanted.into_iter().map(inside));
    }
}

/// Where an inode was found: the next one as a rule is not far.
#[derive(Default)]
pub(crate) struct Near {
    group: Option<(u32, GroupDescriptor)>,
    block: Option<(u64, Block)>,
}

/// Where an inode is.
struct InodePlace {
    /// First block of the table.
    table: u64,
    /// Block in the table.
    index: u64,
    /// Bytes in the block.
    range: Range<usize>,
    /// Whether the table was perhaps never initialised here.
    may_be_stale: bool,
}

impl InodePlace {
    /// The block that the inode is in.
    fn block(&self) -> u64 {
        self.table.saturating_add(self.index)
    }

    /// Where in the filesystem the inode is, bytes.
    fn address(&self, superblock: &Superblock) -> u64 {
        let in_block = u64::try_from(self.range.start).unwrap_or(u64::MAX);
        superblock.bytes(self.block()).saturating_add(in_block)
    }

    /// The inode `number` in its block.
    fn bytes(self, number: u32, block: Block) -> Result<InodeBytes, Error> {
        let Self { range, may_be_stale, .. } = self;
        if block.get(range.clone()).is_none() {
            return Err(Structure::Inode(number).corrupt(Problem::Missing { logical: 0 }));
        }
        Ok(InodeBytes { block, range, may_be_stale })
    }
}

/// Refuses a filesystem that is larger than its device.
fn check_size(superblock: &Superblock, device: u64) -> Result<(), Error> {
    let needed = superblock.blocks_count().checked_mul(u64::from(superblock.block_size()));
    match needed {
        Some(needed) if needed <= device => Ok(()),
        _ => Err(Error::Truncated { needed: needed.unwrap_or(u64::MAX), device }),
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
