//! Writeback, durability, and the rules beside direct I/O.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::AcqRel};

use super::file::FileCache;
use super::folio::Folio;
use super::runs::Run;
use super::state::Volatile;
use super::wait;
use crate::contract::mapper::{ErrorOf, Mapper, Op};
use crate::contract::open_file::OpenFile;

/// Runs of dirty folios up to which a sync writes them with Force Unit Access instead of a flush.
const FUA_RUNS: usize = 4;

impl<M: Mapper> FileCache<M> {
    /// Begins to write the dirty blocks that have bytes of `range`: one command for each run of them
    /// that continues on the device, also across folios. Durable at their end with `fua`.
    ///
    /// # Errors
    /// The first error of a mapping. The blocks of others are written nevertheless.
    pub(super) async fn write_back(&self, range: Range<u64>, fua: bool) -> Result<(), ErrorOf<M>> {
        let (mut first, mut run) = (Ok(()), Run::default());
        let folios = match range.end {
            // All of them, of which most may be clean.
            u64::MAX => self.state.dirty.all(),
            _ => self.state.folios(&range),
        };
        for folio in folios {
            let written = loop {
                // Blocks that fail are dirty again, so each folio is written once.
                match self.write_folio(&folio, &range, &mut run, fua).await {
                    Ok(false) => {}
                    Ok(true) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            first = first.and(written);
        }
        self.pool.write(run, fua);
        first
    }

    /// Adds the dirty blocks of a folio that have bytes of `range` to `run`, and submits what does not
    /// fit. Returns false if the folio has to be looked at again.
    async fn write_folio(
        &self,
        folio: &Arc<Folio>,
        range: &Range<u64>,
        run: &mut Run,
        fua: bool,
    ) -> Result<bool, ErrorOf<M>> {
        let dirty = folio.dirty_runs(range);
        if dirty.is_empty() {
            return Ok(true);
        }
        if folio.is_busy() {
            // The folio may be part of the run.
            self.pool.write(std::mem::take(run), fua);
            return self.wait_for(folio).await.map(|()| false);
        }
        let state = &*self.state;
        let (sequence, size) = (state.sequence(), state.size());
        let mut places = Vec::new();
        for blocks in dirty {
            places.extend(self.places(folio, blocks, Op::WRITE.union(Op::WRITEBACK))?);
        }
        let most = self.pool.max_transfer_at();
        // Counted before the blocks are clean, so that whoever finds none dirty waits.
        let _preparing = state.preparing(true);
        // Nor has the file grown since its new end was compared with that on the device.
        let is_current = || state.sequence() == sequence && state.size() == size;
        let begun = folio.begin_write(&state.dirty, &places, size, &most, is_current);
        let Some((pieces, cleaned)) = begun else { return Ok(false) };
        if !fua {
            // After the last byte was copied, so that whoever copied it sees another number.
            state.count_volatile();
        }
        state.remove_dirty(cleaned);
        let target = self.target(folio);
        let durable = fua || !self.pool.volatile_cache;
        for mut piece in pieces {
            if let Some(ending) = &mut piece.ending {
                ending.durable = durable;
            }
            state.begin_command(true);
            if let Err(piece) = run.add(&target, piece, most(0)) {
                self.pool.write(std::mem::take(run), fua);
                // An empty run takes every piece.
                let _ = run.add(&target, piece, most(0));
            }
        }
        Ok(true)
    }

    /// Waits until no write is in flight, and tells the filesystem of those that ended.
    pub(super) async fn wait_for_writes(&self) -> Result<(), ErrorOf<M>> {
        self.pool.wait_until(|| self.state.writes() == 0).await;
        let mut first = Ok(());
        // Another thread may be telling the filesystem of some of them.
        self.pool
            .wait_until(|| {
                let ended = self.end_writes();
                first = std::mem::replace(&mut first, Ok(())).and(ended);
                self.state.endings() == 0
            })
            .await;
        first
    }

    /// Writes dirty data to the device, and makes it durable with the changes of the filesystem: with
    /// `data`, only those that its data needs. Returns an error of this or an earlier write if the
    /// handle has not `reported` it.
    pub(super) async fn sync(&self, reported: &AtomicU64, data: bool) -> Result<(), ErrorOf<M>> {
        let (written, volatile) = loop {
            // A change of the size drops data that was written before this call. The filesystem has to
            // know the new size then.
            let resizes = wait::until(|| self.state.resizes()).await;
            // A few commands are made durable by themselves, many by one flush.
            let fua = self.dirty_runs() <= FUA_RUNS;
            let written = self.write_back(0..u64::MAX, fua).await;
            // All that are counted now have ended when the wait has.
            let volatile = self.volatile();
            let written = written.and(self.wait_for_writes().await);
            if self.state.resizes() == Some(resizes) {
                break (written, volatile);
            }
        };
        let errors = self.state.errors();
        let before = reported.fetch_max(errors.count, AcqRel);
        if let Some(error) = errors.error().filter(|_| errors.count > before) {
            return Err(error.into());
        }
        written?;
        let flush = self.state.needs_flush(self.volatile());
        if self.sync_filesystem(data, flush)? {
            self.pool.flush().await?;
        }
        self.state.set_flushed(volatile);
        Ok(())
    }

    /// Returns the number of runs of folios with dirty data that continue each other.
    fn dirty_runs(&self) -> usize {
        let folios = self.state.dirty.all();
        let begins = folios.windows(2).filter(|pair| pair[0].end() != pair[1].pos).count();
        begins + usize::from(!folios.is_empty())
    }

    fn volatile(&self) -> Volatile {
        let past = self.mapper.lock().open_file().state().written_past();
        Volatile { cached: self.state.volatile(), past }
    }

    /// Calls the filesystem's hook of a sync. `flush` is true if data was written without Force Unit
    /// Access. Returns true if the device must be flushed.
    pub(super) fn sync_filesystem(&self, data: bool, flush: bool) -> Result<bool, ErrorOf<M>> {
        // The hook may take the filesystem's locks, so the mapper is not locked meanwhile.
        let file = self.mapper.lock().open_file().clone();
        file.state().sync(data, flush && self.pool.volatile_cache)
    }

    /// Tells the filesystem of data that a loss of power may still lose, as the last handle is dropped.
    pub(super) fn leave(&self) {
        if self.pool.volatile_cache && self.state.has_volatile() {
            let file = self.mapper.lock().open_file().clone();
            file.state().left_volatile();
        }
    }

    /// Returns true if the device has the data of a range.
    pub(super) fn is_clean(&self, range: &Range<u64>) -> bool {
        let before = self.state.errors().count;
        let is_dirty = |folio: &Arc<Folio>| !folio.dirty_runs(range).is_empty();
        // In the order in which data goes, and none has gone back to be dirty.
        !self.state.folios(range).iter().any(is_dirty)
            && self.state.writes() == 0
            && self.state.endings() == 0
            && self.state.errors().count == before
    }

    /// Writes the dirty data of a range, and waits for it.
    pub(super) async fn clean_range(&self, range: Range<u64>) -> Result<(), ErrorOf<M>> {
        let before = self.state.errors().count;
        self.write_back(range, false).await?;
        self.wait_for_writes().await?;
        let errors = self.state.errors();
        match errors.error().filter(|_| errors.count > before) {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// Writes the dirty data of a range, and drops its cached data. Returns false if some of it stays.
    pub(super) async fn invalidate(&self, range: Range<u64>) -> bool {
        let folios = self.state.folios(&range);
        let (Some(first), Some(last)) = (folios.first(), folios.last()) else { return true };
        // Folios are dropped as a whole, if they can be. An error is recorded for the next sync, and
        // leaves dirty blocks.
        let _ = self.clean_range(first.pos..last.end()).await;
        for folio in &folios {
            if !self.drop_blocks(folio, &range).await {
                return false;
            }
        }
        true
    }

    /// Evicts a folio, or at least makes the blocks missing that have bytes of `range`, if others are
    /// in use. Returns false if some of them are dirty.
    async fn drop_blocks(&self, folio: &Folio, range: &Range<u64>) -> bool {
        loop {
            let is_lost = self.wait_for(folio).await.is_err();
            // The filesystem has to know the end of writes.
            let _ = self.wait_for_writes().await;
            if self.state.evict(folio) || !folio.is_there() {
                return true;
            }
            if let Some(dropped) = folio.discard(range) {
                return dropped;
            }
            if is_lost {
                return false;
            }
        }
    }
}
