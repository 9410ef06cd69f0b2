//! The memory of an arena: a shared mapping of a file, which a vfio-user server can map, too.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::NonNull;

use rustix::fs::{FallocateFlags, MemfdFlags};
use rustix::io::Errno;
use rustix::mm::{Advice, madvise};
use vm_memory::{FileOffset, MmapRegion};

use super::numa;
use super::page_map::{HUGE_PAGE_SIZE, PAGE_SIZE};
use crate::error::{Error, Result};

/// Memory that can be mapped for a device, and that only its owner accesses.
///
/// [`Controller::register`](crate::Controller::register) makes an [`Arena`](crate::Arena) of it.
///
/// # Examples
/// ```
/// # let served = nvio_testkit::controller::Served::memory(16 << 20);
/// # let controller = &served.controller;
/// use std::fs::File;
///
/// use nvio_driver::DmaMemory;
///
/// let memory = DmaMemory::new(4 << 20)?;
/// assert_eq!(memory.size(), 4 << 20);
/// let arena = controller.register(memory)?;
///
/// // Memory that another process has created, such as that of a virtual machine.
/// # let file = tempfile::tempfile()?;
/// # file.set_len(4 << 20)?;
/// let shared: File = file;
/// // SAFETY: the file is as long, and is not truncated while it is registered.
/// let memory = unsafe { DmaMemory::from_file(shared, 0, 4 << 20)? };
/// let arena = controller.register(memory)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(derive_more::Debug)]
#[debug("DmaMemory({} bytes)", self.size())]
pub struct DmaMemory {
    /// The mapping. It keeps the file open, and is unmapped when dropped.
    region: MmapRegion<()>,
    base: NonNull<u8>,
}

// SAFETY: `base` points into `region`, which lives as long. The memory is accessed through the
// page runs of one arena, which are disjoint.
unsafe impl Send for DmaMemory {}
// SAFETY: as above.
unsafe impl Sync for DmaMemory {}

impl DmaMemory {
    /// Allocates zeroed memory of `bytes`, rounded up to 2 MiB: a memfd of 2 MiB pages if the
    /// system has any and lets this process use them, of ordinary pages otherwise.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::System`] if the memory cannot be allocated.
    pub fn new(bytes: usize) -> Result<Self> {
        Self::near(bytes, None)
    }

    /// Allocates memory as [`new`](Self::new) does, on the memory node `node` if it has free pages.
    pub(crate) fn near(bytes: usize, node: Option<u32>) -> Result<Self> {
        let len = bytes
            .max(1)
            .checked_next_multiple_of(HUGE_PAGE_SIZE)
            .ok_or(Error::ArenaFull { bytes, arena: usize::MAX })?;
        let mapped = |flags| {
            let region = map(memfd(len, flags)?, 0, len)?;
            // Before the first page exists.
            if let Some(node) = node
                && let Err(why) = numa::prefer(&region, node)
            {
                log::debug!("DMA memory is on any memory node, not on node {node}: {why}");
            }
            Ok(region)
        };
        let huge = mapped(MemfdFlags::HUGETLB)
            .and_then(|region| populate(&region).map(|()| region))
            .inspect_err(|why| log::debug!("no 2 MiB pages for DMA memory ({why})"));
        let region = huge
            .or_else(|_: io::Error| mapped(MemfdFlags::empty()))
            .map_err(Error::system("memfd for DMA memory"))?;
        Self::of(region)
    }

    /// Maps the `bytes` at `offset` of a memory file: a memfd, or a file on tmpfs or hugetlbfs.
    /// Missing pages are allocated now. `offset` and `bytes` are multiples of
    /// [`PAGE_SIZE`](crate::PAGE_SIZE) and of the file's own page size.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Misaligned`]; [`Error::OutsideFile`]; [`Error::System`] if the file cannot be
    /// mapped for reading and writing, or if there is no memory for it.
    ///
    /// # Safety
    /// Until the arena, all of its buffers and the controller are dropped:
    ///
    /// - This range of the file must not be read or written in another way, in this process or in
    ///   another: through another mapping, by system calls, or as a second `DmaMemory`. The buffers
    ///   are exclusive, as a `Box<[u8]>` is. (The server of a vfio-user device maps the file, too,
    ///   and accesses the buffers of commands.)
    /// - The file must not be truncated: an access beyond its end is a SIGBUS.
    ///
    /// Another process that uses the memory in turns may access it only before this memory is
    /// created, and after it is dropped.
    pub unsafe fn from_file(file: File, offset: u64, bytes: usize) -> Result<Self> {
        let page = PAGE_SIZE as u64;
        for value in [offset, bytes as u64] {
            if !value.is_multiple_of(page) {
                return Err(Error::Misaligned { value, align: page });
            }
        }
        let size = file.metadata().map_err(Error::system("fstat of a file for DMA"))?.len();
        let end = offset.checked_add(bytes as u64);
        if bytes == 0 || end.is_none_or(|end| end > size) {
            return Err(Error::OutsideFile { offset, bytes, size });
        }
        // An access to a page without memory would be a SIGBUS.
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), offset, bytes as u64) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(Error::system("fallocate of a file for DMA")(errno)),
        }
        Self::of(map(file, offset, bytes).map_err(Error::system("mmap of a file for DMA"))?)
    }

    fn of(region: MmapRegion<()>) -> Result<Self> {
        let null = || Error::system("mmap of DMA memory")(Errno::NOMEM);
        Ok(Self { base: NonNull::new(region.as_ptr()).ok_or_else(null)?, region })
    }

    /// Returns the size in bytes.
    ///
    /// See the [example](Self#examples).
    pub fn size(&self) -> usize {
        self.region.size()
    }

    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Returns the file, and the offset of the first byte in it.
    pub(super) fn file(&self) -> (RawFd, u64) {
        self.region.file_offset().map_or((-1, 0), |at| (at.file().as_raw_fd(), at.start()))
    }
}

fn memfd(len: usize, flags: MemfdFlags) -> io::Result<File> {
    let file = File::from(rustix::fs::memfd_create(c"nvio-arena", MemfdFlags::CLOEXEC | flags)?);
    file.set_len(len as u64)?;
    Ok(file)
}

/// Allocates the pages of a mapping. A page that a cgroup's limit of huge pages forbids is an error
/// here; at its first use it would be a SIGBUS, which MAP_POPULATE does not prevent.
fn populate(region: &MmapRegion<()>) -> io::Result<()> {
    // SAFETY: the range is that of the mapping, and populating it changes no contents.
    let populated =
        unsafe { madvise(region.as_ptr().cast(), region.size(), Advice::LinuxPopulateWrite) };
    match (populated, region.file_offset()) {
        // Before Linux 5.14.
        (Err(Errno::INVAL), Some(at)) => {
            let flags = FallocateFlags::empty();
            Ok(rustix::fs::fallocate(at.file(), flags, at.start(), region.size() as u64)?)
        }
        (populated, _) => Ok(populated?),
    }
}

fn map(file: File, offset: u64, len: usize) -> io::Result<MmapRegion<()>> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let file = FileOffset::new(file, offset);
    MmapRegion::build(Some(file), len, protection, libc::MAP_SHARED).map_err(|error| match error {
        vm_memory::mmap::MmapRegionError::Mmap(source) => source,
        other => io::Error::other(other.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::Arena;
    use crate::dma::Claim;

    fn file(bytes: u64) -> File {
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        file.set_len(bytes).unwrap();
        file
    }

    #[test]
    fn a_range_of_a_file_is_memory() {
        use std::os::unix::fs::FileExt;
        let file = file(4 * 4096);
        file.write_all_at(b"before", 2 * 4096).unwrap();
        let other = file.try_clone().unwrap();
        // SAFETY: the file is read after the memory was dropped.
        let memory = unsafe { DmaMemory::from_file(file, 4096, 3 * 4096) }.unwrap();
        assert_eq!(memory.size(), 3 * 4096);
        let claim = Claim::detached(memory.size(), 4096).unwrap();
        let arena = Arena::over(Arc::new(memory), Arc::new(claim));
        let mut buf = arena.take(4096, 4096).unwrap();
        assert_eq!(&buf[..6], b"before");
        buf[..6].copy_from_slice(b"after!");
        assert!(arena.alloc(2 * 4096).is_err(), "two pages are left, apart");
        drop((buf, arena));
        let mut read = [0; 6];
        other.read_exact_at(&mut read, 2 * 4096).unwrap();
        assert_eq!(&read, b"after!");
    }

    #[test]
    fn a_page_that_cannot_be_allocated_is_an_error_and_not_a_signal() {
        let short = file(4096);
        let region = map(short.try_clone().unwrap(), 0, 2 * 4096).unwrap();
        // A file that is shorter than the mapping, because a cgroup needs root.
        assert_eq!(populate(&region).unwrap_err().raw_os_error(), Some(libc::EFAULT));
        short.set_len(2 * 4096).unwrap();
        populate(&region).unwrap();
    }

    #[test]
    fn memory_is_allocated_whatever_the_node() {
        for node in [0, 1, 63, 1023, 1024, u32::MAX] {
            let memory = DmaMemory::near(1, Some(node)).unwrap();
            assert_eq!(memory.size(), HUGE_PAGE_SIZE);
        }
        let region = map(memfd(4096, MemfdFlags::empty()).unwrap(), 0, 4096).unwrap();
        assert_eq!(numa::prefer(&region, 1024).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn range_outside_the_file_or_of_partial_pages_is_refused() {
        // SAFETY: nothing is mapped.
        let refused = |offset, bytes| unsafe {
            DmaMemory::from_file(file(2 * 4096), offset, bytes).unwrap_err()
        };
        for (offset, bytes) in [(0, 3 * 4096), (2 * 4096, 4096), (0, 0), (!4095, 8192)] {
            assert!(matches!(refused(offset, bytes), Error::OutsideFile { .. }), "{offset:#x}");
        }
        for (offset, bytes) in [(512, 4096), (0, 4097)] {
            assert!(matches!(refused(offset, bytes), Error::Misaligned { .. }));
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_is_refused() {
        let file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        file.as_file().set_len(4096).unwrap();
        let reading = File::open(file.path()).unwrap();
        // SAFETY: the file has no other user.
        let refused = unsafe { DmaMemory::from_file(reading, 0, 4096) }.unwrap_err();
        assert!(matches!(refused, Error::System { .. }), "{refused}");
    }
}
