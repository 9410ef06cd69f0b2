//! The limits because of which the kernel fails to map memory for DMA, with their values.

use iommufd_ioctls::IommufdError;
use rustix::process::{Resource, getrlimit};
use vfio_ioctls::VfioError;

use crate::dma::Arena;
use crate::error::Error;

/// The default of VFIO's dma_entry_limit.
const ENTRY_LIMIT: usize = u16::MAX as usize;

/// Returns the driver's error for a failed VFIO_IOMMU_MAP_DMA.
pub(super) fn map_error(arena: &Arena, source: VfioError) -> Error {
    let errno = match &source {
        VfioError::IommuDmaMap(error)
        | VfioError::IommufdIoctlError(IommufdError::IommuIoasMap(error)) => error.errno(),
        _ => 0,
    };
    limit_reached(errno, arena.iova(), arena.size())
        .unwrap_or(Error::Vfio { step: "map DMA memory", source })
}

/// Returns the limit behind an error number, if there is one.
fn limit_reached(errno: i32, iova: u64, bytes: usize) -> Option<Error> {
    match errno {
        libc::EEXIST => Some(Error::MappingExists { iova, bytes }),
        libc::ENOSPC => Some(Error::MappingLimit { limit: entry_limit() }),
        // RLIMIT_MEMLOCK, or not enough memory.
        libc::ENOMEM => {
            let limit = getrlimit(Resource::Memlock).current?;
            let locked = locked_in(&std::fs::read_to_string("/proc/self/status").ok()?);
            let locked = locked.unwrap_or(0);
            let over = locked.saturating_add(bytes as u64) > limit;
            over.then_some(Error::MemoryLock { bytes, locked, limit })
        }
        _ => None,
    }
}

/// Returns VmLck of `/proc/self/status`, the bytes that mlock and VFIO have locked.
fn locked_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmLck:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn entry_limit() -> usize {
    let text = std::fs::read_to_string("/sys/module/vfio_iommu_type1/parameters/dma_entry_limit");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(ENTRY_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_named_when_it_is_one() {
        let (iova, bytes) = (1 << 32, 1 << 20);
        let overlap = limit_reached(libc::EEXIST, iova, bytes);
        assert!(matches!(overlap, Some(Error::MappingExists { .. })));
        let full = limit_reached(libc::ENOSPC, iova, bytes);
        assert!(matches!(full, Some(Error::MappingLimit { limit: 1.. })));
        assert!(limit_reached(libc::EFAULT, iova, bytes).is_none());
        let limit = getrlimit(Resource::Memlock).current.unwrap_or(libc::RLIM_INFINITY);
        match limit_reached(libc::ENOMEM, iova, usize::MAX) {
            None => assert_eq!(limit, libc::RLIM_INFINITY),
            Some(Error::MemoryLock { bytes, limit: named, .. }) => {
                assert_eq!((bytes, named), (usize::MAX, limit));
            }
            Some(other) => panic!("{other}"),
        }
        assert!(limit == 0 || limit_reached(libc::ENOMEM, iova, 0).is_none());
    }

    #[test]
    fn locked_bytes_are_read_from_the_status() {
        assert_eq!(
            locked_in("VmPeak:\t  100 kB\nVmLck:\t      64 kB\nVmPin:\t 0 kB\n"),
            Some(65536)
        );
        assert_eq!(locked_in("VmPeak:\t  100 kB\n"), None);
        assert_eq!(locked_in("VmLck:\t many kB\n"), None);
        assert!(locked_in(&std::fs::read_to_string("/proc/self/status").unwrap()).is_some());
    }
}
