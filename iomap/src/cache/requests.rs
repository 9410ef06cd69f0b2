//! Requests on cached files, for callers that poll.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, Waker};

use nvio_driver::future::ReactorQueue;

use super::handle::{BUFFERED, CachedFile};
use super::wait;
use super::write::InodeLock;
use crate::contract::io_args::{Done, IoArgs, IoFlags, Memory, Rejected};
use crate::contract::mapper::{ErrorOf, Mapper};
use crate::error::{Error, FileError};

type Request<M> = Pin<Box<dyn Future<Output = Done<ErrorOf<M>>> + Send>>;

/// Requests of one thread on cached files. They end in any order, each with its token.
///
/// A request that the cache can serve is done when it is submitted. Others wait for the device:
/// their commands are in flight when `submit_*` returns. [`poll`](Self::poll) makes progress, and
/// returns the results of both. A submission waits only for room in the device's queue, and for
/// metadata that is not in memory.
///
/// Writes of other threads to the same range can come between the blocks of one write. With
/// [`CachedFile::write_from`] they cannot.
///
/// A [`Reactor`](nvio_driver::future::Reactor) over the queue makes futures of its requests.
///
/// # Examples
/// ```
/// # use nvio_iomap::{Error, FileRef, Mapper, Mapping, Op, OpenFile};
/// # struct NoState;
/// # impl OpenFile for NoState {
/// #     type Error = Error;
/// # }
/// # struct OneExtent(FileRef<NoState>);
/// # impl Mapper for OneExtent {
/// #     type OpenFile = NoState;
/// #     fn open_file(&self) -> &FileRef<NoState> {
/// #         &self.0
/// #     }
/// #     fn size(&self) -> u64 {
/// #         1 << 20
/// #     }
/// #     fn block_size(&self) -> u32 {
/// #         4096
/// #     }
/// #     fn begin(&mut self, _pos: u64, _length: u64, _op: Op) -> Result<Mapping, Error> {
/// #         Ok(Mapping::mapped(0, 1 << 20, 0))
/// #     }
/// # }
/// use nvio_iomap::{CachedFile, CachedQueue, ImageQueue, IoArgs, PageCache};
///
/// let cache = PageCache::new(ImageQueue::new(vec![7; 1 << 20], 32)?, 256 << 10);
/// let mut file = CachedFile::new(&cache, OneExtent(FileRef::new(NoState)));
/// let mut queue = CachedQueue::new(64);
/// queue.submit_write(&mut file, IoArgs::at(5000).token(1), b"hello".to_vec())?;
/// queue.submit_sync_data(&mut file, 2)?;
/// for token in 10..20 {
///     queue.submit_read(&mut file, IoArgs::at(4096 * token).token(token), vec![0; 100])?;
/// }
/// assert_eq!((queue.in_flight(), queue.in_flight_max()), (12, 64));
/// let mut done = queue.poll(1, |done| assert!(done.result.is_ok()));
/// while queue.in_flight() > 0 {
///     done += queue.wait(|done| assert!(done.result.is_ok()));
/// }
/// assert_eq!(done, 12);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct CachedQueue<M: Mapper> {
    waiting: Vec<Request<M>>,
    ended: VecDeque<Done<ErrorOf<M>>>,
    in_flight_max: usize,
}

impl<M: Mapper> fmt::Debug for CachedQueue<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CachedQueue({} requests in flight)", self.in_flight())
    }
}

impl<M: Mapper> CachedQueue<M> {
    /// Creates a queue for at most `in_flight_max` requests at a time.
    ///
    /// See the [example](Self#examples).
    pub fn new(in_flight_max: usize) -> Self {
        Self { waiting: Vec::new(), ended: VecDeque::new(), in_flight_max }
    }

    /// Returns the largest number of requests in flight.
    ///
    /// See the [example](Self#examples).
    pub fn in_flight_max(&self) -> usize {
        self.in_flight_max
    }

    /// Returns the number of requests whose result was not returned yet.
    ///
    /// See the [example](Self#examples).
    pub fn in_flight(&self) -> usize {
        self.waiting.len() + self.ended.len()
    }

    /// Passes at most `limit` results to `done`, and returns their number. Does not wait.
    ///
    /// See the [example](Self#examples).
    pub fn poll(&mut self, limit: usize, mut done: impl FnMut(Done<ErrorOf<M>>)) -> usize {
        self.advance();
        let count = self.ended.len().min(limit);
        self.ended.drain(..count).for_each(&mut done);
        count
    }

    /// Polls as [`poll`](Self::poll) does until a request has ended. Returns 0 if none is in flight.
    ///
    /// See the [example](Self#examples).
    pub fn wait(&mut self, mut done: impl FnMut(Done<ErrorOf<M>>)) -> usize {
        wait::block_on(wait::until(|| {
            let count = self.poll(usize::MAX, &mut done);
            (count > 0 || self.in_flight() == 0).then_some(count)
        }))
    }

    /// Continues all requests that wait.
    fn advance(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        let Self { waiting, ended, .. } = self;
        waiting.retain_mut(|request| match request.as_mut().poll(&mut context) {
            Poll::Ready(done) => {
                ended.push_back(done);
                false
            }
            Poll::Pending => true,
        });
    }

    /// Checks that a request with `flags` may begin, and returns its memory otherwise.
    fn admit(
        &self,
        flags: IoFlags,
        allowed: IoFlags,
        memory: Memory,
    ) -> Result<Memory, Rejected<ErrorOf<M>>> {
        let refused = flags.difference(allowed);
        let error = match self.in_flight() < self.in_flight_max {
            true if refused.is_empty() => return Ok(memory),
            true => Error::Flags(refused),
            false => Error::Busy,
        };
        Err(Rejected { error: error.into(), payload: memory })
    }
}

impl<M: Mapper + Send + 'static> CachedQueue<M> {
    /// Reads at `io.pos` into all of `memory`, as [`CachedFile::read_at`] does.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Busy`] if [`in_flight_max`](Self::in_flight_max) requests are in flight;
    /// [`Error::Flags`] for any flag. The result has the errors of [`CachedFile::read_at`].
    pub fn submit_read(
        &mut self,
        file: &mut CachedFile<M>,
        io: IoArgs,
        memory: impl Into<Memory>,
    ) -> Result<(), Rejected<ErrorOf<M>>> {
        let mut memory = self.admit(io.flags, IoFlags::empty(), memory.into())?;
        let length = memory.len();
        let ahead = file.note(io.pos, length);
        let at_once = match (&ahead, memory.as_one()) {
            (None, Some(out)) => file.read_at_once(io.pos, out),
            _ => false,
        };
        if at_once {
            let done = Done { token: io.token, result: Ok(length), memory: Some(memory) };
            self.ended.push_back(done);
        } else {
            self.begin(read(file.clone(), io, memory, ahead));
        }
        Ok(())
    }

    /// Writes all of `memory` at `io.pos`, as [`CachedFile::write_from`] does.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Busy`] if [`in_flight_max`](Self::in_flight_max) requests are in flight;
    /// [`Error::Flags`] for flags that [`CachedFile::write_from`] refuses. The result has its other
    /// errors.
    pub fn submit_write(
        &mut self,
        file: &mut CachedFile<M>,
        io: IoArgs,
        memory: impl Into<Memory>,
    ) -> Result<(), Rejected<ErrorOf<M>>> {
        let memory = self.admit(io.flags, BUFFERED, memory.into())?;
        self.begin(write(file.clone(), io, memory));
        Ok(())
    }

    /// Writes dirty data to the device, and makes it durable, as [`CachedFile::sync_data`] does.
    /// Writes that are in flight in this queue are not waited for.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Busy`] if [`in_flight_max`](Self::in_flight_max) requests are in flight. The result
    /// has the errors of [`CachedFile::sync_data`].
    pub fn submit_sync_data(
        &mut self,
        file: &mut CachedFile<M>,
        token: u64,
    ) -> Result<(), Rejected<ErrorOf<M>>> {
        self.admit(IoFlags::empty(), IoFlags::empty(), Memory::Bytes(Vec::new()))?;
        self.begin(sync_data(file.clone(), Arc::clone(&file.reported), token));
        Ok(())
    }

    /// Begins a request, so that its first commands are in flight.
    fn begin(&mut self, request: impl Future<Output = Done<ErrorOf<M>>> + Send + 'static) {
        let mut request: Request<M> = Box::pin(request);
        match request.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => self.ended.push_back(done),
            Poll::Pending => self.waiting.push(request),
        }
    }
}

// A request has a handle of its own, so that the last handle is not dropped before it.

async fn read<M: Mapper>(
    file: CachedFile<M>,
    io: IoArgs,
    mut memory: Memory,
    ahead: Option<Range<u64>>,
) -> Done<ErrorOf<M>> {
    let (mut moved, mut recent, mut result) = (0, None, Ok(()));
    if let Some(range) = ahead {
        file.cache.read_ahead(range).await;
    }
    for part in memory.parts() {
        let pos = io.pos.saturating_add(moved as u64);
        match file.cache.read_at(pos, part, &mut recent).await {
            Ok(bytes) => {
                moved += bytes;
                if bytes < part.len() {
                    break;
                }
            }
            Err(error) => {
                result = if moved > 0 { Ok(()) } else { Err(error) };
                break;
            }
        }
    }
    Done { token: io.token, result: result.map(|()| moved), memory: Some(memory) }
}

async fn write<M: Mapper>(file: CachedFile<M>, io: IoArgs, mut memory: Memory) -> Done<ErrorOf<M>> {
    let (flags, recent) = (io.flags, &mut None);
    let result = file.cache.write_at(io.pos, &mut memory, flags, InodeLock::Steps, recent).await;
    Done { token: io.token, result, memory: Some(memory) }
}

async fn sync_data<M: Mapper>(
    file: CachedFile<M>,
    reported: Arc<AtomicU64>,
    token: u64,
) -> Done<ErrorOf<M>> {
    let result = file.cache.sync(&reported, true).await.map(|()| 0);
    Done { token, result, memory: Some(Memory::Bytes(Vec::new())) }
}

impl<M: Mapper> ReactorQueue for CachedQueue<M> {
    type Completion = Done<ErrorOf<M>>;
    type Error = ErrorOf<M>;

    fn capacity(&self) -> usize {
        self.in_flight_max
    }

    fn busy(_capacity: usize) -> ErrorOf<M> {
        Error::Busy.into()
    }

    fn is_busy(error: &ErrorOf<M>) -> bool {
        error.is_busy()
    }

    fn poll(&mut self, done: &mut dyn FnMut(u64, Self::Completion)) -> usize {
        self.poll(usize::MAX, |request| done(request.token, request))
    }

    fn wait(&mut self, done: &mut dyn FnMut(u64, Self::Completion)) -> Result<usize, ErrorOf<M>> {
        Ok(self.wait(|request| done(request.token, request)))
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn prepare_to_sleep(&mut self) -> bool {
        false
    }
}
