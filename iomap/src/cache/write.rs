//! Buffered writes, writethrough, and zeroing.

use std::ops::Range;
use std::sync::Arc;

use super::file::FileCache;
use super::folio::{Access, Folio, Written};
use crate::contract::bytes::round_up;
use crate::contract::mapper::{ErrorOf, Mapper, MappingKind, Op};
use crate::error::Error;
use crate::memory::borrowed::Source;

/// The way of a write.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WriteMode {
    /// The I/O starts before the call returns.
    pub(super) through: bool,
    /// The data is durable when the I/O ends.
    pub(super) durable: bool,
    /// Memory that is not resident is not accessed.
    pub(super) nofault: bool,
}

impl<M: Mapper> FileCache<M> {
    /// Writes all of `source` to bytes from `pos` on, and returns their number: fewer before an
    /// error.
    pub(super) fn write_at(
        &self,
        pos: u64,
        source: &mut impl Source,
        mode: WriteMode,
    ) -> Result<usize, ErrorOf<M>> {
        let (len, op) = (source.len(), operation(mode));
        let _inode = self.inode.lock();
        if len > 0 {
            self.zero_tail(pos)?;
        }
        let mut done = 0;
        while done < len {
            let left = (len - done) as u64;
            let copy = |out: &mut [u8]| source.copy_out(done, out, mode.nofault);
            match self.write_chunk(pos + done as u64, left, op, copy) {
                Ok(n) => done += n,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        if mode.through {
            self.write_range(pos..pos + done as u64, mode.durable)?;
        }
        Ok(done)
    }

    /// Zeroes the bytes past the end of the file in its last block, up to `pos`, before a write at
    /// `pos` makes them part of the file.
    fn zero_tail(&self, pos: u64) -> Result<(), ErrorOf<M>> {
        let size = self.state.size();
        let end = round_up(size, self.block).min(pos);
        let mut at = size;
        while at < end {
            at += self.write_chunk(at, end - at, Op::WRITE.union(Op::ZERO), zero)? as u64;
        }
        Ok(())
    }

    /// Zeroes bytes of the file. Holes and unwritten blocks that are not cached stay as they are, and
    /// the size of the file does not change.
    pub(super) fn zero_range(&self, range: Range<u64>) -> Result<(), ErrorOf<M>> {
        let _inode = self.inode.lock();
        // Blocks that are being written are unwritten until the filesystem knows.
        self.wait_for_writes()?;
        let end = range.end.min(self.state.size());
        let (mut at, op) = (range.start, Op::WRITE.union(Op::ZERO));
        while at < end {
            let zeroes = self.zeroes(at, end - at)?;
            if zeroes > 0 {
                at += zeroes;
                continue;
            }
            at += self.write_chunk(at, end - at, op, zero)? as u64;
        }
        Ok(())
    }

    /// Returns the number of bytes from `at` on, at most `length`, that are zeroes without blocks on
    /// the device and without dirty data in the cache.
    fn zeroes(&self, at: u64, length: u64) -> Result<u64, ErrorOf<M>> {
        let op = Op::ZERO;
        let mut mapper = self.mapper.lock();
        let mapping = mapper.begin(at, length, op)?;
        let bytes = match mapping.kind {
            MappingKind::Hole | MappingKind::Unwritten => length.min(mapping.bytes_from(at)),
            _ => 0,
        };
        mapper.end(&mapping, at, length, bytes, op)?;
        drop(mapper);
        let range = at..at + bytes;
        let dirty = self.state.folios(&range).into_iter().find_map(|folio| {
            let part = range.start.max(folio.pos)..range.end.min(folio.end());
            folio.dirty_in(&part).map(|_| part.start)
        });
        Ok(dirty.unwrap_or(range.end) - at)
    }

    /// Writes bytes of one mapping to one folio. Returns 0 if the folio has to be looked up again.
    fn write_chunk(
        &self,
        at: u64,
        left: u64,
        op: Op,
        copy: impl FnOnce(&mut [u8]) -> usize,
    ) -> Result<usize, ErrorOf<M>> {
        self.throttle()?;
        let state = &*self.state;
        let Some(folio) = state.folio(at) else {
            return self.add_folio(at, left).map(|_| 0);
        };
        let length = left.min(folio.end() - at);
        let sequence = state.sequence();
        let mut mapper = self.mapper.lock();
        let mapping = mapper.begin(at, length, op)?;
        // The filesystem may ask this cache to write back when it allocates.
        drop(mapper);
        let here = length.min(mapping.bytes_from(at));
        let is_new = mapping.kind != MappingKind::Mapped || self.block_of(at) >= state.size();
        let refused = match mapping.kind {
            MappingKind::Hole => Some(Error::NoBlocks { pos: at }),
            MappingKind::Delalloc if op.contains(Op::WRITETHROUGH) => {
                Some(Error::Delalloc { pos: at })
            }
            MappingKind::Inline => Some(Error::FallBack { pos: at }),
            _ => None,
        };
        let Written { access, new_dirty } = match refused {
            Some(_) => Written { access: Access::Gone, new_dirty: 0 },
            None => folio.write(at..at + here, is_new, || state.sequence() == sequence, copy),
        };
        let n = if let Access::Copied(n) = access { n } else { 0 };
        state.add_dirty(&folio, new_dirty);
        if !op.contains(Op::ZERO) && n > 0 {
            state.raise_size(at + n as u64);
        }
        let ended = self.mapper.lock().end(&mapping, at, length, n as u64, op);
        if let Some(error) = refused {
            return Err(error.into());
        }
        if n == 0 {
            ended?;
            self.settle(&folio, at, access)?;
        }
        Ok(n)
    }

    fn block_of(&self, at: u64) -> u64 {
        at & !(self.block - 1)
    }

    /// Begins to write the dirty blocks of a range, rounded to blocks, and no others. If `durable`,
    /// waits until they are durable.
    fn write_range(&self, range: Range<u64>, durable: bool) -> Result<(), ErrorOf<M>> {
        let before = self.state.errors().count;
        for folio in self.state.folios(&range) {
            let part = range.start.max(folio.pos)..range.end.min(folio.end());
            while let Some(blocks) = folio.dirty_in(&part) {
                // Blocks that fail are dirty again, so they are written once.
                if self.write_blocks(&folio, blocks, durable)? {
                    break;
                }
            }
        }
        if !durable {
            return Ok(());
        }
        self.wait_for_writes()?;
        match self.state.errors() {
            errors if errors.count > before => errors.error().map_or(Ok(()), |e| Err(e.into())),
            _ => Ok(()),
        }
    }

    /// Begins to write blocks of a folio, or waits if it is in use. Returns false if the blocks have
    /// to be looked at again.
    pub(super) fn write_blocks(
        &self,
        folio: &Arc<Folio>,
        blocks: Range<u32>,
        fua: bool,
    ) -> Result<bool, ErrorOf<M>> {
        if folio.is_busy() {
            return self.wait_for(folio).map(|()| false);
        }
        let state = &*self.state;
        let sequence = state.sequence();
        let places = self.places(folio, blocks, Op::WRITE.union(Op::WRITEBACK))?;
        let (eof, most) = (state.size(), self.pool.max_transfer_at());
        let begun = folio.begin_write(&places, eof, most, || state.sequence() == sequence);
        let Some((pieces, cleaned)) = begun else { return Ok(false) };
        state.remove_dirty(folio, cleaned);
        self.pool.write(&self.target(folio), pieces, fua);
        Ok(true)
    }

    /// Writes dirty data back while more than half of the cache is dirty.
    fn throttle(&self) -> Result<(), ErrorOf<M>> {
        let accounts = &self.pool.accounts;
        if accounts.dirty() > accounts.limit() / 2 { self.clean() } else { Ok(()) }
    }

    #[cold]
    fn clean(&self) -> Result<(), ErrorOf<M>> {
        self.clean_range(0..u64::MAX, false).map(drop)
    }
}

fn zero(out: &mut [u8]) -> usize {
    out.fill(0);
    out.len()
}

fn operation(mode: WriteMode) -> Op {
    let mut op = Op::WRITE;
    op.set(Op::WRITETHROUGH, mode.through);
    op
}
