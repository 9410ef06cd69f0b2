//! Futures of requests on files.

use std::cell::RefCell;
use std::fmt;
use std::ops::Deref;
use std::os::fd::BorrowedFd;

use nvio_driver::DmaBuf;
use nvio_driver::future::{Reactor, ReactorQueue};

use crate::contract::io_args::{Done, Failed, IoArgs, IoFlags, Memory, Rejected};
use crate::contract::mapper::Mapper;
use crate::contract::open_file::OpenFile;
use crate::device::bio::{Queue, WriteQueue};
use crate::error::{Error, FileError};
use crate::queue::counters::Counters;
use crate::queue::file_queue::FileQueue;
use crate::queue::read::not_submitted;
use crate::queue::tag::Tag;

/// A [`FileQueue`] whose requests are futures. Cheap to clone; it stays on one thread.
///
/// It dereferences to a [`Reactor`], which has the functions that poll the queue and wake futures.
/// A future that finds no place to wait ends with [`Error::Busy`] and its memory, as does a request
/// with [`IoFlags::NOWAIT`] that would have to wait.
///
/// A request with more commands than the queue has room for waits for the device while it is
/// submitted, like [`FileQueue::submit_read_with`], and so do reads of metadata that is not in
/// memory. Futures of large or cold ranges block the thread for that time.
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
/// use std::cell::RefCell;
///
/// use nvio_iomap::{AsyncFileQueue, FileQueue, ImageQueue, IoArgs};
///
/// // 4,096 futures can wait for a place; `with_waiting` takes another number.
/// let queue = AsyncFileQueue::new(FileQueue::new(ImageQueue::new(vec![7; 1 << 20], 32)?));
/// let file = RefCell::new(OneExtent(FileRef::new(NoState)));
/// let buf = queue.alloc(4096)?;
/// let copied = queue.block_on(async {
///     let (memory, bytes) = queue.read(&file, IoArgs::at(0), buf).await?;
///     assert_eq!(bytes, 4096);
///     queue.write(&file, IoArgs::at(8192), memory).await
/// });
/// assert_eq!(copied.map_err(|failed| failed.error)?.1, 4096);
/// assert_eq!(queue.device_size(), 1 << 20);
/// println!("{:?}", queue.counters());
///
/// let small = FileQueue::new(ImageQueue::new(vec![7; 1 << 20], 32)?);
/// let small: AsyncFileQueue<_, NoState> = AsyncFileQueue::with_waiting(small, 16);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct AsyncFileQueue<Q: Queue<Tag<I>>, I: OpenFile>(Reactor<FileQueue<Q, I>>);

impl<Q: Queue<Tag<I>>, I: OpenFile> fmt::Debug for AsyncFileQueue<Q, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AsyncFileQueue").field(&self.0).finish()
    }
}

impl<Q: Queue<Tag<I>>, I: OpenFile> Clone for AsyncFileQueue<Q, I> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<Q: Queue<Tag<I>>, I: OpenFile> Deref for AsyncFileQueue<Q, I> {
    type Target = Reactor<FileQueue<Q, I>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<Q: Queue<Tag<I>>, I: OpenFile> ReactorQueue for FileQueue<Q, I> {
    type Completion = Done<I::Error>;
    type Error = I::Error;

    fn capacity(&self) -> usize {
        self.device().capacity()
    }

    fn busy(_capacity: usize) -> I::Error {
        Error::Busy.into()
    }

    fn is_busy(error: &I::Error) -> bool {
        error.is_busy()
    }

    fn poll(&mut self, done: &mut dyn FnMut(u64, Done<I::Error>)) -> usize {
        self.ring();
        self.poll(usize::MAX, |request| done(request.token, request))
    }

    fn wait(&mut self, done: &mut dyn FnMut(u64, Done<I::Error>)) -> Result<usize, I::Error> {
        Ok(self.wait(|request| done(request.token, request))?)
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.event_fd()
    }

    fn prepare_to_sleep(&mut self) -> bool {
        self.prepare_to_sleep()
    }
}

impl<Q: Queue<Tag<I>>, I: OpenFile> AsyncFileQueue<Q, I> {
    /// Makes futures of the requests of `queue`, in which nothing is in flight. 4,096 futures can
    /// wait for a place.
    ///
    /// See the [example](Self#examples).
    pub fn new(queue: FileQueue<Q, I>) -> Self {
        Self(Reactor::new(queue))
    }

    /// Creates a queue as [`new`](Self::new) does, with room for `waiting` futures that wait for a
    /// place.
    ///
    /// See the [example](Self#examples).
    pub fn with_waiting(queue: FileQueue<Q, I>, waiting: usize) -> Self {
        Self(Reactor::with_waiting(queue, waiting))
    }

    /// Counters since the queue was created.
    ///
    /// See the [example](Self#examples).
    pub fn counters(&self) -> Counters {
        self.with_queue(|queue| queue.counters()).unwrap_or_default()
    }

    /// Returns the size of the device, bytes.
    ///
    /// See the [example](Self#examples).
    pub fn device_size(&self) -> u64 {
        self.with_queue(|queue| queue.device().size()).unwrap_or(0)
    }

    /// Allocates a zeroed DMA buffer of `bytes`.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// The error of a full arena.
    pub fn alloc(&self, bytes: usize) -> Result<DmaBuf, Error> {
        self.with_queue(|queue| queue.alloc(bytes)).unwrap_or(Err(Error::Busy))
    }

    /// Reads at `io.pos` of a file into all of `memory`, with `io.flags`, and returns the memory
    /// and the number of bytes; see [`FileQueue::submit_read_with`]. `file` is borrowed while the
    /// request is submitted; `io.token` is ignored.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`FileQueue::submit_read_with`]; the error of the device; [`Error::Busy`] if too many
    /// futures wait.
    pub async fn read<M: Mapper<OpenFile = I>>(
        &self,
        file: &RefCell<M>,
        io: IoArgs,
        memory: impl Into<Memory>,
    ) -> Result<(Memory, usize), Failed<I::Error>> {
        self.request(file, &io, memory.into(), |queue, file, token, memory| {
            queue.submit_read_with(file, io.token(token), memory)
        })
        .await
    }

    /// Writes all of `memory` at `io.pos` of a file, with `io.flags`, and returns the memory and
    /// the number of bytes; see [`FileQueue::submit_write_with`].
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`FileQueue::submit_write_with`]; the error of the device; [`Error::Busy`] if too many
    /// futures wait.
    pub async fn write<M: Mapper<OpenFile = I>>(
        &self,
        file: &RefCell<M>,
        io: IoArgs,
        memory: impl Into<Memory>,
    ) -> Result<(Memory, usize), Failed<I::Error>>
    where
        Q: WriteQueue<Tag<I>>,
    {
        self.request(file, &io, memory.into(), |queue, file, token, memory| {
            queue.submit_write_with(file, io.token(token), memory)
        })
        .await
    }

    async fn request<M: Mapper<OpenFile = I>>(
        &self,
        file: &RefCell<M>,
        io: &IoArgs,
        memory: Memory,
        mut submit: impl FnMut(
            &mut FileQueue<Q, I>,
            &mut M,
            u64,
            Memory,
        ) -> Result<(), Rejected<I::Error>>,
    ) -> Result<(Memory, usize), Failed<I::Error>> {
        let nowait = io.flags.contains(IoFlags::NOWAIT);
        let request = self.submit(memory, nowait, |queue, token, memory| {
            match file.try_borrow_mut() {
                Ok(mut file) => submit(queue, &mut file, token, memory),
                // The file is in use. A retry after other requests have ended may find it free.
                Err(_) => Err(Rejected { error: Error::Busy.into(), payload: memory }),
            }
        });
        match request.await {
            Ok(done) => done.into_result(),
            Err(rejected) => Err(not_submitted(rejected)),
        }
    }
}

#[cfg(test)]
mod tests;
