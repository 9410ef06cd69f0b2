//! The host's memory: its DMA mappings, by I/O virtual address.

use std::fs::File;
use std::io;
use std::sync::Arc;

use rustix::io::Errno;
use vm_memory::mmap::MmapRegion;
use vm_memory::{Bytes, FileOffset, VolatileMemory, VolatileSlice};

use crate::host::access::{Access, Dma, Observer};

/// Largest number of mappings of a client. A driver with one arena needs one; a virtual machine
/// needs a few dozen.
///
/// See the [example](crate::HostMemory#examples).
pub const MAPPINGS_MAX: usize = 1024;

/// Granularity of mappings in bytes: the page of an IOMMU.
const PAGE: u64 = 4096;

#[derive(Debug)]
struct Mapping {
    iova: u64,
    size: u64,
    access: Access,
    region: Arc<MmapRegion>,
}

impl Mapping {
    /// Returns the offset of `iova` in the mapping, if `len` bytes from there are inside it.
    fn offset_of(&self, iova: u64, len: u64) -> Option<u64> {
        let offset = iova.checked_sub(self.iova)?;
        (offset.checked_add(len)? <= self.size).then_some(offset)
    }
}

/// A range of host memory that was found for an access. It is valid until the mappings change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) mapping: u32,
    pub(crate) access: Access,
    pub(crate) offset: u64,
}

/// The DMA mappings of a client, a bounded table ordered by address.
///
/// A range is accessible if one mapping holds all of it. A range across the border of two mappings
/// is not, even if they touch. The file behind a mapping has to be long enough when it is mapped. A
/// client that shortens it later kills this process with SIGBUS, as it would any server that maps
/// client memory; the socket's permissions decide which users can do so.
///
/// # Examples
/// ```
/// use std::sync::Arc;
///
/// use nvio_emulator::{Access, HostMemory};
/// use vm_memory::MmapRegion;
///
/// let mut memory = HostMemory::new();
/// // Memory of a client, by its file, and of this process.
/// let file = tempfile::tempfile()?;
/// file.set_len(8192)?;
/// memory.map_file(0x10000, 8192, file, 0, Access::READ_WRITE)?;
/// memory.map_region(0x20000, Arc::new(MmapRegion::new(4096)?), Access::READ)?;
///
/// assert_eq!(memory.write(0x10010, b"hello"), Some(()));
/// let mut text = [0; 5];
/// assert_eq!(memory.read(0x10010, &mut text), Some(()));
/// assert_eq!(&text, b"hello");
/// assert_eq!(memory.write(0x20000, b"hello"), None, "the controller may only read it");
/// assert!(memory.slice(0x10000, 8192, Access::WRITE).is_some());
/// assert!(memory.slice(0x10000, 8193, Access::WRITE).is_none());
///
/// memory.unmap(0x20000, 4096)?;
/// memory.clear();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct HostMemory {
    mappings: Vec<Mapping>,
    observer: Observer,
}

impl HostMemory {
    /// Creates an empty table.
    ///
    /// See the [example](Self#examples).
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls `observer` just before every access of the controller: queue entries fetched and
    /// posted, lists of data pointers, data, shadow doorbells. A range that is refused because it
    /// is not mapped is not accessed. A new observer replaces the last.
    ///
    /// ```
    /// use nvio_emulator::{HostMemory, Dma};
    ///
    /// let (sender, accesses) = std::sync::mpsc::channel();
    /// let mut memory = HostMemory::new();
    /// memory.observe(move |dma: Dma| {
    ///     let _ = sender.send(dma);
    /// });
    /// // Nothing is mapped: nothing can be accessed.
    /// assert_eq!(memory.read(0, &mut [0]), None);
    /// assert!(accesses.try_recv().is_err());
    /// ```
    pub fn observe(&mut self, observer: impl Fn(Dma) + Send + 'static) {
        self.observer.set(observer);
    }

    /// Maps `size` bytes of `file`, from `offset` on, at `iova`.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// `EINVAL` if an address or the size is not a multiple of 4096, if the size is 0, the range
    /// wraps, or the file is shorter than the range; `EEXIST` if the range overlaps a mapping;
    /// `ENOSPC` if there are [`MAPPINGS_MAX`] already; the errors of `mmap`.
    pub fn map_file(
        &mut self,
        iova: u64,
        size: u64,
        file: File,
        offset: u64,
        access: Access,
    ) -> io::Result<()> {
        self.check_new(iova, size)?;
        let end = offset.checked_add(size).filter(|_| offset.is_multiple_of(PAGE));
        let end = end.ok_or_else(|| io::Error::from(Errno::INVAL))?;
        if file.metadata()?.len() < end {
            return Err(Errno::INVAL.into());
        }
        let bytes = usize::try_from(size).map_err(|_| io::Error::from(Errno::NOMEM))?;
        let prot = libc::PROT_READ | if access.write { libc::PROT_WRITE } else { 0 };
        let region = MmapRegion::build(
            Some(FileOffset::new(file, offset)),
            bytes,
            prot,
            libc::MAP_SHARED | libc::MAP_NORESERVE,
        )
        .map_err(mmap_error)?;
        self.insert(iova, Arc::new(region), access);
        Ok(())
    }

    /// Maps a region of this process at `iova`, for a host in this process, such as a test.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`Self::map_file`].
    pub fn map_region(
        &mut self,
        iova: u64,
        region: Arc<MmapRegion>,
        access: Access,
    ) -> io::Result<()> {
        self.check_new(iova, region.size() as u64)?;
        self.insert(iova, region, access);
        Ok(())
    }

    fn check_new(&self, iova: u64, size: u64) -> io::Result<()> {
        let aligned = iova.is_multiple_of(PAGE) && size.is_multiple_of(PAGE) && size != 0;
        let last = iova.checked_add(size.wrapping_sub(1)).filter(|_| aligned);
        let last = last.ok_or_else(|| io::Error::from(Errno::INVAL))?;
        let overlaps = |m: &Mapping| m.iova <= last && iova <= m.iova + (m.size - 1);
        if self.mappings.iter().any(overlaps) {
            return Err(Errno::EXIST.into());
        }
        if self.mappings.len() >= MAPPINGS_MAX {
            return Err(Errno::NOSPC.into());
        }
        Ok(())
    }

    fn insert(&mut self, iova: u64, region: Arc<MmapRegion>, access: Access) {
        let size = region.size() as u64;
        let at = self.mappings.partition_point(|m| m.iova < iova);
        self.mappings.insert(at, Mapping { iova, size, access, region });
    }

    /// Removes the mapping with exactly this address and size.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// `ENOENT` if there is no such mapping.
    pub fn unmap(&mut self, iova: u64, size: u64) -> io::Result<()> {
        let found = self.mappings.iter().position(|m| m.iova == iova && m.size == size);
        let at = found.ok_or_else(|| io::Error::from(Errno::NOENT))?;
        self.mappings.remove(at);
        Ok(())
    }

    /// Removes every mapping.
    ///
    /// See the [example](Self#examples).
    pub fn clear(&mut self) {
        self.mappings.clear();
    }

    /// Finds the one mapping that holds `len` bytes from `iova` and allows `needed`.
    #[inline]
    pub(crate) fn find(&self, iova: u64, len: u64, needed: Access) -> Option<Place> {
        // The usual table has one entry, which needs no search.
        let (index, mapping) = match &self.mappings[..] {
            [] => return None,
            [only] => (0, only),
            all => {
                let at = all.partition_point(|m| m.iova <= iova).checked_sub(1)?;
                (u32::try_from(at).ok()?, &all[at])
            }
        };
        let offset = mapping.offset_of(iova, len)?;
        let found = Place { mapping: index, access: needed, offset };
        mapping.access.allows(needed).then_some(found)
    }

    /// Returns how many of the `len` bytes from `iova` on are in one mapping.
    pub(crate) fn reach(&self, iova: u64, len: u64) -> Option<u64> {
        let at = self.mappings.partition_point(|m| m.iova <= iova).checked_sub(1)?;
        let mapping = &self.mappings[at];
        let left = mapping.size.checked_sub(iova - mapping.iova).filter(|&left| left > 0)?;
        Some(len.min(left))
    }

    /// Returns the memory of a place that [`Self::find`] returned, and notifies the observer of an
    /// access to all of it.
    #[inline]
    pub(crate) fn at(&self, place: Place, len: u64) -> Option<VolatileSlice<'_>> {
        let slice = self.unobserved(place, len)?;
        self.will_access(place, 0, len);
        Some(slice)
    }

    /// Notifies the observer of an access to `len` bytes, `offset` into a place.
    #[inline]
    pub(crate) fn will_access(&self, place: Place, offset: u64, len: u64) {
        let iova = || Some(self.mappings.get(place.mapping as usize)?.iova + place.offset + offset);
        self.observer.tell(iova, len, place.access);
    }

    /// Returns the memory of a place. The caller reports its accesses with [`Self::will_access`].
    #[inline]
    pub(crate) fn unobserved(&self, place: Place, len: u64) -> Option<VolatileSlice<'_>> {
        let region = &self.mappings.get(place.mapping as usize)?.region;
        region.get_slice(usize::try_from(place.offset).ok()?, usize::try_from(len).ok()?).ok()
    }

    /// Returns `len` bytes of host memory at `iova` for an access now, if one mapping holds them
    /// and allows `needed`.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn slice(&self, iova: u64, len: u64, needed: Access) -> Option<VolatileSlice<'_>> {
        self.at(self.find(iova, len, needed)?, len)
    }

    /// Copies host memory at `iova` to `to`; `None` if it is not readable.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn read(&self, iova: u64, to: &mut [u8]) -> Option<()> {
        self.slice(iova, to.len() as u64, Access::READ)?.read_slice(to, 0).ok()
    }

    /// Copies `from` to host memory at `iova`; `None` if it is not writable.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn write(&self, iova: u64, from: &[u8]) -> Option<()> {
        self.slice(iova, from.len() as u64, Access::WRITE)?.write_slice(from, 0).ok()
    }
}

/// Returns the system's error of a failed mapping.
pub(crate) fn mmap_error(error: vm_memory::mmap::MmapRegionError) -> io::Error {
    match error {
        vm_memory::mmap::MmapRegionError::Mmap(source) => source,
        _ => Errno::INVAL.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn region(pages: usize) -> Arc<MmapRegion> {
        Arc::new(MmapRegion::new(pages * 4096).unwrap())
    }

    fn errno(result: io::Result<()>) -> Option<i32> {
        result.unwrap_err().raw_os_error()
    }

    #[test]
    fn overlaps_and_bad_addresses_are_refused() {
        let mut memory = HostMemory::new();
        memory.map_region(0x10000, region(4), Access::READ_WRITE).unwrap();
        let exists = Some(Errno::EXIST.raw_os_error());
        let invalid = Some(Errno::INVAL.raw_os_error());
        for iova in [0xf000, 0x10000, 0x13000] {
            assert_eq!(errno(memory.map_region(iova, region(2), Access::READ)), exists);
        }
        memory.map_region(0x14000, region(1), Access::READ_WRITE).unwrap();
        assert_eq!(errno(memory.map_region(0x20800, region(1), Access::READ)), invalid);
        assert_eq!(errno(memory.map_region(u64::MAX - 4095, region(2), Access::READ)), invalid);
        // The last page of the address space can be mapped.
        memory.map_region(u64::MAX - 4095, region(1), Access::READ_WRITE).unwrap();
        assert!(memory.read(u64::MAX - 7, &mut [0; 8]).is_some());
        assert!(memory.read(u64::MAX - 7, &mut [0; 9]).is_none());
    }

    #[test]
    fn a_range_must_be_inside_one_mapping() {
        let mut memory = HostMemory::new();
        memory.map_region(0x2000, region(1), Access::READ_WRITE).unwrap();
        memory.map_region(0x1000, region(1), Access::READ_WRITE).unwrap();
        assert!(memory.write(0x1ff0, &[1; 16]).is_some());
        assert!(memory.write(0x1ff0, &[1; 17]).is_none());
        assert!(memory.read(0x0fff, &mut [0; 2]).is_none());
        assert!(memory.read(0x3000, &mut [0; 1]).is_none());
        assert_eq!(errno(memory.unmap(0x1000, 0x2000)), Some(Errno::NOENT.raw_os_error()));
        memory.unmap(0x1000, 0x1000).unwrap();
        assert!(memory.read(0x1000, &mut [0; 1]).is_none());
        assert!(memory.read(0x2000, &mut [0; 1]).is_some());
    }

    #[test]
    fn a_file_shorter_than_claimed_is_refused() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 8191]).unwrap();
        let mut memory = HostMemory::new();
        let again = || file.try_clone().unwrap();
        let invalid = Some(Errno::INVAL.raw_os_error());
        assert_eq!(errno(memory.map_file(0, 8192, again(), 0, Access::READ)), invalid);
        assert_eq!(errno(memory.map_file(0, 4096, again(), 4096, Access::READ)), invalid);
        assert_eq!(
            errno(memory.map_file(0, 4096, again(), u64::MAX - 4095, Access::READ)),
            invalid
        );
        memory.map_file(0, 4096, again(), 0, Access::READ).unwrap();
        let mut byte = [0];
        memory.read(4095, &mut byte).unwrap();
        assert_eq!(byte, [7]);
        assert!(memory.write(0, &[1]).is_none());
    }

    #[test]
    fn the_table_is_bounded() {
        let mut memory = HostMemory::new();
        let shared = region(1);
        for i in 0..MAPPINGS_MAX as u64 {
            memory.map_region(i * 8192, shared.clone(), Access::READ).unwrap();
        }
        let full = memory.map_region(1 << 40, shared, Access::READ);
        assert_eq!(errno(full), Some(Errno::NOSPC.raw_os_error()));
    }
}
