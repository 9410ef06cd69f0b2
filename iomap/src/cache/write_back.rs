//! Writeback, durability, and the rules beside direct I/O.

use std::ops::Range;

use super::file::FileCache;
use crate::contract::mapper::{ErrorOf, Mapper};

impl<M: Mapper> FileCache<M> {
    /// Begins to write the dirty blocks of the folios that have bytes of `range`.
    pub(super) fn write_back(&self, range: Range<u64>, fua: bool) -> Result<(), ErrorOf<M>> {
        let mut first = Ok(());
        for folio in self.state.folios(&range) {
            // Blocks that fail are dirty again, so each run is written once.
            let mut from = 0;
            while let Some(run) = folio.dirty_run(from) {
                let end = run.end;
                match self.write_blocks(&folio, run, fua) {
                    Ok(false) => continue,
                    Ok(true) => {}
                    Err(error) => first = first.and(Err(error)),
                }
                from = end;
            }
        }
        first
    }

    /// Waits until no write is in flight, and tells the filesystem of those that ended.
    pub(super) fn wait_for_writes(&self) -> Result<(), ErrorOf<M>> {
        self.pool.wait_until(|| self.state.writes() == 0);
        self.end_writes()
    }

    /// Writes the dirty data of a range, and waits for it. Does not wait with `nowait`, and returns
    /// false if it would have to.
    pub(super) fn clean_range(&self, range: Range<u64>, nowait: bool) -> Result<bool, ErrorOf<M>> {
        let is_dirty = || self.state.folios(&range).iter().any(|folio| folio.is_dirty());
        if nowait {
            return Ok(!is_dirty() && self.state.writes() == 0);
        }
        let before = self.state.errors().count;
        self.write_back(range.clone(), false)?;
        self.wait_for_writes()?;
        let errors = self.state.errors();
        match errors.error().filter(|_| errors.count > before) {
            Some(error) => Err(error.into()),
            None => Ok(true),
        }
    }

    /// Writes the dirty data of a range, and evicts its folios. Returns false if one stays.
    pub(super) fn invalidate(&self, range: Range<u64>) -> bool {
        if self.clean_range(range.clone(), false).is_err() {
            return false;
        }
        self.state.folios(&range).iter().all(|folio| {
            self.wait_for(folio).is_ok() && (self.state.evict(folio) || !folio.is_there())
        })
    }
}
