//! Sealed memfds: memory that a client maps, too.

use std::fs::File;
use std::io;

use rustix::fs::{MemfdFlags, SealFlags};
use vm_memory::FileOffset;
use vm_memory::mmap::MmapRegion;

use crate::host::memory::mmap_error;

/// Creates and maps a memfd of `bytes` zeroes. It is sealed against resizing, so that a client
/// cannot remove the pages that the controller maps.
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
