//! Files whose reads and writes are futures.

use std::cell::RefCell;
use std::rc::Rc;

use nvio_iomap::{Disk, DiskQueue, Failed, IoArgs, Mapper, Memory, Queue, Tag, WriteQueue};

use crate::file::open_inode::OpenInode;
use crate::{Error, File, WritableFile};

/// A queue of futures, for requests on files of this crate on a disk or partition.
///
/// See the [example](AsyncFile#examples).
pub type AsyncFileQueue<D = Disk> =
    nvio_iomap::AsyncFileQueue<DiskQueue<Tag<OpenInode>, D>, OpenInode>;

/// An open file, or a [`WritableFile`], whose reads and writes are futures. Any number of futures
/// can be in flight. Clones are cheap and share the file; they cannot be sent to another thread.
///
/// # Examples
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// # let image = sample.path();
/// use std::fs::File;
///
/// use futures_util::future::try_join_all;
/// use nvio_ext4::{AsyncFile, Filesystem};
/// use nvio_iomap::{AsyncFileQueue, FileQueue, ImageQueue, IoArgs};
///
/// let device = File::options().read(true).write(true).open(&image)?;
/// let fs = Filesystem::open(File::open(&image)?)?;
/// let queue = AsyncFileQueue::new(FileQueue::new(ImageQueue::new(device, 32)?));
/// let file = AsyncFile::new(fs.file(&fs.lookup("/table.db")?)?);
///
/// // Reads blocks into DMA memory, all in flight at once.
/// let mut blocks = Vec::new();
/// for block in 0..16 {
///     blocks.push(file.read(&queue, IoArgs::at(block * 4096), queue.alloc(4096)?));
/// }
/// // Reads bytes at any position.
/// let tail = file.read(&queue, IoArgs::at(99_000), vec![0; 5000]);
///
/// let (blocks, tail) = queue.block_on(async {
///     let blocks = try_join_all(blocks).await?;
///     Ok::<_, Box<dyn std::error::Error>>((blocks, tail.await?))
/// })?;
/// assert!(blocks.iter().all(|&(_, n)| n == 4096));
/// assert_eq!((tail.1, &tail.0.into_bytes().unwrap()[998..1001]), (1000, &[7, 7, 0][..]));
/// assert_eq!(file.file().borrow().in_flight(), 0);
///
/// // Overwrites.
/// let file = fs.writable()?.writable_file(&fs.lookup("/table.db")?)?;
/// let file = AsyncFile::new(file);
/// let (_, written) = queue.block_on(file.write(&queue, IoArgs::at(512), vec![8; 512]))?;
/// assert_eq!(written, 512);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct AsyncFile<F = File>(Rc<RefCell<F>>);

impl<F> Clone for AsyncFile<F> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<F: Mapper<OpenFile = OpenInode>> AsyncFile<F> {
    /// Wraps an open file.
    ///
    /// See the [example](Self#examples).
    pub fn new(file: F) -> Self {
        Self(Rc::new(RefCell::new(file)))
    }

    /// Returns the file, for its other methods. While it is borrowed, no read or write can be
    /// submitted.
    ///
    /// See the [example](Self#examples).
    pub fn file(&self) -> &RefCell<F> {
        &self.0
    }

    /// Reads at `io.pos` into all of `memory`, with `io.flags`. Returns the memory and the number
    /// of bytes read, which is smaller than the memory only at the end of the file. Position and
    /// length must be multiples of the device's logical block size, except for a `Vec<u8>`.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`AsyncFileQueue::read`](nvio_iomap::AsyncFileQueue::read).
    pub async fn read<Q: Queue<Tag<OpenInode>>>(
        &self,
        queue: &nvio_iomap::AsyncFileQueue<Q, OpenInode>,
        io: IoArgs,
        memory: impl Into<Memory>,
    ) -> Result<(Memory, usize), Failed<Error>> {
        queue.read(&self.0, io, memory).await
    }
}

impl AsyncFile<WritableFile> {
    /// Overwrites the bytes at `io.pos` with all of `memory`, with `io.flags`. Returns the memory
    /// and the number of bytes written. Position and length must be multiples of the device's
    /// logical block size; see [`WritableFile::submit_write_with`].
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`WritableFile::submit_write_with`], and
    /// [`AsyncFileQueue::write`](nvio_iomap::AsyncFileQueue::write).
    pub async fn write<Q: WriteQueue<Tag<OpenInode>>>(
        &self,
        queue: &nvio_iomap::AsyncFileQueue<Q, OpenInode>,
        io: IoArgs,
        memory: impl Into<Memory>,
    ) -> Result<(Memory, usize), Failed<Error>> {
        let memory = memory.into();
        let checked = match self.0.try_borrow() {
            Ok(file) => file.check_device(queue.device_size()),
            Err(_) => Err(nvio_iomap::Error::Busy.into()),
        };
        match checked {
            Ok(()) => queue.write(&self.0, io, memory).await,
            Err(error) => Err(Failed { error, payload: Some(memory) }),
        }
    }
}
