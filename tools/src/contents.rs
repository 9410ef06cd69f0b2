//! The contents of files, read piece by piece.

use std::ops::Range;

use nvio::{Inode, Queue, Volume};
use nvio_ext4::File;
use nvio_iomap::BOUNCE_BYTES_MAX;

use crate::error::Error;

/// A queue, and the buffer that the pieces are read into.
pub struct Contents<'a> {
    volume: &'a Volume,
    queue: Queue,
    buffer: Vec<u8>,
}

impl<'a> Contents<'a> {
    /// Creates a queue on the volume.
    ///
    /// # Errors
    /// If the controller has no more queues.
    pub fn new(volume: &'a Volume) -> Result<Self, Error> {
        Ok(Self { volume, queue: volume.queue()?, buffer: vec![0; BOUNCE_BYTES_MAX] })
    }

    /// Opens the file of `inode`, found at `path`.
    ///
    /// # Errors
    /// If it is not a regular file, or cannot be read.
    pub fn open(&self, path: &[u8], inode: &Inode) -> Result<File, Error> {
        self.volume.filesystem().file(inode).map_err(Error::path(path))
    }

    /// Calls `each` with the pieces of a range of a file, or of the part before the end of the file.
    /// Holes are zeroes. `path` is for errors.
    ///
    /// # Errors
    /// If the file cannot be read, or the error of `each`.
    pub fn read(
        &mut self,
        path: &[u8],
        file: &mut File,
        range: Range<u64>,
        mut each: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let end = range.end.min(file.size());
        let mut at = range.start;
        while at < end {
            let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(self.buffer.len());
            let piece = self.buffer.get_mut(..most).unwrap_or_default();
            let read = file.read_at(&mut self.queue, at, piece).map_err(Error::path(path))?;
            if read == 0 {
                break;
            }
            each(piece.get(..read).unwrap_or_default())?;
            at += read as u64;
        }
        Ok(())
    }
}
