//! How a filesystem is opened.

/// What is done with a filesystem whose journal needs recovery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recovery {
    /// The journal is replayed in memory: the filesystem is seen as it will be after the next
    /// mount, and the device stays as it is.
    #[default]
    Replay,
    /// It is refused with [`Error::NeedsRecovery`](crate::Error::NeedsRecovery).
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
    /// together ([`Source::read_many`](crate::Source::read_many)). With 0 each block is read alone, when it is needed.
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
