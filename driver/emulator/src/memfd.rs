//! Memory that a client maps too: a sealed memfd.

use std::fs::File;
use std::io;

use rustix::fs::{MemfdFlags, SealFlags};
use vm_memory::FileOffset;
use vm_memory::mmap::MmapRegion;

use crate::memory::mmap_error;

/// A memfd of `bytes` zeroes, mapped. It is sealed against resizing: a client cannot take the
/// pages away from under the controller.
pub(crate) fn new(name: &str, bytes: u64) -> io::Result<(MmapRegion, File)> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(rustix::fs::memfd_create(name, flags)?);
    file.set_len(bytes)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    let size = usize::try_from(bytes).map_err(io::Error::other)?;
    let offset = FileOffset::new(file.try_clone()?, 0);
    Ok((MmapRegion::from_file(offset, size).map_err(mmap_error)?, file))
}
