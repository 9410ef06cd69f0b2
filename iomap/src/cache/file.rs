//! Buffered I/O of one file.

use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use super::folio::{Access, Folio, Place, Written};
use super::pool::Pool;
use super::state::FileState;
use super::ticket::Target;
use crate::contract::bytes::{round_up, to_usize};
use crate::contract::iter::iterate;
use crate::contract::mapper::{ErrorOf, Mapper, MappingKind, Op, PAGE};
use crate::error::Error;
use crate::memory::borrowed::Source;

/// Most bytes of a folio.
const FOLIO_BYTES_MAX: u64 = 2 << 20;

/// The cached data of a file, and its mapping.
pub(super) struct FileCache<M> {
    pub(super) state: Arc<FileState>,
    pub(super) pool: Arc<Pool>,
    mapper: Mutex<M>,
    /// Filesystem block in bytes.
    block: u64,
}

impl<M: Mapper> FileCache<M> {
    pub(super) fn new(pool: &Arc<Pool>, mapper: M) -> Self {
        let block = u64::from(mapper.block_size());
        let state =
            FileState::new(Arc::clone(&pool.accounts), block.trailing_zeros(), mapper.size());
        Self { state: Arc::new(state), pool: Arc::clone(pool), mapper: Mutex::new(mapper), block }
    }

    /// Reads bytes from `pos` on, and returns their number: fewer only at the end of the file, or
    /// before a byte that cannot be read.
    pub(super) fn read_at(&self, pos: u64, out: &mut [u8]) -> Result<usize, ErrorOf<M>> {
        let left = self.state.size().saturating_sub(pos);
        let len = out.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut done = 0;
        while done < len {
            let at = pos + done as u64;
            let Some(folio) = self.state.folio(at) else {
                self.add_folio(at, (len - done) as u64)?;
                continue;
            };
            match folio.read(at, &mut out[done..len]) {
                Access::Copied(n) => done += n,
                Access::Failed(_) if done > 0 => break,
                other => self.settle(&folio, at, other)?,
            }
        }
        Ok(done)
    }

    /// Writes all of `source` to bytes from `pos` on, and returns their number. Fewer are written
    /// before an error.
    pub(super) fn write_at(
        &self,
        pos: u64,
        source: &mut impl Source,
        nofault: bool,
    ) -> Result<usize, ErrorOf<M>> {
        let len = source.len();
        let mut done = 0;
        while done < len {
            match self.write_chunk(pos + done as u64, len - done, done, source, nofault) {
                Ok(n) => done += n,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Writes bytes of one mapping to one folio. Returns 0 if the folio has to be looked up again.
    fn write_chunk(
        &self,
        at: u64,
        left: usize,
        done: usize,
        source: &mut impl Source,
        nofault: bool,
    ) -> Result<usize, ErrorOf<M>> {
        self.throttle()?;
        let Some(folio) = self.state.folio(at) else {
            self.add_folio_without_content(at, left as u64)?;
            return Ok(0);
        };
        let (state, op) = (&*self.state, Op::WRITE);
        let length = left.min(to_usize(folio.end() - at)) as u64;
        let sequence = state.sequence();
        let mapping = self.mapper.lock().begin(at, length, op)?;
        let here = length.min(mapping.bytes_from(at));
        let is_new = match mapping.kind {
            MappingKind::Mapped => at & !(self.block - 1) >= state.size(),
            _ => true,
        };
        let written = match mapping.kind {
            MappingKind::Hole | MappingKind::Inline => Err(Error::NoBlocks { pos: at }),
            _ => Ok(folio.write(
                at..at + here,
                is_new,
                || state.sequence() == sequence,
                |out| source.copy_out(done, out, nofault),
            )),
        };
        let n = match &written {
            Ok(Written { access: Access::Copied(n), .. }) => *n,
            _ => 0,
        };
        let ended = self.mapper.lock().end(&mapping, at, length, n as u64, op);
        let Written { access, new_dirty } = written?;
        state.add_dirty(&folio, new_dirty);
        if n == 0 {
            ended?;
            self.settle(&folio, at, access)?;
        }
        state.raise_size(at + n as u64);
        Ok(n)
    }

    /// Makes the next access to `folio` at `at` possible, which had the result `access`.
    fn settle(&self, folio: &Arc<Folio>, at: u64, access: Access) -> Result<(), ErrorOf<M>> {
        match access {
            Access::Copied(_) | Access::Gone => Ok(()),
            Access::Busy => {
                self.pool.wait_until(|| !folio.is_busy());
                Ok(())
            }
            Access::Missing => self.fill(folio, at),
            Access::Fault => Err(Error::Fault { at: 0 }.into()),
            Access::Failed(error) => {
                Err(Error::Bio { what: "read", pos: at, length: folio.bytes as usize, error }
                    .into())
            }
        }
    }

    /// Adds a folio around `at`, for a read of `wanted` bytes, and begins to fill it.
    fn add_folio(&self, at: u64, wanted: u64) -> Result<(), ErrorOf<M>> {
        match self.add_folio_without_content(at, wanted)? {
            Some(folio) => self.fill(&folio, at),
            None => Ok(()),
        }
    }

    fn add_folio_without_content(
        &self,
        at: u64,
        wanted: u64,
    ) -> Result<Option<Arc<Folio>>, ErrorOf<M>> {
        let least = self.block.max(u64::from(PAGE));
        let most = wanted.clamp(least, FOLIO_BYTES_MAX.max(least)).next_power_of_two();
        let most = most.min((self.pool.accounts.limit() as u64 / 8).max(least).next_power_of_two());
        let bytes = self.state.room(at, most, least);
        let Some(memory) = self.pool.alloc(to_usize(bytes))? else {
            return self.make_memory().map(|()| None);
        };
        let folio = Arc::new(Folio::new(at & !(bytes - 1), memory, self.state.block_shift));
        if !self.state.insert(&folio) {
            // Another thread was faster.
            self.pool.accounts.release(to_usize(bytes));
            return Ok(None);
        }
        self.pool.track(&self.state, &folio);
        Ok(Some(folio))
    }

    /// Writes dirty data back, so that folios can be evicted.
    ///
    /// # Errors
    /// [`Error::NoMemory`] if there is none.
    fn make_memory(&self) -> Result<(), ErrorOf<M>> {
        if self.pool.accounts.dirty() == 0 && self.pool.poll() == 0 {
            return Err(Error::NoMemory.into());
        }
        self.write_back(0..u64::MAX)?;
        self.wait_for_writes();
        Ok(())
    }

    /// Writes dirty data back while more than half of the cache is dirty.
    fn throttle(&self) -> Result<(), ErrorOf<M>> {
        let accounts = &self.pool.accounts;
        if accounts.dirty() > accounts.limit() / 2 {
            self.write_back(0..u64::MAX)?;
            self.wait_for_writes();
        }
        Ok(())
    }

    /// Begins to read the blocks of a folio that are missing around `at`.
    fn fill(&self, folio: &Arc<Folio>, at: u64) -> Result<(), ErrorOf<M>> {
        let places = self.places(folio, folio.blocks(), Op::empty())?;
        let target = self.target(folio);
        let most = self.pool.max_transfer_at();
        if let Some(pieces) = folio.begin_fill(&places, most) {
            self.pool.read(&target, pieces, false);
            return Ok(());
        }
        let Some(blocks) = folio.begin_patch(at) else { return Ok(()) };
        self.patch(folio, blocks)
    }

    /// Reads blocks of a folio that has other content.
    fn patch(&self, folio: &Arc<Folio>, blocks: Range<u32>) -> Result<(), ErrorOf<M>> {
        let places = self.places(folio, blocks.start..blocks.end, Op::empty())?;
        let Some(Place { blocks, addr }) = places.into_iter().next() else { return Ok(()) };
        let bytes = blocks.len() << self.state.block_shift;
        let memory = self.pool.scratch(bytes)?;
        match addr {
            Some(addr) => {
                let piece = super::folio::Piece { blocks, addr, memory };
                self.pool.read(&self.target(folio), vec![piece], true);
            }
            None => folio.patched(blocks, Ok(&memory)),
        }
        Ok(())
    }

    /// Begins to write the dirty blocks of the folios that have bytes of `range`.
    pub(super) fn write_back(&self, range: Range<u64>) -> Result<(), ErrorOf<M>> {
        for folio in self.state.folios(&range) {
            while folio.is_dirty() {
                if folio.is_busy() {
                    self.pool.wait_until(|| !folio.is_busy());
                    continue;
                }
                self.write_folio(&folio)?;
            }
        }
        Ok(())
    }

    fn write_folio(&self, folio: &Arc<Folio>) -> Result<(), ErrorOf<M>> {
        let state = &*self.state;
        let sequence = state.sequence();
        let (mut places, mut from) = (Vec::new(), 0);
        while let Some(run) = folio.dirty_run(from) {
            from = run.end;
            places.extend(self.places(folio, run, Op::WRITE)?);
        }
        let most = self.pool.max_transfer_at();
        let eof = state.size();
        let begun = folio.begin_write(&places, eof, most, || state.sequence() == sequence);
        if let Some((pieces, cleaned)) = begun {
            state.remove_dirty(folio, cleaned);
            self.pool.write(&self.target(folio), pieces, false);
        }
        Ok(())
    }

    pub(super) fn wait_for_writes(&self) {
        self.pool.wait_until(|| self.state.writes() == 0);
    }

    fn target(&self, folio: &Arc<Folio>) -> Target {
        Target { file: Arc::clone(&self.state), folio: Arc::clone(folio), blocks: 0..0 }
    }

    /// Returns the places of blocks of a folio. Blocks past the end of the file have none.
    fn places(&self, folio: &Folio, blocks: Range<u32>, op: Op) -> Result<Vec<Place>, ErrorOf<M>> {
        let shift = self.state.block_shift;
        let pos = |block: u32| folio.pos + (u64::from(block) << shift);
        let end =
            pos(blocks.end).min(round_up(self.state.size(), self.block)).max(pos(blocks.start));
        let mut places = Vec::new();
        let mut at = blocks.start;
        let mut mapper = self.mapper.lock();
        let walk = iterate(&mut *mapper, pos(at), end - pos(at), op, |_, mapping, pos, length| {
            let addr = match mapping.kind {
                MappingKind::Mapped => mapping.device_address(pos),
                MappingKind::Inline => return Err(Error::FallBack { pos }.into()),
                _ if op.contains(Op::WRITE) => return Err(Error::NoBlocks { pos }.into()),
                _ => None,
            };
            let count = u32::try_from(length >> shift).unwrap_or(u32::MAX);
            places.push(Place { blocks: at..at + count, addr });
            at += count;
            Ok(length)
        });
        drop(mapper);
        if let Some(error) = walk.error {
            return Err(error);
        }
        if at < blocks.end {
            places.push(Place { blocks: at..blocks.end, addr: None });
        }
        Ok(places)
    }
}
