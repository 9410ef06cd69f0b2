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
}

/// Options for opening a filesystem.
///
/// # Examples
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// # let image = sample.path();
/// use nvio_ext4::{Filesystem, Options, Recovery};
///
/// let options = Options::default()
///     .cache_bytes(4 << 20)
///     .read_ahead(1 << 20)
///     .cached_inodes(1000)
///     .extents_per_file(10_000)
///     .recovery(Recovery::Refuse);
/// let fs = Filesystem::open_with(std::fs::File::open(&image)?, options)?;
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
}
