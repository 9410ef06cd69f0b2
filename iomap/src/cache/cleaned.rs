//! A file, for those who need room in the cache.

/// A file of a cache, whatever its filesystem.
pub(super) trait Cleaned: Send + Sync {
    /// Writes dirty data back, and waits for all commands. Returns true if some are in flight again.
    fn clean(&self) -> bool;
}
