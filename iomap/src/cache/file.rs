//! The cached data of a file together with its mapping.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use super::cleaned::Cleaned;
use super::folio::{Access, Ending, Folio, Place};
use super::pool::Pool;
use super::state::FileState;
use super::sync::{AtomicUsize, Mutex};
use super::ticket::Target;
use super::wait;
use crate::contract::bytes::{round_up, to_usize};
use crate::contract::iter::iterate;
use crate::contract::mapper::{ErrorOf, Mapper, MappingKind, Op, PAGE};
use crate::contract::open_file::{EndIo, OpenFile};
use crate::error::Error;

/// Most bytes of a folio.
const FOLIO_BYTES_MAX: u64 = 2 << 20;
/// Folios that fit into a cache at least, so that one of them can be read while others are written.
const FOLIOS_MIN: u64 = 8;

/// Times that a thread tries to get memory while no command is in flight.
const MEMORY_TRIES: u32 = 64;

/// The cached data of a file, which its handles share.
pub(super) struct FileCache<M> {
    pub(super) state: Arc<FileState>,
    pub(super) pool: Arc<Pool>,
    pub(super) mapper: Mutex<M>,
    /// Locked for the time of a call that writes (the inode lock of the kernel).
    pub(super) inode: Mutex<()>,
    /// Filesystem block in bytes.
    pub(super) block: u64,
    /// Number of handles. The last one writes dirty data back when it is dropped.
    pub(super) handles: AtomicUsize,
}

impl<M: Mapper + Send> Cleaned for FileCache<M> {
    fn clean(&self) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(async {
            // Errors are recorded for the next sync.
            if let Err(error) = self.clean_range(0..u64::MAX).await {
                log::debug!("writing back to make room: {error}");
            }
            self.state.commands() > 0
        })
    }
}

impl<M: Mapper> FileCache<M> {
    pub(super) fn new(pool: &Arc<Pool>, mapper: M) -> Self {
        let (block, size) = (u64::from(mapper.block_size()), mapper.size());
        let state = FileState::new(Arc::clone(&pool.accounts), block.trailing_zeros(), size);
        let (state, pool) = (Arc::new(state), Arc::clone(pool));
        let (mapper, inode, handles) = (Mutex::new(mapper), Mutex::new(()), AtomicUsize::new(0));
        Self { state, pool, mapper, inode, block, handles }
    }

    /// Makes the next access to `folio` at `at` possible, which had the result `access`.
    pub(super) async fn settle(
        &self,
        folio: &Arc<Folio>,
        at: u64,
        access: Access,
    ) -> Result<(), ErrorOf<M>> {
        match access {
            Access::Copied(_) | Access::Gone => Ok(()),
            Access::Busy => self.wait_for(folio).await,
            Access::Missing => self.fill(folio, at).await,
            Access::Fault => Err(Error::Fault { at: 0 }.into()),
            Access::Failed(error) => {
                let length = folio.bytes as usize;
                Err(Error::Bio { what: "read", pos: at, length, error }.into())
            }
        }
    }

    /// Waits until no command uses the memory of a folio.
    pub(super) async fn wait_for(&self, folio: &Folio) -> Result<(), ErrorOf<M>> {
        self.pool.wait_until(|| !folio.is_busy() || folio.is_lost()).await;
        match folio.is_lost() {
            true => Err(Error::LostBuffer { length: folio.bytes as usize }.into()),
            false => Ok(()),
        }
    }

    /// Adds a folio without content around `at`, for an access to `wanted` bytes. Returns `None` if
    /// the access has to be tried again.
    pub(super) async fn add_folio(
        &self,
        at: u64,
        wanted: u64,
    ) -> Result<Option<Arc<Folio>>, ErrorOf<M>> {
        let mut folio = self.try_add_folio(at, wanted)?;
        if folio.is_none() {
            // The smallest may fit where a large one does not.
            folio = self.try_add_folio(at, 1)?;
        }
        let Some(folio) = folio else { return self.make_memory().await.map(|()| None) };
        Ok(self.state.insert(&folio).then(|| {
            self.pool.track(&self.state, &folio);
            folio
        }))
    }

    /// Adds a folio as [`add_folio`](Self::add_folio) does. Returns `None` if there is no memory.
    pub(super) fn try_add_folio(
        &self,
        at: u64,
        wanted: u64,
    ) -> Result<Option<Arc<Folio>>, ErrorOf<M>> {
        let least = self.block.max(u64::from(PAGE));
        let share = (self.pool.accounts.limit() as u64 / FOLIOS_MIN).max(1);
        let most = wanted.max(1).next_power_of_two().min(FOLIO_BYTES_MAX).min(1 << share.ilog2());
        let bytes = self.state.room(at, most.max(least), least);
        let memory = self.pool.alloc(to_usize(bytes))?;
        Ok(memory
            .map(|memory| Arc::new(Folio::new(at & !(bytes - 1), memory, self.state.block_shift))))
    }

    /// Writes dirty data of this file and of others back, and evicts a folio.
    ///
    /// # Errors
    /// [`Error::NoMemory`] if that is not possible, however often it is tried, and no command is in
    /// flight that could change it.
    #[cold]
    async fn make_memory(&self) -> Result<(), ErrorOf<M>> {
        for _ in 0..MEMORY_TRIES {
            self.clean_range(0..u64::MAX).await?;
            self.pool.wait_until(|| self.state.commands() == 0).await;
            let is_busy = self.pool.clean_files().await;
            if self.pool.evict_one() || is_busy {
                return Ok(());
            }
            // Other threads may use each folio for a moment.
            wait::pause().await;
        }
        Err(Error::NoMemory.into())
    }

    /// Begins to read the blocks of a folio that are missing around `at`.
    pub(super) async fn fill(&self, folio: &Arc<Folio>, at: u64) -> Result<(), ErrorOf<M>> {
        let sequence = self.state.sequence();
        let places = self.places(folio, folio.blocks(), Op::empty())?;
        // Counted before the folio is busy: whoever needs memory gives up if nothing is in flight.
        let preparing = self.state.preparing(false);
        let (most, is_current) =
            (self.pool.max_transfer_at(), || self.state.sequence() == sequence);
        if let Some(pieces) = folio.begin_fill(&places, most, is_current) {
            self.pool.read(&self.target(folio), pieces, false);
            return Ok(());
        }
        match folio.begin_patch(at) {
            Some(blocks) => self.patch(folio, blocks),
            // Another command uses the folio, or has filled it meanwhile.
            None => {
                drop(preparing);
                self.wait_for(folio).await
            }
        }
    }

    /// Reads blocks of a folio that has other content.
    fn patch(&self, folio: &Arc<Folio>, blocks: Range<u32>) -> Result<(), ErrorOf<M>> {
        let begin = || {
            let places = self.current_places(folio, &blocks)?;
            let Some(Place { blocks, addr, .. }) = places.into_iter().next() else {
                return Ok(None);
            };
            // One command.
            let most = u32::try_from(self.pool.max_transfer_at()(0) >> self.state.block_shift);
            let blocks = blocks.start..blocks.end.min(blocks.start + most.unwrap_or(1).max(1));
            let memory = self.pool.scratch(blocks.len() << self.state.block_shift)?;
            Ok::<_, ErrorOf<M>>(Some((blocks, addr, memory)))
        };
        match begin() {
            Ok(Some((blocks, Some(addr), memory))) => {
                let piece = super::folio::Piece { blocks, addr, memory, ending: None };
                self.pool.read(&self.target(folio), vec![piece], true);
                Ok(())
            }
            Ok(Some((blocks, None, memory))) => {
                folio.patched(blocks, Ok(&memory));
                Ok(())
            }
            other => {
                folio.patched(blocks, Ok(&[]));
                other.map(drop)
            }
        }
    }

    /// Returns the places of blocks of a folio that is busy, so that whoever moves the blocks
    /// afterwards waits for it.
    fn current_places(&self, folio: &Folio, blocks: &Range<u32>) -> Result<Vec<Place>, ErrorOf<M>> {
        loop {
            let sequence = self.state.sequence();
            let places = self.places(folio, blocks.clone(), Op::empty())?;
            if self.state.sequence() == sequence {
                return Ok(places);
            }
        }
    }

    pub(super) fn target(&self, folio: &Arc<Folio>) -> Target {
        Target { file: Arc::clone(&self.state), folio: Arc::clone(folio), blocks: 0..0 }
    }

    /// Returns the places of blocks of a folio. Blocks past the end of the file have none.
    pub(super) fn places(
        &self,
        folio: &Folio,
        blocks: Range<u32>,
        op: Op,
    ) -> Result<Vec<Place>, ErrorOf<M>> {
        let (shift, size) = (self.state.block_shift, self.state.size());
        let pos = |block: u32| folio.pos + (u64::from(block) << shift);
        let start = pos(blocks.start);
        let length = pos(blocks.end).min(round_up(size, self.block)).saturating_sub(start);
        let mut places = Vec::new();
        let mut at = blocks.start;
        let mut mapper = self.mapper.lock();
        let walk = iterate(&mut *mapper, start, length, op, |mapper, mapping, pos, length| {
            let unwritten = mapping.kind == MappingKind::Unwritten;
            let addr = match mapping.kind {
                MappingKind::Mapped => mapping.device_address(pos),
                MappingKind::Unwritten if op.contains(Op::WRITE) => mapping.device_address(pos),
                MappingKind::Inline => return Err(Error::FallBack { pos }.into()),
                _ if op.contains(Op::WRITE) => return Err(Error::NoBlocks { pos }.into()),
                _ => None,
            };
            let end = (pos + length).min(size);
            let extends = end > mapper.size();
            let ending = Ending { unwritten, end, durable: false, private: mapper.private() };
            let ending = (op.contains(Op::WRITE) && (unwritten || extends)).then_some(ending);
            let end = at + u32::try_from(length >> shift).unwrap_or(u32::MAX - at);
            places.push(Place { blocks: at..end, addr, ending });
            at = end;
            Ok(length)
        });
        drop(mapper);
        if let Some(error) = walk.error {
            return Err(error);
        }
        if at < blocks.end {
            places.push(Place { blocks: at..blocks.end, addr: None, ending: None });
        }
        Ok(places)
    }

    /// Tells the filesystem of the writes that have ended.
    pub(super) fn end_writes(&self) -> Result<(), ErrorOf<M>> {
        let (mut first, mut ended) = (Ok(()), self.state.take_ended());
        if ended.is_empty() {
            return first;
        }
        // The hook may take the filesystem's locks, so the mapper is not locked meanwhile.
        let file = self.mapper.lock().open_file().clone();
        ended.sort_by_key(|ended| ended.end.pos);
        let mut rest = ended.into_iter().peekable();
        while let Some(next) = rest.next() {
            let (mut end, mut run) = (next.end, vec![next]);
            // One call for each run.
            while let Some(next) = rest.next_if(|next| continues(&end, &next.end)) {
                end.bytes += next.end.bytes;
                run.push(next);
            }
            let result = file.state().end_io(&end);
            run.into_iter().for_each(|ended| self.state.end_write(ended, result.is_err()));
            first = first.and(result);
        }
        first
    }
}

/// Returns true if the filesystem can be told of `next` together with `end`.
fn continues(end: &EndIo, next: &EndIo) -> bool {
    let how = |end: &EndIo| (end.unwritten, end.failed, end.durable, end.private);
    end.pos + end.bytes == next.pos && how(end) == how(next)
}
