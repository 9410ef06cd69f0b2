//! Buffered requests with tokens, and futures of them.

use std::cell::RefCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use nvio_driver::future::Reactor;
use nvio_iomap::{Failed, IoArgs, Memory, Rejected};

use crate::error::Error;
use crate::writable_file::WritableFile;
use crate::writable_shared::WritableShared;

type Requests = nvio_iomap::CachedQueue<nvio_ext4::WritableFile>;

/// The call that submits a request.
type Submit = fn(
    &mut Requests,
    &mut nvio_iomap::CachedFile<nvio_ext4::WritableFile>,
    IoArgs,
    Memory,
) -> Result<(), Rejected<nvio_ext4::Error>>;

/// Buffered requests of one thread on any files of a [`WritableVolume`](crate::WritableVolume), which
/// share the volume's cache.
///
/// Results come from [`poll`](nvio_iomap::CachedQueue::poll) or
/// [`wait`](nvio_iomap::CachedQueue::wait), which it inherits from [`nvio_iomap::CachedQueue`].
///
/// # Examples
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// # let image = sample.path();
/// use nvio::iomap::{IoArgs, IoFlags};
///
/// let volume = nvio::WritableVolume::open(&image)?;
/// let mut table = volume.open_writable("/table.db")?;
/// let mut queue = volume.cached_queue(64);
/// for page in 0..8 {
///     let io = IoArgs::at(page * 4096).token(page);
///     queue.submit_write(&mut table, io, vec![page as u8; 4096])?;
/// }
/// while queue.in_flight() > 0 {
///     queue.wait(|done| assert_eq!(done.result.unwrap(), 4096));
/// }
/// // Durable when it is done, and still in the cache.
/// let durably = IoArgs::at(0).flags(IoFlags::WRITETHROUGH | IoFlags::DSYNC);
/// queue.submit_write(&mut table, durably, b"head".to_vec())?;
/// queue.submit_read(&mut table, IoArgs::at(4096), vec![0; 4096])?;
/// queue.submit_sync_data(&mut table, 0)?;
/// while queue.in_flight() > 0 {
///     queue.wait(|done| assert!(done.result.is_ok()));
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct CachedQueue {
    // Dropped before the device that it belongs to.
    queue: Requests,
    volume: Arc<WritableShared>,
}

impl fmt::Debug for CachedQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.queue.fmt(f)
    }
}

impl Deref for CachedQueue {
    type Target = Requests;

    fn deref(&self) -> &Requests {
        &self.queue
    }
}

impl DerefMut for CachedQueue {
    fn deref_mut(&mut self) -> &mut Requests {
        &mut self.queue
    }
}

impl CachedQueue {
    pub(crate) fn new(in_flight_max: usize, volume: Arc<WritableShared>) -> Self {
        Self { queue: Requests::new(in_flight_max), volume }
    }

    /// Converts the queue to one whose requests are futures.
    ///
    /// See the [example](AsyncCachedQueue#examples).
    pub fn into_async(self) -> AsyncCachedQueue {
        AsyncCachedQueue { reactor: Reactor::new(self.queue), _volume: self.volume }
    }

    /// Reads at `io.pos` of a file into all of `memory`, through the cache.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`nvio_iomap::CachedQueue::submit_read`], and those of the first use of the cache.
    pub fn submit_read(
        &mut self,
        file: &mut WritableFile,
        io: IoArgs,
        memory: impl Into<Memory>,
    ) -> Result<(), Rejected<Error>> {
        self.submit(file, io, memory.into(), Requests::submit_read)
    }

    /// Overwrites the bytes of a file from `io.pos` on with `memory`, through the cache, with
    /// `io.flags`: none, or some of [`WRITETHROUGH`](nvio_iomap::IoFlags::WRITETHROUGH) and
    /// [`DSYNC`](nvio_iomap::IoFlags::DSYNC).
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`nvio_iomap::CachedQueue::submit_write`], and those of the first use of the cache.
    pub fn submit_write(
        &mut self,
        file: &mut WritableFile,
        io: IoArgs,
        memory: impl Into<Memory>,
    ) -> Result<(), Rejected<Error>> {
        self.submit(file, io, memory.into(), Requests::submit_write)
    }

    /// Makes the data of a file durable, as [`WritableFile::sync_data`] does.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`nvio_iomap::CachedQueue::submit_sync_data`], and those of the first use of the cache.
    pub fn submit_sync_data(&mut self, file: &mut WritableFile, token: u64) -> Result<(), Error> {
        let submitted = self.queue.submit_sync_data(file.cached()?, token);
        submitted.map_err(|rejected| rejected.error.into())
    }

    #[inline]
    fn submit(
        &mut self,
        file: &mut WritableFile,
        io: IoArgs,
        memory: Memory,
        submit: Submit,
    ) -> Result<(), Rejected<Error>> {
        let cached = match file.cached() {
            Ok(cached) => cached,
            Err(error) => return Err(Rejected { error, payload: memory }),
        };
        submit(&mut self.queue, cached, io, memory)
            .map_err(|Rejected { error, payload }| Rejected { error: error.into(), payload })
    }
}

/// A [`CachedQueue`] whose requests are futures, for any executor that runs on one thread. Cheap to
/// clone.
///
/// The queue dereferences to a [`Reactor`], which has the functions that make progress and wake futures.
///
/// # Examples
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// # let image = sample.path();
/// use std::cell::RefCell;
///
/// use nvio::iomap::IoArgs;
///
/// let volume = nvio::WritableVolume::open(&image)?;
/// let table = RefCell::new(volume.open_writable("/table.db")?);
/// let queue = volume.cached_queue(64).into_async();
/// let text = queue.block_on(async {
///     queue.write(&table, IoArgs::at(5000), b"hello".to_vec()).await?;
///     queue.sync_data(&table).await?;
///     queue.read(&table, IoArgs::at(5000), vec![0; 5]).await
/// });
/// let (memory, bytes) = text.map_err(|failed| failed.error)?;
/// assert_eq!(&memory.into_bytes().unwrap()[..bytes], b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct AsyncCachedQueue {
    reactor: Reactor<Requests>,
    // Keeps the device of the requests open.
    _volume: Arc<WritableShared>,
}

impl fmt::Debug for AsyncCachedQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AsyncCachedQueue").field(&self.reactor).finish()
    }
}

impl Deref for AsyncCachedQueue {
    type Target = Reactor<Requests>;

    fn deref(&self) -> &Self::Target {
        &self.reactor
    }
}

impl AsyncCachedQueue {
    /// Reads as [`CachedQueue::submit_read`] does. `io.token` is ignored.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`CachedQueue::submit_read`], and those of the result.
    pub async fn read(
        &self,
        file: &RefCell<WritableFile>,
        io: IoArgs,
        memory: impl Into<Memory>,
    ) -> Result<(Memory, usize), Failed<Error>> {
        self.request(file, io, memory.into(), Requests::submit_read).await
    }

    /// Overwrites as [`CachedQueue::submit_write`] does. `io.token` is ignored.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`CachedQueue::submit_write`], and those of the result.
    pub async fn write(
        &self,
        file: &RefCell<WritableFile>,
        io: IoArgs,
        memory: impl Into<Memory>,
    ) -> Result<(Memory, usize), Failed<Error>> {
        self.request(file, io, memory.into(), Requests::submit_write).await
    }

    /// Makes the data of a file durable, as [`WritableFile::sync_data`] does.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`WritableFile::sync_data`].
    pub async fn sync_data(&self, file: &RefCell<WritableFile>) -> Result<(), Failed<Error>> {
        let nothing = Memory::Bytes(Vec::new());
        let submit: Submit = |queue, file, io, _| queue.submit_sync_data(file, io.token);
        self.request(file, IoArgs::at(0), nothing, submit).await.map(drop)
    }

    async fn request(
        &self,
        file: &RefCell<WritableFile>,
        io: IoArgs,
        memory: Memory,
        submit: Submit,
    ) -> Result<(Memory, usize), Failed<Error>> {
        if let Ok(mut file) = file.try_borrow_mut()
            && let Err(error) = file.cached()
        {
            return Err(Failed { error, payload: Some(memory) });
        }
        let busy = || nvio_iomap::Error::Busy.into();
        let request = self.reactor.submit(memory, false, |queue, token, memory| {
            // The file may be in use by the caller. A later attempt may find it free.
            let Ok(mut file) = file.try_borrow_mut() else {
                return Err(Rejected { error: busy(), payload: memory });
            };
            match file.cached() {
                Ok(cached) => submit(queue, cached, io.token(token), memory),
                Err(_) => Err(Rejected { error: busy(), payload: memory }),
            }
        });
        let failed = |error, payload| Failed { error: Error::File(error), payload };
        match request.await {
            Ok(done) => done.into_result().map_err(|f| failed(f.error, f.payload)),
            Err(rejected) => Err(failed(rejected.error, Some(rejected.payload))),
        }
    }
}
