//! Holes, and changes of ranges of a file.

use fuser::Errno;
use nvio_ext4::Inode;

use crate::backend::Backend;
use crate::errno::errno;

/// `SEEK_DATA` and `SEEK_HOLE` of lseek(2).
const SEEK_DATA: i32 = libc::SEEK_DATA;
const SEEK_HOLE: i32 = libc::SEEK_HOLE;

/// Returns the next position with data, or in a hole, from `from` on. Blocks without written data are a
/// hole.
pub(crate) fn seek(backend: &Backend, inode: &Inode, from: u64, whence: i32) -> Result<u64, Errno> {
    let size = inode.size();
    if from >= size {
        return Err(Errno::ENXIO);
    }
    let mut at = from;
    if inode.has_inline_data() {
        return if whence == SEEK_DATA { Ok(from) } else { Ok(size) };
    }
    for extent in backend.filesystem().extents(inode).map_err(|error| errno(&error))? {
        let extent = extent.map_err(|error| errno(&error))?;
        let end = extent.logical.saturating_add(extent.length);
        if end <= at || extent.unwritten {
            continue;
        }
        match whence {
            SEEK_DATA if extent.logical < size => return Ok(at.max(extent.logical)),
            SEEK_HOLE if extent.logical <= at => at = end,
            _ => break,
        }
    }
    match whence {
        SEEK_HOLE => Ok(at.min(size)),
        SEEK_DATA => Err(Errno::ENXIO),
        _ => Err(Errno::EINVAL),
    }
}

/// Allocates, zeroes or frees a range, as fallocate(2) does.
pub(crate) fn allocate(
    backend: &Backend,
    number: u32,
    pos: u64,
    length: u64,
    mode: i32,
) -> Result<(), Errno> {
    const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
    const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP;
    const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
    const ZERO_AND_KEEP: i32 = ZERO | KEEP;
    let fs = backend.writable()?.filesystem();
    let keep = mode & KEEP != 0;
    let done = match mode {
        0 | KEEP => fs.allocate(number, pos, length, keep),
        PUNCH => fs.punch_hole(number, pos, length),
        ZERO | ZERO_AND_KEEP => fs.zero_range(number, pos, length, keep),
        libc::FALLOC_FL_COLLAPSE_RANGE => fs.collapse_range(number, pos, length),
        libc::FALLOC_FL_INSERT_RANGE => fs.insert_range(number, pos, length),
        _ => return Err(Errno::EOPNOTSUPP),
    };
    done.map(drop).map_err(|error| errno(&error))
}
