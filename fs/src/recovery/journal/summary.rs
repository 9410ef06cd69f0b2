//! The summary of a recovery.

/// The counts of a journal replay.
///
/// See the [example](crate::Filesystem#examples).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalReplay {
    /// Number of complete transactions in the log.
    pub transactions: u32,
    /// Number of blocks of the filesystem that are read from the log.
    pub blocks: u64,
    /// Number of block copies in the log that later transactions revoke.
    pub revoked: u64,
    /// Number of fast commits after the last transaction.
    pub fast_commits: u32,
}
