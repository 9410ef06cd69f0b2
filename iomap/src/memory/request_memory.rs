//! The memory of a request of the generic path while its commands are in flight.

use nvio_driver::{DmaBuf, SplitBuffer};

use crate::contract::io_args::Memory;
use crate::error::Error;
use crate::memory::borrowed::BorrowedMemory;

/// Alignment of memory in bytes (PRP entries, NVMe Base 4.1.1).
pub(crate) const DWORD: u64 = 4;

/// The memory of a request.
#[derive(Debug)]
pub(crate) enum RequestMemory {
    /// DMA buffers, which the device accesses without a copy.
    Direct(Direct),
    /// Memory of the request that the data is copied to or from.
    Bounced(Memory),
    /// Memory of a caller that waits, in bytes. The data is copied to or from it.
    Borrowed(usize),
}

impl RequestMemory {
    /// Holds the memory of a request. With `bounce`, DMA buffers are copied, too.
    pub(crate) fn new(memory: Memory, bounce: bool) -> Self {
        match memory {
            memory if bounce => Self::Bounced(memory),
            Memory::Dma(buf) => Self::Direct(Direct::One(Part::Whole(buf))),
            Memory::Vectored(bufs) => Self::Direct(Direct::several(bufs)),
            memory @ Memory::Bytes(_) => Self::Bounced(memory),
        }
    }

    pub(crate) fn is_bounced(&self) -> bool {
        !matches!(self, Self::Direct(_))
    }

    /// Returns true for memory that a read may fill at any alignment.
    pub(crate) fn is_bytes(&self) -> bool {
        matches!(self, Self::Bounced(Memory::Bytes(_)) | Self::Borrowed(_))
    }

    /// Returns the length in bytes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Direct(direct) => direct.len(),
            Self::Bounced(memory) => memory.len(),
            Self::Borrowed(length) => *length,
        }
    }

    /// Returns the memory of a request that was not accepted; no bytes for borrowed memory.
    pub(crate) fn into_owned(self) -> Memory {
        self.into_memory().unwrap_or(Memory::Bytes(Vec::new()))
    }

    /// Returns the memory, after all commands completed; `None` if part of it did not come back.
    pub(crate) fn into_memory(self) -> Option<Memory> {
        match self {
            Self::Direct(direct) => direct.into_memory(),
            Self::Bounced(memory) => Some(memory),
            Self::Borrowed(_) => None,
        }
    }

    /// Copies the bytes at `at` of the memory into `out`, for a write. Returns the number of bytes
    /// that could be accessed.
    pub(crate) fn copy_from(
        &self,
        borrowed: &mut dyn BorrowedMemory,
        at: usize,
        out: &mut [u8],
        nofault: bool,
    ) -> usize {
        match self {
            Self::Bounced(Memory::Bytes(bytes)) => copy(out, bytes.get(at..)),
            Self::Bounced(Memory::Dma(buf)) => copy(out, buf.get(at..)),
            Self::Bounced(Memory::Vectored(bufs)) => {
                let mut done = 0;
                for (start, buf) in starts(bufs) {
                    if let Some(from) = (at + done).checked_sub(start) {
                        done += copy(&mut out[done..], buf.get(from..));
                    }
                }
                done
            }
            Self::Borrowed(_) => borrowed.copy_from_user(at, out, nofault),
            Self::Direct(_) => 0,
        }
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
        match self {
            Self::Bounced(Memory::Bytes(bytes)) => place(bytes.get_mut(at..), data),
            Self::Bounced(Memory::Dma(buf)) => place(buf.get_mut(at..), data),
            Self::Bounced(Memory::Vectored(bufs)) => {
                let (mut done, mut start) = (0, 0);
                for buf in bufs {
                    let len = buf.len();
                    if let Some(from) = (at + done).checked_sub(start) {
                        done += place(buf.get_mut(from..), &data[done..]);
                    }
                    start += len;
                }
                done
            }
            Self::Borrowed(_) => borrowed.copy_to_user(at, data, nofault),
            Self::Direct(_) => 0,
        }
    }

    /// Copies `bytes` at `at` of any memory into `out`, which is whole blocks. Returns the number
    /// of bytes that could be accessed.
    pub(crate) fn copy_blocks_from(
        &mut self,
        borrowed: &mut dyn BorrowedMemory,
        at: usize,
        bytes: usize,
        out: &mut [u8],
        nofault: bool,
    ) -> usize {
        let Self::Direct(direct) = self else {
            return self.copy_from(borrowed, at, &mut out[..bytes], nofault);
        };
        let whole = out.len();
        let copy = |at: usize, piece: &mut [u8]| out[at..at + piece.len()].copy_from_slice(piece);
        if direct.each(at, whole, copy) { bytes } else { 0 }
    }

    /// Copies `data`, which is whole blocks of which `bytes` count, to byte `at` of any memory.
    /// Returns the number of bytes that could be accessed.
    pub(crate) fn copy_blocks_to(
        &mut self,
        borrowed: &mut dyn BorrowedMemory,
        at: usize,
        bytes: usize,
        data: &[u8],
        nofault: bool,
    ) -> usize {
        let Self::Direct(direct) = self else {
            return self.copy_to(borrowed, at, &data[..bytes], nofault);
        };
        let copy = |at: usize, piece: &mut [u8]| piece.copy_from_slice(&data[at..at + piece.len()]);
        if direct.each(at, data.len(), copy) { bytes } else { 0 }
    }

    /// Zeroes the `n` bytes at `at` of bounced memory. Returns the number of bytes that could be
    /// accessed.
    pub(crate) fn zero(
        &mut self,
        borrowed: &mut dyn BorrowedMemory,
        at: usize,
        n: usize,
        nofault: bool,
    ) -> usize {
        const ZEROES: [u8; 4096] = [0; 4096];
        let mut done = 0;
        while done < n {
            let part = &ZEROES[..(n - done).min(ZEROES.len())];
            let copied = self.copy_to(borrowed, at + done, part, nofault);
            done += copied;
            if copied < part.len() {
                break;
            }
        }
        done
    }
}

fn copy(out: &mut [u8], data: Option<&[u8]>) -> usize {
    let data = data.unwrap_or(&[]);
    let n = data.len().min(out.len());
    out[..n].copy_from_slice(&data[..n]);
    n
}

fn place(out: Option<&mut [u8]>, data: &[u8]) -> usize {
    out.map_or(0, |out| copy(out, Some(data)))
}

/// Returns each buffer with the number of bytes before it.
fn starts(bufs: &[DmaBuf]) -> impl Iterator<Item = (usize, &DmaBuf)> {
    bufs.iter().scan(0, |next, buf| {
        let start = *next;
        *next += buf.len();
        Some((start, buf))
    })
}

/// DMA buffers of which parts are in flight. ScatterList are cut off in order.
#[derive(Debug)]
pub(crate) enum Direct {
    One(Part),
    Several {
        /// Buffers, each with the number of bytes before it.
        parts: Vec<(usize, Part)>,
        /// Index of the buffer that is being cut.
        current: usize,
    },
}

/// A buffer, or the pieces of one.
#[derive(Debug)]
pub(crate) enum Part {
    /// A buffer that was not cut yet.
    Whole(DmaBuf),
    /// The length of a buffer that is in flight as one piece.
    Out(usize),
    /// A buffer that came back as one piece.
    Back(DmaBuf),
    Pieces(SplitBuffer),
}

impl Direct {
    fn several(bufs: Vec<DmaBuf>) -> Self {
        let mut start = 0;
        let part = |buf: DmaBuf| {
            let before = start;
            start += buf.len();
            (before, Part::Whole(buf))
        };
        Self::Several { parts: bufs.into_iter().map(part).collect(), current: 0 }
    }

    /// Returns the number of bytes of all buffers, before anything is cut off.
    fn len(&self) -> usize {
        match self {
            Self::One(part) => part.len(),
            Self::Several { parts, .. } => parts.iter().map(|(_, part)| part.len()).sum(),
        }
    }

    /// Cuts off the next `most` bytes, or fewer at the end of a buffer. `None` at the end.
    #[inline]
    pub(crate) fn cut(&mut self, most: usize) -> Option<DmaBuf> {
        match self {
            Self::One(part) => part.cut(most),
            Self::Several { parts, current } => loop {
                let (_, part) = parts.get_mut(*current)?;
                match part.cut(most) {
                    Some(piece) => return Some(piece),
                    None => *current += 1,
                }
            },
        }
    }

    /// Puts the piece at byte `at` back. Returns false if it is not the piece that was cut off.
    #[inline]
    pub(crate) fn put(&mut self, at: usize, piece: DmaBuf) -> bool {
        match self {
            Self::One(part) => part.put(piece),
            Self::Several { parts, .. } => {
                let after = parts.partition_point(|&(start, _)| start <= at);
                let part = parts.get_mut(after.wrapping_sub(1));
                part.is_some_and(|(_, part)| part.put(piece))
            }
        }
    }

    /// Cuts off the next `n` bytes, which begin at byte `at`, and puts them back. Passes each piece
    /// to `change`, with the number of bytes before it. Returns false if fewer bytes are left.
    pub(crate) fn each(
        &mut self,
        at: usize,
        n: usize,
        mut change: impl FnMut(usize, &mut [u8]),
    ) -> bool {
        let mut done = 0;
        while done < n {
            let Some(mut piece) = self.cut(n - done) else { return false };
            let len = piece.len();
            change(done, &mut piece);
            if !self.put(at + done, piece) {
                return false;
            }
            done += len;
        }
        true
    }

    /// Checks that a device with blocks of `block` bytes can access each buffer.
    ///
    /// # Errors
    /// [`Error::MisalignedMemory`]; [`Error::Misaligned`] for buffers that are not whole blocks.
    pub(crate) fn check(&self, block: u64) -> Result<(), Error> {
        match self {
            Self::One(part) => part.check(0, block),
            Self::Several { parts, .. } => {
                parts.iter().try_for_each(|(start, part)| part.check(*start, block))
            }
        }
    }

    fn into_memory(self) -> Option<Memory> {
        match self {
            Self::One(part) => part.into_buf().map(Memory::Dma),
            Self::Several { parts, .. } => {
                let bufs: Option<Vec<_>> =
                    parts.into_iter().map(|(_, part)| part.into_buf()).collect();
                bufs.map(Memory::Vectored)
            }
        }
    }
}

impl Part {
    fn len(&self) -> usize {
        match self {
            Self::Whole(buf) | Self::Back(buf) => buf.len(),
            Self::Out(_) | Self::Pieces(_) => 0,
        }
    }

    fn check(&self, start: usize, block: u64) -> Result<(), Error> {
        let Self::Whole(buf) = self else { return Ok(()) };
        let (iova, length) = (buf.iova(), buf.len() as u64);
        if iova & (DWORD - 1) != 0 {
            return Err(Error::MisalignedMemory { iova, align: DWORD });
        }
        if length & (block - 1) != 0 {
            return Err(Error::Misaligned { pos: start as u64, length, align: block });
        }
        Ok(())
    }

    #[inline]
    fn cut(&mut self, most: usize) -> Option<DmaBuf> {
        if let Self::Pieces(pieces) = self {
            return pieces.cut_at_most(most);
        }
        match std::mem::replace(self, Self::Out(0)) {
            Self::Whole(buf) if buf.is_empty() => {
                *self = Self::Back(buf);
                None
            }
            Self::Whole(buf) if buf.len() <= most => {
                *self = Self::Out(buf.len());
                Some(buf)
            }
            Self::Whole(buf) => {
                let mut pieces = SplitBuffer::new(buf);
                let piece = pieces.cut(most);
                *self = Self::Pieces(pieces);
                piece
            }
            other => {
                *self = other;
                None
            }
        }
    }

    #[inline]
    fn put(&mut self, piece: DmaBuf) -> bool {
        match self {
            Self::Out(len) if *len == piece.len() => {
                *self = Self::Back(piece);
                true
            }
            Self::Pieces(pieces) => pieces.put(piece).is_ok(),
            _ => false,
        }
    }

    #[inline]
    fn into_buf(self) -> Option<DmaBuf> {
        match self {
            Self::Whole(buf) | Self::Back(buf) => Some(buf),
            Self::Out(_) => None,
            Self::Pieces(pieces) => pieces.finish().ok(),
        }
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
        let mut held = Direct::several(bufs(&[1024, 512, 4096]));
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
        let mut held = Direct::several(bufs(&[512, 0, 512]));
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
        let mut held = Direct::One(Part::Whole(a));
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
