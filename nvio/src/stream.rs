//! A disk as a stream, for the decoders of partition tables.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

/// A stream of `size` bytes that `read_at` reads at positions.
pub(crate) struct Stream<F> {
    read_at: F,
    size: u64,
    /// Position in bytes.
    at: u64,
}

impl<F: FnMut(u64, &mut [u8]) -> io::Result<()>> Stream<F> {
    pub(crate) fn new(size: u64, read_at: F) -> BufReader<Self> {
        BufReader::new(Self { read_at, size, at: 0 })
    }
}

impl<F: FnMut(u64, &mut [u8]) -> io::Result<()>> Read for Stream<F> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.size.saturating_sub(self.at);
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        if count == 0 {
            return Ok(0);
        }
        (self.read_at)(self.at, &mut buf[..count])?;
        self.at += count as u64;
        Ok(count)
    }
}

impl<F> Seek for Stream<F> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
        };
        self.at = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
