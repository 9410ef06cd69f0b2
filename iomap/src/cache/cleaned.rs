//! A file, for those who need room in the cache.

use std::future::Future;
use std::pin::Pin;

/// A file of a cache, whatever its filesystem.
pub(super) trait Cleaned: Send + Sync {
    /// Writes dirty data back, and waits for all commands. Returns true if some are in flight again.
    fn clean(&self) -> Pin<Box<dyn Future<Output = bool> + Send + '_>>;
}
