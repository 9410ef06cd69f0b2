//! The data of a regular file.

use nvio::{IoMode, JournaledFile};
use nvio_iomap::{BOUNCE_BYTES_MAX, IoArgs};

use super::Creator;
use crate::error::Error;

/// Largest logical block of a device, in bytes.
const BLOCK_BYTES_MAX: u64 = 4096;

impl Creator<'_> {
    /// Writes the bytes that `read` fills a buffer with to the range of a file. `read` is called with the
    /// position, and its data ends where it fills less than the buffer. Returns the end of the data.
    ///
    /// # Errors
    /// The error of `read`, or if the data cannot be written.
    pub fn copy(
        &mut self,
        target: &mut JournaledFile,
        path: &[u8],
        (from, to): (u64, u64),
        mut read: impl FnMut(&mut [u8], u64) -> Result<usize, Error>,
    ) -> Result<u64, Error> {
        self.buffer.resize(BOUNCE_BYTES_MAX, 0);
        let mut at = from;
        while at < to {
            // Up to the next multiple of the buffer's size, so that the next write is aligned.
            let room = BOUNCE_BYTES_MAX as u64 - at % BOUNCE_BYTES_MAX as u64;
            let room = usize::try_from(room.min(to - at)).unwrap_or(BOUNCE_BYTES_MAX);
            let buffer = self.buffer.get_mut(..room).unwrap_or_default();
            let length = read(buffer, at)?;
            let data = buffer.get(..length).unwrap_or_default();
            if data.is_empty() {
                break;
            }
            let written = target.write_at_with(mode(at, length), IoArgs::at(at), data);
            written.map_err(|error| named(path, error))?;
            at += length as u64;
            self.bar.inc(length as u64);
            if length < room {
                break;
            }
        }
        Ok(at)
    }
}

/// Returns the mode of a write. The cache completes a part of a block, which past it would be durable, with a
/// flush for each file, before the next write.
fn mode(at: u64, length: usize) -> IoMode {
    let is_aligned = (at | length as u64).is_multiple_of(BLOCK_BYTES_MAX);
    if is_aligned { IoMode::Direct } else { IoMode::Writethrough }
}

/// Adds the path to an error of an open file.
pub fn named(path: &[u8], error: nvio::Error) -> Error {
    match error {
        nvio::Error::File(error) => Error::path(path)(error),
        other => other.into(),
    }
}
