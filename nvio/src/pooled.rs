//! A queue of a pool, with the memory that its reads use again.

use nvio_driver::DmaBuf;
use nvio_ext4::OpenInode;
use nvio_iomap::{FileQueue, IoArgs, Mapper, Memory, Queue, Tag};

/// Most bytes that are read into the memory of a queue. Longer reads are copied.
const BYTES_MAX: usize = 1 << 20;
/// Unit of its size.
const UNIT: usize = 4096;

/// A queue of files, and DMA memory of the last read.
pub(crate) struct Pooled<Q: Queue<Tag<OpenInode>>> {
    pub(crate) queue: FileQueue<Q, OpenInode>,
    buf: Option<DmaBuf>,
}

impl<Q: Queue<Tag<OpenInode>>> Pooled<Q> {
    pub(crate) fn new(queue: FileQueue<Q, OpenInode>) -> Self {
        Self { queue, buf: None }
    }

    /// Reads at most `length` bytes of `file` at `pos`, and calls `f` with them, in DMA memory if the
    /// arena has room.
    pub(crate) fn read<R>(
        &mut self,
        file: &mut impl Mapper<OpenFile = OpenInode>,
        (pos, length): (u64, usize),
        f: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, nvio_ext4::Error> {
        let Some(buf) = self.memory(pos, length) else {
            let mut bytes = vec![0; length];
            let read = self.queue.read_at(file, pos, &mut bytes)?;
            return Ok(f(bytes.get(..read).unwrap_or_default()));
        };
        let read = self.queue.read_with(file, IoArgs::at(pos), Memory::Dma(buf));
        let (memory, read) = read.map_err(|failed| failed.error)?;
        let Memory::Dma(buf) = memory else { return Ok(f(&[])) };
        let result = f(buf.get(..read).unwrap_or_default());
        self.buf = Some(buf);
        Ok(result)
    }

    /// Returns `length` bytes of DMA memory. `None` if there is no room for them, or if the device cannot
    /// read such a range into them.
    fn memory(&mut self, pos: u64, length: usize) -> Option<DmaBuf> {
        let mask = 1u64.wrapping_shl(self.queue.device().block_shift()).wrapping_sub(1);
        if length == 0 || length > BYTES_MAX || (pos | length as u64) & mask != 0 {
            return None;
        }
        let kept = self.buf.take().and_then(|mut buf| buf.reclaim().then_some(buf));
        let buf = kept.filter(|buf| buf.len() >= length);
        let mut buf = match buf {
            Some(buf) => buf,
            None => self.queue.alloc(length.next_multiple_of(UNIT)).ok()?,
        };
        buf.truncate(length);
        Some(buf)
    }
}

#[cfg(test)]
mod tests {
    use crate::Volume;

    #[test]
    fn memory_is_used_again_and_reads_without_it_are_copied() {
        let sample = nvio_testkit::image::Sample::new();
        let volume = Volume::open(sample.path()).unwrap();
        let mut file = volume.open_file("/table.db").unwrap();
        let mut at = |pos, length| {
            file.read_at_then(pos, length, |bytes| {
                assert!(bytes.iter().all(|&byte| byte == 7));
                (bytes.as_ptr() as usize, bytes.len())
            })
            .unwrap()
        };
        let first = at(0, 8192);
        assert_eq!(at(4096, 4096), (first.0, 4096));
        assert_eq!((at(3, 4096).1, at(4096, 5).1), (4096, 5));
        assert_eq!(at(98_304, 4096).1, 100_000 - 98_304);
        assert_eq!(at(100_000, 4096).1, 0);
        assert_eq!((at(0, 2 << 20).1, at(0, 0).1), (100_000, 0));
    }
}
