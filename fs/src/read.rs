//! Reads of a file's data.

use nvio_iomap::direct::Failed;
use nvio_iomap::{DmaBuf, Queue, bounce, direct};

use crate::{Error, File};

impl File {
    /// Reads at `pos` into `out`, waits, and gives the number of bytes: less than `out.len()` only
    /// at the end of the file, 0 at or past it. Neither need be aligned. The data goes through DMA
    /// memory of the queue's and is copied; [`read_dma`](Self::read_dma) does without.
    ///
    /// # Errors
    /// Damage to the file's map, or a failure of the device. Nothing of the rest of `out` is
    /// defined then.
    pub fn read_at<Q: Queue>(
        &mut self,
        queue: &mut Q,
        pos: u64,
        out: &mut [u8],
    ) -> Result<usize, Error> {
        let size = self.size();
        bounce::read(queue, self, size, pos, out)
    }

    /// Reads at `pos` into all of `buf`, waits, and gives `buf` back with the number of bytes:
    /// less than its length only at the end of the file. `pos` and the length are multiples of
    /// the device's logical block.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at). The buffer comes back with the error unless the device
    /// failed in a way that may leave it writing.
    pub fn read_dma<Q: Queue>(
        &mut self,
        queue: &mut Q,
        pos: u64,
        buf: DmaBuf,
    ) -> Result<(DmaBuf, usize), Failed<Error>> {
        let size = self.size();
        direct::read(queue, self, size, pos, buf)
    }
}
