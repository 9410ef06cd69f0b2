//! The data of a command as a stream of bytes across its segments.

use nvio_spec::{Status, status};
use vm_memory::{Bytes, VolatileSlice};

use crate::host::memory::HostMemory;
use crate::host::segments::Segment;

/// A position in the segments of a transfer.
#[derive(Debug)]
pub(crate) struct Stream<'a, I> {
    memory: &'a HostMemory,
    segments: I,
    /// The rest of the segment at the position.
    current: Option<Segment>,
}

impl<'a, I: Iterator<Item = Segment>> Stream<'a, I> {
    pub(crate) fn new(memory: &'a HostMemory, segments: I) -> Self {
        Self { memory, segments, current: None }
    }

    /// Passes the memory of the next `len` bytes to `run`, with the number of bytes before it.
    ///
    /// # Errors
    /// Data Transfer Error if the transfer has fewer bytes, and the errors of `run`.
    #[inline]
    pub(crate) fn each(
        &mut self,
        len: u64,
        mut run: impl FnMut(u64, VolatileSlice<'_>) -> Result<(), Status>,
    ) -> Result<(), Status> {
        let mut at = 0;
        while at < len {
            let part = self.take(len - at)?;
            if let Some(place) = part.place {
                let memory = self.memory.at(place, part.len);
                run(at, memory.ok_or(status::DATA_TRANSFER_ERROR)?)?;
            }
            at += part.len;
        }
        Ok(())
    }

    /// Reads the next bytes from host memory.
    ///
    /// # Errors
    /// As [`Self::each`].
    pub(crate) fn get(&mut self, to: &mut [u8]) -> Result<(), Status> {
        self.each(to.len() as u64, |at, from| {
            let to = usize::try_from(at).ok().and_then(|at| to.get_mut(at..at + from.len()));
            let read = to.map(|to| from.read_slice(to, 0));
            read.and_then(Result::ok).ok_or(status::DATA_TRANSFER_ERROR)
        })
    }

    /// Writes the next bytes to host memory.
    ///
    /// # Errors
    /// As [`Self::each`].
    pub(crate) fn put(&mut self, from: &[u8]) -> Result<(), Status> {
        self.each(from.len() as u64, |at, to| {
            let from = usize::try_from(at).ok().and_then(|at| from.get(at..at + to.len()));
            let written = from.map(|from| to.write_slice(from, 0));
            written.and_then(Result::ok).ok_or(status::DATA_TRANSFER_ERROR)
        })
    }

    /// Skips bytes.
    pub(crate) fn skip(&mut self, mut len: u64) -> Result<(), Status> {
        while len > 0 {
            len -= self.take(len)?.len;
        }
        Ok(())
    }

    /// Returns the next contiguous part, of 1 to `most` bytes.
    #[inline]
    fn take(&mut self, most: u64) -> Result<Segment, Status> {
        let next = self.current.take().or_else(|| self.segments.find(|segment| segment.len > 0));
        let segment = next.ok_or(status::DATA_TRANSFER_ERROR)?;
        let len = segment.len.min(most);
        if len < segment.len {
            self.current = Some(segment.after(len));
        }
        Ok(Segment { len, ..segment })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::access::Access;
    use std::sync::Arc;
    use vm_memory::mmap::MmapRegion;

    #[test]
    fn bytes_come_in_order_across_segments() {
        let mut memory = HostMemory::new();
        let region = Arc::new(MmapRegion::new(8192).unwrap());
        memory.map_region(0, region, Access::READ_WRITE).unwrap();
        let content: Vec<u8> = (0..=255).collect();
        memory.write(0, &content).unwrap();
        let segments = |ranges: &[(u64, u64)]| {
            let find = |&(at, len): &(u64, u64)| Segment {
                place: memory.find(at, len, Access::READ_WRITE),
                len,
            };
            ranges.iter().map(find).collect::<Vec<_>>()
        };
        let list = segments(&[(10, 3), (100, 0), (50, 4), (20, 2)]);
        let mut stream = Stream::new(&memory, list.iter().copied());
        let mut found = [0; 9];
        stream.get(&mut found[..2]).unwrap();
        stream.get(&mut found[2..8]).unwrap();
        stream.get(&mut found[8..]).unwrap();
        assert_eq!(found, [10, 11, 12, 50, 51, 52, 53, 20, 21]);
        assert_eq!(stream.get(&mut [0]), Err(status::DATA_TRANSFER_ERROR));
        let mut stream = Stream::new(&memory, list.iter().copied());
        stream.skip(4).unwrap();
        stream.put(&[1, 2, 3, 4]).unwrap();
        memory.read(50, &mut found[..4]).unwrap();
        assert_eq!(found[..4], [50, 1, 2, 3]);
        assert_eq!(stream.put(&[1, 2]), Err(status::DATA_TRANSFER_ERROR));
    }
}
