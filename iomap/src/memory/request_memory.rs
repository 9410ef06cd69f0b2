//! The memory of a request of the generic path while its commands are in flight.

use nvio_driver::{BOUNCE_BYTES_MAX, DmaBuf, SplitBuffer};

use crate::contract::bytes::{round_up, to_usize};
use crate::contract::io_args::Memory;
use crate::error::Error;
use crate::memory::borrowed::BorrowedMemory;

/// Alignment of memory in bytes (PRP entries, NVMe Base 4.1.1).
const DWORD: u64 = 4;

/// The memory of a request. The device accesses the buffers of the first two kinds without a copy.
/// They are cut off in order, in whole blocks.
#[derive(Debug)]
pub(crate) enum RequestMemory {
    /// One DMA buffer.
    One(SplitBuffer),
    /// DMA buffers, each with the number of bytes before it, and the index of the one that is being
    /// cut.
    Several(Vec<(usize, SplitBuffer)>, usize),
    /// Memory of the request that the data is copied to or from.
    Bounced(Memory),
    /// Memory of a caller that waits, in bytes. The data is copied to or from it.
    Borrowed(usize),
}

impl RequestMemory {
    /// Holds the memory of a request. With `bounce`, DMA buffers are copied, too.
    #[inline]
    pub(crate) fn new(memory: Memory, bounce: bool) -> Self {
        match memory {
            Memory::Dma(buf) if !bounce => Self::One(SplitBuffer::new(buf)),
            Memory::Vectored(bufs) if !bounce => {
                let mut end = 0;
                let starts = bufs.into_iter().map(|buf| {
                    end += buf.len();
                    (end - buf.len(), SplitBuffer::new(buf))
                });
                Self::Several(starts.collect(), 0)
            }
            memory => Self::Bounced(memory),
        }
    }

    /// Returns true if the device accesses the memory without a copy.
    #[inline]
    pub(crate) fn is_direct(&self) -> bool {
        matches!(self, Self::One(_) | Self::Several(..))
    }

    /// Returns true for memory that a read may fill at any alignment.
    pub(crate) fn is_bytes(&self) -> bool {
        matches!(self, Self::Bounced(Memory::Bytes(_)) | Self::Borrowed(_))
    }

    /// Length in bytes, before anything is cut off.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::One(buf) => buf.rest().len(),
            Self::Several(bufs, _) => bufs.last().map_or(0, |(at, buf)| at + buf.rest().len()),
            Self::Bounced(memory) => memory.len(),
            Self::Borrowed(length) => *length,
        }
    }

    /// Checks that a device with blocks of `block` bytes can access each buffer without a copy.
    ///
    /// # Errors
    /// [`Error::MisalignedMemory`]; [`Error::Misaligned`] for buffers that are not whole blocks.
    pub(crate) fn check(&self, block: u64) -> Result<(), Error> {
        let check = |at: usize, buf: &SplitBuffer| {
            let (iova, length) = (buf.rest().iova(), buf.rest().len() as u64);
            if iova & (DWORD - 1) != 0 {
                return Err(Error::MisalignedMemory { iova, align: DWORD });
            }
            if length & (block - 1) != 0 {
                return Err(Error::Misaligned { pos: at as u64, length, align: block });
            }
            Ok(())
        };
        match self {
            Self::One(buf) => check(0, buf),
            Self::Several(bufs, _) => bufs.iter().try_for_each(|(at, buf)| check(*at, buf)),
            Self::Bounced(_) | Self::Borrowed(_) => Ok(()),
        }
    }

    /// Returns the most bytes that the next command can transfer, because its buffer ends.
    pub(crate) fn contiguous(&self) -> usize {
        match self {
            Self::One(buf) => buf.rest().len(),
            Self::Several(bufs, current) => {
                let mut rest = bufs.iter().skip(*current).map(|(_, buf)| buf.rest().len());
                rest.find(|&len| len > 0).unwrap_or(0)
            }
            Self::Bounced(_) | Self::Borrowed(_) => BOUNCE_BYTES_MAX,
        }
    }

    /// Cuts off the next `most` bytes, or fewer at the end of a buffer. `None` at the end, and for
    /// memory that is bounced.
    #[inline]
    pub(crate) fn cut(&mut self, most: usize) -> Option<DmaBuf> {
        match self {
            Self::One(buf) => buf.cut_at_most(most),
            Self::Several(bufs, current) => loop {
                match bufs.get_mut(*current)?.1.cut_at_most(most) {
                    Some(piece) => return Some(piece),
                    None => *current += 1,
                }
            },
            Self::Bounced(_) | Self::Borrowed(_) => None,
        }
    }

    /// Puts the piece at byte `at` back. Returns false if it is not the piece that was cut off.
    #[inline]
    pub(crate) fn put(&mut self, at: usize, piece: DmaBuf) -> bool {
        match self {
            Self::One(buf) => buf.put(piece).is_ok(),
            Self::Several(bufs, _) => {
                let after = bufs.partition_point(|&(start, _)| start <= at);
                let buf = bufs.get_mut(after.wrapping_sub(1));
                buf.is_some_and(|(_, buf)| buf.put(piece).is_ok())
            }
            Self::Bounced(_) | Self::Borrowed(_) => false,
        }
    }

    /// Returns the memory, after all commands completed; `None` for borrowed memory, and if part of
    /// a buffer did not come back.
    #[inline]
    pub(crate) fn into_memory(self) -> Option<Memory> {
        match self {
            Self::One(buf) => buf.finish().ok().map(Memory::Dma),
            Self::Several(bufs, _) => {
                let bufs: Result<_, _> = bufs.into_iter().map(|(_, buf)| buf.finish()).collect();
                bufs.ok().map(Memory::Vectored)
            }
            Self::Bounced(memory) => Some(memory),
            Self::Borrowed(_) => None,
        }
    }

    /// Passes the `n` bytes at `at`, which are the next that would be cut off, to `visit` in runs,
    /// each with the number of bytes before it. Returns the number of bytes passed.
    fn visit(&mut self, at: usize, n: usize, mut visit: impl FnMut(usize, &mut [u8])) -> usize {
        if let Self::Bounced(memory) = self {
            return memory.visit(at, n, visit);
        }
        let mut done = 0;
        while done < n {
            let Some(mut piece) = self.cut(n - done) else { break };
            let bytes = piece.len();
            visit(done, &mut piece);
            self.put(at + done, piece);
            done += bytes;
        }
        done
    }

    /// Returns the length of a range of `n` bytes of the memory: that of its blocks, if the memory is
    /// cut off.
    pub(crate) fn rounded(&self, n: u64, block: u64) -> usize {
        to_usize(if self.is_direct() { round_up(n, block) } else { n })
    }

    /// Copies the bytes at `at` of the memory into `out`, for a write. Returns the number of bytes
    /// that could be accessed.
    pub(crate) fn copy_from(
        &mut self,
        borrowed: &mut dyn BorrowedMemory,
        at: usize,
        out: &mut [u8],
        nofault: bool,
    ) -> usize {
        if let Self::Borrowed(_) = self {
            return borrowed.copy_from_user(at, out, nofault);
        }
        self.visit(at, out.len(), |done, run| out[done..done + run.len()].copy_from_slice(run))
    }

    /// Copies `data` to the bytes at `at` of the memory, for a read. Returns the number of bytes
    /// that could be accessed.
    pub(crate) fn copy_to(
        &mut self,
        borrowed: &mut dyn BorrowedMemory,
        at: usize,
        data: &[u8],
        nofault: bool,
    ) -> usize {
        if let Self::Borrowed(_) = self {
            return borrowed.copy_to_user(at, data, nofault);
        }
        self.visit(at, data.len(), |done, run| run.copy_from_slice(&data[done..done + run.len()]))
    }

    /// Zeroes the `n` bytes at `at` of the memory. Returns the number of bytes that could be
    /// accessed.
    pub(crate) fn zero(
        &mut self,
        borrowed: &mut dyn BorrowedMemory,
        at: usize,
        n: usize,
        nofault: bool,
    ) -> usize {
        const ZEROES: [u8; 4096] = [0; 4096];
        let Self::Borrowed(_) = self else {
            return self.visit(at, n, |_, run| run.fill(0));
        };
        let mut done = 0;
        while done < n {
            let part = &ZEROES[..(n - done).min(ZEROES.len())];
            let copied = borrowed.copy_to_user(at + done, part, nofault);
            done += copied;
            if copied < part.len() {
                break;
            }
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::borrowed::NoBorrowedMemory;
    use nvio_driver::Arena;

    fn bufs(lens: &[usize]) -> Vec<DmaBuf> {
        let arena = Arena::detached(2 << 20).unwrap();
        lens.iter().map(|&len| arena.alloc(len).unwrap()).collect()
    }

    #[test]
    fn vectors_are_cut_at_the_ends_of_their_buffers() {
        let mut held = RequestMemory::new(bufs(&[1024, 512, 4096]).into(), false);
        let mut pieces = Vec::new();
        let mut at = 0;
        while let Some(piece) = held.cut(2048) {
            let len = piece.len();
            pieces.push((at, piece));
            at += len;
        }
        let lens: Vec<_> = pieces.iter().map(|(_, piece)| piece.len()).collect();
        assert_eq!(lens, [1024, 512, 2048, 2048]);
        for (at, piece) in pieces.into_iter().rev() {
            assert!(held.put(at, piece));
        }
        assert_eq!(held.into_memory().unwrap().len(), 5632);
        let mut held = RequestMemory::new(bufs(&[512, 0, 512]).into(), false);
        for at in [0, 512] {
            let piece = held.cut(4096).unwrap();
            assert!(held.put(at, piece), "back before the next is cut");
        }
        assert!(held.cut(4096).is_none());
        assert_eq!(held.into_memory().unwrap().len(), 1024);
    }

    #[test]
    fn a_piece_that_is_missing_or_another_is_noticed() {
        let [a, b] = <[DmaBuf; 2]>::try_from(bufs(&[1024, 512])).unwrap();
        let mut held = RequestMemory::new(a.into(), false);
        let piece = held.cut(512).unwrap();
        assert!(!held.put(0, b));
        drop(piece);
        assert!(held.into_memory().is_none());
    }

    #[test]
    fn copies_go_across_buffers() {
        let mut held = RequestMemory::new(Memory::Vectored(bufs(&[10, 0, 20, 5])), true);
        let data: Vec<u8> = (1..=35).collect();
        assert_eq!(held.copy_to(&mut NoBorrowedMemory, 3, &data, false), 32);
        for (at, len) in [(3, 32), (9, 2), (10, 1), (12, 20), (30, 9)] {
            let mut out = vec![0; len];
            let n = held.copy_from(&mut NoBorrowedMemory, at, &mut out, false);
            assert_eq!((n, &out[..n]), (len.min(35 - at), &data[at - 3..at - 3 + n]), "{at}");
        }
        assert_eq!(held.zero(&mut NoBorrowedMemory, 5, 100, false), 30);
    }
}
