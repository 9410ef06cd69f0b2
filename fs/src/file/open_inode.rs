//! The state of an open file that its handles and its requests in flight share.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use nvio_iomap::{EndIo, FileRef, OpenFile, Report, WeakFileRef};

use crate::change::delayed::{Delayed, Reserved};
use crate::change::noted::Noted;
use crate::error::Error;
use crate::format::superblock::Superblock;
use crate::number::InodeNumber;

/// The state that all handles and requests of an open file share; see [`OpenFile`]. It exists once
/// for each open inode.
#[derive(Debug)]
pub struct OpenInode {
    all: Arc<OpenInodes>,
    number: InodeNumber,
    /// The answers of `maps`, except while the file has cached data or a handle has an old map. Direct
    /// reads look at these.
    page_end: AtomicU64,
    is_plain: AtomicBool,
    is_cached: AtomicBool,
    /// Number of begins of direct writes, of their ends while there is cached data, and of closes of cached
    /// data that was not flushed.
    written_past: AtomicU64,
    /// The part of `written_past` that a flush of the device has made durable.
    flushed_past: AtomicU64,
    /// Number of changes of the size and the map while the file was open.
    map_number: AtomicU64,
    /// Size in bytes after the last change.
    size: AtomicU64,
    maps: Mutex<Maps>,
    /// Blocks of cached data that the filesystem has promised.
    pub(crate) delayed: Mutex<Delayed>,
    /// The last write to cached data.
    pub(crate) modified: Noted,
    /// The last read by a caller that notes its reads.
    pub(crate) accessed: Noted,
    /// The inode has lost its last name.
    is_unlinked: AtomicBool,
    /// The inode was created without a name, and has had none yet.
    may_get_name: AtomicBool,
    /// The file's cached data, while it may have some.
    pub(crate) cached: Mutex<Option<Arc<dyn CachedData>>>,
}

/// The handles of an open file, and the answers that they would give.
#[derive(Debug, Default)]
struct Maps {
    plain: Plain,
    /// Number of handles, and of those that have the map of the last change.
    handles: usize,
    current: usize,
}

/// The cached data of a file.
pub(crate) trait CachedData: fmt::Debug + Send + Sync {
    /// Writes dirty data of a range to the device. Returns false if it would have to wait, with
    /// `nowait`.
    fn write_back(&self, range: Range<u64>, nowait: bool) -> Result<bool, Error>;

    /// Writes back and drops cached data of a range. Returns false if some of it stays.
    fn invalidate(&self, range: Range<u64>) -> bool;

    /// Returns the size of the file in bytes, with the data that is only in the cache.
    fn size(&self) -> u64;

    /// Returns true if the file has a handle.
    fn is_open(&self) -> bool;

    /// Writes to the file through the cache, up to the device.
    fn write_at(&self, pos: u64, data: &[u8]) -> Result<(), Error>;

    /// Sets the size of the cached file, and then calls `change`.
    fn truncate(&self, size: u64, change: Change<'_>) -> Result<(), Error>;

    /// Zeroes the rest of the last block up to `pos`, durably.
    fn zero_tail(&self, pos: u64) -> Result<(), Error>;

    /// Notes that a direct write has extended the file.
    fn raise_size(&self, size: u64);

    /// Calls `change`, and then the file ends at `size` at least.
    fn grow(&self, size: u64, change: Change<'_>) -> Result<(), Error>;

    /// Zeroes a range of the cached file, and calls `change` while none of its whole blocks is cached.
    fn punch_hole(&self, range: Range<u64>, change: Change<'_>) -> Result<(), Error>;

    /// Writes and drops cached data from a byte on, and calls `change`, which moves blocks and sets the
    /// size.
    fn move_blocks(&self, from: u64, size: u64, change: Change<'_>) -> Result<(), Error>;

    fn as_any(&self) -> &dyn Any;
}

/// A change of the blocks of a file under its cached data.
pub(crate) type Change<'a> = &'a mut dyn FnMut() -> Result<(), Error>;

/// The filesystem that changes the blocks of an open file.
pub(crate) trait Changer: fmt::Debug + Send + Sync {
    /// Makes data that was written reachable: converts its blocks, and increases the size of the file.
    fn end_write(&self, open: &OpenInode, end: &EndIo) -> Result<(), Error>;

    /// Makes the changes of the inode durable, as [`OpenFile::sync`] does.
    fn sync(&self, open: &OpenInode, data: bool, flush: bool) -> Result<bool, Error>;
}

/// The answers of an inode without cached data to [`Mapper::is_plain`](nvio_iomap::Mapper::is_plain)
/// and [`Mapper::page_end`](nvio_iomap::Mapper::page_end), and its size.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Plain {
    pub(crate) is_plain: bool,
    pub(crate) page_end: u64,
    pub(crate) size: u64,
}

impl OpenInode {
    fn new(all: Arc<OpenInodes>, number: InodeNumber) -> Self {
        let delayed = Delayed::new(all.reserved.clone());
        Self {
            all,
            number,
            page_end: AtomicU64::new(0),
            is_plain: AtomicBool::new(false),
            is_cached: AtomicBool::new(false),
            written_past: AtomicU64::new(0),
            flushed_past: AtomicU64::new(0),
            map_number: AtomicU64::new(0),
            size: AtomicU64::new(0),
            maps: Mutex::default(),
            delayed: Mutex::new(delayed),
            modified: Noted::default(),
            accessed: Noted::default(),
            is_unlinked: AtomicBool::new(false),
            may_get_name: AtomicBool::new(false),
            cached: Mutex::default(),
        }
    }

    /// Returns true if the inode may get its first name.
    pub(crate) fn may_get_name(&self) -> bool {
        self.may_get_name.load(Ordering::Acquire)
    }

    /// Sets whether the inode may get its first name.
    pub(crate) fn set_may_get_name(&self, may: bool) {
        self.may_get_name.store(may, Ordering::Release);
    }

    /// Returns the inode number.
    ///
    /// See the [example](crate::File#examples).
    pub fn number(&self) -> InodeNumber {
        self.number
    }

    #[inline]
    pub(crate) fn page_end(&self) -> u64 {
        self.page_end.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.is_plain.load(Ordering::Relaxed)
    }

    /// Returns the number of changes of the size and the map while the file was open.
    #[inline]
    pub(crate) fn map_number(&self) -> u64 {
        self.map_number.load(Ordering::Acquire)
    }

    /// Returns the size of the file in bytes.
    #[inline]
    pub(crate) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Returns the cached data, if the file has any.
    pub(crate) fn cached_data(&self) -> Option<Arc<dyn CachedData>> {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.as_ref().is_some_and(|file| !file.is_open()) {
            *cached = None;
            self.set_cached(false);
        }
        cached.clone()
    }

    /// Writes cached data after the end of the file on the device there, so that direct I/O finds the
    /// size.
    #[cold]
    pub(crate) fn write_size_back(&self) -> Result<(), Error> {
        let Some(file) = self.cached_data() else { return Ok(()) };
        let size = self.size();
        if file.size() > size {
            file.write_back(size..u64::MAX, false)?;
        }
        Ok(())
    }

    /// Sends direct reads by the path that asks for cached data, or no longer.
    pub(crate) fn set_cached(&self, is_cached: bool) {
        let maps = self.maps();
        self.is_cached.store(is_cached, Ordering::Release);
        self.publish(&maps);
    }

    /// Adds a handle, which will ask for the number of the map before it uses one. Returns a number that
    /// no map has.
    fn add_handle(&self) -> u64 {
        let mut maps = self.maps();
        maps.handles = maps.handles.saturating_add(1);
        self.publish(&maps);
        u64::MAX
    }

    /// Notes that a handle, which had map `old`, has the map `new`, with these answers.
    fn handle_has(&self, old: u64, new: u64, plain: Plain) {
        let mut maps = self.maps();
        let now = self.map_number();
        if new != now || old == now {
            return;
        }
        maps.plain = plain;
        maps.current = maps.current.saturating_add(1);
        self.size.store(plain.size, Ordering::Release);
        self.publish(&maps);
    }

    fn remove_handle(&self, map_number: u64) {
        let mut maps = self.maps();
        maps.handles = maps.handles.saturating_sub(1);
        if map_number == self.map_number() {
            maps.current = maps.current.saturating_sub(1);
        }
        self.publish(&maps);
    }

    /// Notes a change of the size or the map. Handles have to read the map again.
    fn map_changed(&self, size: u64) {
        let mut maps = self.maps();
        maps.current = 0;
        self.map_number.fetch_add(1, Ordering::AcqRel);
        self.size.store(size, Ordering::Release);
        self.publish(&maps);
    }

    /// Stores the answers that direct reads look at.
    fn publish(&self, maps: &Maps) {
        let is_up_to_date = maps.current == maps.handles && !self.is_cached.load(Ordering::Acquire);
        let Plain { is_plain, page_end, .. } = maps.plain;
        self.page_end.store(if is_up_to_date { page_end } else { 0 }, Ordering::Release);
        self.is_plain.store(is_plain && is_up_to_date, Ordering::Release);
    }

    /// Returns the number of direct writes that may be in the device's volatile cache.
    fn unflushed(&self) -> u64 {
        let flushed = self.flushed_past.load(Ordering::Acquire);
        self.written_past.load(Ordering::Acquire).saturating_sub(flushed)
    }

    fn maps(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle's reference to the open inode, with the number of the map that the handle has.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) inode: FileRef<OpenInode>,
    map_number: u64,
}

impl Handle {
    pub(crate) fn new(inode: FileRef<OpenInode>) -> Self {
        let map_number = inode.state().add_handle();
        Self { inode, map_number }
    }

    /// Returns true if the handle has the map of the last change.
    #[inline]
    pub(crate) fn is_current(&self) -> bool {
        self.map_number == self.inode.state().map_number()
    }

    /// Returns the number of the map that the handle has.
    #[inline]
    pub(crate) fn map_number(&self) -> u64 {
        self.map_number
    }

    /// Notes that the handle has read the map `number`.
    pub(crate) fn has_map(&mut self, number: u64, plain: Plain) {
        self.inode.state().handle_has(self.map_number, number, plain);
        self.map_number = number;
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.inode.state().remove_handle(self.map_number);
    }
}

impl OpenFile for OpenInode {
    type Error = Error;

    fn write_back(&self, pos: u64, length: u64, nowait: bool) -> Result<(), Error> {
        let Some(file) = self.cached_data() else { return Ok(()) };
        match file.write_back(pos..pos.saturating_add(length), nowait)? {
            true => Ok(()),
            false => Err(Error::WouldBlock { inode: self.number, pos }),
        }
    }

    /// Each direct write calls this, before its first command, and after its last one if the file is
    /// cached.
    fn invalidate(&self, pos: u64, length: u64) -> bool {
        self.written_past.fetch_add(1, Ordering::AcqRel);
        self.cached_data().is_none_or(|file| file.invalidate(pos..pos.saturating_add(length)))
    }

    #[inline]
    fn is_cached(&self) -> bool {
        self.is_cached.load(Ordering::Relaxed)
    }

    fn end_io(&self, end: &EndIo) -> Result<(), Error> {
        match self.all.changer() {
            Some(changer) if end.write => changer.end_write(self, end),
            _ => Ok(()),
        }
    }

    fn sync(&self, data: bool, flush: bool) -> Result<bool, Error> {
        self.all.changer().map_or(Ok(flush), |changer| changer.sync(self, data, flush))
    }

    fn written_past(&self) -> Option<u64> {
        let closed = self.all.written_past.load(Ordering::Acquire);
        Some(self.written_past.load(Ordering::Acquire).saturating_add(closed))
    }

    fn left_volatile(&self) {
        self.written_past.fetch_add(1, Ordering::AcqRel);
    }

    fn report(&self, report: &Report<'_, Error>) {
        let Report { pos, bytes, write, error } = *report;
        let what = if write { "write" } else { "read" };
        if error.is_refusal() {
            log::debug!("inode {}: {what} of {bytes} bytes at {pos}: {error}", self.number);
            return;
        }
        log::warn!("inode {}: {what} of {bytes} bytes at {pos}: {error}", self.number);
        self.all.io_errors.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for OpenInode {
    fn drop(&mut self) {
        // A file that is opened again is still to be flushed.
        let unflushed = self.unflushed();
        self.all.written_past.fetch_add(unflushed, Ordering::AcqRel);
        self.all.remove(self.number);
        if *self.is_unlinked.get_mut() {
            let closed = &self.all.closed;
            closed.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
        }
    }
}

/// The open inodes of a filesystem, by number. The references are weak.
#[derive(Debug, Default)]
pub(crate) struct OpenInodes {
    inodes: Mutex<HashMap<InodeNumber, WeakFileRef<OpenInode>>>,
    /// Number of failed reads and writes.
    io_errors: AtomicU64,
    /// Sum of `written_past` of the inodes that are no longer open, without the parts that were durable,
    /// and the part of it that a flush has made durable since.
    written_past: AtomicU64,
    flushed_past: AtomicU64,
    /// Inodes without names whose last handle was closed.
    closed: Mutex<Vec<InodeNumber>>,
    /// The filesystem that is open for changes, if it is.
    changer: OnceLock<Weak<dyn Changer>>,
    pub(crate) reserved: Reserved,
}

impl OpenInodes {
    /// Returns the shared state of inode `number`, and creates it if the inode is not open.
    pub(crate) fn open(self: &Arc<Self>, number: InodeNumber) -> FileRef<OpenInode> {
        let mut open = self.lock();
        let known = open.get(&number).and_then(WeakFileRef::upgrade);
        // The state is created only if there is none, so none is dropped while the lock is held.
        let shared =
            known.unwrap_or_else(|| FileRef::new(OpenInode::new(Arc::clone(self), number)));
        open.insert(number, shared.downgrade());
        shared
    }

    pub(crate) fn set_changer(&self, changer: Weak<dyn Changer>) {
        // The first one stays.
        let _ = self.changer.set(changer);
    }

    fn changer(&self) -> Option<Arc<dyn Changer>> {
        self.changer.get()?.upgrade()
    }

    /// Returns the shared state of inode `number`, if it is open.
    pub(crate) fn find(&self, number: InodeNumber) -> Option<FileRef<OpenInode>> {
        self.lock().get(&number).and_then(WeakFileRef::upgrade)
    }

    /// Returns true if no inode is open.
    pub(crate) fn are_none(&self) -> bool {
        self.lock().is_empty()
    }

    /// Returns the cached data of inode `number`, if it has any.
    pub(crate) fn cached_data(&self, number: InodeNumber) -> Option<Arc<dyn CachedData>> {
        let inode = self.lock().get(&number).and_then(WeakFileRef::upgrade);
        inode.and_then(|inode| inode.state().cached_data())
    }

    /// Gives back what is reserved for the whole blocks in a range of bytes of inode `number`.
    pub(crate) fn release(&self, superblock: &Superblock, number: InodeNumber, bytes: Range<u64>) {
        let inode = self.lock().get(&number).and_then(WeakFileRef::upgrade);
        let Some(inode) = inode else { return };
        let first = bytes.start.div_ceil(superblock.block_size().into());
        let blocks = first..superblock.whole_blocks(bytes.end);
        let delayed = &inode.state().delayed;
        delayed.lock().unwrap_or_else(PoisonError::into_inner).release(superblock, blocks);
    }

    /// Gives back what is reserved ahead for all files. Returns false if nothing is.
    pub(crate) fn release_ahead(&self, superblock: &Superblock) -> bool {
        let open = self.lock().values().filter_map(WeakFileRef::upgrade).collect::<Vec<_>>();
        open.iter().fold(false, |released, inode| {
            let delayed = &inode.state().delayed;
            let mut delayed = delayed.lock().unwrap_or_else(PoisonError::into_inner);
            delayed.release_ahead(superblock) || released
        })
    }

    /// Returns true if writes to new or unwritten blocks of inode `number`, from block `at` on, have not
    /// ended.
    pub(crate) fn has_writes_after(&self, number: InodeNumber, at: u64) -> bool {
        let inode = self.lock().get(&number).and_then(WeakFileRef::upgrade);
        inode.is_some_and(|inode| {
            let delayed = &inode.state().delayed;
            delayed.lock().unwrap_or_else(PoisonError::into_inner).has_blocks_after(at)
        })
    }

    /// Notes that the size or the map of inode `number` was changed, if it is open.
    pub(crate) fn map_changed(&self, number: InodeNumber, size: u64) {
        // Dropped without the lock, which the last reference takes.
        let inode = self.lock().get(&number).and_then(WeakFileRef::upgrade);
        if let Some(inode) = inode {
            inode.state().map_changed(size);
        }
    }

    /// Notes that inode `number` has no name any more, so that it is freed when it is closed. Returns
    /// false if it has no handle and no requests in flight.
    pub(crate) fn set_unlinked(&self, number: InodeNumber) -> bool {
        let inode = self.lock().get(&number).and_then(WeakFileRef::upgrade);
        inode.is_some_and(|inode| {
            inode.state().is_unlinked.store(true, Ordering::Release);
            true
        })
    }

    /// Returns the inodes without names that were closed since the last call.
    pub(crate) fn take_closed(&self) -> Vec<InodeNumber> {
        std::mem::take(&mut *self.closed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the direct writes that may be in the device's volatile cache: of one inode, or of all, and
    /// those of all inodes that were closed.
    pub(crate) fn direct_writes(&self, number: Option<InodeNumber>) -> DirectWrites<'_> {
        let open = self.lock();
        let known: Vec<_> = match number {
            Some(number) => open.get(&number).and_then(WeakFileRef::upgrade).into_iter().collect(),
            None => open.values().filter_map(WeakFileRef::upgrade).collect(),
        };
        drop(open);
        let written = |inode: FileRef<OpenInode>| {
            let unflushed = inode.state().unflushed();
            let written = inode.state().written_past.load(Ordering::Acquire);
            // A write that is in flight needs the next flush, too.
            let written = if inode.in_flight() == 0 { written } else { 0 };
            (unflushed > 0).then_some((inode, written))
        };
        let open = known.into_iter().filter_map(written).collect();
        DirectWrites { all: self, closed: self.written_past.load(Ordering::Acquire), open }
    }

    /// Returns true if requests of inode `number` are in flight.
    pub(crate) fn is_busy(&self, number: InodeNumber) -> bool {
        // A request is counted before it looks for the map, and a map is replaced before this call.
        fence(Ordering::SeqCst);
        let inode = self.lock().get(&number).and_then(WeakFileRef::upgrade);
        inode.is_some_and(|inode| inode.in_flight() > 0)
    }

    /// Returns the number of failed reads and writes.
    pub(crate) fn io_errors(&self) -> u64 {
        self.io_errors.load(Ordering::Relaxed)
    }

    /// Removes a dropped inode, unless it was opened again.
    fn remove(&self, number: InodeNumber) {
        let mut open = self.lock();
        if open.get(&number).is_some_and(WeakFileRef::is_gone) {
            open.remove(&number);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<InodeNumber, WeakFileRef<OpenInode>>> {
        self.inodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Direct writes that may be in the device's volatile cache.
pub(crate) struct DirectWrites<'a> {
    all: &'a OpenInodes,
    closed: u64,
    /// Inodes that are open, with the number of their writes that had ended.
    open: Vec<(FileRef<OpenInode>, u64)>,
}

impl DirectWrites<'_> {
    /// Returns true if there are any.
    pub(crate) fn need_flush(&self) -> bool {
        !self.open.is_empty() || self.closed > self.all.flushed_past.load(Ordering::Acquire)
    }

    /// Notes that the device was flushed after these writes.
    pub(crate) fn set_flushed(self) {
        self.all.flushed_past.fetch_max(self.closed, Ordering::AcqRel);
        for (inode, written) in self.open {
            inode.state().flushed_past.fetch_max(written, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Image;

    #[test]
    fn handles_of_an_inode_share_it() {
        let mut image = Image::new();
        image.inode(12, |_| ());
        image.inode(13, |_| ());
        let fs = image.open();
        let [a, b] = [12, 13].map(|number| fs.inode(number).unwrap());
        let first = fs.file(&a).unwrap();
        let second = fs.file(&a).unwrap();
        let other = fs.file(&b).unwrap();
        let address = |file: &crate::file::File| std::ptr::from_ref(file.open_inode());
        assert_eq!(address(&first), address(&second));
        assert_ne!(address(&first), address(&other));
        assert_eq!(fs.open_inodes().lock().len(), 2);
        drop((first, other));
        assert_eq!(address(&second), address(&fs.file(&a).unwrap()));
        drop(second);
        assert!(fs.open_inodes().lock().is_empty());
    }
}
