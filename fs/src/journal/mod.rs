//! The journal of a filesystem that is open for changes.
//!
//! A change is made by a [`Handle`](handle::Handle): it reads blocks, changes copies of them, and its
//! copies become part of the running [`Transaction`](transaction::Transaction) together. Readers see
//! the newest contents: of the running transaction, of the one that is being committed, of committed
//! ones, and then of the device.
//!
//! The journal has no thread. A thread that needs a transaction to be durable commits it, by writing it
//! to the [`Log`]; threads that wait meanwhile have their changes in the next one, which one of them
//! commits for all ([`log_lock`]). When the log has no room, all committed blocks are written to their places
//! (a checkpoint), and the log begins anew. A sync of one file may write a [fast commit](fast_commit)
//! instead, which leaves its changes in the running transaction. The mutex of the transactions is never
//! held during I/O;
//! a second one, [`Journal::log`], is held by the thread that commits.

pub(crate) mod changes;
mod errors;
pub(crate) mod fast_commit;
pub(crate) mod handle;
pub(crate) mod log;
mod log_lock;
pub(crate) mod runs;
pub(crate) mod sink;
pub(crate) mod state;
pub(crate) mod transaction;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::blocks::block_cache::Block;
use crate::blocks::device::WriteRange;
use crate::blocks::newer::Newer;
use crate::change::delayed::{Delayed, Reserved};
use crate::change::time::now;
use crate::error::Error;
use crate::error::reasons::MmpHolder;
use crate::filesystem::Filesystem;
use crate::format::corrupt::Corrupt;
use crate::format::error_fields::ErrorFields;
use crate::journal::changes::Changes;
use crate::journal::errors::Errors;
use crate::journal::fast_commit::Pending;
use crate::journal::handle::{Handle, Stop};
use crate::journal::log::Log;
use crate::journal::log_lock::{LogGuard, LogLock};
use crate::journal::sink::Sink;
use crate::journal::state::State;
use crate::journal::transaction::Transaction;
use crate::number::{InodeNumber, PhysicalBlock};
use crate::recovery::journal::block::is_later;

/// `errno` of an I/O error, which the journal's superblock keeps after a failed write to the log.
const EIO: i32 = -5;

/// The journal of a filesystem that is open for changes.
pub(crate) struct Journal {
    sink: Sink,
    state: Mutex<State>,
    /// The log, for the thread that commits or makes a checkpoint.
    log: LogLock,
    errors: Errors,
    /// Maximum number of blocks in a transaction: a quarter of the log, so that a commit needs at
    /// most one checkpoint.
    limit: usize,
}

impl Journal {
    /// Creates the journal of an empty log whose first transaction will be `tid`, for a filesystem with
    /// `free` blocks.
    pub(crate) fn new(sink: Sink, log: Log, tid: u32, free: u64, reserved: Reserved) -> Self {
        let limit = usize::try_from(log.length() >> 2).unwrap_or(usize::MAX);
        let (state, log) = (Mutex::new(State::new(tid, free, reserved)), LogLock::new(log));
        Self { sink, state, log, errors: Errors::default(), limit }
    }

    /// Lets one transaction have most of the blocks of the log.
    pub(crate) fn with_large_transactions(mut self) -> Self {
        // A quarter is left to descriptors and revokes.
        self.limit = self.limit.saturating_mul(3);
        self
    }

    /// Returns true if nothing was changed since the last commit.
    pub(crate) fn is_unchanged(&self) -> bool {
        self.lock().running.is_empty()
    }

    /// Returns an error if the running transaction is too large for the empty log.
    pub(crate) fn check_size(&self) -> Result<(), Error> {
        let state = self.lock();
        // A block of revokes has at least 64.
        let revokes = state.running.revoked.len() >> 6;
        let (blocks, limit) = (state.running.images.len().saturating_add(revokes), self.limit);
        if blocks > limit { Err(Error::ChangeTooLarge { blocks, limit }) } else { Ok(()) }
    }

    /// Makes a change: calls `apply` until no block that it needs is missing, and adds its blocks to
    /// the running transaction.
    ///
    /// # Errors
    /// The error of `apply`, or of reading a block: nothing was changed. [`Error::JournalAborted`].
    pub(crate) fn change<T>(
        &self,
        fs: &Filesystem,
        mut apply: impl FnMut(&mut Handle<'_>) -> Result<T, Stop>,
    ) -> Result<T, Error> {
        self.make_room(fs)?;
        let mut attempt = || {
            self.attempt(fs, |handle| {
                let value = apply(handle)?;
                Ok((value, std::mem::take(&mut handle.changes)))
            })
        };
        let result = match attempt() {
            Err(Error::NoSpace | Error::NoInodes) if self.make_space(fs)? => attempt(),
            result => result,
        };
        self.recorded(fs, result)
    }

    /// Returns the result of a change. Damage that it has met is recorded in the superblock, if it is the
    /// first of the session.
    pub(crate) fn recorded<T>(
        &self,
        fs: &Filesystem,
        result: Result<T, Error>,
    ) -> Result<T, Error> {
        if let Err(Error::Corrupt(damage)) = &result {
            self.record_damage(fs, damage);
        }
        result
    }

    #[cold]
    fn record_damage(&self, fs: &Filesystem, damage: &Corrupt) {
        if !self.errors.are_wanted() {
            return;
        }
        ::log::error!("{damage}: run e2fsck");
        // A close has the log until the superblock has been written the last time.
        let Ok(Some(_log)) = self.log.lock(&self.state, |state| Ok(state.is_closed)) else {
            return;
        };
        let fields = ErrorFields::of_damage(damage, now());
        if let Err(error) = self.errors.record(fs, &self.sink, &fields) {
            ::log::warn!("the superblock cannot record the damage: {error}");
        }
    }

    /// Gives back what is reserved ahead, and commits the transactions that freed blocks or inodes, so that
    /// they can be allocated. Returns false if there is nothing of that.
    #[cold]
    fn make_space(&self, fs: &Filesystem) -> Result<bool, Error> {
        let has_released = fs.open_inodes().release_ahead(fs.superblock());
        let mut state = self.lock();
        let before = state.excluded.blocks();
        state.release(|inode| fs.open_inodes().is_busy(inode));
        let frees = |transaction: &Transaction| {
            !transaction.freed.is_empty() || !transaction.freed_inodes.is_empty()
        };
        let are_left = frees(&state.running) || state.committing.as_deref().is_some_and(frees);
        if !are_left {
            return Ok(has_released || state.excluded.blocks() < before);
        }
        drop(state);
        self.sync(fs)?;
        Ok(true)
    }

    /// Calls `apply` until no block that it needs is missing, and makes the changes that it returns.
    fn attempt<T>(
        &self,
        fs: &Filesystem,
        mut apply: impl FnMut(&mut Handle<'_>) -> Result<(T, Changes), Stop>,
    ) -> Result<T, Error> {
        let (mut arrived, mut checkpoints) = (HashMap::new(), 0);
        // The loop ends, because each attempt has a block that the one before did not have. It may
        // begin anew after a checkpoint, which takes much longer than an attempt.
        loop {
            let mut state = self.lock();
            state.check()?;
            if state.checkpoints != checkpoints {
                checkpoints = state.checkpoints;
                arrived.clear();
            }
            let mut handle = Handle::new(fs.metadata(), &state, &arrived);
            match apply(&mut handle) {
                Ok((value, changes)) => {
                    let (blocks, limit) = (changes.blocks.len(), self.limit);
                    if blocks > limit {
                        return Err(Error::ChangeTooLarge { blocks, limit });
                    }
                    state.merge(&changes);
                    // Before another thread can commit the changes.
                    keep(fs, changes);
                    return Ok(value);
                }
                Err(Stop::Fail(error)) => return Err(error),
                Err(Stop::Read(number)) => {
                    drop(state);
                    arrived.insert(number, fs.block(number)?);
                }
            }
        }
    }

    /// Reads blocks as a change would see them.
    pub(crate) fn read<T>(
        &self,
        fs: &Filesystem,
        mut apply: impl FnMut(&mut Handle<'_>) -> Result<T, Stop>,
    ) -> Result<T, Error> {
        self.attempt(fs, |handle| Ok((apply(handle)?, Changes::default())))
    }

    /// Reserves blocks for a range of blocks of a file with data in the cache; `hole` if they are to be
    /// allocated.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::JournalAborted`].
    pub(crate) fn reserve(
        &self,
        fs: &Filesystem,
        delayed: &Mutex<Delayed>,
        range: Range<u64>,
        hole: bool,
    ) -> Result<(), Error> {
        let reserve = || {
            let state = self.lock();
            state.check()?;
            let mut delayed = delayed.lock().unwrap_or_else(PoisonError::into_inner);
            let available = state.available();
            Ok::<_, Error>(delayed.reserve(fs.superblock(), range.clone(), hole, available))
        };
        match reserve()? || self.make_space(fs)? && reserve()? {
            true => Ok(()),
            false => Err(Error::NoSpace),
        }
    }

    /// Reserves blocks ahead for a file that grows, if many are free.
    pub(crate) fn reserve_ahead(
        &self,
        fs: &Filesystem,
        delayed: &Mutex<Delayed>,
        range: Range<u64>,
        map_number: u64,
    ) {
        let state = self.lock();
        let mut delayed = delayed.lock().unwrap_or_else(PoisonError::into_inner);
        delayed.reserve_ahead(fs.superblock(), range, map_number, state.available());
    }

    /// Commits the running transaction if it has become too large for more changes.
    fn make_room(&self, fs: &Filesystem) -> Result<(), Error> {
        let state = self.lock();
        // A block of revokes has at least 64.
        let revokes = state.running.revoked.len() >> 6;
        if state.running.images.len().saturating_add(revokes) < self.limit {
            return Ok(());
        }
        let tid = state.running.tid;
        drop(state);
        self.commit(fs, tid)
    }

    /// Makes all changes durable that were made so far.
    pub(crate) fn sync(&self, fs: &Filesystem) -> Result<(), Error> {
        let state = self.lock();
        let running = (!state.running.is_empty()).then_some(state.running.tid);
        let tid = running.or(state.committing.as_ref().map(|committing| committing.tid));
        state.check()?;
        drop(state);
        tid.map_or(Ok(()), |tid| self.commit(fs, tid))
    }

    /// Makes the changes of an inode durable; with `data` only those without which its data cannot be
    /// read. With `flush`, its data may be in the device's volatile cache: returns true if it still is,
    /// because nothing had to be committed that flushes the cache, too. `tags` encodes the changes of the
    /// running transaction for a fast commit.
    pub(crate) fn sync_inode(
        &self,
        fs: &Filesystem,
        inode: InodeNumber,
        (data, flush): (bool, bool),
        tags: impl FnMut(&mut Handle<'_>, &Pending) -> Result<Option<Vec<Vec<u8>>>, Stop>,
    ) -> Result<bool, Error> {
        let mut state = self.lock();
        state.check()?;
        let Some(point) = state.needed(inode, data) else { return Ok(flush) };
        state.running.needs_flush |= flush && !point.is_begun;
        drop(state);
        let is_done = |state: &State| {
            state.check()?;
            Ok(state.is_durable(point))
        };
        if let Some(mut log) = self.log.lock(&self.state, is_done)?
            && !self.fast_commit(fs, &mut log, tags)?
        {
            self.commit_running(fs, &mut log)?;
        }
        Ok(flush && point.is_begun)
    }

    /// Makes transaction `tid` durable, and those before it.
    fn commit(&self, fs: &Filesystem, tid: u32) -> Result<(), Error> {
        let is_done = |state: &State| {
            state.check()?;
            Ok(!is_later(tid, state.committed_tid))
        };
        match self.log.lock(&self.state, is_done)? {
            Some(mut log) => self.commit_running(fs, &mut log),
            None => Ok(()),
        }
    }

    fn commit_running(&self, fs: &Filesystem, log: &mut Log) -> Result<(), Error> {
        let transaction = self.lock().start_commit();
        let mut written = Ok(());
        if !log.has_room(&transaction) {
            written = self.checkpoint(fs, log, transaction.tid);
            if written.is_ok() && !log.has_room(&transaction) {
                let (blocks, limit) = (transaction.images.len(), self.limit);
                written = Err(Error::ChangeTooLarge { blocks, limit });
            }
        }
        match written.and_then(|()| log.write(&self.sink, &transaction)) {
            Ok(()) => {
                self.lock().end_commit(&transaction, |inode| fs.open_inodes().is_busy(inode));
                Ok(())
            }
            Err(error) => {
                self.abort(fs, log, transaction.tid);
                Err(error)
            }
        }
    }

    /// Writes a fast commit with the changes of the running transaction that no other one has. Returns
    /// false if they need a full commit.
    fn fast_commit(
        &self,
        fs: &Filesystem,
        log: &mut Log,
        mut tags: impl FnMut(&mut Handle<'_>, &Pending) -> Result<Option<Vec<Vec<u8>>>, Stop>,
    ) -> Result<bool, Error> {
        if !log.has_fast_commits() {
            return Ok(false);
        }
        let mut arrived = HashMap::new();
        // The loop ends, because each attempt has a block that the one before did not have. There is no
        // checkpoint meanwhile, because this thread has the log.
        let (bytes, tid, needs_flush) = loop {
            let mut state = self.lock();
            let Some(pending) = &state.running.pending else { return Ok(false) };
            let mut handle = Handle::new(fs.metadata(), &state, &arrived);
            match tags(&mut handle, pending) {
                Ok(tags) => {
                    let tid = state.running.tid;
                    let bytes = tags.and_then(|tags| log.fast_commit(&tags, tid));
                    let Some(bytes) = bytes else { return Ok(false) };
                    break (bytes, tid, state.start_fast_commit());
                }
                Err(Stop::Read(number)) => {
                    drop(state);
                    arrived.insert(number, fs.block(number)?);
                }
                Err(Stop::Fail(error)) => {
                    ::log::warn!("a full commit instead of a fast one: {error}");
                    return Ok(false);
                }
            }
        };
        let flushed = if needs_flush { self.sink.flush() } else { Ok(()) };
        match flushed.and_then(|()| log.write_fast_commit(&self.sink, &bytes)) {
            Ok(()) => {
                self.lock().end_fast_commit();
                Ok(true)
            }
            Err(error) => {
                self.abort(fs, log, tid);
                Err(error)
            }
        }
    }

    /// Writes all committed blocks to their places, and empties the log. `tid` is the next
    /// transaction to be committed.
    fn checkpoint(&self, fs: &Filesystem, log: &mut Log, tid: u32) -> Result<(), Error> {
        let committed = self.lock().committed.clone();
        let mut blocks: Vec<(PhysicalBlock, Block)> = committed.into_iter().collect();
        blocks.sort_unstable_by_key(|&(number, _)| number);
        for (number, block) in &mut blocks {
            self.errors.keep(fs, *number, block)?;
        }
        let superblock = fs.superblock();
        let runs = blocks.chunk_by(|(a, _), (b, _)| a.checked_add(1) == Some(*b));
        let runs: Vec<(u64, Vec<u8>)> = runs
            .map(|run| {
                let start = run.first().map(|&(number, _)| number).unwrap_or_default();
                let bytes = run.iter().flat_map(|(_, block)| block.iter().copied()).collect();
                (superblock.address(start), bytes)
            })
            .collect();
        let ranges: Vec<WriteRange<'_>> =
            runs.iter().map(|(offset, bytes)| WriteRange { offset: *offset, bytes }).collect();
        self.sink.write(&ranges, false)?;
        self.sink.flush()?;
        log.restart(&self.sink, tid)?;
        let mut state = self.lock();
        state.checkpoints = state.checkpoints.wrapping_add(1);
        // The cache may have older contents.
        blocks.into_iter().for_each(|(number, block)| fs.metadata().replace(number, block));
        state.committed.clear();
        Ok(())
    }

    /// Stops all changes after a failed write: recovery must find the log as it is.
    fn abort(&self, fs: &Filesystem, log: &mut Log, tid: u32) {
        self.lock().is_aborted = true;
        ::log::error!("transaction {tid} could not be written: nothing can be changed any more");
        if let Err(error) = log.record_error(&self.sink, EIO) {
            ::log::warn!("the journal's superblock cannot tell of the error: {error}");
        }
        if let Err(error) = self.errors.record(fs, &self.sink, &ErrorFields::of_log(now())) {
            ::log::warn!("the superblock cannot record the error: {error}");
        }
    }

    /// Stops all changes, because another host has taken the filesystem.
    pub(crate) fn lose(&self, holder: Box<MmpHolder>) {
        self.lock().lost = Some(holder);
    }

    /// Writes a block to its place outside of any transaction, durably.
    pub(crate) fn write_in_place(
        &self,
        fs: &Filesystem,
        number: PhysicalBlock,
        mut block: Block,
    ) -> Result<(), Error> {
        self.errors.keep(fs, number, &mut block)?;
        let offset = fs.superblock().address(number);
        self.sink.write(&[WriteRange { offset, bytes: &block }], true)?;
        fs.metadata().replace(number, block);
        Ok(())
    }

    /// Writes data of files, durably.
    pub(crate) fn write_data(&self, ranges: &[WriteRange<'_>]) -> Result<(), Error> {
        self.sink.write(ranges, true)
    }

    /// Makes all writes to the device durable that have completed.
    pub(crate) fn flush(&self) -> Result<(), Error> {
        self.sink.flush()
    }

    /// Returns the number of bytes that were written to the device.
    pub(crate) fn written(&self) -> u64 {
        self.sink.written()
    }

    /// Tells in the journal's superblock that transactions follow.
    pub(crate) fn start(&self) -> Result<(), Error> {
        let tid = self.lock().running.tid;
        let Some(mut log) = self.lock_log()? else { return Ok(()) };
        self.errors.start();
        log.restart(&self.sink, tid)
    }

    /// Commits everything, writes it to its place, and empties the log.
    pub(crate) fn end(&self, fs: &Filesystem) -> Result<(), Error> {
        // Other threads may make changes until the filesystem is closed under the mutex.
        loop {
            self.sync(fs)?;
            let mut state = self.lock();
            if state.running.is_empty() && state.committing.is_none() {
                state.is_closed = true;
                break;
            }
        }
        let Some(mut log) = self.lock_log()? else { return Ok(()) };
        let tid = self.lock().running.tid;
        self.checkpoint(fs, &mut log, tid)?;
        log.finish(&self.sink, tid)
    }

    /// Waits for the log.
    fn lock_log(&self) -> Result<Option<LogGuard<'_>>, Error> {
        self.log.lock(&self.state, |_| Ok(false))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Newer for Journal {
    fn image(&self, number: PhysicalBlock) -> (Option<Block>, u64) {
        let state = self.lock();
        (state.image(number), state.checkpoints)
    }

    fn keep_block(&self, checkpoints: u64, keep: &mut dyn FnMut()) -> bool {
        let state = self.lock();
        let is_new = state.checkpoints == checkpoints;
        if is_new {
            keep();
        }
        is_new
    }

    fn version(&self) -> u64 {
        self.lock().version
    }

    fn names_version(&self) -> u64 {
        self.lock().names_version
    }

    fn is_unlinked(&self, inode: InodeNumber) -> bool {
        self.lock().orphans.contains(&inode)
    }

    fn keep_parsed(&self, version: u64, keep: &mut dyn FnMut()) {
        let state = self.lock();
        if state.version == version {
            keep();
        }
    }
}

/// Puts what a change has made of inodes and group descriptors into the caches, and tells open files.
fn keep(fs: &Filesystem, changes: Changes) {
    for inode in changes.inodes {
        let (number, size) = (inode.number(), inode.size());
        match inode.links() {
            0 => fs.inner.inodes.remove(number),
            _ => fs.inner.inodes.insert(number, inode),
        }
        if changes.has_new_map {
            fs.open_inodes().map_changed(number, size);
        }
    }
    for (group, descriptor) in changes.groups {
        fs.metadata().replace_group(group, descriptor);
    }
}
