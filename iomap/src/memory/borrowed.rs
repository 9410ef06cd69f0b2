//! Memory of the caller that the device cannot access.

use std::io::{IoSlice, IoSliceMut};

use crate::contract::io_args::{IoArgs, Memory};

/// Memory that a write copies data from. Access may fail: memory of another process or of a guest
/// can be unmapped, or not resident.
///
/// # Examples
/// ```
/// use nvio_iomap::{Cursor, Sink, Source};
///
/// let mut source: &[u8] = b"hello";
/// let mut copy = [0; 3];
/// assert_eq!(Source::copy_out(&mut source, 2, &mut copy, false), 3);
/// assert_eq!((&copy, Source::len(&source), Source::is_empty(&source)), (b"llo", 5, false));
///
/// let mut memory = [0; 5];
/// let mut sink = &mut memory[..];
/// assert_eq!((Sink::len(&sink), Sink::is_empty(&sink)), (5, false));
/// assert_eq!(sink.copy_in(0, b"abc", false), 3);
/// assert_eq!(&memory, b"abc\0\0");
///
/// // The argument of `FileQueue::read_into` and `write_from`.
/// let cursor = Cursor::new(&mut memory[..]);
/// assert_eq!(cursor.at, 0);
/// ```
pub trait Source {
    /// Returns the length in bytes.
    ///
    /// See the [example](Self#examples).
    fn len(&self) -> usize;

    /// Copies the bytes at `at` into `out`, and returns their number: less than `out.len()` only if
    /// memory cannot be accessed or, with `nofault`, is not resident.
    ///
    /// See the [example](Self#examples).
    fn copy_out(&mut self, at: usize, out: &mut [u8], nofault: bool) -> usize;

    /// Returns true if the length is 0.
    ///
    /// See the [example](Self#examples).
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Memory that a read copies data to.
///
/// See the [example](Source#examples).
pub trait Sink {
    /// Returns the length in bytes.
    ///
    /// See the [example](Source#examples).
    fn len(&self) -> usize;

    /// Copies `data` to the bytes at `at`, and returns their number: less than `data.len()` only if
    /// memory cannot be accessed or, with `nofault`, is not resident.
    ///
    /// See the [example](Source#examples).
    fn copy_in(&mut self, at: usize, data: &[u8], nofault: bool) -> usize;

    /// Returns true if the length is 0.
    ///
    /// See the [example](Source#examples).
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Source for &[u8] {
    fn len(&self) -> usize {
        (**self).len()
    }

    fn copy_out(&mut self, at: usize, out: &mut [u8], _nofault: bool) -> usize {
        let data = self.get(at..).unwrap_or(&[]);
        let n = data.len().min(out.len());
        out[..n].copy_from_slice(&data[..n]);
        n
    }
}

impl Source for Memory {
    fn len(&self) -> usize {
        self.len()
    }

    fn copy_out(&mut self, at: usize, out: &mut [u8], _nofault: bool) -> usize {
        self.visit(at, out.len(), |done, run| out[done..done + run.len()].copy_from_slice(run))
    }
}

impl Sink for &mut [u8] {
    fn len(&self) -> usize {
        (**self).len()
    }

    fn copy_in(&mut self, at: usize, data: &[u8], _nofault: bool) -> usize {
        let out = self.get_mut(at..).unwrap_or(&mut []);
        let n = data.len().min(out.len());
        out[..n].copy_from_slice(&data[..n]);
        n
    }
}

impl Source for &[IoSlice<'_>] {
    fn len(&self) -> usize {
        self.iter().map(|slice| slice.len()).sum()
    }

    fn copy_out(&mut self, mut at: usize, out: &mut [u8], _nofault: bool) -> usize {
        let mut copied = 0;
        for slice in self.iter() {
            let Some(data) = slice.get(at..) else {
                at -= slice.len();
                continue;
            };
            at = 0;
            let n = data.len().min(out.len() - copied);
            out[copied..copied + n].copy_from_slice(&data[..n]);
            copied += n;
            if copied == out.len() {
                break;
            }
        }
        copied
    }
}

impl Sink for &mut [IoSliceMut<'_>] {
    fn len(&self) -> usize {
        self.iter().map(|slice| slice.len()).sum()
    }

    fn copy_in(&mut self, mut at: usize, data: &[u8], _nofault: bool) -> usize {
        let mut copied = 0;
        for slice in self.iter_mut() {
            let len = slice.len();
            let Some(out) = slice.get_mut(at..) else {
                at -= len;
                continue;
            };
            at = 0;
            let n = out.len().min(data.len() - copied);
            out[..n].copy_from_slice(&data[copied..copied + n]);
            copied += n;
            if copied == data.len() {
                break;
            }
        }
        copied
    }
}

/// A caller's memory with the offset of the next byte to move.
///
/// A call advances the offset by the bytes it moved. A call that fails leaves the offset, so that a
/// retry skips no byte.
///
/// See the [example](Source#examples).
#[derive(Debug)]
pub struct Cursor<U> {
    /// The memory.
    pub memory: U,
    /// Bytes that were moved.
    pub at: usize,
}

impl<U> Cursor<U> {
    /// Creates a cursor at the start of `memory`.
    ///
    /// See the [example](Source#examples).
    pub fn new(memory: U) -> Self {
        Self { memory, at: 0 }
    }

    /// Moves by the `n` bytes of a request that succeeded, of which some were moved before it.
    pub(crate) fn advance(&mut self, io: &IoArgs, n: usize) {
        let before = usize::try_from(io.done_before).unwrap_or(usize::MAX);
        self.at = self.at.saturating_add(n.saturating_sub(before));
    }
}

/// The caller's memory of a request that waits. A request for the other direction copies nothing.
pub(crate) trait BorrowedMemory {
    fn copy_from_user(&mut self, at: usize, out: &mut [u8], nofault: bool) -> usize;
    fn copy_to_user(&mut self, at: usize, data: &[u8], nofault: bool) -> usize;
}

/// The memory of a request that owns its memory: copies nothing.
pub(crate) struct NoBorrowedMemory;

impl BorrowedMemory for NoBorrowedMemory {
    fn copy_from_user(&mut self, _: usize, _: &mut [u8], _: bool) -> usize {
        0
    }

    fn copy_to_user(&mut self, _: usize, _: &[u8], _: bool) -> usize {
        0
    }
}

pub(crate) struct FromSource<'a, S>(pub(crate) &'a mut Cursor<S>);

impl<S: Source> BorrowedMemory for FromSource<'_, S> {
    fn copy_from_user(&mut self, at: usize, out: &mut [u8], nofault: bool) -> usize {
        self.0.memory.copy_out(self.0.at.saturating_add(at), out, nofault).min(out.len())
    }

    fn copy_to_user(&mut self, _: usize, _: &[u8], _: bool) -> usize {
        0
    }
}

pub(crate) struct ToSink<'a, S>(pub(crate) &'a mut Cursor<S>);

impl<S: Sink> BorrowedMemory for ToSink<'_, S> {
    fn copy_from_user(&mut self, _: usize, _: &mut [u8], _: bool) -> usize {
        0
    }

    fn copy_to_user(&mut self, at: usize, data: &[u8], nofault: bool) -> usize {
        self.0.memory.copy_in(self.0.at.saturating_add(at), data, nofault).min(data.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_one_run_of_bytes() {
        let data: Vec<u8> = (0..100).collect();
        let cuts = [0, 0, 1, 7, 7, 50, 99, 100];
        let slices: Vec<_> =
            cuts.windows(2).map(|cut| IoSlice::new(&data[cut[0]..cut[1]])).collect();
        let mut source = &slices[..];
        assert_eq!(Source::len(&source), 100);
        for at in 0..=100 {
            for len in [0, 1, 6, 44, 100] {
                let mut out = vec![0; len];
                let n = source.copy_out(at, &mut out, false);
                assert_eq!((n, &out[..n]), (len.min(100 - at), &data[at..at + n]), "{at} {len}");
            }
        }
        for at in [0, 1, 6, 7, 8, 60, 99] {
            let mut target = [0u8; 100];
            let mut rest = &mut target[..];
            let mut slices = Vec::new();
            for cut in cuts.windows(2) {
                let (front, back) = rest.split_at_mut(cut[1] - cut[0]);
                slices.push(IoSliceMut::new(front));
                rest = back;
            }
            let mut sink = &mut slices[..];
            assert_eq!(sink.copy_in(at, &data, false), 100 - at);
            assert_eq!(target[at..], data[..100 - at]);
            assert!(target[..at].iter().all(|&byte| byte == 0));
        }
    }
}
