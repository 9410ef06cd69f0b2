//! Changes of the size of a file.

use super::file::FileCache;
use super::write::InodeLock;
use crate::contract::bytes::round_up;
use crate::contract::mapper::{ErrorOf, Mapper};

impl<M: Mapper> FileCache<M> {
    /// Sets the size of the file in the cache. The caller has the inode lock until the filesystem has
    /// set the size, too: calls in another order would leave two sizes.
    pub(super) async fn truncate(&self, size: u64) -> Result<(), ErrorOf<M>> {
        let (old, end) = (self.state.size(), round_up(size, self.block));
        if size >= old {
            self.zero_tail(size, InodeLock::Caller).await?;
            self.state.raise_size(size);
            return Ok(());
        }
        // The filesystem has to know the end of each write.
        self.wait_for_writes().await?;
        self.zero_range(size..end.min(old)).await?;
        self.state.set_size(size);
        self.state.mappings_changed();
        // A write that began with the old size would move the end on the device there. Its error is
        // that of the next sync.
        let _ = self.wait_for_writes().await;
        for folio in self.state.folios(&(end..u64::MAX)) {
            while !self.state.cut(&folio, end) {
                // Memory that the device has kept is cut, too.
                let _ = self.wait_for(&folio).await;
            }
            if folio.pos >= end {
                // Eviction finds one that a reader uses at this moment.
                self.state.evict(&folio);
            }
        }
        Ok(())
    }
}
