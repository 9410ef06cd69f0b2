//! Files whose reads and writes are futures.

use std::cell::RefCell;
use std::rc::Rc;

use nvio_iomap::{Disk, DiskQueue, Failed, IoArgs, Mapper, Memory, Queue, Tag, WriteQueue};

use crate::file::open_inode::OpenInode;
use crate::{Error, File, WritableFile};

/// A queue of futures, for requests on files of this crate on a disk or partition.
pub type AsyncFileQueue<D = Disk> =
    nvio_iomap::AsyncFileQueue<DiskQueue<Tag<OpenInode>, D>, OpenInode>;

/// An open file, or a [`WritableFile`], whose reads and writes are futures. Any number of futures
/// can be in flight. Clones are cheap and share the file; they cannot be sent to another thread.
///
/// ```
/// use futures_util::future::try_join_all;
/// use nvio_driver::{Address, Controller};
/// use nvio_emulator::{Backing, Emulator, NamespaceConfig};
/// use nvio_ext4::{AsyncFile, AsyncFileQueue, FileQueue, Filesystem, QueueSource};
/// use nvio_iomap::{Disk, DiskQueue, DiskReader, IoArgs};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let (folder, image) = (dir.path().join("folder"), dir.path().join("disk.img"));
/// # std::fs::create_dir(&folder)?;
/// # std::fs::write(folder.join("data"), vec![7; 100_000])?;
/// # let made = std::process::Command::new("/sbin/mke2fs")
/// #     .args(["-q", "-t", "ext4", "-d"]).args([&folder, &image]).arg("8M").status()?;
/// # assert!(made.success());
/// # let disk = NamespaceConfig::new(Backing::image(&image, true));
/// # let emulator = Emulator::builder().namespace(disk).start()?;
/// let controller = Controller::open(&Address::VfioUser(emulator.socket().to_owned()))?;
/// let disk = Disk::whole(&controller.namespace(1)?);
/// let fs = Filesystem::open(QueueSource::new(DiskReader::new(&controller, &disk, 32)?))?;
/// let queue = AsyncFileQueue::new(FileQueue::new(DiskQueue::new(&controller, &disk, 128)?));
/// let file = AsyncFile::new(fs.file(&fs.lookup(b"/data")?)?);
///
/// // Reads blocks into DMA memory, all in flight at once.
/// let mut blocks = Vec::new();
/// for block in 0..16 {
///     blocks.push(file.read(&queue, IoArgs::at(block * 4096), controller.alloc(4096)?));
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
/// # Ok(())
/// # }
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
    pub fn new(file: F) -> Self {
        Self(Rc::new(RefCell::new(file)))
    }

    /// Returns the file, for its other methods. While it is borrowed, no read or write can be
    /// submitted.
    pub fn file(&self) -> &RefCell<F> {
        &self.0
    }

    /// Reads at `io.pos` into all of `memory`, with `io.flags`. Returns the memory and the number
    /// of bytes read, which is smaller than the memory only at the end of the file. Position and
    /// length must be multiples of the device's logical block size, except for a `Vec<u8>`.
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
