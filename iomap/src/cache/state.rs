//! The cached data of one file, which its handles and the commands in flight share.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};

use super::accounts::Accounts;
use super::folio::{DirtyFolios, Ending, Folio};
use super::sync::{AtomicU64, AtomicUsize, Mutex, RwLock};
use crate::contract::open_file::EndIo;
use crate::error::{BioError, Error};

/// The folios of a file, and its errors.
pub(super) struct FileState {
    pub(super) accounts: Arc<Accounts>,
    pub(super) block_shift: u32,
    /// Folios by their first byte. They do not overlap.
    folios: RwLock<BTreeMap<u64, Arc<Folio>>>,
    pub(super) dirty: DirtyFolios,
    /// Size of the file in bytes.
    size: AtomicU64,
    /// Number of changes of the places of blocks.
    sequence: AtomicU64,
    /// Number of begins and ends of changes of the size: odd during one.
    resizes: AtomicU64,
    /// Commands in flight, and those of them that write.
    commands: AtomicUsize,
    writes: AtomicUsize,
    /// Number of writes that a power cut may lose after they have ended.
    volatile: AtomicU64,
    /// The number of them at the begin of the last flush, and that of writes past the cache.
    flushed: AtomicU64,
    flushed_past: AtomicU64,
    errors: Mutex<WriteErrors>,
    /// Writes whose end the filesystem does not know yet.
    ended: Mutex<Vec<Ended>>,
    /// Number of them, with those that a thread is telling it of.
    endings: AtomicUsize,
}

/// The end of a write of blocks of a folio.
pub(super) struct Ended {
    pub(super) folio: Arc<Folio>,
    pub(super) blocks: Range<u32>,
    pub(super) end: EndIo,
}

/// Errors of writes that ended after the call that wrote the data.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WriteErrors {
    /// Number of errors. A handle compares it with the number that it has reported.
    pub(super) count: u64,
    /// Position and error of the last one.
    pub(super) last: Option<(u64, u64, BioError)>,
}

impl WriteErrors {
    /// Returns the last error.
    pub(super) fn error(&self) -> Option<Error> {
        let (pos, bytes, error) = self.last?;
        let length = usize::try_from(bytes).unwrap_or(usize::MAX);
        Some(Error::Bio { what: "write", pos, length, error })
    }
}

/// Numbers of writes without Force Unit Access: of cached data, and past the cache if they are known.
#[derive(Clone, Copy)]
pub(super) struct Volatile {
    pub(super) cached: u64,
    pub(super) past: Option<u64>,
}

/// A command that is being prepared.
pub(super) struct Preparing<'a> {
    file: &'a FileState,
    write: bool,
}

impl Drop for Preparing<'_> {
    fn drop(&mut self) {
        self.file.end_command(self.write);
    }
}

/// A change of the size.
pub(super) struct Resizing<'a>(&'a FileState);

impl Drop for Resizing<'_> {
    fn drop(&mut self) {
        self.0.resizes.fetch_add(1, AcqRel);
    }
}

impl Drop for FileState {
    fn drop(&mut self) {
        // The memory of a lost folio stays counted, because the device has it.
        let folios = self.folios.read();
        let freed = folios.values().filter(|folio| !folio.is_lost());
        self.accounts.release(freed.map(|folio| folio.bytes as usize).sum());
    }
}

impl FileState {
    pub(super) fn new(accounts: Arc<Accounts>, block_shift: u32, size: u64) -> Self {
        Self {
            accounts,
            block_shift,
            folios: RwLock::default(),
            dirty: DirtyFolios::new(),
            size: AtomicU64::new(size),
            sequence: AtomicU64::new(0),
            resizes: AtomicU64::new(0),
            commands: AtomicUsize::new(0),
            writes: AtomicUsize::new(0),
            volatile: AtomicU64::new(0),
            flushed: AtomicU64::new(0),
            flushed_past: AtomicU64::new(0),
            errors: Mutex::default(),
            ended: Mutex::default(),
            endings: AtomicUsize::new(0),
        }
    }

    #[inline]
    pub(super) fn size(&self) -> u64 {
        self.size.load(Acquire)
    }

    pub(super) fn raise_size(&self, size: u64) {
        self.size.fetch_max(size, AcqRel);
    }

    /// Lowers the size. The caller has the inode lock.
    pub(super) fn set_size(&self, size: u64) {
        self.size.store(size, Release);
    }

    /// Counts a change of the size until the returned value is dropped. The caller has the inode lock.
    pub(super) fn resizing(&self) -> Resizing<'_> {
        self.resizes.fetch_add(1, AcqRel);
        Resizing(self)
    }

    /// Returns the number of changes of the size, or `None` during one.
    pub(super) fn resizes(&self) -> Option<u64> {
        Some(self.resizes.load(Acquire)).filter(|count| count.is_multiple_of(2))
    }

    pub(super) fn sequence(&self) -> u64 {
        self.sequence.load(Acquire)
    }

    /// Marks mappings that were made before as out of date.
    pub(super) fn mappings_changed(&self) {
        self.sequence.fetch_add(1, AcqRel);
    }

    /// Returns the folio that has byte `pos`.
    #[inline]
    pub(super) fn folio(&self, pos: u64) -> Option<Arc<Folio>> {
        let folios = self.folios.read();
        let (_, folio) = folios.range(..=pos).next_back()?;
        (pos < folio.end()).then(|| Arc::clone(folio))
    }

    /// Returns the folios that have bytes of `range`, in order.
    pub(super) fn folios(&self, range: &Range<u64>) -> Vec<Arc<Folio>> {
        let folios = self.folios.read();
        let before = folios.range(..range.start).next_back().map(|(_, folio)| folio);
        let first = before.filter(|folio| folio.end() > range.start).into_iter();
        let rest = folios.range(range.clone()).map(|(_, folio)| folio);
        first.chain(rest).cloned().collect()
    }

    /// Returns the largest power of two of bytes, at most `most` and at least `least`, for a folio
    /// around `pos` that no other folio overlaps.
    pub(super) fn room(&self, pos: u64, most: u64, least: u64) -> u64 {
        let folios = self.folios.read();
        let mut bytes = most.max(least);
        while bytes > least {
            let start = pos & !(bytes - 1);
            let last = folios.range(..start + bytes).next_back();
            if last.is_none_or(|(_, folio)| folio.end() <= start) {
                break;
            }
            bytes /= 2;
        }
        bytes
    }

    /// Adds a folio. If one is there already, returns false, and does not count the folio's bytes any
    /// longer.
    pub(super) fn insert(&self, folio: &Arc<Folio>) -> bool {
        let mut folios = self.folios.write();
        let last = folios.range(..folio.end()).next_back();
        if last.is_some_and(|(_, other)| other.end() > folio.pos) {
            self.accounts.release(folio.bytes as usize);
            return false;
        }
        folios.insert(folio.pos, Arc::clone(folio));
        true
    }

    /// Removes a folio that has lost its memory to the device. The memory stays counted.
    pub(super) fn forget(&self, folio: &Folio) {
        self.folios.write().remove(&folio.pos);
    }

    /// Evicts a folio, if it is idle and clean. Returns true if it is gone.
    pub(super) fn evict(&self, folio: &Folio) -> bool {
        let mut folios = self.folios.write();
        let Some(memory) = folio.evict() else { return false };
        folios.remove(&folio.pos);
        self.accounts.release(memory.len());
        true
    }

    /// Drops the content of the blocks of a folio that have bytes of `range` of the file, also dirty
    /// content. Returns false if the folio is in use.
    pub(super) fn cut(&self, folio: &Arc<Folio>, range: &Range<u64>) -> bool {
        let dropped = folio.cut(&self.dirty, range);
        if let Some(blocks) = dropped {
            self.remove_dirty(blocks);
        }
        dropped.is_some()
    }

    /// Counts blocks that became dirty.
    #[inline]
    pub(super) fn add_dirty(&self, blocks: u32) {
        if blocks > 0 {
            self.accounts.add_dirty((blocks as usize) << self.block_shift);
        }
    }

    /// Counts blocks that are no longer dirty.
    pub(super) fn remove_dirty(&self, blocks: u32) {
        self.accounts.remove_dirty((blocks as usize) << self.block_shift);
    }

    pub(super) fn begin_command(&self, write: bool) {
        self.commands.fetch_add(1, AcqRel);
        self.writes.fetch_add(usize::from(write), AcqRel);
    }

    pub(super) fn end_command(&self, write: bool) {
        self.writes.fetch_sub(usize::from(write), AcqRel);
        self.commands.fetch_sub(1, Release);
    }

    /// Counts a write without Force Unit Access, before it is submitted.
    pub(super) fn count_volatile(&self) {
        self.volatile.fetch_add(1, AcqRel);
    }

    pub(super) fn volatile(&self) -> u64 {
        self.volatile.load(Acquire)
    }

    /// Returns true if the device may have data of the cache in its volatile cache.
    pub(super) fn has_volatile(&self) -> bool {
        self.volatile() > self.flushed.load(Acquire)
    }

    /// Returns true if the device may have data of these writes in its volatile cache.
    pub(super) fn needs_flush(&self, volatile: Volatile) -> bool {
        let is_past = |past| past > self.flushed_past.load(Acquire);
        volatile.cached > self.flushed.load(Acquire) || volatile.past.is_none_or(is_past)
    }

    /// Notes a flush after the end of these writes.
    pub(super) fn set_flushed(&self, volatile: Volatile) {
        self.flushed.fetch_max(volatile.cached, AcqRel);
        self.flushed_past.fetch_max(volatile.past.unwrap_or(0), AcqRel);
    }

    /// Counts a command until the returned value is dropped.
    pub(super) fn preparing(&self, write: bool) -> Preparing<'_> {
        self.begin_command(write);
        Preparing { file: self, write }
    }

    pub(super) fn commands(&self) -> usize {
        self.commands.load(Acquire)
    }

    pub(super) fn writes(&self) -> usize {
        self.writes.load(Acquire)
    }

    /// Ends a write of blocks of a folio. Blocks that it failed to write are dirty again.
    pub(super) fn written(
        &self,
        folio: &Arc<Folio>,
        blocks: Range<u32>,
        ending: Option<Ending>,
        result: Result<(), BioError>,
    ) {
        let pos = folio.pos + (u64::from(blocks.start) << self.block_shift);
        let bytes = (blocks.len() as u64) << self.block_shift;
        let again = folio.written(&self.dirty, blocks.clone(), ending.is_some(), result.is_err());
        self.add_dirty(again);
        if let Some(Ending { unwritten, end, durable, private }) = ending {
            // The last block has bytes past the end of the file, which is not moved by them.
            let bytes = bytes.min(end.saturating_sub(pos));
            let failed = result.is_err();
            let end = EndIo { pos, bytes, write: true, unwritten, failed, durable, private };
            self.endings.fetch_add(1, AcqRel);
            self.ended.lock().push(Ended { folio: Arc::clone(folio), blocks, end });
        }
        if let Err(error) = result {
            self.record(pos, bytes, error);
        }
    }

    /// Notes that the filesystem knows the end of a write, or that it could not end it: the blocks are
    /// dirty again.
    pub(super) fn end_write(&self, Ended { folio, blocks, end }: Ended, failed: bool) {
        let again = folio.ended(&self.dirty, blocks, failed);
        self.add_dirty(again);
        if failed {
            self.record(end.pos, end.bytes, BioError::System { errno: 0 });
        }
        self.endings.fetch_sub(1, AcqRel);
    }

    /// Returns the number of writes whose end the filesystem does not know yet.
    pub(super) fn endings(&self) -> usize {
        self.endings.load(Acquire)
    }

    fn record(&self, pos: u64, bytes: u64, error: BioError) {
        let mut errors = self.errors.lock();
        errors.count += 1;
        errors.last = Some((pos, bytes, error));
    }

    /// Takes the writes whose end the filesystem does not know yet.
    pub(super) fn take_ended(&self) -> Vec<Ended> {
        std::mem::take(&mut *self.ended.lock())
    }

    pub(super) fn errors(&self) -> WriteErrors {
        *self.errors.lock()
    }
}
