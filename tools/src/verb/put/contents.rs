//! The data of a regular file, without its holes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nvio::{Inode, IoMode, JournaledFile};
use nvio_iomap::{BOUNCE_BYTES_MAX, IoArgs};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use super::tree::Putter;
use crate::error::Error;

/// Largest logical block of a device, in bytes.
const BLOCK_BYTES_MAX: u64 = 4096;

/// A file, while its data is copied.
struct Transfer<'a> {
    source: &'a File,
    source_path: &'a Path,
    target: JournaledFile,
    path: &'a [u8],
}

impl Putter<'_> {
    /// Copies the data of `source`, which had `size` bytes when it was opened. Holes are left out.
    pub(super) fn contents(
        &mut self,
        source_path: &Path,
        source: &File,
        size: u64,
        inode: &Inode,
        path: &[u8],
    ) -> Result<(), Error> {
        let target = self.volume.open_inode(inode).map_err(|error| named(path, error))?;
        let mut transfer = Transfer { source, source_path, target, path };
        if size == 0 {
            // Files of /proc have data, but no size.
            self.range(&mut transfer, 0, u64::MAX)?;
            return Ok(());
        }
        let mut end = 0;
        while end < size {
            let Some((from, to)) = transfer.next_data(end, size)? else { break };
            end = self.range(&mut transfer, from, to)?;
            if end < to {
                // The file has become shorter.
                return Ok(());
            }
        }
        if end < size {
            transfer.target.set_len(size).map_err(|error| named(path, error))?;
        }
        Ok(())
    }

    /// Copies a range. Returns its end, or that of the file.
    fn range(&mut self, transfer: &mut Transfer<'_>, from: u64, to: u64) -> Result<u64, Error> {
        self.buffer.resize(BOUNCE_BYTES_MAX, 0);
        let mut at = from;
        while at < to {
            // Up to the next multiple of the buffer's size, so that the next write is aligned.
            let room = BOUNCE_BYTES_MAX as u64 - at % BOUNCE_BYTES_MAX as u64;
            let room = usize::try_from(room.min(to - at)).unwrap_or(BOUNCE_BYTES_MAX);
            let buffer = self.buffer.get_mut(..room).unwrap_or_default();
            let length = transfer.read(buffer, at)?;
            let data = buffer.get(..length).unwrap_or_default();
            if data.is_empty() {
                break;
            }
            let written = transfer.target.write_at_with(mode(at, length), IoArgs::at(at), data);
            written.map_err(|error| named(transfer.path, error))?;
            at += length as u64;
            self.bar.inc(length as u64);
            if length < room {
                break;
            }
        }
        Ok(at)
    }
}

impl Transfer<'_> {
    /// Returns the next range with data from `pos` on, before `size`.
    fn next_data(&self, pos: u64, size: u64) -> Result<Option<(u64, u64)>, Error> {
        let failed = |errno: Errno| Error::host("find the holes of", self.source_path, errno);
        let from = match seek(self.source, SeekFrom::Data(pos)) {
            Err(Errno::NXIO) => return Ok(None),
            // The filesystem has no holes.
            Err(Errno::INVAL) => return Ok(Some((pos, size))),
            found => found.map_err(failed)?,
        };
        if from >= size {
            return Ok(None);
        }
        let to = seek(self.source, SeekFrom::Hole(from)).map_err(failed)?;
        Ok(Some((from, to.min(size))))
    }

    /// Fills the buffer, if the file does not end before.
    fn read(&self, buffer: &mut [u8], at: u64) -> Result<usize, Error> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.source.read_at(rest, at + done as u64) {
                Ok(0) => break,
                Ok(length) => done += length,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::host("read", self.source_path, error)),
            }
        }
        Ok(done)
    }
}

/// Returns the mode of a write. The cache completes a part of a block, which past it would be durable, with a
/// flush for each file, before the next write.
fn mode(at: u64, length: usize) -> IoMode {
    let is_aligned = (at | length as u64).is_multiple_of(BLOCK_BYTES_MAX);
    if is_aligned { IoMode::Direct } else { IoMode::Writethrough }
}

/// Adds the path to an error of an open file.
fn named(path: &[u8], error: nvio::Error) -> Error {
    match error {
        nvio::Error::File(error) => Error::path(path)(error),
        other => other.into(),
    }
}
