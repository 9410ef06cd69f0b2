//! The contents of files, read piece by piece.

use nvio::{Inode, Queue, Volume};
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

    /// Calls `each` with the pieces of the bytes from `offset` to `end`, or to the end of the file
    /// if it comes first. Holes are zeroes. `path` is the file of `inode`, for errors.
    ///
    /// # Errors
    /// If the file cannot be read, or the error of `each`.
    pub fn read(
        &mut self,
        path: &[u8],
        inode: &Inode,
        (offset, end): (u64, u64),
        mut each: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut file = self.volume.filesystem().file(inode).map_err(Error::path(path))?;
        let end = end.min(file.size());
        let mut at = offset;
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
