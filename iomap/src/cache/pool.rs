//! The memory and the device that all cached files share.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use nvio_driver::{DmaBuf, Rejected};

use super::accounts::Accounts;
use super::cleaned::Cleaned;
use super::device::{CacheDevice, CacheQueue};
use super::folio::{Folio, Piece};
use super::runs::Run;
use super::state::FileState;
use super::sync::{self, Mutex};
use super::ticket::{Flush, Purpose, Target, Ticket};
use super::wait;
use crate::device::bio::WriteQueue;
use crate::error::{BioError, Error};

/// A cache of file data in DMA memory, for all files of a device. Cheap to clone.
///
/// See the [example](crate::CachedFile#examples).
#[derive(Clone)]
pub struct PageCache(pub(super) Arc<Pool>);

pub(super) struct Pool {
    pub(super) accounts: Arc<Accounts>,
    device: Mutex<Box<dyn CacheDevice>>,
    /// Folios in the order of their creation or last second chance.
    clock: Mutex<VecDeque<(Weak<FileState>, Weak<Folio>)>>,
    files: Mutex<Vec<Weak<dyn Cleaned>>>,
    pub(super) volatile_cache: bool,
    /// Bytes of the device.
    size: u64,
}

impl PageCache {
    /// Creates a cache over `queue`, which has nothing in flight, of at most `limit` bytes of data.
    ///
    /// See the [example](crate::CachedFile#examples).
    pub fn new<Q: WriteQueue<Ticket> + Send + 'static>(queue: Q, limit: usize) -> Self {
        Self(Arc::new(Pool {
            accounts: Arc::new(Accounts::new(limit)),
            volatile_cache: queue.has_volatile_cache(),
            size: queue.size(),
            device: Mutex::new(Box::new(CacheQueue::new(queue))),
            clock: Mutex::default(),
            files: Mutex::default(),
        }))
    }

    /// Returns the size of the device in bytes.
    ///
    /// See the [example](crate::CachedFile#examples).
    pub fn device_size(&self) -> u64 {
        self.0.size
    }

    /// Writes the dirty data of all files to the device, and makes it durable. An error of a write is that
    /// of the next sync of its file.
    ///
    /// See the [example](crate::CachedFile#examples).
    ///
    /// # Errors
    /// If the flush fails.
    pub fn sync(&self) -> Result<(), Error> {
        wait::block_on(async {
            self.0.clean_files().await;
            self.0.flush().await
        })
    }

    /// Returns the bytes of data that the cache has, and those of them that are dirty.
    ///
    /// See the [example](crate::CachedFile#examples).
    pub fn usage(&self) -> (usize, usize) {
        (self.0.accounts.used(), self.0.accounts.dirty())
    }
}

impl Pool {
    /// Allocates memory of `bytes` for a folio, and evicts others for it. `None` if all of them are
    /// in use or dirty.
    ///
    /// # Errors
    /// If the device has no memory at all.
    pub(super) fn alloc(&self, bytes: usize) -> Result<Option<DmaBuf>, Error> {
        while !self.accounts.reserve(bytes) {
            if !self.evict_one() {
                return Ok(None);
            }
        }
        loop {
            // A block of a folio is read when it was filled.
            match self.device.lock().alloc_uncleared(bytes) {
                Ok(buf) => return Ok(Some(buf)),
                Err(_) if self.evict_one() => {}
                Err(error) => {
                    self.accounts.release(bytes);
                    return if self.accounts.used() == 0 { Err(error) } else { Ok(None) };
                }
            }
        }
    }

    /// Allocates memory that is not part of the cache, for one command.
    ///
    /// # Errors
    /// If the device has none.
    pub(super) fn scratch(&self, bytes: usize) -> Result<DmaBuf, Error> {
        loop {
            match self.device.lock().alloc(bytes) {
                Err(_) if self.evict_one() => {}
                result => return result,
            }
        }
    }

    /// Makes a folio known to eviction.
    pub(super) fn track(&self, file: &Arc<FileState>, folio: &Arc<Folio>) {
        self.clock.lock().push_back((Arc::downgrade(file), Arc::downgrade(folio)));
    }

    /// Makes a file known to [`clean_files`](Self::clean_files).
    pub(super) fn add_file(&self, file: Weak<dyn Cleaned>) {
        let mut files = self.files.lock();
        files.retain(|file| file.strong_count() > 0);
        files.push(file);
    }

    /// Writes dirty data of all files back. Returns true if a command is in flight that could make
    /// room.
    pub(super) async fn clean_files(&self) -> bool {
        let files: Vec<_> = self.files.lock().iter().filter_map(Weak::upgrade).collect();
        let mut busy = false;
        for file in files {
            busy |= file.clean().await;
        }
        busy
    }

    /// Evicts a folio that was not used lately. Returns false if none can be evicted.
    pub(super) fn evict_one(&self) -> bool {
        // Twice around: the first time may only take the marks of use.
        let most = self.clock.lock().len() * 2;
        for _ in 0..most {
            let Some((file, folio)) = self.clock.lock().pop_front() else { return false };
            let (Some(owner), Some(found)) = (file.upgrade(), folio.upgrade()) else { continue };
            if !found.take_used() && owner.evict(&found) {
                return true;
            }
            self.clock.lock().push_back((file, folio));
        }
        false
    }

    /// Calls `body` while this thread has all folios of the clock.
    #[cfg(test)]
    pub(super) fn without_clock_for_tests(&self, body: impl FnOnce()) {
        let taken = std::mem::take(&mut *self.clock.lock());
        body();
        self.clock.lock().extend(taken);
    }

    /// Returns the largest number of bytes of a command at byte `addr`.
    pub(super) fn max_transfer_at(&self) -> impl Fn(u64) -> usize {
        let device = self.device.lock();
        let most = device.max_transfer_at(0);
        move |_| most
    }

    /// Submits reads of pieces of a folio.
    pub(super) fn read(&self, target: &Target, pieces: Vec<Piece<DmaBuf>>, patch: bool) {
        let mut device = self.device.lock();
        for Piece { blocks, addr, memory, .. } in pieces {
            let target = Target { blocks, ..target.clone() };
            target.file.begin_command(false);
            let purpose = if patch { Purpose::Patch(target) } else { Purpose::Fill(target) };
            let mut next = (memory, Ticket(purpose));
            while let Err(Rejected { error, payload: (memory, ticket) }) =
                device.read(addr, next.0, next.1)
            {
                if !error.is_busy() {
                    ticket.complete(memory, Err(rejected(&error)));
                    break;
                }
                next = (memory, ticket);
                make_room(&mut **device);
            }
        }
        device.ring();
    }

    /// Submits the write of a run.
    pub(super) fn write(&self, run: Run, fua: bool) {
        let Run { addr, parts, memory, .. } = run;
        if parts.is_empty() {
            return;
        }
        let mut ticket = Ticket(Purpose::Write(parts));
        let mut device = self.device.lock();
        let refused = loop {
            match device.write(addr, &memory, fua, ticket) {
                Err(Rejected { error, payload }) if error.is_busy() => ticket = payload,
                submitted => break submitted.err(),
            }
            make_room(&mut **device);
        };
        // Before the command can end: only the device has the memory of a write that has ended.
        drop(memory);
        if let Some(Rejected { error, payload }) = refused {
            payload.end(Err(rejected(&error)));
        }
        device.ring();
    }

    /// Flushes the device's volatile cache, and waits for it.
    ///
    /// # Errors
    /// [`Error::Flush`], or the error of a device that does not accept a flush.
    pub(super) async fn flush(&self) -> Result<(), Error> {
        if !self.volatile_cache {
            return Ok(());
        }
        let flush = Arc::new(Flush::default());
        self.submit_flush(&flush)?;
        self.wait_until(|| flush.ended.load(std::sync::atomic::Ordering::Acquire)).await;
        let failed = flush.failed.lock().take();
        failed.map_or(Ok(()), |error| Err(Error::Flush { error }))
    }

    fn submit_flush(&self, flush: &Arc<Flush>) -> Result<(), Error> {
        let mut ticket = Ticket(Purpose::Flush(Arc::clone(flush)));
        let mut device = self.device.lock();
        while let Err(Rejected { error, payload }) = device.flush(ticket) {
            if !error.is_busy() {
                return Err(error);
            }
            ticket = payload;
            make_room(&mut **device);
        }
        device.ring();
        Ok(())
    }

    /// Polls the device once, and returns the number of commands that ended.
    pub(super) fn poll(&self) -> usize {
        // Another thread polls for this one, too.
        self.device.try_lock().map_or(0, |mut device| device.poll())
    }

    /// Polls until `done` returns true.
    pub(super) async fn wait_until(&self, mut done: impl FnMut() -> bool) {
        wait::until(|| {
            let ended = done() || {
                self.poll();
                done()
            };
            ended.then_some(())
        })
        .await;
    }
}

/// Polls until a command has ended, so that the queue has room for another.
fn make_room(device: &mut dyn CacheDevice) {
    device.ring();
    while device.poll() == 0 {
        sync::spin_loop();
    }
}

/// The error of a command that the queue did not accept.
#[cold]
fn rejected(error: &Error) -> BioError {
    log::warn!("a command of the cache: {error}");
    BioError::System { errno: 0 }
}
