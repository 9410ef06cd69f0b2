//! Changes of the size and of the blocks of a file.

use std::ops::Range;

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
        // Before the file can grow again.
        self.write_range(size..end.min(old), true).await?;
        self.state.set_size(size);
        self.state.mappings_changed();
        // A write that began with the old size would move the end on the device there. Its error is
        // that of the next sync.
        let _ = self.wait_for_writes().await;
        self.cut(&(end..u64::MAX)).await;
        Ok(())
    }

    /// Drops the cached data of the blocks in `range`, also dirty data.
    async fn cut(&self, range: &Range<u64>) {
        for folio in self.state.folios(range) {
            while !self.state.cut(&folio, range) {
                // Memory that the device has kept is cut, too.
                let _ = self.wait_for(&folio).await;
            }
            if folio.pos >= range.start && folio.end() <= range.end {
                // Eviction finds one that a reader uses at this moment.
                self.state.evict(&folio);
            }
        }
    }

    /// Zeroes `range`, drops the blocks that are inside of it as a whole, and calls `change`. The
    /// caller has the inode lock.
    pub(super) async fn punch_hole(
        &self,
        range: Range<u64>,
        change: impl FnOnce() -> Result<(), ErrorOf<M>>,
    ) -> Result<(), ErrorOf<M>> {
        let blocks = round_up(range.start, self.block)..range.end & !(self.block - 1);
        if blocks.is_empty() {
            self.zero_range(range).await?;
            return change();
        }
        self.zero_range(range.start..blocks.start).await?;
        self.zero_range(blocks.end..range.end).await?;
        // The filesystem learns the size of the file from dirty data.
        self.clean_range(blocks.clone()).await?;
        self.replace(blocks, change).await
    }

    /// Writes dirty data from `from` on, drops it, calls `change`, and sets the size. The caller has the
    /// inode lock.
    pub(super) async fn move_blocks(
        &self,
        from: u64,
        size: u64,
        change: impl FnOnce() -> Result<(), ErrorOf<M>>,
    ) -> Result<(), ErrorOf<M>> {
        let from = from & !(self.block - 1);
        self.clean_range(from..u64::MAX).await?;
        let change = || {
            change()?;
            self.state.set_size(size);
            Ok(())
        };
        self.replace(from..u64::MAX, change).await
    }

    /// Drops the cached data of `blocks`, while `change` gives them other places.
    async fn replace(
        &self,
        blocks: Range<u64>,
        change: impl FnOnce() -> Result<(), ErrorOf<M>>,
    ) -> Result<(), ErrorOf<M>> {
        self.state.mappings_changed();
        // Writes to the old places. Their errors are those of the next sync.
        let _ = self.wait_for_writes().await;
        self.cut(&blocks).await;
        let changed = change();
        // A reader may have filled folios from the old places.
        self.state.mappings_changed();
        self.cut(&blocks).await;
        changed
    }
}
