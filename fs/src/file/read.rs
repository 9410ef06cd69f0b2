//! Reads of file data.

use std::io::IoSliceMut;

use nvio_iomap::{Cursor, Disk, DiskQueue, DmaBuf, Failed, IoArgs, Memory, Queue, Rejected, Tag};

use crate::error::Error;
use crate::file::File;
use crate::file::open_inode::OpenInode;

/// A [`FileQueue`](nvio_iomap::FileQueue) over a [`DiskQueue`], through which files of this crate
/// are read and written on a disk or partition.
pub type FileQueue<D = Disk> = nvio_iomap::FileQueue<DiskQueue<Tag<OpenInode>, D>, OpenInode>;

pub(crate) type Queued<Q> = nvio_iomap::FileQueue<Q, OpenInode>;

/// # Reading
/// [`read_at`](Self::read_at) and [`read_vectored_at`](Self::read_vectored_at) read into plain
/// memory at any position; they wait, and copy the data. [`submit_read`](Self::submit_read) reads
/// into DMA memory without a copy and does not wait. [`read_with`](Self::read_with), which waits,
/// and [`submit_read_with`](Self::submit_read_with), which does not, accept flags and any kind of
/// memory.
///
/// Submitted reads complete through the queue's [`poll`](nvio_iomap::FileQueue::poll). The file may
/// be closed before.
///
/// ```
/// use nvio_driver::{Address, Controller};
/// use nvio_emulator::{Backing, Emulator, NamespaceConfig};
/// use nvio_ext4::{FileQueue, Filesystem, QueueSource};
/// use nvio_iomap::{Disk, DiskQueue, DiskReader, IoArgs, IoFlags};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let (folder, image) = (dir.path().join("folder"), dir.path().join("disk.img"));
/// # std::fs::create_dir(&folder)?;
/// # std::fs::write(folder.join("data"), vec![7; 100_000])?;
/// # let made = std::process::Command::new("/sbin/mke2fs")
/// #     .args(["-q", "-t", "ext4", "-d"]).args([&folder, &image]).arg("8M").status()?;
/// # assert!(made.success());
/// let disk = NamespaceConfig::new(Backing::image(&image, true));
/// let emulator = Emulator::builder().namespace(disk).start()?;
/// let controller = Controller::open(&Address::VfioUser(emulator.socket().to_owned()))?;
/// let disk = Disk::whole(&controller.namespace(1)?);
/// let fs = Filesystem::open(QueueSource::new(DiskReader::new(&controller, &disk, 32)?))?;
/// let mut queue = FileQueue::new(DiskQueue::new(&controller, &disk, 128)?);
/// let mut file = fs.file(&fs.lookup(b"/data")?)?;
///
/// // Reads bytes at any position into plain memory.
/// let mut bytes = [0; 1000];
/// assert_eq!(file.read_at(&mut queue, 99_990, &mut bytes)?, 10, "the end of the file");
///
/// // Reads blocks into DMA memory without a copy, with eight commands in flight.
/// for block in 0..8 {
///     file.submit_read(&mut queue, block * 4096, controller.alloc(4096)?, block)?;
/// }
/// assert_eq!(file.in_flight(), 8);
/// queue.ring();
/// let mut done = 0;
/// while done < 8 {
///     done += queue.poll(8, |done| assert_eq!(done.result.unwrap(), 4096));
/// }
///
/// // With this flag the read fails if the mapping is not cached.
/// let io = IoArgs::at(0).flags(IoFlags::NOWAIT);
/// let (memory, n) = file.read_with(&mut queue, io, controller.alloc(65_536)?)?;
/// assert_eq!((memory.into_dma().unwrap()[0], n), (7, 65_536));
/// # Ok(())
/// # }
/// ```
impl File {
    /// Reads at `pos` into `out`, waits, and returns the number of bytes, which is less than
    /// `out.len()` only at the end of the file, and 0 at or past the end. Neither position nor
    /// memory need be aligned. The data is copied from DMA memory of the queue;
    /// [`read_with`](Self::read_with) avoids the copy.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// Damage to the file's map, or a failure of the device. Bytes of `out` that were not read are
    /// unchanged.
    pub fn read_at<Q: Queue<Tag<OpenInode>>>(
        &mut self,
        queue: &mut Queued<Q>,
        pos: u64,
        out: &mut [u8],
    ) -> Result<usize, Error> {
        queue.read_at(self, pos, out)
    }

    /// Reads at `pos` into the slices of `out` in order, like [`read_at`](Self::read_at).
    /// [`FileQueue::read_into`](nvio_iomap::FileQueue::read_into) reads into other kinds of memory.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at).
    pub fn read_vectored_at<Q: Queue<Tag<OpenInode>>>(
        &mut self,
        queue: &mut Queued<Q>,
        pos: u64,
        out: &mut [IoSliceMut<'_>],
    ) -> Result<usize, Error> {
        queue.read_into(self, IoArgs::at(pos), &mut Cursor::new(out))
    }

    /// Reads at `io.pos` into all of `memory`, with `io.flags`, waits, and returns the memory and
    /// the number of bytes. Results of other requests that complete meanwhile are kept for the next
    /// poll.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`FileQueue::read_with`](nvio_iomap::FileQueue::read_with).
    pub fn read_with<Q: Queue<Tag<OpenInode>>>(
        &mut self,
        queue: &mut Queued<Q>,
        io: IoArgs,
        memory: impl Into<Memory>,
    ) -> Result<(Memory, usize), Failed<Error>> {
        queue.read_with(self, io, memory.into())
    }

    /// Submits a read at `pos` into all of `buf`. The queue's [`poll`](nvio_iomap::FileQueue::poll)
    /// returns its result with `token`. This is the fastest form of a read, if `buf` is one block
    /// of the filesystem.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`FileQueue::submit_read_with`](nvio_iomap::FileQueue::submit_read_with).
    #[inline(always)]
    pub fn submit_read<Q: Queue<Tag<OpenInode>>>(
        &mut self,
        queue: &mut Queued<Q>,
        pos: u64,
        buf: DmaBuf,
        token: u64,
    ) -> Result<(), Rejected<Error>> {
        queue.submit_read(self, pos, buf, token)
    }

    /// Submits a read at `io.pos` into all of `memory`, with `io.flags`. The queue's
    /// [`poll`](nvio_iomap::FileQueue::poll) returns its result with `io.token`.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`FileQueue::submit_read_with`](nvio_iomap::FileQueue::submit_read_with).
    pub fn submit_read_with<Q: Queue<Tag<OpenInode>>>(
        &mut self,
        queue: &mut Queued<Q>,
        io: IoArgs,
        memory: impl Into<Memory>,
    ) -> Result<(), Rejected<Error>> {
        queue.submit_read_with(self, io, memory.into())
    }
}
