//! The data of a command as a stream of bytes across its segments.

use nvio_spec::{Status, status};
use vm_memory::Bytes;

use crate::host::memory::HostMemory;
use crate::host::prp::Segment;

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

    /// Reads the next bytes from host memory.
    ///
    /// # Errors
    /// Data Transfer Error if the transfer has fewer bytes.
    pub(crate) fn get(&mut self, mut to: &mut [u8]) -> Result<(), Status> {
        while !to.is_empty() {
            let part = self.take(to.len())?;
            let from = self.memory.at(part.place, part.len);
            let from = from.ok_or(status::DATA_TRANSFER_ERROR)?;
            let (now, later) = to.split_at_mut(from.len());
            from.read_slice(now, 0).map_err(|_| status::DATA_TRANSFER_ERROR)?;
            to = later;
        }
        Ok(())
    }

    /// Writes the next bytes to host memory.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(crate) fn put(&mut self, mut from: &[u8]) -> Result<(), Status> {
        while !from.is_empty() {
            let part = self.take(from.len())?;
            let to = self.memory.at(part.place, part.len);
            let to = to.ok_or(status::DATA_TRANSFER_ERROR)?;
            let (now, later) = from.split_at(to.len());
            to.write_slice(now, 0).map_err(|_| status::DATA_TRANSFER_ERROR)?;
            from = later;
        }
        Ok(())
    }

    /// Skips bytes.
    pub(crate) fn skip(&mut self, mut len: usize) -> Result<(), Status> {
        while len > 0 {
            let part = self.take(len)?;
            len -= usize::try_from(part.len).unwrap_or(len).min(len);
        }
        Ok(())
    }

    /// Returns the next contiguous part, of 1 to `most` bytes.
    fn take(&mut self, most: usize) -> Result<Segment, Status> {
        let segment = match self.current.take() {
            Some(segment) => segment,
            None => {
                let next = self.segments.find(|segment| segment.len > 0);
                next.ok_or(status::DATA_TRANSFER_ERROR)?
            }
        };
        let len = segment.len.min(most as u64);
        if len < segment.len {
            let mut rest = Segment { len: segment.len - len, ..segment };
            rest.place.offset += len;
            self.current = Some(rest);
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
                place: memory.find(at, len, Access::READ_WRITE).unwrap(),
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
