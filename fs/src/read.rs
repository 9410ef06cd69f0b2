//! Reads of a file's data.

use nvio_iomap::{Disk, DiskQueue, DmaBuf, Failed, Io, Memory, Queue, Rejected, Tag};

use crate::open_inode::OpenInode;
use crate::{Error, File};

/// A queue that files of this crate are read through, of a disk or partition: a
/// [`FileQueue`](nvio_iomap::FileQueue) over a [`DiskQueue`].
pub type FileQueue<D = Disk> = nvio_iomap::FileQueue<DiskQueue<Tag<OpenInode>, D>, OpenInode>;

type Queued<Q> = nvio_iomap::FileQueue<Q, OpenInode>;

impl File {
    /// Reads at `pos` into `out`, waits, and gives the number of bytes: less than `out.len()` only
    /// at the end of the file, 0 at or past it. Neither need be aligned. The data goes through DMA
    /// memory of the queue's and is copied; [`read_dma`](Self::read_dma) does without.
    ///
    /// # Errors
    /// Damage to the file's map, or a failure of the device. What of `out` did not arrive is as it
    /// was.
    pub fn read_at<Q: Queue<Tag<OpenInode>>>(
        &mut self,
        queue: &mut Queued<Q>,
        pos: u64,
        out: &mut [u8],
    ) -> Result<usize, Error> {
        queue.read_at(self, pos, out)
    }

    /// Reads at `pos` into all of `buf`, waits, and gives `buf` back with the number of bytes:
    /// less than its length only at the end of the file. `pos` and the length are multiples of
    /// the device's logical block.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at). The buffer comes back with the error unless the device
    /// failed in a way that may leave it writing.
    pub fn read_dma<Q: Queue<Tag<OpenInode>>>(
        &mut self,
        queue: &mut Queued<Q>,
        pos: u64,
        buf: DmaBuf,
    ) -> Result<(DmaBuf, usize), Failed<Error>> {
        queue.read_dma(self, Io::at(pos), buf)
    }

    /// Submits a read at `io.pos` into all of `memory`; its result comes from the queue's
    /// [`poll`](nvio_iomap::FileQueue::poll), with `io.token`. One DMA buffer of a block is the
    /// fastest.
    ///
    /// # Errors
    /// As [`submit_read`](nvio_iomap::FileQueue::submit_read).
    #[inline]
    pub fn submit_read<Q: Queue<Tag<OpenInode>>>(
        &mut self,
        queue: &mut Queued<Q>,
        io: Io,
        memory: Memory,
    ) -> Result<(), Rejected<Error>> {
        queue.submit_read(self, io, memory)
    }
}
