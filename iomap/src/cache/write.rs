//! Buffered writes, writethrough, and zeroing.

use std::ops::Range;
use std::sync::Arc;

use super::file::FileCache;
use super::folio::{Access, Allowed, Folio, Progress, Written};
use super::wait;
use crate::contract::bytes::round_up;
use crate::contract::io_args::IoFlags;
use crate::contract::mapper::{ErrorOf, Mapper, MappingKind, Op};
use crate::error::Error;
use crate::memory::borrowed::Source;

/// Most bytes of a folio for a small write at the end of a file.
const APPEND_BYTES: u64 = 512 << 10;

/// The holder of the inode lock of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InodeLock {
    /// The caller, which blocks until the call returns.
    Caller,
    /// Each step that changes data. A future that nobody polls any more must not hold the lock, so
    /// the writes of others can come between two steps.
    Steps,
}

impl<M: Mapper> FileCache<M> {
    /// Writes all of `source` to bytes from `pos` on, and returns their number: fewer before an
    /// error.
    pub(super) async fn write_at(
        &self,
        pos: u64,
        source: &mut impl Source,
        flags: IoFlags,
        lock: InodeLock,
        recent: &mut Option<Arc<Folio>>,
    ) -> Result<usize, ErrorOf<M>> {
        let (len, op) = (source.len(), operation(flags));
        let nofault = flags.contains(IoFlags::NOFAULT);
        let volatile = self.state.volatile();
        if len > 0 && pos > self.state.size() {
            self.zero_tail(pos, lock).await?;
        }
        let mut done = 0;
        while done < len {
            let left = (len - done) as u64;
            let copy = |out: &mut [u8]| source.copy_out(done, out, nofault);
            match self.write_chunk(pos + done as u64, left, op, lock, recent, copy).await {
                Ok(n) => done += n,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        if flags.intersects(IoFlags::WRITETHROUGH.union(IoFlags::DSYNC)) {
            let durable = flags.contains(IoFlags::DSYNC);
            self.write_range(pos..pos + done as u64, durable).await?;
            if durable && lock == InodeLock::Steps {
                // A change of the size may have dropped the data. The filesystem knows it then.
                wait::until(|| self.state.resizes()).await;
            }
            // Blocks of this call may have been written back to make room, without Force Unit Access.
            let flush = self.state.volatile() != volatile;
            if durable && self.sync_filesystem(true, flush)? {
                self.pool.flush().await?;
            }
        }
        Ok(done)
    }

    /// Overwrites bytes of `folio`, if it has room for all of `source`, the filesystem has let others
    /// overwrite the blocks before, and no mapping has changed. Returns the number of bytes: fewer if
    /// the source cannot be read, and 0 if that is not possible.
    ///
    /// The filesystem is asked where the blocks are when they are written to the device. So it is not
    /// asked now.
    #[inline(always)]
    pub(super) fn write_again(
        &self,
        folio: &Arc<Folio>,
        pos: u64,
        source: &mut impl Source,
    ) -> usize {
        let len = source.len();
        let (end, state) = (pos.wrapping_add(len as u64), &*self.state);
        if !folio.has(pos, len) || end > state.size() {
            return 0;
        }
        let may_be_dirty = |known| state.sequence() == known && !self.is_half_dirty();
        let (bytes, new_dirty) = folio.write_again(pos, source, may_be_dirty, &state.dirty);
        state.add_dirty(new_dirty);
        bytes
    }

    /// Zeroes the bytes past the end of the file in its last block, up to `pos`, before a write at
    /// `pos` makes them part of the file.
    pub(super) async fn zero_tail(&self, pos: u64, lock: InodeLock) -> Result<(), ErrorOf<M>> {
        let size = self.state.size();
        let end = round_up(size, self.block).min(pos);
        if end <= size {
            return Ok(());
        }
        let (mut at, op) = (size, Op::WRITE.union(Op::ZERO));
        while at < end {
            let zero_past_end = |out: &mut [u8]| {
                // Another thread may have moved the end before this one got the inode lock.
                let written = self.state.size().saturating_sub(at);
                let written = usize::try_from(written).unwrap_or(usize::MAX).min(out.len());
                out[written..].fill(0);
                out.len()
            };
            at += self.write_chunk(at, end - at, op, lock, &mut None, zero_past_end).await? as u64;
        }
        // Before the filesystem can make the new size durable.
        self.write_range(size..end, true).await
    }

    /// Zeroes bytes of the file. Holes and unwritten blocks that are not cached stay as they are, and
    /// the size of the file does not change. The caller has the inode lock.
    pub(super) async fn zero_range(&self, range: Range<u64>) -> Result<(), ErrorOf<M>> {
        let end = range.end.min(self.state.size());
        let (mut at, op) = (range.start, Op::WRITE.union(Op::ZERO));
        while at < end {
            let zeroes = self.zeroes(at, end - at).await?;
            if zeroes > 0 {
                at += zeroes;
                continue;
            }
            let lock = InodeLock::Caller;
            at += self.write_chunk(at, end - at, op, lock, &mut None, zero).await? as u64;
        }
        Ok(())
    }

    /// Returns the number of bytes from `at` on, at most `length`, that are zeroes without blocks on
    /// the device and without dirty data in the cache.
    async fn zeroes(&self, at: u64, length: u64) -> Result<u64, ErrorOf<M>> {
        // First, because nothing becomes dirty meanwhile, and blocks that are being written are
        // unwritten until the filesystem knows.
        let length = self.clean_until(at, at + length).await? - at;
        if length == 0 {
            return Ok(0);
        }
        let op = Op::ZERO;
        let mut mapper = self.mapper.lock();
        let mapping = mapper.begin(at, length, op)?;
        let bytes = match mapping.kind {
            MappingKind::Hole | MappingKind::Unwritten => length.min(mapping.bytes_from(at)),
            _ => 0,
        };
        mapper.end(&mapping, at, length, bytes, op)?;
        Ok(bytes)
    }

    /// Returns the position from `at` on, at most `end`, of the first folio with dirty data. Waits for
    /// the folio at `at` if it is being written.
    async fn clean_until(&self, at: u64, end: u64) -> Result<u64, ErrorOf<M>> {
        for folio in self.state.folios(&(at..end)) {
            let part = at.max(folio.pos)..end.min(folio.end());
            let mut progress = folio.progress(&part);
            if part.start == at && progress == Progress::Writing {
                self.wait_for_writes().await?;
                progress = folio.progress(&part);
            }
            if progress != Progress::Clean {
                return Ok(part.start);
            }
        }
        Ok(end)
    }

    /// Writes bytes of one mapping to one folio. Returns 0 if the folio has to be looked up again.
    async fn write_chunk(
        &self,
        at: u64,
        left: u64,
        op: Op,
        lock: InodeLock,
        recent: &mut Option<Arc<Folio>>,
        copy: impl FnOnce(&mut [u8]) -> usize,
    ) -> Result<usize, ErrorOf<M>> {
        if self.is_half_dirty() {
            self.throttle().await?;
        }
        let Some(folio) = self.folio_at(at, recent) else {
            *recent = self.add_folio(at, self.wanted(at, left)).await?;
            return Ok(0);
        };
        let access = match lock {
            InodeLock::Caller => self.write_to_folio(folio, at, left, op, copy)?,
            InodeLock::Steps => {
                let _inode = wait::until(|| self.inode.try_lock()).await;
                self.write_to_folio(folio, at, left, op, copy)?
            }
        };
        if let Access::Copied(n) = access {
            return Ok(n);
        }
        let folio = Arc::clone(folio);
        if access == Access::Gone {
            *recent = None;
        }
        self.settle(&folio, at, access).await?;
        Ok(0)
    }

    /// Writes bytes of one mapping to `folio`, as far as it has them.
    fn write_to_folio(
        &self,
        folio: &Arc<Folio>,
        at: u64,
        left: u64,
        op: Op,
        copy: impl FnOnce(&mut [u8]) -> usize,
    ) -> Result<Access, ErrorOf<M>> {
        let state = &*self.state;
        let sequence = state.sequence();
        let mut mapper = self.mapper.lock();
        // The filesystem checks the whole rest of the write before its first byte is changed.
        let mapping = mapper.begin(at, left, op)?;
        let is_known = mapping.kind == MappingKind::Mapped && mapping.flags.is_empty();
        let known = is_known.then(|| (mapping.offset..mapping.end(), sequence));
        let here = left.min(folio.end() - at).min(mapping.bytes_from(at));
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
            None => {
                let is_current = || state.sequence() == sequence;
                let grow = |end| {
                    if !op.contains(Op::ZERO) {
                        state.raise_size(end);
                    }
                };
                let range = at..at + here;
                let allowed = Allowed { is_new, known };
                folio.write(&state.dirty, range, allowed, is_current, copy, grow)
            }
        };
        let n = if let Access::Copied(n) = access { n } else { 0 };
        state.add_dirty(new_dirty);
        let ended = mapper.end(&mapping, at, left, n as u64, op);
        drop(mapper);
        if let Some(error) = refused {
            return Err(error.into());
        }
        if n == 0 {
            ended?;
        }
        Ok(access)
    }

    /// Returns the folio that has byte `at`: `recent`, or another that `recent` is set to.
    #[inline]
    pub(super) fn folio_at<'a>(
        &self,
        at: u64,
        recent: &'a mut Option<Arc<Folio>>,
    ) -> Option<&'a Arc<Folio>> {
        if !recent.as_ref().is_some_and(|folio| folio.has(at, 1)) {
            *recent = self.state.folio(at);
        }
        recent.as_ref()
    }

    /// Returns the bytes of a folio for a write of `left` bytes: more after the end of the file, because
    /// the next write is likely to follow this one.
    fn wanted(&self, at: u64, left: u64) -> u64 {
        match at >= self.state.size() {
            true => left.max(at.min(APPEND_BYTES)),
            false => left,
        }
    }

    fn block_of(&self, at: u64) -> u64 {
        at & !(self.block - 1)
    }

    /// Begins to write the dirty blocks of a range, rounded to blocks, and no others. If `durable`,
    /// waits until they are durable.
    pub(super) async fn write_range(
        &self,
        range: Range<u64>,
        durable: bool,
    ) -> Result<(), ErrorOf<M>> {
        let before = self.state.errors().count;
        self.write_back(range, durable).await?;
        if !durable {
            return Ok(());
        }
        self.wait_for_writes().await?;
        match self.state.errors() {
            errors if errors.count > before => errors.error().map_or(Ok(()), |e| Err(e.into())),
            _ => Ok(()),
        }
    }

    /// Writes dirty data back, because more than half of the cache is dirty.
    #[cold]
    async fn throttle(&self) -> Result<(), ErrorOf<M>> {
        self.clean_range(0..u64::MAX).await?;
        if self.is_half_dirty() {
            self.pool.clean_files().await;
        }
        Ok(())
    }

    fn is_half_dirty(&self) -> bool {
        let accounts = &self.pool.accounts;
        accounts.dirty() > accounts.limit() / 2
    }
}

fn zero(out: &mut [u8]) -> usize {
    out.fill(0);
    out.len()
}

fn operation(flags: IoFlags) -> Op {
    let mut op = Op::WRITE;
    op.set(Op::WRITETHROUGH, flags.contains(IoFlags::WRITETHROUGH));
    op
}
