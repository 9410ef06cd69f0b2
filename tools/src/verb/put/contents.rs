//! The data of a regular file, without its holes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nvio::{Inode, JournaledFile};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::create::Creator;
use crate::create::data::named;
use crate::error::Error;

/// A file, while its data is copied.
struct Transfer<'a> {
    source: &'a File,
    source_path: &'a Path,
    target: JournaledFile,
    path: &'a [u8],
}

/// Copies the data of `source`, which had `size` bytes when it was opened. Holes are left out.
///
/// # Errors
/// If the data cannot be read or written.
pub fn copy(
    creator: &mut Creator<'_>,
    (source_path, source, size): (&Path, &File, u64),
    (inode, path): (&Inode, &[u8]),
) -> Result<(), Error> {
    let target = creator.volume.open_inode(inode).map_err(|error| named(path, error))?;
    let mut transfer = Transfer { source, source_path, target, path };
    if size == 0 {
        // Files of /proc have data, but no size.
        transfer.range(creator, 0, u64::MAX)?;
        return Ok(());
    }
    let mut end = 0;
    while end < size {
        let Some((from, to)) = transfer.next_data(end, size)? else { break };
        end = transfer.range(creator, from, to)?;
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

impl Transfer<'_> {
    /// Copies a range. Returns its end, or that of the file.
    fn range(&mut self, creator: &mut Creator<'_>, from: u64, to: u64) -> Result<u64, Error> {
        let &mut Self { source, source_path, ref mut target, path } = self;
        creator.copy(target, path, (from, to), |buffer, at| read(source, source_path, buffer, at))
    }

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
}

/// Fills the buffer, if the file does not end before.
fn read(source: &File, path: &Path, buffer: &mut [u8], at: u64) -> Result<usize, Error> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match source.read_at(rest, at + done as u64) {
            Ok(0) => break,
            Ok(length) => done += length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::host("read", path, error)),
        }
    }
    Ok(done)
}
