//! Options for opening a filesystem.

/// The handling of a filesystem whose journal needs recovery.
///
/// See the [example](Options#examples).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recovery {
    /// Replay the journal in memory. Readers see the state that the next mount would recover, and
    /// the device is not changed.
    #[default]
    Replay,
    /// Fail with [`Error::NeedsRecovery`](crate::Error::NeedsRecovery).
    Refuse,
    /// Do not read the journal, the fast commits and the orphans, like the kernel's `ro,noload`:
    /// for a filesystem whose journal is damaged or lost. Changes in the journal are missing, and
    /// metadata may be inconsistent. The filesystem cannot be written to.
    Skip,
}

/// Options for opening a filesystem.
///
/// # Examples
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// # let image = sample.path();
/// use nvio_ext4::{Error, Filesystem, Options, Recovery, SuperblockCopy};
///
/// let options = Options::default()
///     .cache_bytes(4 << 20)
///     .read_ahead(1 << 20)
///     .cached_inodes(1000)
///     .extents_per_file(10_000)
///     .recovery(Recovery::Refuse)
///     .access_times(false);
/// let fs = Filesystem::open_with(std::fs::File::open(&image)?, options)?;
///
/// // For rescuing data: the magic number of the superblock is lost, and the journal is not read.
/// # let image = nvio_testkit::image::Sample::with(&["-b", "1024", "-g", "1024"]);
/// # let image = image.path();
/// let mut image = std::fs::read(&image)?;
/// image[1080..1082].fill(0);
/// let error = Filesystem::open(image.clone()).unwrap_err();
/// let Error::BadSuperblock { copies, .. } = error else { panic!("{error}") };
/// let SuperblockCopy { block, block_size } = copies[0];
/// let options = Options::default()
///     .superblock(block)
///     .block_size(block_size)
///     .recovery(Recovery::Skip)
///     .ignore_mmp(true);
/// assert!(Filesystem::open_with(image, options)?.lookup("/hello.txt").is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Capacity of the cache of metadata blocks (inode tables, directories, extent blocks), bytes.
    /// Default 16 MiB.
    pub cache_bytes: usize,
    /// Maximum length of one read-ahead of metadata in bytes, limited to a quarter of
    /// `cache_bytes`: the neighbours of an inode, the next blocks of a directory or of a file's
    /// map, and the next inodes of a [`Walk`](crate::Walk). The blocks of a read-ahead are read in
    /// parallel ([`BlockSource::read_many`](crate::BlockSource::read_many)). 0 disables read-ahead.
    /// Default 4 MiB.
    pub read_ahead: usize,
    /// Maximum number of cached inodes, of about 300 bytes each. Default 4,096.
    pub cached_inodes: usize,
    /// Maximum number of extents and holes that each open [`File`](crate::File) caches, of at most
    /// 176 bytes each. The extents of one extent block (at most 5,461) are cached even if they
    /// exceed this. Default 65,536.
    pub extents_per_file: usize,
    /// Handling of a journal that needs recovery. Default [`Recovery::Replay`].
    pub recovery: Recovery,
    /// Number of the block with the copy of the superblock to use, like `e2fsck -b`; the group
    /// descriptors that follow the copy are used, too. `None`, the default, is the primary
    /// superblock. The filesystem cannot be written to with a copy.
    pub superblock: Option<u64>,
    /// Size in bytes of the blocks that [`superblock`](Self::superblock) counts. `None`, the
    /// default, tries all sizes.
    pub block_size: Option<u32>,
    /// Read the filesystem even if multi-mount protection says that another host uses it. It cannot
    /// be written to then. Default false.
    pub ignore_mmp: bool,
    /// Reads record times of access as a mount with `relatime` does, if the filesystem is open for changes
    /// of metadata. Default true.
    pub access_times: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 16 << 20,
            read_ahead: 4 << 20,
            cached_inodes: 4096,
            extents_per_file: 65_536,
            recovery: Recovery::default(),
            superblock: None,
            block_size: None,
            ignore_mmp: false,
            access_times: true,
        }
    }
}

impl Options {
    /// Sets [`cache_bytes`](Self::cache_bytes).
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Sets [`read_ahead`](Self::read_ahead).
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub fn read_ahead(mut self, bytes: usize) -> Self {
        self.read_ahead = bytes;
        self
    }

    /// Sets [`cached_inodes`](Self::cached_inodes).
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub fn cached_inodes(mut self, inodes: usize) -> Self {
        self.cached_inodes = inodes;
        self
    }

    /// Sets [`extents_per_file`](Self::extents_per_file).
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub fn extents_per_file(mut self, extents: usize) -> Self {
        self.extents_per_file = extents;
        self
    }

    /// Sets [`recovery`](Self::recovery).
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub fn recovery(mut self, recovery: Recovery) -> Self {
        self.recovery = recovery;
        self
    }

    /// Sets [`superblock`](Self::superblock).
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub fn superblock(mut self, block: u64) -> Self {
        self.superblock = Some(block);
        self
    }

    /// Sets [`block_size`](Self::block_size).
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub fn block_size(mut self, bytes: u32) -> Self {
        self.block_size = Some(bytes);
        self
    }

    /// Sets [`ignore_mmp`](Self::ignore_mmp).
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub fn ignore_mmp(mut self, ignore: bool) -> Self {
        self.ignore_mmp = ignore;
        self
    }

    /// Sets [`access_times`](Self::access_times).
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub fn access_times(mut self, record: bool) -> Self {
        self.access_times = record;
        self
    }

    /// Returns true if an option for rescuing data is set, which rules out writes.
    pub(crate) fn is_rescue(&self) -> bool {
        self.superblock.is_some() || self.ignore_mmp || self.recovery == Recovery::Skip
    }
}
