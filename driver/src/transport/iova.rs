//! I/O virtual addresses that an IOMMU can translate.

use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

use iommufd_bindings::iommufd::{
    IOMMUFD_CMD_IOAS_IOVA_RANGES, IOMMUFD_TYPE, iommu_ioas_iova_ranges, iommu_iova_range,
};

use vfio_bindings::bindings::vfio::{
    VFIO_IOMMU_INFO_CAPS, VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, vfio_iommu_type1_info,
};
use vfio_ioctls::{VfioContainer, VfioIommufd};

use super::info_chain;
use crate::dma::first_free;
use crate::error::{Error, Result};

/// `_IO(VFIO_TYPE, VFIO_BASE + 12)`: VFIO_IOMMU_GET_INFO.
const GET_INFO: libc::c_ulong = 0x3b << 8 | (100 + 12);
const HUGE_PAGE: u64 = 2 << 20;
/// Preferred lowest address, above the windows and MSI addresses below 4 GiB.
const PREFERRED: u64 = 1 << 32;
/// Largest accepted reply of VFIO_IOMMU_GET_INFO, bytes.
const INFO_BYTES_MAX: usize = 64 << 10;
/// Most ranges accepted from IOMMU_IOAS_IOVA_RANGES.
const RANGES_MAX: usize = INFO_BYTES_MAX / size_of::<iommu_iova_range>();

/// An inclusive range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IovaRange {
    first: u64,
    last: u64,
}

/// Returns the ranges that the kernel reports. If the kernel reports none, the range is 39 bits,
/// the smallest of IOMMUs.
pub(super) fn ranges(container: &VfioContainer) -> Result<Vec<IovaRange>> {
    let header = get_info(container, size_of::<vfio_iommu_type1_info>())?;
    let needed = word(&header, 0) as usize;
    let bytes = match needed {
        n if n <= header.len() => header,
        n if n <= INFO_BYTES_MAX => get_info(container, n)?,
        n => return Err(Error::invalid("VFIO_IOMMU_GET_INFO", "argsz", n as u64)),
    };
    let found = parse(&bytes);
    Ok(if found.is_empty() { vec![IovaRange { first: 0, last: (1 << 39) - 1 }] } else { found })
}

/// Returns the ranges of an I/O address space of an iommufd, with its devices attached.
pub(super) fn ioas_ranges(iommu: &VfioIommufd) -> Result<Vec<IovaRange>> {
    const GET_RANGES: libc::c_ulong =
        (IOMMUFD_TYPE as libc::c_ulong) << 8 | IOMMUFD_CMD_IOAS_IOVA_RANGES as libc::c_ulong;
    let mut found = vec![iommu_iova_range::default(); 16];
    loop {
        let mut request = iommu_ioas_iova_ranges {
            size: u32::try_from(size_of::<iommu_ioas_iova_ranges>()).unwrap_or(0),
            ioas_id: iommu.ioas().id(),
            num_iovas: u32::try_from(found.len()).unwrap_or(0),
            allowed_iovas: found.as_mut_ptr().expose_provenance() as u64,
            ..Default::default()
        };
        let iommufd = iommu.iommufd().as_raw_fd();
        // SAFETY: `request` is the call's structure, and `found` has room for `num_iovas` ranges;
        // both outlive the call.
        let answer = unsafe { libc::ioctl(iommufd, GET_RANGES, &raw mut request) };
        let count = request.num_iovas as usize;
        if answer == 0 {
            found.truncate(count);
            let range =
                |range: iommu_iova_range| IovaRange { first: range.start, last: range.last };
            return Ok(found.into_iter().map(range).collect());
        }
        let source = io::Error::last_os_error();
        let too_many = source.raw_os_error() == Some(libc::EMSGSIZE);
        // The count must grow, so that the loop ends.
        if !too_many || count <= found.len() || count > RANGES_MAX {
            return Err(Error::System { call: "IOMMU_IOAS_IOVA_RANGES", source });
        }
        found.resize(count, iommu_iova_range::default());
    }
}

fn get_info(container: &VfioContainer, len: usize) -> Result<Vec<u8>> {
    let len = len.next_multiple_of(8);
    let mut buffer = vec![0u64; len / 8];
    buffer[0] = len as u64; // argsz, followed by flags 0
    // SAFETY: the buffer is `argsz` bytes long and aligned as the structure needs; the kernel
    // writes no further.
    let answer = unsafe { libc::ioctl(container.as_raw_fd(), GET_INFO, buffer.as_mut_ptr()) };
    if answer != 0 {
        return Err(Error::system("VFIO_IOMMU_GET_INFO")(io::Error::last_os_error()));
    }
    Ok(buffer.iter().flat_map(|word| word.to_ne_bytes()).collect())
}

/// Returns the `u32` at offset `at` of the reply; 0 if it is shorter.
fn word(reply: &[u8], at: usize) -> u32 {
    let bytes = reply.get(at..).and_then(|bytes| bytes.first_chunk());
    bytes.map_or(0, |&bytes| u32::from_ne_bytes(bytes))
}

/// Returns the ranges in the chain of capabilities after the fixed part of the reply.
fn parse(info: &[u8]) -> Vec<IovaRange> {
    let first = match word(info, 4) & VFIO_IOMMU_INFO_CAPS {
        0 => 0,
        _ => word(info, std::mem::offset_of!(vfio_iommu_type1_info, cap_offset)),
    };
    let mut pairs = Vec::new();
    let id = VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE;
    if info_chain::collect_pairs(info, first, id, &mut pairs).is_none() {
        log::debug!("VFIO_IOMMU_GET_INFO: the capabilities are broken");
    }
    pairs.into_iter().map(|(first, last)| IovaRange { first, last }).collect()
}

impl IovaRange {
    /// The addresses of a device whose DMA no IOMMU of the kernel translates.
    pub(super) const WHOLE: Self = Self { first: 0, last: (1 << 48) - 1 };

    /// Returns the first free address in the range, not below `from`, with room for `bytes`.
    fn place(&self, from: u64, bytes: u64, used: &[Range<u64>]) -> Option<u64> {
        let start = first_free(self.first.max(from), bytes, HUGE_PAGE, used)?;
        let last = start.checked_add(bytes)?.checked_sub(1)?;
        (last <= self.last).then_some(start)
    }
}

/// Returns an address for `bytes` outside of the ranges in `used`, which are in ascending order:
/// the first one from [`PREFERRED`] on, else the first of all.
pub(super) fn choose(ranges: &[IovaRange], bytes: u64, used: &[Range<u64>]) -> Result<u64> {
    let place = |from| ranges.iter().find_map(|range| range.place(from, bytes, used));
    // Not address 0, the most likely value of a broken pointer.
    place(PREFERRED).or_else(|| place(HUGE_PAGE)).ok_or_else(|| Error::Unsupported {
        what: "an IOMMU without a free range for the memory",
        detail: format!("{bytes} bytes needed; ranges {ranges:x?}, {} used", used.len()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(cap_offset: u32, ranges: &[(u64, u64)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [0, VFIO_IOMMU_INFO_CAPS, 0, 0, cap_offset, 0] {
            bytes.extend(u32::to_ne_bytes(word));
        }
        bytes.extend((1u32 << 16 | VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE).to_ne_bytes());
        bytes.extend(24u32.to_ne_bytes()); // `next` points back at itself
        bytes.extend((ranges.len() as u32).to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        for (first, last) in ranges {
            bytes.extend(first.to_ne_bytes());
            bytes.extend(last.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn the_hole_for_msi_is_avoided() {
        let ranges = parse(&info(24, &[(0, 0xfedf_ffff), (0xfef0_0000, (1 << 39) - 1)]));
        assert_eq!(ranges.len(), 2);
        assert_eq!(choose(&ranges, 64 << 20, &[]).unwrap(), PREFERRED);
    }

    #[test]
    fn a_narrow_iommu_is_served_below_the_preferred_place() {
        let ranges = [IovaRange { first: 0x1000, last: 0x3ff_ffff }];
        assert_eq!(choose(&ranges, 32 << 20, &[]).unwrap(), HUGE_PAGE);
        assert!(choose(&ranges, 64 << 20, &[]).is_err());
    }

    #[test]
    fn used_ranges_are_skipped() {
        const MIB: u64 = 1 << 20;
        // Two windows with a hole at 6 to 8 MiB.
        let ranges = [
            IovaRange { first: 0, last: 6 * MIB - 1 },
            IovaRange { first: 8 * MIB, last: 16 * MIB - 1 },
        ];
        let mut used = Vec::new();
        let mut places = Vec::new();
        while let Ok(place) = choose(&ranges, 2 * MIB, &used) {
            places.push(place / MIB);
            used.push(place..place + 2 * MIB);
            used.sort_by_key(|range| range.start);
        }
        assert_eq!(places, [2, 4, 8, 10, 12, 14]);
        used.retain(|range| range.start != 10 * MIB);
        assert_eq!(choose(&ranges, MIB, &used).unwrap(), 10 * MIB);
        assert!(choose(&ranges, 2 * MIB + 1, &used).is_err());
        // With a part of a 2 MiB page used, the next range starts after that page.
        let part = PREFERRED..PREFERRED + 4096;
        assert_eq!(
            choose(&[IovaRange::WHOLE], 4096, std::slice::from_ref(&part)).unwrap(),
            PREFERRED + HUGE_PAGE
        );
        assert!(choose(&[IovaRange::WHOLE], u64::MAX, &[]).is_err());
        assert!(choose(&[IovaRange::WHOLE], 4096, &[0..PREFERRED, PREFERRED..u64::MAX]).is_err());
    }

    #[test]
    fn damaged_answers_end_without_a_range() {
        assert!(parse(&[]).is_empty());
        assert!(parse(&info(1000, &[(0, 1)])).is_empty());
        let mut cut = info(24, &[(0, 1), (2, 3)]);
        cut.truncate(cut.len() - 20);
        assert_eq!(parse(&cut).len(), 0);
    }
}
